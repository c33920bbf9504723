//! From the last failed login's line in the log to the first packet that is dropped: the agent, and fail2ban on the same
//! lines, turn by turn.
//!
//! ```text
//!   attacker's namespace                          one such pair for each of the two
//!     10.88.0.0/16, one address per turn ── veth ── 10.88.0.1 the device: the log, the agent or fail2ban, nftables
//! ```
//!
//! The attacker sends a numbered datagram every millisecond; the first one that does not arrive was dropped, so the
//! resolution is a millisecond.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::command;
use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::progress;

use super::monitor::Monitor;
use super::table::{self, budget, median, percentile};
use super::Bench;

const ROUNDS: u32 = 20;
const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const PORT: u16 = 9000;
const TOOL: Duration = Duration::from_secs(10);

/// How many datagrams in a row have to be missing before the sender counts as blocked.
const SILENT: usize = 100;

/// Longer than fail2ban's slowest way of looking at a log.
const PATIENCE: Duration = Duration::from_secs(15);

/// A network of two.
struct Pair {
    device: Arc<Netns>,
    attacker: Netns,
}

struct Arm {
    name: String,
    pair: Pair,
    log: PathBuf,
    /// Runs as long as this lives.
    _defender: Defender,
    milliseconds: Vec<f64>,
}

/// Who blocks.
enum Defender {
    Agent { _monitor: Monitor },
    Fail2ban { _server: Fail2ban },
}

/// Lets each block a new attacker in turn, prints the figures of all.
///
/// # Errors
/// When one does not start or does not block in time.
pub fn run(bench: &Bench) -> Result<()> {
    let rounds = bench.options.rounds.unwrap_or(ROUNDS).min(200);
    let mut arms = vec![agent(bench, rounds)?];
    for backend in ["pyinotify", "polling"] {
        match fail2ban(bench, rounds, backend) {
            Ok(arm) => arms.push(arm),
            Err(Error::Skipped(why)) => progress::say(why),
            Err(error) => return Err(error),
        }
    }
    progress::say(format_args!("block: {rounds} attackers for each of {}", arms.len()));
    for round in 0..rounds {
        for arm in &mut arms {
            // Whoever looks at the log every so often is met at any moment between two looks.
            thread::sleep(Duration::from_millis(u64::from(round * 379 % 1000)));
            let value = turn(arm, round)?;
            arm.milliseconds.push(value);
        }
    }
    let header = ["who blocks", "p50 ms", "p90 ms", "largest ms", "smallest ms"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for arm in &arms {
        let mut row = vec![arm.name.clone()];
        for percent in [50.0, 90.0, 100.0, 0.0] {
            row.push(format!("{:.1}", percentile(&arm.milliseconds, percent)));
        }
        rows.push(row);
    }
    table::print(&rows);
    let ours = &arms[0].milliseconds;
    budget("last failed login to drop, largest", percentile(ours, 100.0), 100.0, "ms");
    for arm in &arms[1..] {
        let ratio = median(&arm.milliseconds) / median(ours);
        progress::say(format_args!("ratio {} / defender: {ratio:.0}", arm.name));
    }
    Ok(())
}

fn agent(bench: &Bench, rounds: u32) -> Result<Arm> {
    let pair = Pair::new(rounds)?;
    // Audit belongs to the whole machine and would watch fail2ban's programs too: only logins are compared here.
    let monitor = Monitor::agent(bench, pair.device.clone(), "[process]\nenabled = false\n")?;
    let log = monitor.directory().join("auth.log");
    let defender = Defender::Agent { _monitor: monitor };
    Ok(Arm { name: "defender".into(), pair, log, _defender: defender, milliseconds: Vec::new() })
}

fn fail2ban(bench: &Bench, rounds: u32, backend: &str) -> Result<Arm> {
    if !Path::new("/usr/bin/fail2ban-server").exists() {
        return Err(Error::Skipped("fail2ban is not installed: measured without it".into()));
    }
    let module =
        Command::new("/usr/bin/python3").args(["-c", "import pyinotify"]).stderr(Stdio::null()).status();
    if backend == "pyinotify" && !module.is_ok_and(|status| status.success()) {
        let why = "python3-pyinotify is not installed: fail2ban measured by polling only";
        return Err(Error::Skipped(why.into()));
    }
    let pair = Pair::new(rounds)?;
    let directory = bench.directory.join(format!("fail2ban-{backend}"));
    let server = Fail2ban::start(&pair.device, &directory, backend)?;
    let log = directory.join("auth.log");
    let defender = Defender::Fail2ban { _server: server };
    Ok(Arm { name: format!("fail2ban, {backend}"), pair, log, _defender: defender, milliseconds: Vec::new() })
}

/// One attacker: four failed logins, then the fifth; milliseconds from its line to the first datagram that is lost.
fn turn(arm: &Arm, round: u32) -> Result<f64> {
    let from = address(round);
    let receiver = arm.pair.device.within(|| {
        let socket =
            UdpSocket::bind(SocketAddr::new(DEVICE.into(), PORT)).map_err(Error::io("cannot listen"))?;
        socket.set_nonblocking(true).map_err(Error::io("cannot listen without waiting"))?;
        Ok(socket)
    })?;
    let sender = arm.pair.attacker.within(|| {
        UdpSocket::bind(SocketAddr::new(from.into(), 0))
            .map_err(Error::io(format!("cannot send from {from}")))
    })?;
    let mut log = OpenOptions::new()
        .append(true)
        .open(&arm.log)
        .map_err(Error::io(format!("cannot write to {}", arm.log.display())))?;
    for _ in 0..4 {
        log.write_all(&failed_login(from)?).map_err(Error::io("cannot write to a log"))?;
        thread::sleep(Duration::from_millis(20));
    }
    // Long enough for everyone to have read the four.
    thread::sleep(Duration::from_millis(1500));
    let last = failed_login(from)?;

    let mut sent: Vec<Instant> = Vec::new();
    let mut written = None;
    // The number of datagrams up to the last one that arrived.
    let mut arrived = 0;
    let begin = Instant::now();
    loop {
        if sent.len() == 50 {
            if arrived < 40 {
                return Err(Error::Unexpected(format!(
                    "{from} does not reach the device before it is blocked"
                )));
            }
            let now = Instant::now();
            log.write_all(&last).map_err(Error::io("cannot write to a log"))?;
            written = Some(now);
        }
        let number = sent.len() as u64;
        sent.push(Instant::now());
        // What cannot be sent does not arrive either.
        let _ = sender.send_to(&number.to_le_bytes(), (DEVICE, PORT));
        thread::sleep(Duration::from_micros(900));
        let mut datagram = [0; 8];
        while let Ok((8, source)) = receiver.recv_from(&mut datagram) {
            if source.ip() == from {
                arrived = arrived.max(u64::from_le_bytes(datagram) as usize + 1);
            }
        }
        if let Some(written) = written {
            if sent.len() - arrived >= SILENT {
                return Ok(sent[arrived].saturating_duration_since(written).as_secs_f64() * 1e3);
            }
        }
        if begin.elapsed() > PATIENCE {
            let what = format!("{} blocks {from}", arm.name);
            return Err(Error::TimedOut { what, after: PATIENCE, seen: String::new() });
        }
    }
}

/// What sshd would log now.
fn failed_login(from: Ipv4Addr) -> Result<Vec<u8>> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").arg("+%b %e %H:%M:%S");
    let date = command::run(&mut date, TOOL)?;
    let date = String::from_utf8_lossy(&date);
    let text = format!(
        "{} device sshd[4242]: Failed password for root from {from} port 50000 ssh2\n",
        date.trim_end()
    );
    Ok(text.into_bytes())
}

/// The attacker of a round: each has an address of its own, as a blocked one cannot be used again.
fn address(round: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 88, 1, 1)) + round)
}

impl Pair {
    fn new(rounds: u32) -> Result<Self> {
        let pair = Self { device: Arc::new(Netns::new()?), attacker: Netns::new()? };
        let ip = |netns: &Netns, change: &str| {
            command::run(netns.command("ip").args(change.split(' ')), TOOL).map(drop)
        };
        ip(&pair.device, "link set lo up")?;
        ip(&pair.device, &format!("link add eth0 type veth peer name eth0 netns {}", pair.attacker.path()))?;
        ip(&pair.device, &format!("addr add {DEVICE}/16 dev eth0"))?;
        ip(&pair.device, "link set eth0 up")?;
        for round in 0..rounds {
            ip(&pair.attacker, &format!("addr add {}/16 dev eth0", address(round)))?;
        }
        ip(&pair.attacker, "link set eth0 up")?;
        Ok(pair)
    }
}

/// fail2ban's server with the distribution's filter and nftables action and a configuration, socket and log of its own.
struct Fail2ban(Child);

impl Fail2ban {
    fn start(netns: &Netns, directory: &Path, backend: &str) -> Result<Self> {
        fs::create_dir_all(directory).map_err(Error::io(format!("cannot create {}", directory.display())))?;
        let own = directory.join("etc");
        command::run(Command::new("cp").args(["-r", "/etc/fail2ban"]).arg(&own), TOOL)?;
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))
        };
        let at = directory.display();
        write("auth.log", String::new())?;
        let _ = fs::remove_dir_all(own.join("jail.d"));
        // Counted like the agent's shipped rule. The probes are UDP, so the action has to cover that.
        write(
            "etc/jail.local",
            format!(
                "[DEFAULT]\nbackend = {backend}\nmaxretry = 5\nfindtime = 120\nbantime = 3600\n\
                 banaction = nftables-allports\nprotocol = udp\nusedns = no\nignoreself = false\n\
                 [sshd]\nenabled = true\nlogpath = {at}/auth.log\nbackend = {backend}\n"
            ),
        )?;
        write(
            "etc/fail2ban.local",
            format!(
                "[Definition]\nlogtarget = {at}/fail2ban.log\ndbfile = {at}/fail2ban.sqlite3\n\
                     socket = {at}/fail2ban.sock\npidfile = {at}/fail2ban.pid\n"
            ),
        )?;
        let output =
            File::create(directory.join("output")).map_err(Error::io("cannot create fail2ban's output"))?;
        let copy = output.try_clone().map_err(Error::io("cannot duplicate a file descriptor"))?;
        let mut command = netns.command("/usr/bin/fail2ban-server");
        command.arg("-f").arg("-c").arg(&own).arg("-s").arg(directory.join("fail2ban.sock"));
        command.arg("-p").arg(directory.join("fail2ban.pid")).arg("start");
        command.stdin(Stdio::null()).stdout(output).stderr(copy);
        let mut server = Self(command.spawn().map_err(Error::io("cannot start fail2ban-server"))?);
        let start = Instant::now();
        loop {
            let said = fs::read_to_string(directory.join("fail2ban.log")).unwrap_or_default();
            if said.contains("Jail 'sshd' started") {
                // Its first look at the log is behind it.
                thread::sleep(Duration::from_secs(2));
                return Ok(server);
            }
            let ended = server.0.try_wait().ok().flatten();
            if ended.is_some() || start.elapsed() > Duration::from_secs(30) {
                let seen = said + &fs::read_to_string(directory.join("output")).unwrap_or_default();
                return Err(Error::TimedOut {
                    what: "fail2ban is ready".into(),
                    after: start.elapsed(),
                    seen,
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // SAFETY: plain numbers; the child has not been waited for, so the id is still its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        for _ in 0..500 {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
