//! Sockets that reconnect.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixDatagram};

use super::Transport;
use crate::error::Error;
use crate::socket;
use crate::stream::{self, Stream};

/// How long the local daemon may leave its queue full.
const LOCAL_PATIENCE: Duration = Duration::from_secs(5);

/// Where lines go, and the socket if there is one.
pub(super) struct Connection {
    transport: Transport,
    socket: Option<Socket>,
    /// Address of the last collector.
    peer: Option<IpAddr>,
}

enum Socket {
    Local(UnixDatagram),
    Udp(UdpSocket),
    Stream(Box<dyn Stream>),
}

/// Why a line was not sent.
#[derive(Debug)]
pub(super) enum Failure {
    /// The line itself is refused; another may not be.
    Unsendable(Error),
    /// The socket is of no use any more.
    Broken(Error),
}

impl Connection {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, socket: None, peer: None }
    }

    /// Lines are octet-counted and may go together.
    pub(super) fn is_stream(&self) -> bool {
        !matches!(self.transport, Transport::Local { .. } | Transport::Udp { .. })
    }

    /// Whether nothing speaks against the connection, if there is one: one that the peer has closed, or that broke, is let go.
    pub(super) async fn stands(&mut self) -> bool {
        if let Some(Socket::Stream(stream)) = &mut self.socket {
            if stream::is_closed(stream.as_mut()).await {
                self.socket = None;
                return false;
            }
        }
        true
    }

    /// The peer's TCP has all that was sent.
    pub(super) fn all_acknowledged(&self) -> bool {
        matches!(&self.socket, Some(Socket::Stream(stream)) if socket::all_acknowledged(stream.tcp()))
    }

    /// Sends one line, or several framed ones on a stream; on a new socket if need be.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let (socket, peer) = connect(&self.transport).await.map_err(Failure::Broken)?;
                self.peer = peer;
                socket
            }
        };
        // Put back only if it worked: half a line may be in a connection that failed.
        let socket = self.send_on(socket, payload).await?;
        self.socket = Some(socket);
        Ok(())
    }

    async fn send_on(&self, mut socket: Socket, payload: &[u8]) -> Result<Socket, Failure> {
        let target = self.target();
        let sent = match &mut socket {
            Socket::Local(datagram) => {
                match tokio::time::timeout(LOCAL_PATIENCE, datagram.send(payload)).await {
                    Ok(sent) => sent.map(drop),
                    Err(_) => {
                        return Err(Failure::Broken(Error::Timeout {
                            target,
                            action: "send to",
                            after: LOCAL_PATIENCE,
                        }))
                    }
                }
            }
            Socket::Udp(udp) => udp.send(payload).await.map(drop),
            Socket::Stream(stream) => {
                let write = async {
                    stream.write_all(payload).await?;
                    stream.flush().await
                };
                return match stream::within(&target, "send to", write).await {
                    Ok(()) => Ok(socket),
                    Err(error) => Err(Failure::Broken(error)),
                };
            }
        };
        match sent {
            Ok(()) => Ok(socket),
            Err(source) => {
                let unsendable = source.raw_os_error() == Some(libc::EMSGSIZE);
                let error = Error::Socket { target, action: "send to", source };
                Err(if unsendable { Failure::Unsendable(error) } else { Failure::Broken(error) })
            }
        }
    }

    /// Address of the collector it was last connected to.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Ends a connection in good order; whether the collector has taken all of it: it closes its end when it has read everything, and
    /// breaks the connection when it has not.
    pub(super) async fn finish(self) -> bool {
        let Some(Socket::Stream(mut stream)) = self.socket else { return true };
        let end = async {
            stream.shutdown().await?;
            while stream.read(&mut [0; 256]).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        match tokio::time::timeout(Duration::from_secs(1), end).await {
            Ok(outcome) => outcome.is_ok(),
            Err(_) => socket::all_acknowledged(stream.tcp()),
        }
    }

    pub(super) fn target(&self) -> String {
        match &self.transport {
            Transport::Local { path } => path.display().to_string(),
            Transport::Udp { host, port } | Transport::Tcp { host, port } => stream::target(host, *port),
            #[cfg(feature = "tls")]
            Transport::Tls { host, port, .. } => stream::target(host, *port),
        }
    }
}

async fn connect(transport: &Transport) -> Result<(Socket, Option<IpAddr>), Error> {
    let connected = |(stream, peer)| (Socket::Stream(stream), peer);
    match transport {
        Transport::Local { path } => {
            local(path).map(|socket| (Socket::Local(socket), None)).map_err(|source| Error::Socket {
                target: path.display().to_string(),
                action: "connect to",
                source,
            })
        }
        Transport::Udp { host, port } => {
            let target = stream::target(host, *port);
            let socket = stream::within(&target, "connect to", udp(host, *port)).await?;
            let peer = socket.peer_addr().ok().map(|peer| peer.ip());
            Ok((Socket::Udp(socket), peer))
        }
        Transport::Tcp { host, port } => stream::connect(host, *port, None).await.map(connected),
        #[cfg(feature = "tls")]
        Transport::Tls { host, port, tls } => stream::connect(host, *port, Some(tls)).await.map(connected),
    }
}

fn local(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

async fn udp(host: &str, port: u16) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let connected = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            Ok(socket)
        };
        match connected.await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
