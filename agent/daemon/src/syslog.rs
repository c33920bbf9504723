//! Log messages where no syslog daemon takes them.

use std::os::fd::FromRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use defender_model::health::{Health, Kind};
use defender_sensors::login::datagram;

use crate::config::Config;

/// Where syslog daemons listen.
const DEV_LOG: &str = "/dev/log";

/// The socket that systemd bound for the agent (`defender-syslog.socket`, to which the journal forwards) and where, by sd_listen_fds(3);
/// `None` where there is none. To be called once, and before anything starts another program.
#[must_use]
pub(crate) fn handed() -> Option<(UnixDatagram, PathBuf)> {
    let descriptor = sd_notify::listen_fds().ok()?.next()?;
    // SAFETY: the service manager opened it for this process, in which nobody else takes it.
    let socket = unsafe { UnixDatagram::from_raw_fd(descriptor) };
    // Not of something else than a unix socket with a name.
    let path = socket.local_addr().ok()?.as_pathname()?.to_owned();
    Some((socket, path))
}

/// Takes the place of a syslog daemon that is not there: by the socket that systemd handed over, or on `/dev/log`, which only root can make.
pub(crate) fn socket(
    config: &Config,
    handed: Option<(UnixDatagram, PathBuf)>,
    news: &mut Vec<Health>,
) -> Option<(UnixDatagram, PathBuf)> {
    if !config.login.enabled || config.login.syslog_socket == "off" {
        return None;
    }
    let automatic = config.login.syslog_socket == "auto";
    if let Some(handed) = handed.filter(|_| automatic) {
        news.push(Health::new(Kind::Changed, "login", "log messages are received from systemd's journal"));
        return Some(handed);
    }
    let path = Path::new(if automatic { DEV_LOG } else { &config.login.syslog_socket });
    match datagram::bind(path) {
        Ok(socket) => {
            let socket = socket?;
            let words = format!("no syslog daemon: log messages are received on {}", path.display());
            news.push(Health::new(Kind::Changed, "login", words));
            Some((socket, path.to_owned()))
        }
        Err(error) => {
            let words = format!("no syslog daemon, and {} cannot be made: {error}", path.display());
            news.push(Health::new(Kind::Degraded, "login.socket", words));
            None
        }
    }
}
