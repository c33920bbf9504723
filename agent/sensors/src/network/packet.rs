//! The headers of a packet, as far as they tell who speaks to whom. Sources: RFC 791, RFC 8200, RFC 768, RFC 9293.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use defender_model::network::Protocol;

/// Most extension headers of IPv6 that are gone through; more is nonsense or hostile.
const EXTENSIONS: usize = 8;

/// A packet taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Protocol above IP.
    pub protocol: Protocol,
    /// Source and destination port, where the protocol has them and the packet holds them.
    pub ports: Option<(u16, u16)>,
    /// What follows the header of TCP or UDP; empty for other protocols and for what was cut before it.
    pub payload: &'a [u8],
}

/// Reads a packet that begins with its IP header. `None` for what is no IP packet, or is cut within that header.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let (source, destination, protocol, rest) = match bytes.first()? >> 4 {
        4 => v4(bytes)?,
        6 => v6(bytes)?,
        _ => return None,
    };
    let ports = match protocol {
        6 | 17 | 33 | 132 | 136 => rest
            .and_then(|rest| rest.first_chunk::<4>())
            .map(|p| (u16::from_be_bytes([p[0], p[1]]), u16::from_be_bytes([p[2], p[3]]))),
        _ => None,
    };
    let header = match (protocol, rest) {
        (6, Some(rest)) => {
            rest.get(12).map(|offset| usize::from(offset >> 4) * 4).filter(|length| *length >= 20)
        }
        (17, Some(_)) => Some(8),
        _ => None,
    };
    let payload = rest.zip(header).and_then(|(rest, header)| rest.get(header..)).unwrap_or_default();
    Some(Packet { source, destination, protocol: Protocol(protocol), ports, payload })
}

/// Source, destination, protocol, and what follows the headers of IP, which a fragment other than the first does not have.
type Outer<'a> = (IpAddr, IpAddr, u8, Option<&'a [u8]>);

fn v4(bytes: &[u8]) -> Option<Outer<'_>> {
    let header = bytes.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0xf) * 4;
    if length < 20 {
        return None;
    }
    let address =
        |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let rest = if fragment == 0 { bytes.get(length..) } else { None };
    Some((address(12), address(16), header[9], rest))
}

fn v6(bytes: &[u8]) -> Option<Outer<'_>> {
    let (header, mut rest) = bytes.split_first_chunk::<40>()?;
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (source, destination) = (address(8), address(24));
    let mut next = header[6];
    for _ in 0..EXTENSIONS {
        let length = match next {
            // Hop-by-hop options, routing, destination options: length in units of eight bytes, the first not counted.
            0 | 43 | 60 => rest.get(1).map(|length| (usize::from(*length) + 1) * 8),
            44 => {
                let offset = rest.get(2..4).map(|field| u16::from_be_bytes([field[0], field[1]]) >> 3);
                if offset != Some(0) {
                    return Some((source, destination, *rest.first()?, None));
                }
                Some(8)
            }
            _ => return Some((source, destination, next, Some(rest))),
        };
        let Some(after) = length.and_then(|length| rest.get(length..)) else {
            return Some((source, destination, next, None));
        };
        next = *rest.first()?;
        rest = after;
    }
    Some((source, destination, next, None))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        hex.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn udp_over_ipv4() {
        let packet = bytes("4500 0020 0000 4000 4011 0000 c0000201 c6336407 9c40 0035 000c 0000 68656c6f");
        let read = parse(&packet).unwrap();
        assert_eq!(
            (read.source, read.destination),
            ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap())
        );
        assert_eq!(
            (read.protocol, read.ports, read.payload),
            (Protocol::UDP, Some((40_000, 53)), &b"helo"[..])
        );
        // A later fragment has no ports.
        let mut fragment = packet.clone();
        fragment[7] = 1;
        assert_eq!(parse(&fragment).unwrap().ports, None);
        assert_eq!(parse(&packet[..22]).unwrap().ports, None);
        assert_eq!(parse(&packet[..19]), None);
    }

    #[test]
    fn tcp_over_ipv6_behind_options() {
        let packet = bytes(
            "6000 0000 0022 00 40 20010db8000000000000000000000001 20010db8000000000000000000000002
             06 00 0104 00000000 0035 9c40 00000000 00000000 5018 0000 0000 0000 6869",
        );
        let read = parse(&packet).unwrap();
        assert_eq!(read.source, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(
            (read.protocol, read.ports, read.payload),
            (Protocol::TCP, Some((53, 40_000)), &b"hi"[..])
        );
    }

    #[test]
    fn options_without_end_are_given_up() {
        let mut packet = bytes("6000 0000 0000 00 40");
        packet.resize(40, 1);
        for _ in 0..100 {
            packet.extend([0, 0, 0, 0, 0, 0, 0, 0]);
        }
        assert_eq!(parse(&packet).unwrap().ports, None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut packet in prop::collection::vec(any::<u8>(), 0..120), version in 0u8..8) {
            if let Some(first) = packet.first_mut() {
                *first = *first & 0xf | version << 4;
            }
            let read = parse(&packet);
            if let Some(read) = read {
                prop_assert!(packet.ends_with(read.payload) || read.payload.is_empty());
            }
        }
    }
}
