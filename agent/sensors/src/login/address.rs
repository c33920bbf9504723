//! Addresses as daemons print them.

use std::net::{IpAddr, Ipv6Addr};

/// Longest text of an IPv6 address without scope: eight groups of four.
const LONGEST: usize = 39;
/// Longest text of a link-local address without scope.
const LONGEST_LINK_LOCAL: usize = "fe80::ffff:ffff:ffff:ffff".len();
/// Longest name of a network interface (`IFNAMSIZ` of linux/if.h, without the NUL).
const LONGEST_INTERFACE: usize = 15;

/// The address in `text`: IPv4, IPv6 (IPv4-mapped ones become IPv4), or link-local IPv6 with a scope (`fe80::1%eth0`; the
/// scope is dropped, since a source address is what the firewall can match).
///
/// Host names, as daemons print them with reverse look-ups switched on, are `None`: whoever controls the reverse zone chooses
/// them. So are texts longer than an address can be.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    let address = match text.split_once('%') {
        None if text.len() <= LONGEST => text.parse().ok()?,
        None => return None,
        Some((address, scope)) => {
            let fits = address.len() <= LONGEST_LINK_LOCAL
                && (1..=LONGEST_INTERFACE).contains(&scope.len())
                && scope.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'%' | b'/' | b':'));
            let address: Ipv6Addr = address.parse().ok()?;
            if !fits || address.segments()[0] & 0xffc0 != 0xfe80 {
                return None;
            }
            IpAddr::V6(address)
        }
    };
    Some(match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    })
}

/// A port number: nothing but digits.
pub(super) fn port(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// `address:port` as dropbear prints it, IPv6 without brackets: the last colon is the one before the port.
pub(super) fn with_port(text: &str) -> Option<(IpAddr, u16)> {
    let (address, digits) = text.rsplit_once(':')?;
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    Some((parse(address)?, port(digits)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_kind() {
        let ip = |t: &str| Some(t.parse().expect("an address"));
        assert_eq!(parse("192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(parse("2001:db8::7"), ip("2001:db8::7"));
        assert_eq!(parse("::ffff:192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(parse("fe80::1%eth0"), ip("fe80::1"));
        assert_eq!(parse("fe80::1%br-lan.10@if3"), ip("fe80::1"));
    }

    #[test]
    fn what_is_no_address() {
        for text in [
            "",
            "host.example",
            "UNKNOWN",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.4%eth0",
            "2001:db8::1%eth0",
            "fe80::1%",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("fe80::1%interface-name-too-long"), None);
        assert_eq!(parse("0000:0000:0000:0000:0000:ffff:192.168.100.228"), None);
    }

    #[test]
    fn dropbears_address_and_port() {
        assert_eq!(with_port("192.0.2.7:40022"), Some(("192.0.2.7".parse().expect("v4"), 40022)));
        assert_eq!(with_port("2001:db8::1:40022"), Some(("2001:db8::1".parse().expect("v6"), 40022)));
        assert_eq!(with_port("fe80::1%eth0:40022"), Some(("fe80::1".parse().expect("v6"), 40022)));
        assert_eq!(with_port("host:22"), None);
        assert_eq!(with_port("192.0.2.7:+22"), None);
    }
}
