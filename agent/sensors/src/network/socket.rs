//! The kernel's lists of sockets, `/proc/net/tcp` and its siblings. Source: proc(5), net/ipv4/tcp_ipv4.c, net/ipv4/udp.c.
//!
//! Not sock_diag: hardened kernels are built without it (`CONFIG_INET_DIAG`), these lists are in every kernel.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use defender_model::network::Protocol;

/// Most bytes of one list that are read: some 50,000 sockets, nearly all of them closing, with nobody behind them.
const LIMIT: u64 = 8 << 20;
/// Most sockets kept.
const SOCKETS: usize = 16_384;
/// States (include/net/tcp_states.h): a socket that waits for connections, and one without a peer.
const LISTEN: u8 = 10;
const CLOSE: u8 = 7;

/// One socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) local: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
    state: u8,
    /// Number of its inode; 0 where no file descriptor refers to it (any more, or yet).
    pub(super) inode: u64,
}

impl Socket {
    /// It waits for whoever comes: a TCP socket that listens, a UDP socket without a peer.
    pub(super) const fn waits(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::TCP => self.state == LISTEN,
            _ => self.state == CLOSE,
        }
    }

    /// A TCP socket that listens.
    #[cfg(test)]
    pub(super) const fn waiting(local: (IpAddr, u16), remote: (IpAddr, u16), inode: u64) -> Self {
        Self { local, remote, state: LISTEN, inode }
    }

    /// What is sent to the address arrives at this socket, as far as its own address goes.
    fn takes(&self, local: (IpAddr, u16)) -> bool {
        let (address, port) = self.local;
        port == local.1 && (address == local.0 || address.is_unspecified())
    }
}

/// The lists of a protocol, IPv4 and IPv6, as the calling thread's network namespace has them; none for protocols without ports.
fn lists(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::TCP => &["thread-self/net/tcp", "thread-self/net/tcp6"],
        Protocol::UDP => &["thread-self/net/udp", "thread-self/net/udp6"],
        _ => &[],
    }
}

/// Every socket of a protocol that somebody holds. A list that is not there (a kernel without IPv6) is empty.
pub(super) fn read(proc: &Path, protocol: Protocol) -> Vec<Socket> {
    let mut sockets = Vec::new();
    let mut line = Vec::new();
    for list in lists(protocol) {
        let Ok(file) = File::open(proc.join(list)) else { continue };
        let mut lines = BufReader::with_capacity(16 << 10, file.take(LIMIT));
        while sockets.len() < SOCKETS && lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            sockets.extend(parse(&line).filter(|socket| socket.inode != 0));
            line.clear();
        }
    }
    sockets
}

/// The socket at the device's end of a connection: the one with both ends, else the one that waits for it.
pub(super) fn find(
    sockets: &[Socket],
    protocol: Protocol,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
) -> Option<Socket> {
    let exact = |socket: &&Socket| socket.local == local && socket.remote == remote;
    let waiting = |socket: &&Socket| socket.waits(protocol) && socket.takes(local);
    sockets.iter().find(exact).or_else(|| sockets.iter().find(waiting)).copied()
}

/// `SL: LOCAL:PORT REMOTE:PORT STATE TX:RX TR:WHEN RETRANSMITS UID TIMEOUT INODE ...`; `None` for the headline.
fn parse(line: &[u8]) -> Option<Socket> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split_ascii_whitespace();
    let local = end(fields.nth(1)?)?;
    let remote = end(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Socket { local, remote, state, inode })
}

/// An address in words of four bytes, each printed as the number it is to this machine, and a port.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| -> Option<[u8; 4]> {
        Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (n, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(8 * n)?);
            }
            let v6 = Ipv6Addr::from(bytes);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use proptest::prelude::*;

    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_both_families() {
        let v4 = b"   3: 0100007F:1F90 0100007F:E884 01 00000000:00000000 00:00000000 00000000   998        0 41373 1 0000000000000000 20 4 30 10 -1";
        let socket = parse(v4).unwrap();
        assert_eq!(socket.local, ("127.0.0.1".parse().unwrap(), 8080));
        assert_eq!((socket.remote.1, socket.state, socket.inode), (59524, 1, 41373));
        let v6 = b"   0: B80D0120000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0";
        let socket = parse(v6).unwrap();
        assert_eq!(socket.local, ("2001:db8::1".parse().unwrap(), 22));
        assert!(socket.waits(Protocol::TCP) && !socket.waits(Protocol::UDP));
        let mapped = b"0: 0000000000000000FFFF00000100007F:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 777 1";
        assert_eq!(parse(mapped).unwrap().local.0, "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(
            parse(b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"),
            None
        );
    }

    #[test]
    fn finds_our_own_sockets() {
        let proc = Path::new("/proc");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let own = client.local_addr().unwrap();
        let end = |address: std::net::SocketAddr| (address.ip(), address.port());
        let sockets = read(proc, Protocol::TCP);
        let connected = find(&sockets, Protocol::TCP, end(own), end(server)).unwrap();
        assert!(!connected.waits(Protocol::TCP));
        // Somebody else's connection to the same port: only the listener knows of it yet.
        let stranger = ("192.0.2.1".parse().unwrap(), 5);
        let waiting = find(&sockets, Protocol::TCP, end(server), stranger).unwrap();
        assert!(waiting.waits(Protocol::TCP));
        assert_ne!(connected.inode, waiting.inode);
        let datagrams = UdpSocket::bind("[::]:0").unwrap();
        let port = datagrams.local_addr().unwrap().port();
        let sockets = read(proc, Protocol::UDP);
        assert!(find(&sockets, Protocol::UDP, ("127.0.0.1".parse().unwrap(), port), stranger).is_some());
        assert!(read(proc, Protocol(1)).is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in "[ 0-9A-F:]{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(line.as_bytes());
            let _ = parse(&bytes);
        }
    }
}
