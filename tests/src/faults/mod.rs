//! Fault runs: the agent reports to rsyslog and mosquitto over TLS while servers, network, disk and the agent itself are taken away.
//!
//! | Module | Holds |
//! |---|---|
//! | [`device`] | the agent, fed by a log of failed logins |
//! | [`idle`] | what a device at rest sends |
//! | here | what goes wrong, and the balance afterwards |
//!
//! Produced is what the agent numbered and handed to its spool, by the account it keeps itself. Delivered is what the servers have, each
//! boot and sequence once. Lost is what the agent's own health events say. At the end produced is delivered and lost, to the record, for
//! alerts and for everything else, and at each server.

pub(crate) mod device;
pub mod idle;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::table;
use crate::command;
use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::progress;
use crate::servers::arrivals::{ByPriority, Shared};
use crate::servers::authority::{Authority, Pair};
use crate::servers::broker::Broker;
use crate::servers::collector::{Collector, Output};
use device::{Device, SERVER};

/// How large a run is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The agent's binary.
    pub agent: PathBuf,
    /// Where everything is written; made, and removed afterwards. An unprivileged user has to get there.
    pub directory: PathBuf,
    /// Failed logins of the runs in which servers and agents are killed.
    pub count: u64,
    /// How often each of them is.
    pub kills: u32,
    /// How long the network is cut, servers do not answer, names are not known.
    pub outage: Duration,
    /// Only runs with one of these words in their name; all of them if there is none.
    pub only: Vec<String>,
}

/// Sinks as the agent names them in its health events, and the servers they report to.
const SINKS: [(&str, &str); 2] = [("mqtt", "mosquitto"), ("remote_syslog", "rsyslog")];
/// How long the servers may take to get everything when nothing is in the way any more: the longest back-off is a minute.
const SETTLED: Duration = Duration::from_secs(180);
/// When nothing was produced for so long, nothing will be.
const QUIET: Duration = Duration::from_secs(5);
/// Logins ahead of what has arrived, at most, where nothing is to be lost.
const AHEAD: u64 = 4000;
/// The same where the agent is to be killed while it works on them.
const AMID: u64 = 500;

/// The servers, and what has arrived at them.
struct Site {
    netns: Arc<Netns>,
    directory: PathBuf,
    /// Certificates as the device has them.
    tls: PathBuf,
    own: Pair,
    clients: PathBuf,
    broker: Option<Broker>,
    collector: Option<Collector>,
    messages: Shared,
    output: Output,
    /// A file system to be taken down at the end.
    mounted: Option<PathBuf>,
}

/// What a run came to, at one server.
struct Row {
    server: &'static str,
    produced: ByPriority,
    delivered: ByPriority,
    lost: ByPriority,
    repeats: u64,
    different: u64,
}

/// Runs every fault of the plan and prints the balance sheet.
///
/// # Errors
/// When something cannot be run, when a server does not get everything in time, and when a balance is not even.
pub fn run(plan: &Plan) -> Result<()> {
    let _ = fs::remove_dir_all(&plan.directory);
    fs::create_dir_all(&plan.directory)
        .map_err(Error::io(format!("cannot create {}", plan.directory.display())))?;
    let outcome = runs(plan);
    if outcome.is_ok() {
        let _ = fs::remove_dir_all(&plan.directory);
    }
    outcome
}

type Fault = fn(&Plan, &mut Site, &mut Device) -> Result<()>;

fn runs(plan: &Plan) -> Result<()> {
    let faults: [(&str, u64, Fault); 6] = [
        ("servers killed", 64 << 10, servers_killed),
        ("agent killed", 64 << 10, agent_killed),
        ("network cut", 64 << 10, network_cut),
        ("nobody answers", 64 << 10, nobody_answers),
        ("names, certificates", 64 << 10, names_and_certificates),
        ("disk full", 64 << 10, disk_full),
    ];
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let mut failures = Vec::new();
    for (number, (name, spool_kib, fault)) in faults.into_iter().enumerate() {
        if !plan.only.is_empty() && !plan.only.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let start = Instant::now();
        progress::say(format_args!("{name}"));
        let directory = plan.directory.join(number.to_string());
        let mut site = Site::open(&directory)?;
        let mut device =
            Device::new(&site.netns, &plan.agent, &directory.join("device"), &site.tls, spool_kib)?;
        fault(plan, &mut site, &mut device)?;
        let (settled, after) = match site.settle(&device) {
            Ok(settled) => settled,
            Err(error) => {
                // The others' balance is worth something all the same.
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        progress::say(format_args!(
            "{name}: {} logins in {:.0} s, {:.1} s of them after the last fault",
            device.logins,
            start.elapsed().as_secs_f64(),
            after.as_secs_f64()
        ));
        for row in settled {
            failures.extend(row.fault(name));
            rows.push(row.cells(name));
        }
        device.kill();
    }
    table::print(&rows);
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::Unexpected(failures.join("; "))),
    }
}

/// The servers are killed and started again, in turn and together.
fn servers_killed(plan: &Plan, site: &mut Site, device: &mut Device) -> Result<()> {
    site.start()?;
    device.start()?;
    device.armed()?;
    for round in 0..plan.kills {
        site.stream(device, plan.count / u64::from(plan.kills.max(1)), AHEAD)?;
        // Killed amid a stream, and away for a moment.
        if round % 3 != 1 {
            site.kill_broker()?;
        }
        if round % 3 != 0 {
            site.collector = None;
        }
        device.log_in(50)?;
        site.start()?;
    }
    Ok(())
}

/// The agent is killed and started again.
fn agent_killed(plan: &Plan, site: &mut Site, device: &mut Device) -> Result<()> {
    site.start()?;
    device.start()?;
    device.armed()?;
    for round in 0..plan.kills {
        site.stream(device, plan.count / u64::from(plan.kills.max(1)), AMID)?;
        device.log_in(200)?;
        // Not always at the same point of its work.
        thread::sleep(Duration::from_millis(u64::from(round * 37 % 200)));
        device.kill();
        device.start()?;
    }
    Ok(())
}

/// Nothing passes between device and servers, in either direction, and nobody is told.
fn network_cut(plan: &Plan, site: &mut Site, device: &mut Device) -> Result<()> {
    site.start()?;
    device.start()?;
    device.armed()?;
    site.stream(device, plan.count / 50, AHEAD)?;
    site.nft("add table inet cut; add chain inet cut in { type filter hook input priority 0; }; add rule inet cut in tcp dport { 6514, 8883 } drop; add rule inet cut in tcp sport { 6514, 8883 } drop")?;
    let end = Instant::now() + plan.outage;
    while Instant::now() < end {
        device.log_in(plan.count / 1000)?;
        thread::sleep(Duration::from_millis(200));
    }
    site.nft("delete table inet cut")?;
    device.log_in(plan.count / 100)
}

/// Servers whose kernel accepts connections and bytes, and who never read.
fn nobody_answers(plan: &Plan, site: &mut Site, device: &mut Device) -> Result<()> {
    site.start()?;
    device.start()?;
    device.armed()?;
    site.stream(device, plan.count / 50, AHEAD)?;
    site.freeze(true);
    let end = Instant::now() + plan.outage;
    while Instant::now() < end {
        device.log_in(plan.count / 1000)?;
        thread::sleep(Duration::from_millis(200));
    }
    site.freeze(false);
    device.log_in(plan.count / 100)
}

/// The servers' name is not known for a while; then authority, servers' and device's certificates are others, on disk only.
fn names_and_certificates(plan: &Plan, site: &mut Site, device: &mut Device) -> Result<()> {
    site.start()?;
    device.names(false)?;
    device.start()?;
    device.armed()?;
    device.log_in(plan.count / 50)?;
    let start = Instant::now();
    while !device.status().contains("cannot find the address of") {
        if start.elapsed() > SETTLED {
            return Err(Error::Unexpected(format!(
                "the status does not name the cause: {}",
                device.status()
            )));
        }
        thread::sleep(Duration::from_millis(100));
    }
    device.names(true)?;
    site.stream(device, plan.count / 50, AHEAD)?;
    site.rotate()?;
    device.log_in(plan.count / 50)?;
    site.kill_broker()?;
    site.collector = None;
    site.start()?;
    device.log_in(plan.count / 100)
}

/// Servers away, and a disk of 1 MiB that is full long before the spool is.
fn disk_full(_: &Plan, site: &mut Site, device: &mut Device) -> Result<()> {
    let state = site.directory.join("device/state");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m,uid=65534,gid=65534", "none"]).arg(&state);
    command::run(&mut mount, Duration::from_secs(60))?;
    site.mounted = Some(state);
    device.start()?;
    device.armed()?;
    for _ in 0..10 {
        // The alerts of all of it fit into 1 MiB, the rest does not by far.
        device.log_in(600)?;
        thread::sleep(Duration::from_millis(300));
    }
    site.start()
}

impl Site {
    fn open(directory: &Path) -> Result<Self> {
        let netns = Arc::new(Netns::new()?);
        let mut up = Command::new("nsenter");
        up.arg(format!("--net={}", netns.path())).args(["ip", "link", "set", "lo", "up"]);
        command::run(&mut up, Duration::from_secs(60))?;
        let servers = directory.join("servers");
        let tls = directory.join("tls");
        for path in [&servers, &tls] {
            fs::create_dir_all(path).map_err(Error::io(format!("cannot create {}", path.display())))?;
        }
        let output = Output::of(&servers);
        let nobody = Pair { certificate: PathBuf::new(), key: PathBuf::new() };
        let mut site = Self {
            netns,
            directory: directory.to_owned(),
            tls,
            own: nobody,
            clients: PathBuf::new(),
            broker: None,
            collector: None,
            messages: Shared::default(),
            output,
            mounted: None,
        };
        site.rotate()?;
        Ok(site)
    }

    /// Other authorities and certificates, for servers that are started from now on, and on the device's disk.
    fn rotate(&mut self) -> Result<()> {
        let authority = |name: &str| Authority::new(&self.directory.join(name), name);
        let (servers, clients) = (authority("authority-of-servers")?, authority("authority-of-clients")?);
        self.own = servers.sign(&[SERVER, "localhost"])?;
        self.clients = clients.ca();
        let device = clients.sign(&["device"])?;
        // The key first: a certificate never stands beside another's key for longer than it takes to copy a file.
        for (from, to) in
            [(&device.key, "device.key"), (&device.certificate, "device.pem"), (&servers.ca(), "ca.pem")]
        {
            let to = self.tls.join(to);
            fs::copy(from, &to).map_err(Error::io(format!("cannot write {}", to.display())))?;
            std::os::unix::fs::chown(&to, Some(65534), Some(65534))
                .map_err(Error::io("cannot give a key away"))?;
        }
        Ok(())
    }

    /// Starts what does not run.
    fn start(&mut self) -> Result<()> {
        let servers = self.directory.join("servers");
        if self.collector.is_none() {
            self.collector = Some(Collector::start(&self.netns, &servers, &self.own, &self.clients)?);
        }
        if self.broker.is_none() {
            self.broker =
                Some(Broker::start(&self.netns, &servers, &self.own, &self.clients, &self.messages)?);
        }
        Ok(())
    }

    fn kill_broker(&mut self) -> Result<()> {
        self.broker.take().map_or(Ok(()), Broker::kill)
    }

    fn freeze(&self, frozen: bool) {
        if let Some(broker) = &self.broker {
            broker.freeze(frozen);
        }
        if let Some(collector) = &self.collector {
            collector.freeze(frozen);
        }
    }

    fn nft(&self, ruleset: &str) -> Result<()> {
        let mut nft = Command::new("nsenter");
        nft.arg(format!("--net={}", self.netns.path())).args(["nft", ruleset]);
        command::run(&mut nft, Duration::from_secs(60)).map(drop)
    }

    /// So many logins, not more than `ahead` before what has arrived at either server.
    fn stream(&mut self, device: &mut Device, count: u64, ahead: u64) -> Result<()> {
        let (mut left, start) = (count, Instant::now());
        while left > 0 {
            self.output.read()?;
            let rows = self.rows([0; 2]);
            let arrived = rows.iter().map(|row| row.delivered[1] + row.lost[1]).min().unwrap_or(0);
            if device.logins.saturating_sub(arrived) < ahead {
                let some = left.min(100);
                device.log_in(some)?;
                left -= some;
            } else if start.elapsed() > SETTLED {
                return Err(self.late(device, "the stream goes on"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until everything that was produced is at both servers or was told to be lost, and takes the balance.
    fn settle(&mut self, device: &Device) -> Result<(Vec<Row>, Duration)> {
        let start = Instant::now();
        let mut last = ([0; 2], start);
        loop {
            // Read first: what is produced meanwhile is not missed.
            let produced = device.produced();
            if produced != last.0 {
                last = (produced, Instant::now());
            }
            self.output.read()?;
            let rows = self.rows(produced);
            // All logins were seen (an agent that is killed may miss some), everything is accounted for, and nothing came in between.
            let seen = produced[1] >= device.logins || last.1.elapsed() > QUIET;
            if seen && rows.iter().all(|row| row.difference() == [0, 0]) && device.produced() == produced {
                return Ok((rows, start.elapsed()));
            }
            if start.elapsed() > SETTLED {
                for row in &rows {
                    progress::say(format_args!("{}", row.cells("not settled").join(" | ")));
                }
                return Err(self.late(device, "everything is accounted for"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn rows(&self, produced: ByPriority) -> Vec<Row> {
        let messages = self.messages.lock();
        let arrivals = [&*messages, &self.output.arrivals];
        let row =
            |((sink, server), arrivals): ((&str, &'static str), &crate::servers::arrivals::Arrivals)| Row {
                server,
                produced,
                delivered: arrivals.distinct(),
                // Lines of syslog do not have the counts.
                lost: messages.lost(sink),
                repeats: arrivals.repeats,
                different: arrivals.different,
            };
        SINKS.into_iter().zip(arrivals).map(row).collect()
    }

    fn late(&self, device: &Device, what: &str) -> Error {
        Error::TimedOut { what: what.into(), after: SETTLED, seen: device.status() }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mounted) = &self.mounted {
            let _ = command::run(Command::new("umount").arg("-l").arg(mounted), Duration::from_secs(60));
        }
    }
}

const HEAD: [&str; 9] = [
    "fault",
    "server",
    "alerts produced",
    "delivered",
    "told as lost",
    "others produced",
    "delivered",
    "told as lost",
    "repeats",
];

impl Row {
    /// Produced and neither delivered nor told as lost.
    fn difference(&self) -> [i64; 2] {
        [0, 1].map(|at| self.produced[at] as i64 - self.delivered[at] as i64 - self.lost[at] as i64)
    }

    fn fault(&self, name: &str) -> Option<String> {
        (self.different > 0).then(|| {
            format!(
                "{name}: {} copies at {} differ from the record of the same identity",
                self.different, self.server
            )
        })
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let mut cells = vec![name.to_owned(), self.server.to_owned()];
        for at in [0, 1] {
            cells.extend(
                [self.produced[at], self.delivered[at], self.lost[at]].map(|number| number.to_string()),
            );
        }
        cells.push(self.repeats.to_string());
        cells
    }
}
