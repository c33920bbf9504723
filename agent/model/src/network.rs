//! Connections, and sockets that wait for them.

use std::net::IpAddr;

use crate::process::Actor;
use crate::time::Timestamp;

/// IANA protocol number (`/etc/protocols`): 6 is TCP, 17 UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);

    const NAMES: [(u8, &'static str); 6] =
        [(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "ipv6-icmp"), (132, "sctp"), (136, "udplite")];

    /// The name of `/etc/protocols`, for the protocols a device meets.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.into_iter().find(|(number, _)| *number == self.0).map(|(_, name)| name)
    }

    /// The protocol of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(number, _)| Self(number))
    }
}

impl core::fmt::Display for Protocol {
    /// The name, else the number.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// One end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address; IPv4-mapped IPv6 addresses are already IPv4.
    pub address: IpAddr,
    /// Port; `None` for protocols without one.
    pub port: Option<u16>,
}

impl core::fmt::Display for Endpoint {
    /// `192.0.2.1:80`, `[2001:db8::1]:80`, or the address alone.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", std::net::SocketAddr::new(self.address, port)),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Which way a connection was opened, seen from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Somebody else opened it towards the device.
    Inbound,
    /// The device opened it.
    Outbound,
    /// Both ends are the device.
    Local,
    /// Not known, or only routed through the device.
    Unknown,
}

/// What happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowChange {
    /// It began.
    Opened,
    /// It ended.
    Closed,
    /// It could not be opened: nobody answered, or the other end refused.
    Failed,
    /// It goes on; the counters say how much so far.
    Traffic,
    /// A packet of it was dropped by a rule of the packet filter.
    Denied,
}

/// Counters of one direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Volume {
    /// Bytes, headers of the network layer included (netfilter's way of counting).
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// A connection, or datagrams that belong together. The source is the end that spoke first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// What happened to it.
    pub change: FlowChange,
    /// Which way it was opened.
    pub direction: Direction,
    /// Its protocol above IP.
    pub protocol: Protocol,
    /// The end that spoke first.
    pub source: Endpoint,
    /// The other end.
    pub destination: Endpoint,
    /// Name by which the device had looked the destination up, where that is known.
    pub destination_name: Option<String>,
    /// From source to destination, where counted.
    pub forward: Option<Volume>,
    /// From destination to source, where counted.
    pub reply: Option<Volume>,
    /// When it began, where known.
    pub started: Option<Timestamp>,
    /// When it ended, of those that have.
    pub ended: Option<Timestamp>,
    /// The `log prefix` of the rule that dropped a packet of it; empty prefixes are left out.
    pub rule: Option<String>,
    /// The device's process at its end of the flow.
    pub process: Option<Actor>,
}

impl Flow {
    /// The end that is not this device: the source of what came in, the destination of everything else.
    #[must_use]
    pub fn peer(&self) -> Endpoint {
        match self.direction {
            Direction::Inbound => self.source,
            Direction::Outbound | Direction::Local | Direction::Unknown => self.destination,
        }
    }
}

/// A socket began, or ceased, to wait for connections or datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// It listens; false: it no longer does.
    pub open: bool,
    /// Its protocol above IP.
    pub protocol: Protocol,
    /// Where it listens; `0.0.0.0` and `::` are all addresses.
    pub local: Endpoint,
    /// Who listens.
    pub process: Option<Actor>,
}
