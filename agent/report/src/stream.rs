//! Connections to remote peers, with or without TLS.

use std::future::{poll_fn, Future};
use std::io;
use std::net::IpAddr;
use std::pin::{pin, Pin};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::error::Error;
use crate::socket;

/// How long a peer may take to be connected to, or to take what is sent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may leave what was sent without an answer of its TCP, before the connection counts as broken. By itself Linux
/// goes on trying for a quarter of an hour.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// A connection, whatever is below it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// The TCP connection at the bottom.
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

#[cfg(feature = "tls")]
impl Stream for tokio_openssl::SslStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref()
    }
}

/// What is wanted of a connection's security.
#[cfg(feature = "tls")]
pub(crate) type Tls = crate::tls::Tls;
/// Without the feature there is nothing to want.
#[cfg(not(feature = "tls"))]
pub(crate) type Tls = std::convert::Infallible;

/// Host and port as error messages have them.
pub(crate) fn target(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Connects to the first address of `host` that answers, and tells which that is.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    tls: Option<&Tls>,
) -> Result<(Box<dyn Stream>, Option<IpAddr>), Error> {
    let target = target(host, port);
    let tcp = first(host, port, &target).await?;
    let set_up = tcp.set_nodelay(true).and_then(|()| socket::give_up_after(&tcp, SILENCE));
    set_up.map_err(|source| Error::Socket { target: target.clone(), action: "set up", source })?;
    let peer = tcp.peer_addr().ok().map(|peer| peer.ip());
    match tls {
        None => Ok((Box::new(tcp), peer)),
        #[cfg(feature = "tls")]
        Some(tls) => Ok((Box::new(crate::tls::connect(tls, host, &target, tcp).await?), peer)),
        #[cfg(not(feature = "tls"))]
        Some(tls) => match *tls {},
    }
}

/// The first address that answers, each in a time of its own: one that swallows everything must not keep the next from its turn.
async fn first(host: &str, port: u16, target: &str) -> Result<TcpStream, Error> {
    let addresses = within(target, "find the address of", tokio::net::lookup_host((host, port))).await?;
    let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut failure = Error::Socket { target: target.to_owned(), action: "connect to", source: none };
    for address in addresses {
        match within(target, "connect to", TcpStream::connect(address)).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// An operation on a socket, with its name and a time limit.
pub(crate) async fn within<T>(
    target: &str,
    action: &'static str,
    operation: impl Future<Output = io::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, operation).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::Socket { target: target.to_owned(), action, source }),
        Err(_) => Err(Error::Timeout { target: target.to_owned(), action, after: PATIENCE }),
    }
}

/// Whether the peer has closed the connection. What it has sent otherwise is thrown away. Never waits.
pub(crate) async fn is_closed(stream: &mut dyn Stream) -> bool {
    let mut bytes = [0; 256];
    for _ in 0..16 {
        let mut buffer = ReadBuf::new(&mut bytes);
        let polled = poll_fn(|context| {
            Poll::Ready(match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Pending => None,
                Poll::Ready(outcome) => Some(outcome),
            })
        });
        match pin!(polled).await {
            None => return false,
            Some(Ok(())) if !buffer.filled().is_empty() => {}
            Some(_) => return true,
        }
    }
    false
}
