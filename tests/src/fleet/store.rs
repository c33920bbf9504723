//! PostgreSQL of the distribution, a cluster of its own without a network.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::command;
use crate::error::{Error, Result};
use crate::servers::{self, READY};

/// Whom the server runs as: it refuses to be root. Every Debian system has it.
const NOBODY: u32 = 65534;

/// A running server, and its files.
#[derive(Debug)]
pub struct Store {
    child: Child,
    /// Directory of its socket.
    pub socket: PathBuf,
}

impl Store {
    /// Where Debian keeps the programs of the newest version, if it is installed.
    #[must_use]
    pub fn programs() -> Option<PathBuf> {
        let versions =
            fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
        versions.filter(|path| path.join("initdb").exists()).max()
    }

    /// A new cluster in `directory` with a database `fleet` of user `fleet`.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(directory: &Path) -> Result<Self> {
        let programs = Self::programs().ok_or_else(|| Error::Missing {
            what: "PostgreSQL".into(),
            next: "install postgresql and rsyslog-pgsql".into(),
        })?;
        fs::create_dir_all(directory).map_err(Error::io(format!("cannot create {}", directory.display())))?;
        chown(directory, Some(NOBODY), Some(NOBODY)).map_err(Error::io("cannot give a directory away"))?;
        let data = directory.join("data");
        let mut init = as_nobody(&programs.join("initdb"), &[]);
        init.args(["-U", "fleet", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"]).arg(&data);
        command::run(&mut init, READY)?;
        let mut server = as_nobody(&programs.join("postgres"), &["--pdeathsig", "KILL"]);
        server.arg("-D").arg(&data).arg("-k").arg(directory).args(["-c", "listen_addresses="]);
        let child = servers::spawn(server, &directory.join("log"))?;
        let store = Self { child, socket: directory.to_owned() };
        let start = Instant::now();
        while store.ask("postgres", "select 1").is_err() {
            if start.elapsed() > READY {
                let seen = fs::read_to_string(directory.join("log")).unwrap_or_default();
                return Err(Error::TimedOut {
                    what: "PostgreSQL answers".into(),
                    after: start.elapsed(),
                    seen,
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
        store.ask("postgres", "create database fleet")?;
        Ok(store)
    }

    /// Address of a database for psql.
    #[must_use]
    pub fn address(&self, database: &str) -> String {
        format!("host={} user=fleet dbname={database}", self.socket.display())
    }

    /// Runs a file of statements.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn load(&self, file: &Path) -> Result<()> {
        let mut psql = Command::new("psql");
        psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &self.address("fleet"), "-f"]).arg(file);
        command::run(&mut psql, READY).map(drop)
    }

    /// What a query answers: lines of fields with `|` between them.
    ///
    /// # Errors
    /// When it fails.
    pub fn query(&self, query: &str) -> Result<String> {
        self.ask("fleet", query)
    }

    fn ask(&self, database: &str, query: &str) -> Result<String> {
        let mut psql = Command::new("psql");
        psql.args(["-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.address(database), "-c", query]);
        let answer = command::run(&mut psql, READY)?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Fast shutdown.
        servers::signal(&self.child, libc::SIGINT);
        let _ = self.child.wait();
    }
}

fn as_nobody(program: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).args(options).arg(program);
    command.current_dir("/");
    command
}
