//! The agent and auditd as processes under measurement.

use std::env;
use std::fs;
use std::os::unix::fs::{chown, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::command;
use crate::error::{Error, Result};
use crate::netns::Netns;

use super::tail::{self, Tail};
use super::{drain, Bench};

/// Every monitor ever started here.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

const READY: Duration = Duration::from_secs(20);

/// The user the agent becomes; every Debian system has it.
const USER: (&str, u32, u32) = ("nobody", 65534, 65534);

/// A running monitor. Stopped when it is dropped.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    /// The file it writes events to.
    pub sink: PathBuf,
    /// Its directory, removed with it.
    directory: PathBuf,
    /// Its network namespace has to live as long as it does.
    _netns: Option<Arc<Netns>>,
}

/// What a monitor's processes used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Nanoseconds on a processor, all threads, user and kernel.
    pub cpu: u64,
    /// Of these in user mode. Counted in clock ticks: coarse.
    pub user_ticks: u64,
    /// In kernel mode, in clock ticks.
    pub system_ticks: u64,
}

impl Monitor {
    /// Starts the agent and waits until it says that it is armed. `extra` is added to its configuration.
    ///
    /// # Errors
    /// When it cannot be started or is not armed in time.
    pub fn agent(bench: &Bench, netns: impl Into<Arc<Netns>>, extra: &str) -> Result<Self> {
        let netns = netns.into();
        let directory = prepare(bench)?;
        let configuration = configure(bench, &directory, extra)?;
        let mut command = netns.command(&bench.options.agent.display().to_string());
        command.arg("run").arg("--config").arg(configuration);
        let child = spawn(command, &directory)?;
        let sink = directory.join("log/events.jsonl");
        let mut monitor = Self { child, sink, directory, _netns: Some(netns) };
        monitor.wait_until("the agent is armed", |monitor| {
            let text = fs::read(&monitor.sink).unwrap_or_default();
            tail::find(&text, b"\"kind\":\"armed\"").is_some()
        })?;
        Ok(monitor)
    }

    /// Starts auditd with a configuration of its own: format and flushing as the distribution ships them, or raw records and no
    /// flushing, which is the cheapest; no dispatcher plugins, no rotation, everything else as shipped (which includes
    /// `priority_boost = 4`, a nice value of -4).
    ///
    /// # Errors
    /// When it cannot be started or does not become the audit daemon in time.
    pub fn auditd(bench: &Bench, as_shipped: bool) -> Result<Self> {
        let directory = bench.directory.join("auditd");
        for path in [directory.clone(), directory.join("plugins.d")] {
            fs::create_dir_all(&path).map_err(Error::io(format!("cannot create {}", path.display())))?;
        }
        let sink = directory.join("audit.log");
        let writing = if as_shipped {
            "log_format = ENRICHED\nflush = INCREMENTAL_ASYNC\nfreq = 50"
        } else {
            "log_format = RAW\nflush = NONE"
        };
        let text = format!(
            "local_events = yes\nwrite_logs = yes\nlog_file = {}\nlog_group = root\n{writing}\n\
             max_log_file = 4000\nmax_log_file_action = IGNORE\npriority_boost = 4\nname_format = NONE\n\
             space_left = 75\nspace_left_action = IGNORE\nadmin_space_left = 50\nadmin_space_left_action = IGNORE\n\
             disk_full_action = IGNORE\ndisk_error_action = IGNORE\nq_depth = 2000\noverflow_action = IGNORE\n\
             plugin_dir = {}\n",
            sink.display(),
            directory.join("plugins.d").display()
        );
        let path = directory.join("auditd.conf");
        fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))
            .map_err(Error::io(format!("cannot protect {}", path.display())))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "auditd", "-n", "-s", "enable", "-c"]).arg(&directory);
        let child = spawn(command, &directory)?;
        let mut monitor = Self { child, sink, directory, _netns: None };
        monitor.wait_until("auditd is the audit daemon", Self::is_audit_daemon)?;
        Ok(monitor)
    }

    /// Starts an audit daemon that reads everything and does nothing with it.
    ///
    /// # Errors
    /// When it cannot be started or does not become the audit daemon in time.
    pub fn drain(bench: &Bench) -> Result<Self> {
        let directory = bench.directory.join("drain");
        fs::create_dir_all(&directory)
            .map_err(Error::io(format!("cannot create {}", directory.display())))?;
        let own = env::current_exe().map_err(Error::io("cannot find this program"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(own).args(["bench", drain::COMMAND]);
        let child = spawn(command, &directory)?;
        let mut monitor = Self { child, sink: directory.join("output"), directory, _netns: None };
        monitor.wait_until("a reader is the audit daemon", Self::is_audit_daemon)?;
        Ok(monitor)
    }

    fn is_audit_daemon(&self) -> bool {
        let status = command::run(Command::new("auditctl").arg("-s"), READY).unwrap_or_default();
        String::from_utf8_lossy(&status).lines().any(|line| line == format!("pid {}", self.child.id()))
    }

    fn wait_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !done(self) {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || start.elapsed() > READY {
                let seen = fs::read_to_string(self.directory.join("output")).unwrap_or_default();
                return Err(Error::TimedOut { what: what.into(), after: start.elapsed(), seen });
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it has its files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads its sink from the beginning.
    ///
    /// # Errors
    /// When the sink is not there.
    pub fn tail(&self) -> Result<Tail> {
        Tail::open(&self.sink)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // SAFETY: plain numbers; the child has not been waited for, so the id is still its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A fresh directory for one life of the agent.
///
/// # Errors
/// When it cannot be made.
pub fn prepare(bench: &Bench) -> Result<PathBuf> {
    let directory = bench.directory.join("agent");
    let _ = fs::remove_dir_all(&directory);
    for name in ["state", "run", "log"] {
        let path = directory.join(name);
        fs::create_dir_all(&path).map_err(Error::io(format!("cannot create {}", path.display())))?;
        chown(&path, Some(USER.1), Some(USER.2))
            .map_err(Error::io(format!("cannot give {} away", path.display())))?;
    }
    Ok(directory)
}

/// Writes the agent's configuration for work in `directory`: shipped rules, every shipped default but paths and size.
/// `extra` is added; if it has a table `[sink.file]`, that has to be the last.
///
/// # Errors
/// When it cannot be written.
pub fn configure(bench: &Bench, directory: &Path, extra: &str) -> Result<PathBuf> {
    let at = directory.display();
    // A table may stand in a file only once; `extra` may end with this one.
    let file = if extra.contains("[sink.file]") { "" } else { "[sink.file]\n" };
    let text = format!(
        "[agent]\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\nuser = \"{}\"\n\
         [sink.syslog]\nenabled = false\n[suppression]\nrepeat_window_s = 0\nmax_per_hour = 0\n\
         [rules]\ndirectories = [\"{}\"]\n[dbus]\nenabled = false\n\
         [login]\nfiles = [\"{at}/auth.log\"]\nsyslog_socket = \"{at}/devlog\"\n\
         {extra}{file}path = \"{at}/log/events.jsonl\"\nmax_kib = 4000000\n",
        USER.0,
        bench.rules.display()
    );
    let path = directory.join("defender.toml");
    fs::write(directory.join("auth.log"), "").map_err(Error::io("cannot make a log file"))?;
    fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))?;
    Ok(path)
}

fn spawn(mut command: Command, directory: &Path) -> Result<Child> {
    let output = directory.join("output");
    let file = fs::File::create(&output).map_err(Error::io(format!("cannot create {}", output.display())))?;
    let copy = file.try_clone().map_err(Error::io("cannot duplicate a file descriptor"))?;
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    let child = command
        .spawn()
        .map_err(Error::io(format!("cannot start {}", command.get_program().to_string_lossy())))?;
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(child.id());
    Ok(child)
}

/// Ends every monitor, for an end of this program in which nothing is dropped: the agent loses its parent-death signal
/// when it changes its user, and adds rules again that are taken from it.
pub fn stop_all() {
    for id in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let Ok(pid) = i32::try_from(*id) else { continue };
        // Nothing happens to those that have ended: with -1 waitpid says that they are no children of this program.
        for attempt in 0..300 {
            let mut status = 0;
            // SAFETY: `status` is live.
            if unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } != 0 {
                break;
            }
            let signal = if attempt < 200 { libc::SIGTERM } else { libc::SIGKILL };
            // SAFETY: plain numbers; it is a child that has not been waited for.
            unsafe { libc::kill(pid, signal) };
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What process `pid` used so far: `/proc/PID/task/*/schedstat` (nanoseconds) and `/proc/PID/stat` (ticks), see
/// proc(5). A process that is gone used nothing.
#[must_use]
pub fn usage(pid: u32) -> Usage {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let cpu = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 14 and 15; the second field, the only one that can hold a space, ends with the last parenthesis.
    let mut fields = stat.rsplit(") ").next().unwrap_or("").split(' ').skip(11);
    let mut field = || fields.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Usage { cpu, user_ticks: field(), system_ticks: field() }
}

/// KiB of memory in proportion to how many share it (PSS), of a process and its children: the agent has a second process.
#[must_use]
pub fn pss(pid: u32) -> u64 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(pid).chain(children).map(pss_alone).sum()
}

/// `/proc/PID/smaps_rollup`
fn pss_alone(pid: u32) -> u64 {
    let text = fs::read(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let Some(at) = tail::find(&text, b"\nPss:") else { return 0 };
    let text = String::from_utf8_lossy(&text[at + 5..]);
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The process id of the kernel thread that hands records out.
#[must_use]
pub fn kauditd() -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_string_lossy().parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (name.trim() == "kauditd").then_some(pid)
    })
}
