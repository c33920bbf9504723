//! Netlink attributes: length, type, value, padding. Source: `struct nlattr` of linux/netlink.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`: flags in the type, not part of it.
const FLAGS: u16 = 0xc000;

/// The attributes in a byte string, as type and value. Ends at the first length that cannot be.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !FLAGS;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Appends an attribute.
pub(crate) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // What the agent sends is a few bytes long.
    let length = (4 + value.len()) as u16;
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A number in network byte order.
pub(crate) fn be16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// A number in network byte order.
pub(crate) fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A number in network byte order.
pub(crate) fn be64(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// An address of four or sixteen bytes; an IPv4-mapped one becomes IPv4.
pub(crate) fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::V4(Ipv4Addr::from(bytes)));
    }
    let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?);
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_read(values in prop::collection::vec((0u16..0x3fff, prop::collection::vec(any::<u8>(), 0..9)), 0..9)) {
            let mut bytes = Vec::new();
            for (kind, value) in &values {
                put(&mut bytes, *kind, value);
            }
            let read: Vec<_> = Attributes(&bytes).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Attributes(&bytes).count() <= bytes.len() / 4);
            let _ = address(&bytes);
        }
    }
}
