//! Servers of the distribution that a device reports to, in a network namespace, to be killed, stopped and started again.
//!
//! | Module | Holds |
//! |---|---|
//! | [`authority`] | certificates, made by the openssl program |
//! | [`broker`] | mosquitto over TLS |
//! | [`subscriber`] | what a broker hands on, noted record by record |
//! | [`collector`] | rsyslogd over TLS |
//! | [`arrivals`] | what has arrived: records, repeats, losses told |

pub mod arrivals;
pub mod authority;
pub mod broker;
pub mod collector;
pub mod subscriber;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::netns::Netns;

/// How long a server may take to listen, on a slow machine.
pub const READY: Duration = Duration::from_secs(60);

/// Starts a server whose output goes to `log`.
pub(crate) fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let file = fs::File::options().create(true).append(true).open(log);
    let file = file.map_err(Error::io(format!("cannot write to {}", log.display())))?;
    let copy = file.try_clone().map_err(Error::io("cannot duplicate a file descriptor"))?;
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    command.spawn().map_err(Error::io(format!("cannot start `{command:?}`")))
}

/// Waits until somebody listens at a port of the namespace's loopback.
pub(crate) fn listening(netns: &Netns, child: &mut Child, port: u16, log: &Path) -> Result<()> {
    let start = Instant::now();
    while netns.within(|| Ok(TcpStream::connect(("127.0.0.1", port)).is_err()))? {
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || start.elapsed() > READY {
            let seen = fs::read_to_string(log).unwrap_or_default();
            return Err(Error::TimedOut {
                what: format!("port {port} is open"),
                after: start.elapsed(),
                seen,
            });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: i32) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: plain numbers; the child has not been waited for, so the id is still its own.
        unsafe { libc::kill(pid, signal) };
    }
}
