//! What the kernel knows and does about a TCP connection, and `std` does not tell.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::net::TcpStream;

/// Breaks the connection when what was sent has gone without an acknowledgement for so long: option `TCP_USER_TIMEOUT` of tcp(7).
pub(crate) fn give_up_after(tcp: &TcpStream, silence: Duration) -> io::Result<()> {
    let milliseconds = libc::c_uint::try_from(silence.as_millis()).unwrap_or(libc::c_uint::MAX);
    let size = libc::socklen_t::try_from(size_of::<libc::c_uint>()).unwrap_or_default();
    let value = (&raw const milliseconds).cast();
    // SAFETY: the socket is open as long as `tcp` is borrowed; `value` points to as many live bytes as `size` says.
    let done =
        unsafe { libc::setsockopt(tcp.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, value, size) };
    (done == 0).then_some(()).ok_or_else(io::Error::last_os_error)
}

/// Whether the peer's TCP has acknowledged all that was written: `SIOCOUTQ` of tcp(7), which has the number of `TIOCOUTQ`.
/// A socket that cannot tell has not.
pub(crate) fn all_acknowledged(tcp: &TcpStream) -> bool {
    let mut bytes: libc::c_int = 1;
    // SAFETY: the socket is open as long as `tcp` is borrowed; the call writes one int, which lives until it returns.
    let done = unsafe { libc::ioctl(tcp.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    done == 0 && bytes == 0
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_peer_has_not_taken_is_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        give_up_after(&tcp, Duration::from_secs(30)).unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        assert!(all_acknowledged(&tcp));
        // More than both buffers hold: the peer does not read.
        while tcp.try_write(&[0; 65_536]).is_ok() {}
        assert!(!all_acknowledged(&tcp));
        let reading =
            tokio::spawn(async move { while peer.read(&mut [0; 65_536]).await.is_ok_and(|n| n > 0) {} });
        for _ in 0..1000 {
            if all_acknowledged(&tcp) {
                tcp.shutdown().await.unwrap();
                reading.await.unwrap();
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never acknowledged");
    }
}
