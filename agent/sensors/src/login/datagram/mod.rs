//! Receives what syslog(3) sends, where no syslog daemon does: a unix datagram socket such as `/dev/log`.
//!
//! The kernel drops nothing here: a sender waits (or, if it asked not to, gets `EAGAIN`) while the socket's queue holds
//! `net.unix.max_dgram_qlen` datagrams. So the only loss that can be seen is a datagram longer than the buffer, which is cut and
//! says so.

mod receive;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram as Unregistered;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::line::MAX_LINE;
use crate::reopening::Reopening;

/// What the socket is called in health events.
pub(super) const COMPONENT: &str = "login syslog";
/// How often it is seen to that senders still reach the socket.
const LOOK: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// Makes the socket, in place of a syslog daemon that is not there; a stale one, that nobody listens on, is replaced. `None` where somebody
/// listens.
///
/// # Errors
/// When it cannot be made: that takes privileges in `/dev`.
pub fn bind(path: &Path) -> io::Result<Option<Unregistered>> {
    // Only what certainly nobody listens on is replaced; a syslog daemon may use a stream socket, or be slow.
    let left = path.symlink_metadata();
    match Unregistered::unbound()?.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && left.is_err() => {}
        Err(error)
            if error.kind() == io::ErrorKind::ConnectionRefused
                && left.is_ok_and(|left| left.file_type().is_socket()) =>
        {
            // What cannot be removed shows at the next step.
            let _ = fs::remove_file(path);
        }
        _ => return Ok(None),
    }
    let socket = Unregistered::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(Some(socket))
}

/// The socket at its place in the file system, made again when it is gone from there.
#[derive(Debug)]
pub(super) struct Seat {
    path: PathBuf,
    receiver: Option<Receiver>,
    /// The file that the socket was bound to.
    identity: Option<(u64, u64)>,
    reopening: Reopening,
    look: Instant,
    /// A syslog daemon listens there.
    taken: bool,
}

impl Seat {
    pub(super) fn new(path: PathBuf, socket: Unregistered) -> io::Result<Self> {
        let identity = identity(&path);
        let receiver = Some(Receiver::new(socket)?);
        let look = Instant::now() + LOOK;
        Ok(Self { path, receiver, identity, reopening: Reopening::default(), look, taken: false })
    }

    pub(super) fn is_open(&self) -> bool {
        self.receiver.is_some()
    }

    /// The next datagram, or a failure; after a look at the socket at the latest, which may have something to say.
    pub(super) async fn next(&mut self) -> Result<Datagram, Option<Health>> {
        let now = Instant::now();
        if self.look <= now {
            return Err(self.check(now));
        }
        let Some(receiver) = &mut self.receiver else {
            tokio::time::sleep_until(self.look.into()).await;
            return Err(self.check(Instant::now()));
        };
        match tokio::time::timeout_at(self.look.into(), receiver.next()).await {
            Ok(Ok(datagram)) => Ok(datagram),
            Ok(Err(error)) => Err(self.fail(Instant::now(), &error.to_string())),
            Err(_) => Err(self.check(Instant::now())),
        }
    }

    fn fail(&mut self, now: Instant, cause: &str) -> Option<Health> {
        self.receiver = None;
        let said = self.reopening.broke(now, COMPONENT, &self.what(), &cause);
        self.look = self.reopening.wake().unwrap_or(now + LOOK);
        said
    }

    fn what(&self) -> String {
        format!("log messages on {}", self.path.display())
    }

    /// Whether senders reach the socket; makes another where they do not.
    fn check(&mut self, now: Instant) -> Option<Health> {
        self.look = now + LOOK;
        if self.receiver.is_some() {
            let ours = identity(&self.path) == self.identity;
            let refused = || Unregistered::unbound().and_then(|socket| socket.connect(&self.path)).is_err();
            if ours && !refused() {
                return None;
            }
            if ours || self.path.symlink_metadata().is_err() {
                return self.fail(now, "nobody can send there any more");
            }
            self.receiver = None;
        }
        match bind(&self.path).and_then(|bound| bound.map(Receiver::new).transpose()) {
            Ok(Some(receiver)) => {
                (self.receiver, self.identity) = (Some(receiver), identity(&self.path));
                let taken = std::mem::take(&mut self.taken);
                let words = "no syslog daemon any more: log messages are received";
                let back = taken.then(|| Health::new(Kind::Changed, COMPONENT, words));
                self.reopening.mended(now, COMPONENT, &self.what()).or(back)
            }
            Ok(None) if self.taken => None,
            Ok(None) => {
                self.taken = true;
                let words = format!("a syslog daemon listens on {} now", self.path.display());
                let kind = if self.reopening.opened(now).is_some() { Kind::Recovered } else { Kind::Changed };
                Some(Health::new(kind, COMPONENT, words))
            }
            Err(error) => {
                self.taken = false;
                self.fail(now, &error.to_string())
            }
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Its bytes, at most [`MAX_LINE`].
    pub bytes: Vec<u8>,
    /// False if it was longer.
    pub whole: bool,
    /// Real user id of the sender, which the kernel vouches for.
    pub uid: Option<u32>,
}

/// A socket that syslog(3) sends to.
#[derive(Debug)]
pub struct Receiver {
    socket: UnixDatagram,
}

impl Receiver {
    /// Takes over a bound socket. It is bound elsewhere, since that needs privileges.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be set to non-blocking or registered with the runtime.
    pub fn new(socket: std::os::unix::net::UnixDatagram) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        receive::ask_for_credentials(socket.as_raw_fd())?;
        Ok(Self { socket: UnixDatagram::from_std(socket)? })
    }

    /// The next datagram. May be dropped before it is done without losing anything.
    ///
    /// # Errors
    ///
    /// Whatever recvmsg(2) fails with.
    pub async fn next(&mut self) -> io::Result<Datagram> {
        let descriptor = self.socket.as_raw_fd();
        self.socket.async_io(Interest::READABLE, || receive::receive(descriptor, MAX_LINE)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the seat says next, and hears meanwhile.
    async fn said(seat: &mut Seat) -> (Kind, String) {
        let words = async {
            loop {
                if let Err(Some(health)) = seat.next().await {
                    return (health.kind, health.message);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), words).await.expect("in time")
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_that_is_gone_or_dead_is_made_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut seat = Seat::new(path.clone(), bind(&path).expect("bind").expect("nobody")).expect("a seat");
        assert!(bind(&path).expect("somebody listens").is_none());
        let sender = Unregistered::unbound().expect("a socket");

        fs::remove_file(&path).expect("remove");
        assert_eq!(said(&mut seat).await.0, Kind::Degraded);
        assert!(!seat.is_open());
        let (kind, words) = said(&mut seat).await;
        assert_eq!(
            (kind, words),
            (Kind::Recovered, format!("log messages on {}: opened again", path.display()))
        );
        sender.send_to(b"<38>one", &path).expect("send");
        assert_eq!(seat.next().await.expect("a datagram").bytes, b"<38>one");

        // Another file in the place of the descriptor: the socket is closed.
        let null = fs::File::open("/dev/null").expect("open");
        let descriptor = seat.receiver.as_ref().map(|receiver| receiver.socket.as_raw_fd()).expect("open");
        // SAFETY: both descriptors are open; the second stays so, as another file.
        assert!(unsafe { libc::dup2(null.as_raw_fd(), descriptor) } >= 0);
        assert_eq!(said(&mut seat).await.0, Kind::Degraded);
        assert_eq!(said(&mut seat).await.0, Kind::Recovered);
        sender.send_to(b"<38>two", &path).expect("send");
        assert_eq!(seat.next().await.expect("a datagram").bytes, b"<38>two");

        // A syslog daemon takes the place, and goes.
        fs::remove_file(&path).expect("remove");
        let daemon = Unregistered::bind(&path).expect("bind");
        let (kind, words) = said(&mut seat).await;
        assert!(kind == Kind::Changed && words.starts_with("a syslog daemon listens"), "{kind:?} {words}");
        drop(daemon);
        assert_eq!(said(&mut seat).await.0, Kind::Changed);
        sender.send_to(b"<38>three", &path).expect("send");
        assert_eq!(seat.next().await.expect("a datagram").bytes, b"<38>three");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn datagrams_long_ones_and_their_senders() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut receiver =
            Receiver::new(std::os::unix::net::UnixDatagram::bind(&path).expect("bind")).expect("a receiver");
        let sender = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        sender.set_write_timeout(Some(Duration::from_secs(5))).expect("a time limit");
        sender.send_to(b"<38>one", &path).expect("send");
        sender.send_to(&[b'x'; MAX_LINE + 1], &path).expect("send");
        sender.send_to(&[b'y'; MAX_LINE], &path).expect("send");
        let own = fs::metadata("/proc/self").map(|m| MetadataExt::uid(&m)).ok();
        let one = receiver.next().await.expect("a datagram");
        assert_eq!(one, Datagram { bytes: b"<38>one".to_vec(), whole: true, uid: own });
        let two = receiver.next().await.expect("a datagram");
        assert_eq!((two.bytes.len(), two.whole), (MAX_LINE, false));
        let three = receiver.next().await.expect("a datagram");
        assert_eq!((three.bytes.len(), three.whole), (MAX_LINE, true));
    }
}
