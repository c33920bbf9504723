//! Default gateways out of the kernel's route tables as `/proc` prints them.
//!
//! Formats: `net/ipv4/fib_trie.c` (`fib_route_seq_show`) and `net/ipv6/route.c` (`rt6_info_route`, printed by
//! `ipv6_route_native_seq_show` in `net/ipv6/ip6_fib.c`). Of a multipath IPv4 route the kernel prints the first hop only;
//! further hops belong into the configured allow-list.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most gateways taken from one file; a device has one or two.
pub const MAX_GATEWAYS: usize = 16;

/// Route is usable and goes through a gateway: `RTF_UP | RTF_GATEWAY` of `linux/route.h`.
const UP_AND_GATEWAY: u32 = 0x0003;

/// Gateways of default routes in the bytes of `/proc/net/route`; lines that do not parse are skipped.
#[must_use]
pub fn ipv4_gateways(bytes: &[u8]) -> Vec<IpAddr> {
    // Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
    collect(bytes, |fields| {
        let [_, destination, gateway, flags, _, _, _, mask, ..] = fields else { return None };
        if hex32(destination)? != 0 || hex32(mask)? != 0 || hex32(flags)? & UP_AND_GATEWAY != UP_AND_GATEWAY {
            return None;
        }
        // The kernel prints the network-order word as a host integer, so its memory bytes are the address.
        let address = Ipv4Addr::from(hex32(gateway)?.to_ne_bytes());
        (!address.is_unspecified()).then_some(IpAddr::V4(address))
    })
}

/// Gateways of default routes in the bytes of `/proc/net/ipv6_route`; lines that do not parse are skipped.
#[must_use]
pub fn ipv6_gateways(bytes: &[u8]) -> Vec<IpAddr> {
    // destination length source length next-hop metric refcnt use flags device
    collect(bytes, |fields| {
        let [destination, length, _, _, gateway, _, _, _, flags, ..] = fields else { return None };
        if hex128(destination)? != 0 || *length != "00" || hex32(flags)? & UP_AND_GATEWAY != UP_AND_GATEWAY {
            return None;
        }
        let address = Ipv6Addr::from_bits(hex128(gateway)?);
        (!address.is_unspecified()).then_some(IpAddr::V6(address))
    })
}

fn collect(bytes: &[u8], gateway: impl Fn(&[&str]) -> Option<IpAddr>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let mut fields = [""; 12];
        let mut count = 0;
        for (slot, field) in fields.iter_mut().zip(line.split_ascii_whitespace()) {
            *slot = field;
            count += 1;
        }
        if let Some(address) = gateway(&fields[..count]) {
            if !found.contains(&address) {
                found.push(address);
            }
            if found.len() == MAX_GATEWAYS {
                break;
            }
        }
    }
    found
}

fn hex32(field: &str) -> Option<u32> {
    (field.len() == 4 || field.len() == 8).then(|| u32::from_str_radix(field, 16).ok()).flatten()
}

fn hex128(field: &str) -> Option<u128> {
    (field.len() == 32).then(|| u128::from_str_radix(field, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_ipv4_default_route() {
        let found = ipv4_gateways(include_bytes!("testdata/route"));
        assert_eq!(found, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn the_ipv6_default_routes() {
        let found = ipv6_gateways(include_bytes!("testdata/ipv6_route"));
        assert_eq!(found, ["fd00::1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }

    #[test]
    fn default_routes_without_a_gateway_or_down_are_none() {
        assert!(ipv4_gateways(b"ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n").is_empty());
        assert!(ipv4_gateways(b"eth0\t00000000\t010200C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n").is_empty());
        assert!(ipv4_gateways(b"eth0\t0000000A\t010200C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n").is_empty());
    }

    #[test]
    fn the_number_is_bounded() {
        let mut text = String::new();
        for n in 1..200u32 {
            text.push_str(&format!("eth0 00000000 {n:08X} 0003 0 0 0 00000000 0 0 0\n"));
        }
        assert_eq!(ipv4_gateways(text.as_bytes()).len(), MAX_GATEWAYS);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = ipv4_gateways(&bytes);
            let _ = ipv6_gateways(&bytes);
        }

        #[test]
        fn a_written_gateway_is_found(bits in 1u32.., up in any::<bool>()) {
            let flags = if up { 3 } else { 2 };
            let line = format!("eth0\t00000000\t{bits:08X}\t{flags:04X}\t0\t0\t0\t00000000\t0\t0\t0  \n");
            let wanted: Vec<IpAddr> = if up { vec![Ipv4Addr::from(bits.to_ne_bytes()).into()] } else { vec![] };
            prop_assert_eq!(ipv4_gateways(line.as_bytes()), wanted);
        }
    }
}
