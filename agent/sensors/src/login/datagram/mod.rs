//! Receives what syslog(3) sends, where no syslog daemon does: a unix datagram socket such as `/dev/log`.
//!
//! The kernel drops nothing here: a sender waits (or, if it asked not to, gets `EAGAIN`) while the socket's queue holds
//! `net.unix.max_dgram_qlen` datagrams. So the only loss that can be seen is a datagram longer than the buffer, which is cut and
//! says so.

mod receive;

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::line::MAX_LINE;

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

    #[tokio::test(flavor = "current_thread")]
    async fn datagrams_long_ones_and_their_senders() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut receiver =
            Receiver::new(std::os::unix::net::UnixDatagram::bind(&path).expect("bind")).expect("a receiver");
        let sender = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        sender.set_write_timeout(Some(std::time::Duration::from_secs(5))).expect("a time limit");
        sender.send_to(b"<38>one", &path).expect("send");
        sender.send_to(&[b'x'; MAX_LINE + 1], &path).expect("send");
        sender.send_to(&[b'y'; MAX_LINE], &path).expect("send");
        let own = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).ok();
        let one = receiver.next().await.expect("a datagram");
        assert_eq!(one, Datagram { bytes: b"<38>one".to_vec(), whole: true, uid: own });
        let two = receiver.next().await.expect("a datagram");
        assert_eq!((two.bytes.len(), two.whole), (MAX_LINE, false));
        let three = receiver.next().await.expect("a datagram");
        assert_eq!((three.bytes.len(), three.whole), (MAX_LINE, true));
    }
}
