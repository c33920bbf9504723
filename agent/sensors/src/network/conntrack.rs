//! Connection tracking: the kernel's messages about connections that began and ended.
//!
//! Sources: linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_conntrack.h, linux/netfilter/nf_conntrack_common.h,
//! net/netfilter/nf_conntrack_netlink.c.

use std::net::IpAddr;

use defender_model::network::{Protocol, Volume};

use super::attribute::{address, be16, be32, be64, Attributes};

/// `NFNL_SUBSYS_CTNETLINK` in the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`.
const NEW: u16 = SUBSYSTEM;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = SUBSYSTEM | 2;
/// `IPCTNL_MSG_CT_GET_STATS`: a question that costs nothing and is answered only where the kernel has the interface.
pub(super) const GET_STATS: u16 = SUBSYSTEM | 5;
/// Multicast groups `NFNLGRP_CONNTRACK_NEW` (1) and `NFNLGRP_CONNTRACK_DESTROY` (3) as a mask.
pub(super) const GROUPS: u32 = 1 | 1 << 2;
/// Size of `struct nfgenmsg`.
const GENERIC: usize = 4;
/// `struct nfgenmsg` of a question about no family in particular.
pub(super) const UNSPECIFIC: [u8; GENERIC] = [0; GENERIC];

// enum ctattr_type, ctattr_tuple, ctattr_ip, ctattr_l4proto, ctattr_counters, ctattr_tstamp.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_TIMESTAMP: u16 = 20;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;

/// `IPS_ASSURED`: both sides have shown that they mean it; for TCP the handshake is complete.
const IPS_ASSURED: u32 = 1 << 2;

/// What identifies a connection: protocol, both ends. For ICMP echoes the identifier stands in both ports' place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Protocol above IP.
    pub protocol: Protocol,
    /// Who sent the first packet.
    pub source: IpAddr,
    /// Its port; 0 where the protocol has none.
    pub source_port: u16,
    /// To whom.
    pub destination: IpAddr,
    /// Its port; 0 where the protocol has none.
    pub destination_port: u16,
    /// Identifier of an ICMP echo; 0 for everything else.
    pub echo: u16,
}

impl Tuple {
    /// The protocol has ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol.0, 6 | 17 | 33 | 132 | 136)
    }
}

/// One message about one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// It ended; false: it began.
    pub ended: bool,
    /// As its first packet had it.
    pub original: Tuple,
    /// As answers have it: differs from the reverse of [`Tracked::original`] where addresses are translated.
    pub reply: Tuple,
    /// Both sides have shown that they mean it; for TCP the handshake is complete.
    pub assured: bool,
    /// Counted from the side that began, where `net.netfilter.nf_conntrack_acct` is on.
    pub forward: Option<Volume>,
    /// Counted from the other side.
    pub backward: Option<Volume>,
    /// Nanoseconds since the epoch when it began, where `net.netfilter.nf_conntrack_timestamp` is on.
    pub start_ns: Option<u64>,
    /// The same for its end.
    pub stop_ns: Option<u64>,
}

/// Reads a message: its type and what follows the netlink header. `None` for other messages and what is malformed.
#[must_use]
pub fn parse(kind: u16, payload: &[u8]) -> Option<Tracked> {
    let ended = match kind {
        NEW => false,
        DELETE => true,
        _ => return None,
    };
    let (mut original, mut reply, mut status) = (None, None, 0);
    let (mut forward, mut backward, mut start_ns, mut stop_ns) = (None, None, None, None);
    for (kind, value) in Attributes(payload.get(GENERIC..)?) {
        match kind {
            CTA_TUPLE_ORIG => original = tuple(value),
            CTA_TUPLE_REPLY => reply = tuple(value),
            CTA_STATUS => status = be32(value)?,
            CTA_COUNTERS_ORIG => forward = counters(value),
            CTA_COUNTERS_REPLY => backward = counters(value),
            CTA_TIMESTAMP => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        CTA_TIMESTAMP_START => start_ns = be64(value),
                        CTA_TIMESTAMP_STOP => stop_ns = be64(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tracked {
        ended,
        original: original?,
        reply: reply?,
        assured: status & IPS_ASSURED != 0,
        forward,
        backward,
        start_ns,
        stop_ns,
    })
}

fn tuple(value: &[u8]) -> Option<Tuple> {
    let (mut source, mut destination, mut protocol) = (None, None, None);
    let (mut source_port, mut destination_port, mut echo) = (0, 0, 0);
    for (kind, value) in Attributes(value) {
        match kind {
            CTA_TUPLE_IP => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = address(value),
                        CTA_IP_V4_DST | CTA_IP_V6_DST => destination = address(value),
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_PROTO => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        CTA_PROTO_NUM => protocol = value.first().copied(),
                        CTA_PROTO_SRC_PORT => source_port = be16(value)?,
                        CTA_PROTO_DST_PORT => destination_port = be16(value)?,
                        CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => echo = be16(value)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        protocol: Protocol(protocol?),
        source: source?,
        source_port,
        destination: destination?,
        destination_port,
        echo,
    })
}

fn counters(value: &[u8]) -> Option<Volume> {
    let mut volume = Volume::default();
    for (kind, value) in Attributes(value) {
        match kind {
            CTA_COUNTERS_PACKETS => volume.packets = be64(value)?,
            CTA_COUNTERS_BYTES => volume.bytes = be64(value)?,
            _ => {}
        }
    }
    Some(volume)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TCP connection over ::1 begins, as Linux 6.18 told of it.
    const BEGAN: &str = include_str!("testdata/conntrack-new-tcp6.hex");
    /// The same connection ends.
    const ENDED: &str = include_str!("testdata/conntrack-destroy-tcp6.hex");
    /// An echo over 127.0.0.1 ends.
    const ECHO: &str = include_str!("testdata/conntrack-destroy-icmp.hex");

    fn bytes(hex: &str) -> Vec<u8> {
        let hex = hex.trim().as_bytes();
        hex.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn a_connection_begins_and_ends() {
        let began = parse(NEW, &bytes(BEGAN)).unwrap();
        let loopback: IpAddr = "::1".parse().unwrap();
        let original = Tuple {
            protocol: Protocol::TCP,
            source: loopback,
            source_port: 59524,
            destination: loopback,
            destination_port: 8080,
            echo: 0,
        };
        let reply = Tuple { source_port: 8080, destination_port: 59524, ..original };
        assert_eq!((began.original, began.reply), (original, reply));
        assert!(!began.ended && !began.assured);
        assert_eq!((began.forward, began.start_ns), (None, None));

        let ended = parse(DELETE, &bytes(ENDED)).unwrap();
        assert!(ended.ended && ended.assured);
        assert_eq!(ended.original, original);
        assert_eq!(ended.forward, Some(Volume { bytes: 0x12d, packets: 4 }));
        assert_eq!(ended.backward, Some(Volume { bytes: 0x128, packets: 4 }));
        assert!(ended.start_ns.unwrap() < ended.stop_ns.unwrap());
    }

    #[test]
    fn an_echo_has_an_identifier_and_no_ports() {
        let echo = parse(DELETE, &bytes(ECHO)).unwrap();
        assert_eq!(echo.original.protocol.name(), Some("icmp"));
        assert_eq!((echo.original.echo, echo.original.has_ports()), (0x1234, false));
        assert_eq!(echo.original.source, "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(echo.backward, Some(Volume { bytes: 28, packets: 1 }));
    }

    #[test]
    fn other_messages_are_left() {
        assert_eq!(parse(GET_STATS, &bytes(BEGAN)), None);
        assert_eq!(parse(NEW, &bytes(BEGAN)[..80]), None);
        assert_eq!(parse(NEW, &[]), None);
    }

    proptest! {
        #[test]
        fn damaged_messages_never_panic(at in 0usize..240, byte: u8, cut in 0usize..300) {
            for hex in [BEGAN, ENDED, ECHO] {
                let mut message = bytes(hex);
                if let Some(place) = message.get_mut(at) {
                    *place = byte;
                }
                let _ = parse(DELETE, &message);
                let _ = parse(DELETE, &message[..cut.min(message.len())]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(message in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(NEW, &message);
        }
    }
}
