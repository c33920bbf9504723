//! Networks of one address family, sorted, so that a look-up is one binary search.

use std::net::IpAddr;

/// A network as its first and last address, and where its label is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row<const N: usize> {
    first: [u8; N],
    last: [u8; N],
    label: u32,
}

/// Networks of one family. Addresses are bytes in network order, which compare as the addresses do and need no alignment.
#[derive(Debug, Clone, Default)]
struct Family<const N: usize> {
    rows: Vec<Row<N>>,
}

impl<const N: usize> Family<N> {
    /// Bits below the prefix are cleared.
    fn push(&mut self, address: [u8; N], prefix: u8, label: u32) {
        let (mut first, mut last) = (address, address);
        for (i, (low, high)) in first.iter_mut().zip(&mut last).enumerate() {
            let kept = usize::from(prefix).saturating_sub(i * 8).min(8);
            // 0xff00 shifted right by the bits kept has, in its low byte, a one for each of them.
            let mask = (0xff00u16 >> kept).to_be_bytes()[1];
            *low &= mask;
            *high |= !mask;
        }
        self.rows.push(Row { first, last, label });
    }

    /// Sorts. A network inside another one goes: the wider one answers for it, and look-ups need not look twice.
    fn finish(&mut self) {
        // Of equal networks the first stays, with its label: the sort is stable.
        self.rows.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
        self.rows.dedup_by(|next, kept| next.first <= kept.last);
        self.rows.shrink_to_fit();
    }

    fn find(&self, address: [u8; N]) -> Option<(u8, u32)> {
        let at = self.rows.partition_point(|row| row.first <= address).checked_sub(1)?;
        let row = &self.rows[at];
        if address > row.last {
            return None;
        }
        let free: u32 = row.first.iter().zip(&row.last).map(|(a, b)| (a ^ b).count_ones()).sum();
        // At most 128 bits.
        Some(((N * 8) as u8 - free as u8, row.label))
    }
}

/// Networks of both families.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    v4: Family<4>,
    v6: Family<16>,
}

impl Addresses {
    /// Adds a network; an IPv4-mapped IPv6 address is IPv4.
    pub(super) fn push(&mut self, address: IpAddr, prefix: u8, label: u32) {
        match (address.to_canonical(), address) {
            (IpAddr::V4(v4), IpAddr::V6(_)) if prefix >= 96 => self.v4.push(v4.octets(), prefix - 96, label),
            (_, IpAddr::V6(v6)) => self.v6.push(v6.octets(), prefix, label),
            (_, IpAddr::V4(v4)) => self.v4.push(v4.octets(), prefix, label),
        }
    }

    /// Makes look-ups possible.
    pub(super) fn finish(&mut self) {
        self.v4.finish();
        self.v6.finish();
    }

    /// Prefix length and label of the listed network the address lies in.
    pub(super) fn find(&self, address: IpAddr) -> Option<(u8, u32)> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.find(v4.octets()),
            IpAddr::V6(v6) => self.v6.find(v6.octets()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.v4.rows.len() + self.v6.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.v4.rows.capacity() * size_of::<Row<4>>() + self.v6.rows.capacity() * size_of::<Row<16>>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_wider_network_answers_for_those_inside_it() {
        let mut all = Addresses::default();
        all.push(ip("10.1.2.3"), 32, 7);
        all.push(ip("10.9.9.9"), 8, 1);
        all.push(ip("2001:db8::1"), 32, 2);
        all.push(ip("::ffff:192.0.2.0"), 120, 3);
        all.push(ip("255.255.255.255"), 32, 4);
        all.finish();
        assert_eq!(all.find(ip("10.1.2.3")), Some((8, 1)));
        assert_eq!(all.find(ip("::ffff:10.0.0.0")), Some((8, 1)));
        assert_eq!(all.find(ip("11.0.0.0")), None);
        assert_eq!(all.find(ip("9.255.255.255")), None);
        assert_eq!(all.find(ip("2001:db8:ffff::")), Some((32, 2)));
        assert_eq!(all.find(ip("2001:db9::")), None);
        assert_eq!(all.find(ip("192.0.2.255")), Some((24, 3)));
        assert_eq!(all.find(ip("255.255.255.255")), Some((32, 4)));
        assert_eq!(all.len(), 4);
    }

    fn contains(network: (u128, u8), bits: u8, address: u128) -> bool {
        let shift = u32::from(bits - network.1);
        network.0.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Against the definition: every network looked at. Few distinct bits, so that networks nest and touch.
        #[test]
        fn agrees_with_looking_at_every_network(
            networks in prop::collection::vec((0u32..64, 20u8..=32), 0..40), probes in prop::collection::vec(0u32..4096, 1..60)
        ) {
            let mut all = Addresses::default();
            for (number, prefix) in &networks {
                let address = std::net::Ipv4Addr::from(0xc000_0000 | number << 6);
                all.push(address.into(), *prefix, 0);
                all.push(address.to_ipv6_compatible().into(), prefix + 96, 0);
            }
            all.finish();
            for probe in probes {
                let address = std::net::Ipv4Addr::from(0xc000_0000 | probe);
                let widest = networks
                    .iter()
                    .filter(|(n, p)| contains(((0xc000_0000 | n << 6).into(), *p), 32, u32::from(address).into()))
                    .map(|(_, p)| *p)
                    .min();
                prop_assert_eq!(all.find(address.into()).map(|(p, _)| p), widest);
                prop_assert_eq!(all.find(address.to_ipv6_compatible().into()).map(|(p, _)| p), widest.map(|p| p + 96));
            }
        }
    }
}
