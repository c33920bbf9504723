//! What can be blocked ([`Target`]) and what can be allowed ([`Cidr`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What a block applies to: today one address, in the one form the kernel sees it in.
///
/// An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2), which a dual-stack service logs, becomes the
/// IPv4 address that is on the wire. The inside is private so that a prefix (an attacker's IPv6 /64) can be added
/// without changing callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(IpAddr);

impl Target {
    /// The address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0
    }
}

impl From<IpAddr> for Target {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }
}

impl From<Ipv4Addr> for Target {
    fn from(address: Ipv4Addr) -> Self {
        Self(IpAddr::V4(address))
    }
}

impl From<Ipv6Addr> for Target {
    fn from(address: Ipv6Addr) -> Self {
        Self::from(IpAddr::V6(address))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        IpAddr::from_str(text).map(Self::from).map_err(|_| AddressError {
            text: excerpt(text),
            wanted: "an IPv4 or IPv6 address such as 192.0.2.7",
        })
    }
}

/// An address prefix such as `192.0.2.0/24` or `2001:db8::/32`; host bits are cleared.
///
/// A prefix inside `::ffff:0:0/96` becomes the IPv4 prefix it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    first: IpAddr,
    length: u8,
}

impl Cidr {
    /// The prefix of `length` bits that holds `address`; `None` when `length` is over 32 (IPv4) or 128 (IPv6).
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        match address {
            IpAddr::V4(v4) if length <= 32 => {
                let bits = v4.to_bits() & mask32(length);
                Some(Self { first: IpAddr::V4(Ipv4Addr::from_bits(bits)), length })
            }
            IpAddr::V6(v6) if length <= 128 => match v6.to_ipv4_mapped() {
                Some(v4) if length >= 96 => Self::new(IpAddr::V4(v4), length - 96),
                _ => {
                    let bits = v6.to_bits() & mask128(length);
                    Some(Self { first: IpAddr::V6(Ipv6Addr::from_bits(bits)), length })
                }
            },
            _ => None,
        }
    }

    /// The prefix that holds this address alone.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let first = address.to_canonical();
        Self { first, length: if first.is_ipv4() { 32 } else { 128 } }
    }

    /// First address of the prefix.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// Prefix length in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether the target lies inside.
    #[must_use]
    pub fn contains(self, target: Target) -> bool {
        match (self.first, target.address()) {
            (IpAddr::V4(first), IpAddr::V4(a)) => a.to_bits() & mask32(self.length) == first.to_bits(),
            (IpAddr::V6(first), IpAddr::V6(a)) => a.to_bits() & mask128(self.length) == first.to_bits(),
            _ => false,
        }
    }

    /// Whether every address of `other` lies inside this prefix.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.length <= other.length && self.contains(Target(other.first))
    }
}

fn mask32(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn mask128(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

impl FromStr for Cidr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError {
            text: excerpt(text),
            wanted: "a prefix such as 192.0.2.0/24 or 2001:db8::/32, or one address",
        };
        let Some((address, length)) = text.split_once('/') else {
            return IpAddr::from_str(text).map(Self::host).map_err(|_| wrong());
        };
        let address = IpAddr::from_str(address).map_err(|_| wrong())?;
        if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let length = length.parse().map_err(|_| wrong())?;
        Self::new(address, length).ok_or_else(wrong)
    }
}

/// A text that is no address or prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    wanted: &'static str,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not {}", self.text, self.wanted)
    }
}

impl std::error::Error for AddressError {}

/// The start of a foreign text, so that a message stays short.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_mapped_address_is_its_ipv4() {
        assert_eq!(target("::ffff:192.0.2.7"), target("192.0.2.7"));
        assert_eq!(target("::ffff:c000:207"), target("192.0.2.7"));
        assert_eq!(cidr("::ffff:10.1.2.3/104"), cidr("10.0.0.0/8"));
        assert_eq!(cidr("::ffff:10.1.2.3"), cidr("10.1.2.3/32"));
        // Wider than the mapped range: an IPv6 prefix, which says nothing about IPv4.
        assert!(!cidr("::/0").contains(target("::ffff:10.1.2.3")));
    }

    #[test]
    fn prefixes_clear_host_bits_and_contain() {
        assert_eq!(cidr("192.0.2.99/24").to_string(), "192.0.2.0/24");
        assert_eq!(cidr("2001:db8:1::1/32").to_string(), "2001:db8::/32");
        assert!(cidr("192.0.2.0/24").contains(target("192.0.2.255")));
        assert!(!cidr("192.0.2.0/24").contains(target("192.0.3.0")));
        assert!(cidr("0.0.0.0/0").contains(target("255.255.255.255")));
        assert!(!cidr("0.0.0.0/0").contains(target("::1")));
        assert!(cidr("::/0").contains(target("ff02::1")));
        assert!(cidr("10.0.0.0/8").covers(cidr("10.2.0.0/16")));
        assert!(!cidr("10.2.0.0/16").covers(cidr("10.0.0.0/8")));
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in [
            "",
            "/",
            "1.2.3.4/",
            "1.2.3.4/33",
            "::/129",
            "1.2.3.4/+8",
            "1.2.3.4/ 8",
            "host/8",
            "1.2.3/8",
            "1.2.3.4/256",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?} was accepted");
        }
        assert!("fe80::1%eth0".parse::<Target>().is_err());
        assert!("x".repeat(1 << 20).parse::<Target>().unwrap_err().to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn text_of_any_kind_never_panics(text in ".{0,60}") {
            let _ = text.parse::<Cidr>();
            let _ = text.parse::<Target>();
        }

        #[test]
        fn a_prefix_reads_back_and_holds_its_address(bits: u128, v6: bool, length in 0u8..=128) {
            let address = if v6 { IpAddr::V6(Ipv6Addr::from_bits(bits)) } else { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) };
            if let Some(cidr) = Cidr::new(address, length) {
                prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
                prop_assert!(cidr.contains(Target::from(address)));
                prop_assert!(cidr.covers(Cidr::host(address)));
            } else {
                prop_assert!(!v6 && length > 32);
            }
        }
    }
}
