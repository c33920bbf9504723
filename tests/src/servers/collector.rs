//! rsyslogd over TLS with client certificates, which writes what it gets to a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use super::arrivals::Arrivals;
use super::authority::Pair;
use crate::bench::tail::Tail;
use crate::error::{Error, Result};
use crate::netns::Netns;

/// Where devices come in.
pub const PORT: u16 = 6514;

/// A running rsyslogd.
#[derive(Debug)]
pub struct Collector {
    child: Child,
}

/// The file it writes to: as it grows, over restarts.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    tail: Option<Tail>,
    /// What has arrived.
    pub arrivals: Arrivals,
}

impl Collector {
    /// Starts it with its files in `directory`; clients of `clients` (a file of certificates) are let in.
    ///
    /// # Errors
    /// When it is not installed or does not listen.
    pub fn start(netns: &Netns, directory: &Path, own: &Pair, clients: &Path) -> Result<Self> {
        let file = directory.join("rsyslog.conf");
        let text = format!(
            r#"global(workDirectory="{work}" maxMessageSize="64k" defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid" maxSessions="1000")
input(type="imtcp" address="127.0.0.1" port="{PORT}")
template(name="line" type="string" string="%msgid% %structured-data% %msg%\n")
action(type="omfile" file="{work}/output" template="line")
"#,
            work = directory.display(),
            ca = clients.display(),
            certificate = own.certificate.display(),
            key = own.key.display(),
        );
        fs::write(&file, text).map_err(Error::io(format!("cannot write {}", file.display())))?;
        Self::run(netns, directory, &file)
    }

    /// Starts it with a configuration.
    ///
    /// # Errors
    /// When it is not installed or does not listen.
    pub fn run(netns: &Netns, directory: &Path, configuration: &Path) -> Result<Self> {
        // It refuses to start where one that was killed has left its number.
        let pid = directory.join("rsyslog.pid");
        let _ = fs::remove_file(&pid);
        let mut command = netns.command("rsyslogd");
        command.arg("-n").arg("-f").arg(configuration).arg("-i").arg(pid);
        let log = directory.join("rsyslog.log");
        let mut child = super::spawn(command, &log)?;
        super::listening(netns, &mut child, PORT, &log)?;
        Ok(Self { child })
    }

    /// SIGSTOP or SIGCONT: connections are accepted by the kernel and nothing is read.
    pub fn freeze(&self, frozen: bool) {
        super::signal(&self.child, if frozen { libc::SIGSTOP } else { libc::SIGCONT });
    }
}

/// SIGKILL.
impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Of a collector in `directory`, which need not have been started.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { path: directory.join("output"), tail: None, arrivals: Arrivals::default() }
    }

    /// Notes what has come since the last time.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self) -> Result<()> {
        if self.tail.is_none() && self.path.exists() {
            self.tail = Some(Tail::open(&self.path)?);
        }
        let Some(tail) = &mut self.tail else { return Ok(()) };
        let arrivals = &mut self.arrivals;
        tail.lines(|line| arrivals.line(line)).map(drop)
    }
}
