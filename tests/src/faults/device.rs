//! The device: the agent itself with both remote sinks, fed by a log of failed logins.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::tail;
use crate::command;
use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::servers::arrivals::ByPriority;
use crate::servers::{broker, collector};

/// Name of the servers, which the device's own `hosts` file knows.
pub(crate) const SERVER: &str = "collector.fault.test";
/// The user the agent becomes; every Debian system has it.
const USER: (&str, u32, u32) = ("nobody", 65534, 65534);
const READY: Duration = Duration::from_secs(60);
/// One in so many logins is an alert.
const ALARM: u64 = 10;

const RULE: &str = "title: Fault run\nid: 3f0f6a52-8c39-4a7b-9a61-5f3f6f1f2b70\nstatus: test\nlevel: high\n\
    logsource:\n  product: linux\n  category: authentication\n\
    detection:\n  alarm:\n    user|startswith: 'alarm'\n  condition: alarm\n";

/// A device and its files.
#[derive(Debug)]
pub(crate) struct Device {
    netns: Arc<Netns>,
    agent: PathBuf,
    directory: PathBuf,
    log: File,
    /// Logins that were written to the log.
    pub(crate) logins: u64,
    running: Option<Child>,
    /// What agents that are gone have handed to the spool.
    handed: ByPriority,
    /// The account as the last of them left it.
    last: Vec<u8>,
}

impl Device {
    /// One that has not been started. `tls` holds `ca.pem`, `device.pem` and `device.key`.
    pub(crate) fn new(
        netns: &Arc<Netns>,
        agent: &Path,
        directory: &Path,
        tls: &Path,
        spool_kib: u64,
    ) -> Result<Self> {
        for name in ["", "state", "run", "log", "rules"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).map_err(Error::io(format!("cannot create {}", path.display())))?;
            give(&path)?;
        }
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))?;
            give(&path)
        };
        write("rules/fault.yml", RULE)?;
        write("defender.toml", &configuration(directory, tls, spool_kib))?;
        write("hosts", &format!("127.0.0.1 localhost {SERVER}\n"))?;
        write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
        write("auth.log", "")?;
        let log = File::options().append(true).open(directory.join("auth.log"));
        Ok(Self {
            netns: Arc::clone(netns),
            agent: agent.to_owned(),
            directory: directory.to_owned(),
            log: log.map_err(Error::io("cannot open a log file"))?,
            logins: 0,
            running: None,
            handed: [0; 2],
            last: Vec::new(),
        })
    }

    /// Other values in its configuration, for the next start.
    pub(crate) fn configure(&self, from: &str, to: &str) -> Result<()> {
        let path = self.directory.join("defender.toml");
        let text = fs::read_to_string(&path).map_err(Error::io("cannot read the configuration"))?;
        fs::write(&path, text.replace(from, to)).map_err(Error::io("cannot write the configuration"))
    }

    /// Starts the agent, without waiting for anything.
    pub(crate) fn start(&mut self) -> Result<()> {
        let at = self.directory.display();
        // A mount namespace, in which the names of servers are the device's own.
        let script = format!(
            "mount --make-rprivate / && mount --bind {at}/hosts /etc/hosts && mount --bind {at}/resolv.conf /etc/resolv.conf && \
             exec \"$@\""
        );
        let mut command = self.netns.command("unshare");
        command.args(["--mount", "sh", "-c", &script, "-"]).arg(&self.agent);
        command.arg("run").arg("--config").arg(self.directory.join("defender.toml"));
        let output = File::options().create(true).append(true).open(self.directory.join("output"));
        let output = output.map_err(Error::io("cannot make a file for what the agent says"))?;
        let copy = output.try_clone().map_err(Error::io("cannot duplicate a file descriptor"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(copy);
        self.running = Some(command.spawn().map_err(Error::io("cannot start the agent"))?);
        Ok(())
    }

    /// Waits until the agent says that it is armed.
    pub(crate) fn armed(&mut self) -> Result<()> {
        let events = self.directory.join("log/events.jsonl");
        let start = Instant::now();
        while tail::find(&fs::read(&events).unwrap_or_default(), b"\"kind\":\"armed\"").is_none() {
            let ended = self.running.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || start.elapsed() > READY {
                let seen = fs::read_to_string(self.directory.join("output")).unwrap_or_default();
                return Err(Error::TimedOut {
                    what: "the agent is armed".into(),
                    after: start.elapsed(),
                    seen,
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
        self.handed = self.produced_with(self.ledger());
        self.last = self.account();
    }

    /// So many failed logins more.
    pub(crate) fn log_in(&mut self, count: u64) -> Result<()> {
        let mut text = String::new();
        for _ in 0..count {
            let number = self.logins;
            self.logins += 1;
            let user = if number % ALARM == 0 { "alarm" } else { "user" };
            let [_, _, a, b] = (u32::try_from(number % 65_536).unwrap_or(0)).to_be_bytes();
            text.push_str(&format!(
                "Nov 27 23:00:00 device sshd[{}]: Failed password for invalid user {user}{number} from 10.0.{a}.{b} port 22 ssh2\n",
                1000 + number % 30_000
            ));
        }
        self.log.write_all(text.as_bytes()).map_err(Error::io("cannot write to the log"))
    }

    /// Alerts and other records that the agents of this device have numbered and handed to the spool so far.
    pub(crate) fn produced(&self) -> ByPriority {
        if self.running.is_none() {
            return self.handed;
        }
        self.produced_with(self.ledger())
    }

    fn produced_with(&self, now: ByPriority) -> ByPriority {
        [self.handed[0] + now[0], self.handed[1] + now[1]]
    }

    fn account(&self) -> Vec<u8> {
        fs::read(self.directory.join("run/spool-ledger")).unwrap_or_default()
    }

    /// What the agent that runs, or ran last, has written down: `agent/report/src/spool/ledger.rs`.
    fn ledger(&self) -> ByPriority {
        let bytes = self.account();
        // An agent that was killed before it opened the account has produced nothing; what stands there is its predecessor's.
        if bytes == self.last {
            return [0; 2];
        }
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        [number(0).unwrap_or(0), number(8).unwrap_or(0)]
    }

    /// Whether the device finds the servers by name.
    pub(crate) fn names(&self, known: bool) -> Result<()> {
        let text =
            if known { format!("127.0.0.1 localhost {SERVER}\n") } else { "127.0.0.1 localhost\n".into() };
        // Not replaced: what is mounted is this file.
        fs::write(self.directory.join("hosts"), text).map_err(Error::io("cannot write the hosts file"))
    }

    /// What `defender status` says, as one line.
    pub(crate) fn status(&self) -> String {
        let mut command = Command::new(&self.agent);
        command.args(["status", "--json", "--socket"]).arg(self.directory.join("run/control.sock"));
        let said = command::output(&mut command, READY).map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}

fn give(path: &Path) -> Result<()> {
    chown(path, Some(USER.1), Some(USER.2)).map_err(Error::io(format!("cannot give {} away", path.display())))
}

fn configuration(directory: &Path, tls: &Path, spool_kib: u64) -> String {
    let (at, tls, user) = (directory.display(), tls.display(), USER.0);
    let certificates =
        format!("ca_file = \"{tls}/ca.pem\"\ncertificate_file = \"{tls}/device.pem\"\nkey_file = \"{tls}/device.key\"\n");
    format!(
        "[agent]\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\nuser = \"{user}\"\nstatistics_interval_s = 0\n\
         [process]\nenabled = false\n[network]\nenabled = false\n[files]\nenabled = false\n[peripheral]\nenabled = false\n\
         [services]\nenabled = false\n[module]\nenabled = false\n[posture]\nenabled = false\n[firewall]\nmonitor = false\n\
         [dbus]\nenabled = false\n[feeds]\ndirectories = []\n[rules]\ndirectories = [\"{at}/rules\"]\n\
         [suppression]\nrepeat_window_s = 0\nmax_per_hour = 0\n\
         [login]\nfiles = [\"{at}/auth.log\"]\nsyslog_socket = \"off\"\naccounting = []\n\
         [sink.syslog]\nenabled = false\n[sink.file]\npath = \"{at}/log/events.jsonl\"\nmax_kib = 4000000\n\
         [spool]\nmax_kib = {spool_kib}\n\
         [sink.remote_syslog]\nenabled = true\nhost = \"{SERVER}\"\nport = {}\nminimum_level = \"informational\"\n{certificates}\
         [sink.mqtt]\nenabled = true\nhost = \"{SERVER}\"\nport = {}\n{certificates}",
        collector::PORT,
        broker::PORT
    )
}
