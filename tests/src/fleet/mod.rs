//! The fleet recipe of `docs/fleet.md`, with the files it shows (`tests/fleet`): many devices, mosquitto and rsyslog over TLS, PostgreSQL.
//!
//! | Module | Holds |
//! |---|---|
//! | [`store`] | PostgreSQL |
//! | here | identities at first boot, servers, devices, and what the database then answers |
//!
//! The devices are one process with a spool, a certificate and a sink for each (`agent/report/examples/fleet.rs`); what they tell is
//! what the agent itself told of failed logins before.

pub mod store;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::command;
use crate::error::{Error, Result};
use crate::faults::device::Device;
use crate::netns::Netns;
use crate::progress;
use crate::servers::authority::Authority;
use crate::servers::{self, broker, collector, READY};
use store::Store;

/// How large a run is, and with what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The agent's binary.
    pub agent: PathBuf,
    /// The program that is all the devices.
    pub devices_program: PathBuf,
    /// `tests/fleet`.
    pub files: PathBuf,
    /// Where everything is written; made, and removed afterwards. An unprivileged user has to get there.
    pub directory: PathBuf,
    /// Devices.
    pub devices: u32,
    /// Events of each over either way.
    pub count: u64,
}

/// How long the database may take to have everything, and the devices to report it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A process that ends with this, and with it what it started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            // SAFETY: plain numbers; the child leads its group and has not been waited for, so the number is still its own.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ = self.0.wait();
    }
}

/// Runs the recipe and prints what it came to.
///
/// # Errors
/// When something cannot be run, or the database has not everything.
pub fn run(plan: &Plan) -> Result<()> {
    let _ = fs::remove_dir_all(&plan.directory);
    let outcome = recipe(plan);
    if outcome.is_ok() {
        let _ = fs::remove_dir_all(&plan.directory);
    }
    outcome
}

fn recipe(plan: &Plan) -> Result<()> {
    let directory = |name: &str| {
        let path = plan.directory.join(name);
        fs::create_dir_all(&path)
            .map_err(Error::io(format!("cannot create {}", path.display())))
            .map(|()| path)
    };
    let (work, devices) = (directory("servers")?, directory("devices")?);
    let netns = Arc::new(Netns::new()?);
    inside(&netns, &["ip", "link", "set", "lo", "up"])?;
    let events = real_events(plan, &netns, &devices)?;

    let start = Instant::now();
    let authority = Authority::new(&plan.directory.join("authority"), "devices")?;
    for number in 1..=plan.devices {
        provision(plan, &devices, &format!("device-{number:04}"))?;
    }
    progress::say(format_args!(
        "{} identities by first-boot in {:.1} s",
        plan.devices,
        start.elapsed().as_secs_f64()
    ));

    let servers_authority = Authority::new(&plan.directory.join("authority-of-servers"), "servers")?;
    let own = servers_authority.sign(&["localhost"])?;
    fs::copy(servers_authority.ca(), devices.join("ca.pem")).map_err(Error::io("cannot give out ca.pem"))?;
    let store = Store::start(&plan.directory.join("store"))?;
    store.load(&plan.files.join("schema.sql"))?;
    let configure = |name: &str| -> Result<PathBuf> {
        let text =
            fs::read_to_string(plan.files.join(name)).map_err(Error::io(format!("cannot read {name}")))?;
        let text = text
            .replace("@WORK@", &work.display().to_string())
            .replace("@CA@", &authority.ca().display().to_string())
            .replace("@CERTIFICATE@", &own.certificate.display().to_string())
            .replace("@KEY@", &own.key.display().to_string())
            .replace("@DATABASE@", &store.socket.display().to_string());
        let path = work.join(name);
        // It would become user mosquitto, who cannot read a key of root's.
        let text = if name == "mosquitto.conf" { format!("user root\n{text}") } else { text };
        fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display()))).map(|()| path)
    };
    fs::write(work.join("acl"), "pattern write defender/%u/#\n")
        .map_err(Error::io("cannot write the broker's rules"))?;
    let mut mosquitto = netns.command("mosquitto");
    mosquitto.arg("-c").arg(configure("mosquitto.conf")?).process_group(0);
    let log = work.join("mosquitto.log");
    let mut broker = Running(servers::spawn(mosquitto, &log)?);
    servers::listening(&netns, &mut broker.0, broker::PORT, &log)?;
    let _collector = collector::Collector::run(&netns, &work, &configure("rsyslog.conf")?)?;
    let mut into = netns.command(&plan.files.join("store").display().to_string());
    into.arg(store.address("fleet")).process_group(0);
    let log = work.join("store.log");
    let _into = Running(servers::spawn(into, &log)?);
    // What is published before the subscription stands goes nowhere.
    let start = Instant::now();
    while !fs::read_to_string(work.join("mosquitto.log")).unwrap_or_default().contains("fleet-store") {
        if start.elapsed() > READY {
            let seen = fs::read_to_string(&log).unwrap_or_default();
            return Err(Error::TimedOut {
                what: "the store subscribes".into(),
                after: start.elapsed(),
                seen,
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));

    for (kind, port, table) in [("mqtt", broker::PORT, "events"), ("syslog", collector::PORT, "lines")] {
        let mut program = netns.command(&plan.devices_program.display().to_string());
        program.arg(&events).arg(&devices).arg(plan.devices.to_string());
        program.args([&plan.count.to_string(), kind, &port.to_string()]);
        let start = Instant::now();
        let said = command::run(&mut program, PATIENCE)?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let wanted = u64::from(plan.devices) * plan.count;
        let stored = stored(&store, table, wanted)?;
        let fields: Vec<f64> = said.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let [delivered, lost, seconds] = fields[..] else {
            return Err(Error::Unexpected(format!("the devices say `{said}`")));
        };
        progress::say(format_args!(
            "{kind}: {} devices, {delivered} events delivered ({lost} lost) in {seconds:.1} s, {:.0} a second; {stored} stored after {:.1} s",
            plan.devices,
            delivered / seconds,
            start.elapsed().as_secs_f64()
        ));
        if lost > 0.0 || stored != wanted {
            return Err(Error::Unexpected(format!("{stored} of {wanted} events of {kind} are stored")));
        }
    }
    strangers(&netns, &devices, &store)?;
    for (what, query) in QUERIES {
        let start = Instant::now();
        let answer = store.query(query)?;
        progress::say(format_args!(
            "{what}: {} ({:.0} ms)",
            answer.replace('\n', "; "),
            start.elapsed().as_secs_f64() * 1e3
        ));
    }
    Ok(())
}

/// Questions of somebody who looks after a fleet, as `docs/fleet.md` has them.
const QUERIES: [(&str, &str); 4] = [
    ("devices and events", "select count(distinct device), count(*), pg_size_pretty(sum(pg_column_size(event))) from events"),
    (
        "devices with a gap in their numbers",
        "select count(*) from (select device, boot from events group by device, boot having max(sequence) <> count(*)) as gaps",
    ),
    (
        "rules that alerted on most devices",
        "select event#>>'{finding_info,title}', count(distinct device), count(*) from events where class = 2004 group by 1 order by 2 desc limit 3",
    ),
    (
        "addresses that fail to log in on several devices",
        "select event#>>'{src_endpoint,ip}', count(distinct device) from events where class = 3002 group by 1 order by 2 desc, 1 limit 3",
    ),
];

/// What the agent tells of failed logins, for the devices to tell after it.
fn real_events(plan: &Plan, netns: &Arc<Netns>, tls: &Path) -> Result<PathBuf> {
    let directory = plan.directory.join("agent");
    let mut device = Device::new(netns, &plan.agent, &directory, tls, 4096)?;
    device.start()?;
    device.armed()?;
    device.log_in(40)?;
    let log = directory.join("log/events.jsonl");
    let start = Instant::now();
    let lines = loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let whole =
            text.lines().filter(|line| line.contains("\"class_uid\":3002") && line.ends_with('}')).count();
        if whole >= 40 {
            break text;
        }
        if start.elapsed() > READY {
            return Err(Error::TimedOut {
                what: "40 logins are told".into(),
                after: start.elapsed(),
                seen: text,
            });
        }
        thread::sleep(Duration::from_millis(50));
    };
    device.kill();
    let events = plan.directory.join("events.jsonl");
    let kept: Vec<&str> = lines
        .lines()
        .filter(|line| {
            ["3002", "2004"].iter().any(|class| line.starts_with(&format!("{{\"class_uid\":{class}")))
        })
        .filter(|line| line.ends_with('}'))
        .collect();
    fs::write(&events, kept.join("\n")).map_err(Error::io("cannot write events"))?;
    Ok(events)
}

/// A device's first boot, by the script of the recipe.
fn provision(plan: &Plan, devices: &Path, name: &str) -> Result<()> {
    let mut script = Command::new(plan.files.join("first-boot"));
    script.arg(devices.join(name)).arg(name).arg(plan.files.join("enrol"));
    script.env("AUTHORITY", plan.directory.join("authority"));
    command::run(&mut script, READY).map(drop)
}

/// Waits until so many rows are there, or none has come for a while.
fn stored(store: &Store, table: &str, wanted: u64) -> Result<u64> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let rows = store.query(&format!("select count(*) from {table}"))?.parse().unwrap_or(0);
        if rows != last {
            (last, since) = (rows, Instant::now());
        }
        if rows >= wanted || since.elapsed() > READY {
            return Ok(rows);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A device that claims to be another is heard by nobody; one without a certificate gets no connection.
fn strangers(netns: &Netns, devices: &Path, store: &Store) -> Result<()> {
    let before = store.query("select count(*) from events")?;
    let publish = |device: Option<&str>, topic: &str, sequence: u64| {
        let mut client = netns.command("mosquitto_pub");
        let port = broker::PORT.to_string();
        client.args(["-h", "localhost", "-p", &port, "-q", "1", "-t", topic, "-i", "stranger", "--cafile"]);
        client.arg(devices.join("ca.pem"));
        if let Some(device) = device {
            client.arg("--cert").arg(devices.join(device).join("device.pem"));
            client.arg("--key").arg(devices.join(device).join("device.key"));
        }
        let event = format!(
            r#"{{"class_uid":2004,"severity_id":4,"time":1,"metadata":{{"sequence":{sequence}}},"device":{{"uid":"x","boot_uid":"x"}}}}"#
        );
        client.args(["-m", &event]);
        command::output(&mut client, READY).map(|output| output.status.success())
    };
    if publish(None, "defender/device-0001/alerts", 1)? {
        return Err(Error::Unexpected("a client without a certificate is let in".into()));
    }
    publish(Some("device-0002"), "defender/device-0001/alerts", 2)?;
    // Its own name, as a sign that what came before has been dealt with.
    publish(Some("device-0002"), "defender/device-0002/alerts", 3)?;
    let wanted = before.parse().unwrap_or(0) + 1;
    let rows = stored(store, "events", wanted)?;
    thread::sleep(Duration::from_millis(1500));
    let now = store.query("select count(*) from events where device = 'x'")?;
    store.query("delete from events where device = 'x'")?;
    if rows != wanted || now != "1" {
        return Err(Error::Unexpected(format!("{rows} rows, not {wanted}: topics are not kept apart")));
    }
    progress::say(format_args!("no certificate: refused; under another device's name: not heard"));
    Ok(())
}

fn inside(netns: &Netns, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.path())).args(arguments);
    command::run(&mut command, READY).map(drop)
}
