//! Addresses that can never be blocked.
//!
//! A device that locks out its own management station, or its way to the network, because an attacker forged a few log
//! lines, would be worse than one without a firewall. The list is checked before an address reaches the kernel, and it
//! stands in the kernel as well (sets `allowed4`, `allowed6`), where it outranks the blocked sets whoever filled those.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use defender_model::order;

use crate::address::{Cidr, Target};

/// Most prefixes taken from the configuration; the rest is refused by [`AllowList::new`].
pub const MAX_PREFIXES: usize = 1024;

/// Why an address is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedBy {
    /// A configured prefix.
    Configured(Cidr),
    /// It is a default gateway of the device.
    Gateway,
    /// Loopback (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
    Loopback,
    /// The unspecified address or "this network" (RFC 1122 section 3.2.1.3).
    Unspecified,
    /// Multicast or broadcast: no sender of packets has such an address.
    Multicast,
}

impl fmt::Display for AllowedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(cidr) => write!(f, "it is in the allow-list ({cidr})"),
            Self::Gateway => f.write_str("it is this device's default gateway"),
            Self::Loopback => f.write_str("it is a loopback address"),
            Self::Unspecified => f.write_str("it is the unspecified address"),
            Self::Multicast => f.write_str("it is a multicast or broadcast address"),
        }
    }
}

/// Configured prefixes, current gateways, and the addresses nobody may block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList {
    configured: Vec<Cidr>,
    gateways: Vec<IpAddr>,
}

impl AllowList {
    /// A list of these prefixes (the first [`MAX_PREFIXES`] of them) and no gateway yet.
    #[must_use]
    pub fn new(configured: &[Cidr]) -> Self {
        Self { configured: outermost(configured.iter().copied().take(MAX_PREFIXES)), gateways: Vec::new() }
    }

    /// Replaces the gateways; true when that changed anything.
    pub fn set_gateways(&mut self, mut gateways: Vec<IpAddr>) -> bool {
        order::sort(&mut gateways);
        gateways.dedup();
        let changed = gateways != self.gateways;
        self.gateways = gateways;
        changed
    }

    /// Whether the target may never be blocked, and why.
    #[must_use]
    pub fn reason(&self, target: Target) -> Option<AllowedBy> {
        if let Some(by) = always(target.address()) {
            return Some(by);
        }
        if let Some(cidr) = self.configured.iter().find(|c| c.contains(target)) {
            return Some(AllowedBy::Configured(*cidr));
        }
        self.gateways.contains(&target.address()).then_some(AllowedBy::Gateway)
    }

    /// Every allowed prefix of one family, sorted, none inside another: an nftables interval set refuses overlaps.
    ///
    /// Prefixes either nest or are apart, so leaving out the inner ones is all the merging there is to do; the set's own
    /// `auto-merge` (which crate `nftables` cannot express) is not needed.
    #[must_use]
    pub fn prefixes(&self, ipv4: bool) -> Vec<Cidr> {
        let fixed: &[(IpAddr, u8)] = if ipv4 {
            &[
                (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
                (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
                (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
                (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
            ]
        } else {
            &[
                (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
                (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
                (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
            ]
        };
        let all = fixed
            .iter()
            .filter_map(|(address, length)| Cidr::new(*address, *length))
            .chain(self.configured.iter().copied())
            .chain(self.gateways.iter().copied().map(Cidr::host))
            .filter(|c| c.first().is_ipv4() == ipv4);
        outermost(all)
    }
}

fn always(address: IpAddr) -> Option<AllowedBy> {
    let (loopback, unspecified, multicast) = match address {
        IpAddr::V4(a) => (a.is_loopback(), a.octets()[0] == 0, a.is_multicast() || a.is_broadcast()),
        IpAddr::V6(a) => (a.is_loopback(), a.is_unspecified(), a.is_multicast()),
    };
    match (loopback, unspecified, multicast) {
        (true, _, _) => Some(AllowedBy::Loopback),
        (_, true, _) => Some(AllowedBy::Unspecified),
        (_, _, true) => Some(AllowedBy::Multicast),
        _ => None,
    }
}

/// Sorted, without those that lie in another.
pub(crate) fn outermost(prefixes: impl Iterator<Item = Cidr>) -> Vec<Cidr> {
    let mut sorted: Vec<Cidr> = prefixes.collect();
    // By first address, then shortest length: an outer prefix comes before all it covers.
    order::sort(&mut sorted);
    let mut kept: Vec<Cidr> = Vec::with_capacity(sorted.len());
    for cidr in sorted {
        if !kept.last().is_some_and(|outer| outer.covers(cidr)) {
            kept.push(cidr);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(cidrs: &[&str]) -> AllowList {
        AllowList::new(&cidrs.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>())
    }

    fn reason(list: &AllowList, address: &str) -> Option<AllowedBy> {
        list.reason(address.parse().unwrap())
    }

    #[test]
    fn what_is_always_allowed() {
        let list = list(&[]);
        for (address, by) in [
            ("127.0.0.1", AllowedBy::Loopback),
            ("127.255.0.9", AllowedBy::Loopback),
            ("::1", AllowedBy::Loopback),
            ("::ffff:127.0.0.1", AllowedBy::Loopback),
            ("0.0.0.0", AllowedBy::Unspecified),
            ("0.1.2.3", AllowedBy::Unspecified),
            ("::", AllowedBy::Unspecified),
            ("224.0.0.1", AllowedBy::Multicast),
            ("255.255.255.255", AllowedBy::Multicast),
            ("ff02::1", AllowedBy::Multicast),
        ] {
            assert_eq!(reason(&list, address), Some(by), "{address}");
        }
        for address in ["192.0.2.1", "1.0.0.0", "240.0.0.1", "2001:db8::1", "fe80::1"] {
            assert_eq!(reason(&list, address), None, "{address}");
        }
    }

    #[test]
    fn configured_prefixes_and_gateways() {
        let mut list = list(&["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/48", "::ffff:192.0.2.0/120"]);
        assert_eq!(reason(&list, "10.1.2.3"), Some(AllowedBy::Configured("10.0.0.0/8".parse().unwrap())));
        assert_eq!(
            reason(&list, "::ffff:10.1.2.3"),
            Some(AllowedBy::Configured("10.0.0.0/8".parse().unwrap()))
        );
        assert!(reason(&list, "192.0.2.200").is_some());
        assert!(reason(&list, "2001:db8:0:1::1").is_some());
        assert_eq!(reason(&list, "198.51.100.1"), None);
        assert!(list.set_gateways(vec!["198.51.100.1".parse().unwrap(), "198.51.100.1".parse().unwrap()]));
        assert!(!list.set_gateways(vec!["198.51.100.1".parse().unwrap()]));
        assert_eq!(reason(&list, "198.51.100.1"), Some(AllowedBy::Gateway));
        assert!(list.set_gateways(vec![]));
        assert_eq!(reason(&list, "198.51.100.1"), None);
    }

    #[test]
    fn sets_of_a_list_that_allows_everything() {
        let list = list(&["0.0.0.0/0", "::/0", "10.0.0.0/8"]);
        assert_eq!(list.prefixes(true), ["0.0.0.0/0".parse().unwrap()]);
        assert_eq!(list.prefixes(false), ["::/0".parse().unwrap()]);
    }

    prop_compose! {
        fn any_cidr()(bits: u32, v6: bool, length in 0u8..=32) -> Cidr {
            // A small space, so that nesting is common.
            let bits = bits & 0x0f0f_ff00;
            let address = if v6 { IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 96)) } else { IpAddr::V4(Ipv4Addr::from_bits(bits)) };
            Cidr::new(address, length).unwrap()
        }
    }

    proptest! {
        #[test]
        fn sets_never_overlap_and_say_the_same_as_the_list(
            cidrs in proptest::collection::vec(any_cidr(), 0..20), gateway: u32, probe: u32, v6: bool
        ) {
            let mut list = AllowList::new(&cidrs);
            list.set_gateways(vec![IpAddr::V4(Ipv4Addr::from_bits(gateway))]);
            let address = if v6 { IpAddr::V6(Ipv6Addr::from_bits(u128::from(probe) << 96)) } else { IpAddr::V4(Ipv4Addr::from_bits(probe & 0x0f0f_ffff)) };
            let target = Target::from(address);
            let prefixes = list.prefixes(!v6);
            for (n, a) in prefixes.iter().enumerate() {
                for b in &prefixes[n + 1..] {
                    prop_assert!(!a.covers(*b) && !b.covers(*a), "{a} and {b}");
                }
            }
            prop_assert_eq!(list.reason(target).is_some(), prefixes.iter().any(|c| c.contains(target)));
        }
    }
}
