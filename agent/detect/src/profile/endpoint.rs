//! Where a program listens and what it connects to, as words: `tcp 22`, `udp 53 loopback`, `tcp 192.0.2.0/24 443`, `icmp local`.

use std::fmt::Write as _;
use std::net::IpAddr;

use defender_model::network::Protocol;

use super::pattern::Name;

/// Ports the kernel hands out (`net.ipv4.ip_local_port_range` begins at 32768) and those IANA leaves for it (up to 65535).
pub(super) const EPHEMERAL: (u16, u16) = (32768, 65535);

/// Which port a thing is about; `None` for protocols without ports.
pub(super) type Port = Option<u16>;

/// Something a profile says about one end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    protocol: Protocol,
    host: Host,
    /// First and last; `None` for protocols without ports.
    ports: Option<(u16, u16)>,
}

/// Where.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Anywhere.
    Any,
    /// The device itself.
    Local,
    /// A network; IPv4 as IPv4-mapped IPv6.
    Network { base: u128, mask: u128 },
    /// What was looked up by that name.
    Name(Name),
}

/// The end of a connection as an event has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen<'e> {
    pub(super) protocol: Protocol,
    pub(super) port: Port,
    /// The device itself, or only reachable from it.
    pub(super) local: bool,
    pub(super) address: IpAddr,
    /// The name it was looked up by, in lower case.
    pub(super) name: Option<&'e str>,
}

impl Endpoint {
    /// `PROTOCOL PORT`, with `loopback` behind it for what only the device itself reaches.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn listen(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ');
        let protocol = protocol(words.next())?;
        let mut next = words.next();
        let ports = match next {
            None | Some("loopback") => None,
            Some(word) => {
                next = words.next();
                Some(ports(word)?)
            }
        };
        let host = match (next, words.next()) {
            (None, _) => Host::Any,
            (Some("loopback"), None) => Host::Local,
            _ => return Err(format!("`{text}`: write `PROTOCOL PORT` or `PROTOCOL PORT loopback`")),
        };
        Ok(Self { protocol, host, ports })
    }

    /// `PROTOCOL HOST PORT`; the host is an address, a network, a name, `local` or `any`.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn peer(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ');
        let protocol = protocol(words.next())?;
        let host = match words.next() {
            Some("any") => Host::Any,
            Some("local") => Host::Local,
            Some(word) => host(word)?,
            None => return Err(format!("`{text}`: write `PROTOCOL HOST PORT`")),
        };
        let ports = words.next().map(ports).transpose()?;
        match words.next() {
            None => Ok(Self { protocol, host, ports }),
            Some(_) => Err(format!("`{text}`: write `PROTOCOL HOST PORT`")),
        }
    }

    /// Whether it speaks of this. What listens for everybody may listen for the device alone.
    pub(super) fn covers(&self, seen: &Seen<'_>) -> bool {
        let port = match (self.ports, seen.port) {
            (None, None) => true,
            (Some((first, last)), Some(port)) => first <= port && port <= last,
            _ => false,
        };
        let host = |host: &Host| match host {
            Host::Any => true,
            Host::Local => seen.local,
            Host::Network { base, mask } => !seen.local && bits(seen.address) & mask == *base,
            Host::Name(name) => seen.name.is_some_and(|seen| name.matches(seen)),
        };
        self.protocol == seen.protocol && port && host(&self.host)
    }

    /// What of it is wider than a review should let pass.
    pub(super) fn too_wide(&self) -> Option<&'static str> {
        match (&self.host, self.ports) {
            (Host::Network { mask, .. }, _) if mask.count_ones() < 48 => Some("a network wider than a /48"),
            // IPv4, which is a network of its own length behind 96 bits.
            (Host::Network { base, mask }, _) if *base >> 32 == 0xffff && mask.count_ones() < 96 + 16 => {
                Some("a network wider than a /16")
            }
            (Host::Name(name), _) if name.has_any() => Some("a name with {any}"),
            (_, Some((first, last))) if (first, last) != EPHEMERAL && last - first >= 1024 => {
                Some("a range of more than 1024 ports")
            }
            _ => None,
        }
    }

    /// It connects to whatever there is.
    pub(super) fn is_anywhere(&self) -> bool {
        self.host == Host::Any
    }
}

/// Writes `PROTOCOL PORT[ loopback]`.
pub(super) fn write_listen(protocol: Protocol, port: Option<&str>, loopback: bool) -> String {
    let mut out = protocol.to_string();
    // Writing to a String cannot fail, here and below.
    if let Some(port) = port {
        let _ = write!(out, " {port}");
    }
    if loopback {
        out.push_str(" loopback");
    }
    out
}

/// Writes `PROTOCOL HOST PORT`.
pub(super) fn write_peer(protocol: Protocol, host: &str, port: Option<&str>) -> String {
    let mut out = format!("{protocol} {host}");
    if let Some(port) = port {
        let _ = write!(out, " {port}");
    }
    out
}

/// Whether a name that was looked up can stand among the words, and could not be taken for something else.
pub(super) fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.contains('.')
        && name.chars().all(|c| c.is_ascii_graphic() && c != '/')
        && name.parse::<IpAddr>().is_err()
}

/// An address as 128 bits; IPv4 as IPv4-mapped IPv6.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Reads a protocol: its name or number.
///
/// # Errors
/// What is wrong.
pub(crate) fn protocol(word: Option<&str>) -> Result<Protocol, String> {
    let word = word.unwrap_or_default();
    let number = || word.parse().ok().map(Protocol);
    Protocol::from_name(word)
        .or_else(number)
        .ok_or_else(|| format!("`{word}` is no protocol such as `tcp` or `udp`"))
}

/// Reads a port, a range of ports or `ephemeral`.
///
/// # Errors
/// What is wrong.
pub(crate) fn ports(word: &str) -> Result<(u16, u16), String> {
    if word == "ephemeral" {
        return Ok(EPHEMERAL);
    }
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(format!("`{word}` is no port, range of ports such as `8000-8010`, or `ephemeral`")),
    }
}

fn host(word: &str) -> Result<Host, String> {
    let (address, length) = word.split_once('/').map_or((word, None), |(a, length)| (a, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else {
        let bad = || format!("`{word}` is no address, network, name, `local` or `any`");
        if word.contains('/') {
            return Err(bad());
        }
        return super::document::domain(word).map(Host::Name).map_err(|why| format!("{}: {why}", bad()));
    };
    // The whole length of the family, and where it begins among the 128 bits.
    let (most, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
    let length = length.map_or(Ok(most), str::parse::<u32>).ok().filter(|length| *length <= most);
    let length = length.ok_or_else(|| format!("`{word}`: a prefix has 0 to {most} bits"))?;
    let mask = u128::MAX.checked_shl(128 - before - length).unwrap_or(0);
    let base = bits(address);
    if base & !mask != 0 {
        return Err(format!("`{word}`: there are bits set behind the prefix"));
    }
    Ok(Host::Network { base, mask })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(address: &str, port: u16) -> Seen<'_> {
        let address: IpAddr = address.parse().unwrap();
        Seen { protocol: Protocol::TCP, port: Some(port), local: address.is_loopback(), address, name: None }
    }

    #[test]
    fn peers() {
        let covers = |entry: &str, seen: &Seen<'_>| Endpoint::peer(entry).unwrap().covers(seen);
        assert!(covers("tcp 192.0.2.7 443", &seen("192.0.2.7", 443)));
        assert!(!covers("tcp 192.0.2.7 443", &seen("192.0.2.7", 444)));
        assert!(!covers("udp 192.0.2.7 443", &seen("192.0.2.7", 443)));
        assert!(covers("tcp 192.0.2.0/24 1-443", &seen("192.0.2.255", 443)));
        assert!(!covers("tcp 192.0.2.0/24 1-443", &seen("192.0.3.0", 443)));
        assert!(covers("tcp 2001:db8::/32 ephemeral", &seen("2001:db8:ffff::1", 40000)));
        assert!(!covers("tcp 2001:db8::/32 ephemeral", &seen("192.0.2.1", 40000)));
        assert!(covers("tcp 0.0.0.0/0 80", &seen("192.0.2.1", 80)));
        assert!(!covers("tcp 0.0.0.0/0 80", &seen("2001:db8::1", 80)));
        assert!(!covers("tcp 0.0.0.0/0 80", &seen("127.0.0.1", 80)));
        assert!(covers("tcp local 80", &seen("127.0.0.1", 80)));
        assert!(covers("6 any 80", &seen("2001:db8::1", 80)));
        let name = Seen { name: Some("a.example.org"), ..seen("192.0.2.1", 80) };
        assert!(
            covers("tcp a.example.org 80", &name) && !covers("tcp a.example.org 80", &seen("192.0.2.1", 80))
        );
        let ping = Seen { protocol: Protocol(1), port: None, ..seen("192.0.2.1", 0) };
        assert!(covers("icmp 192.0.2.1", &ping) && !covers("icmp 192.0.2.1 0", &ping));
    }

    #[test]
    fn listeners() {
        let covers = |entry: &str, seen: &Seen<'_>| Endpoint::listen(entry).unwrap().covers(seen);
        assert!(covers("tcp 22", &seen("0.0.0.0", 22)) && covers("tcp 22", &seen("127.0.0.1", 22)));
        assert!(!covers("tcp 22 loopback", &seen("0.0.0.0", 22)));
        assert!(covers("tcp 22 loopback", &seen("::1", 22)));
    }

    #[test]
    fn mistakes_and_width() {
        for bad in [
            "",
            "tcp",
            "tcp 1.2.3.4/33 1",
            "tcp 1.2.3.4/24 1",
            "tcp a b c",
            "x any 1",
            "tcp any 9-1",
            "tcp any 70000",
            "tcp a/b 1",
            "tcp  1",
            "tcp {any} 1",
            "tcp x.{number} 1",
        ] {
            assert!(Endpoint::peer(bad).is_err(), "{bad}");
        }
        for bad in ["", "tcp x", "tcp 1 x", "tcp 1 loopback x", "tcp 1 2"] {
            assert!(Endpoint::listen(bad).is_err(), "{bad}");
        }
        for (entry, wide) in [
            ("tcp 10.0.0.0/8 1", true),
            ("tcp 10.0.0.0/16 1", false),
            ("tcp 2001:db8::/32 1", true),
            ("tcp 2001:db8::/48 1", false),
            ("tcp 0.0.0.0/0 1", true),
            ("tcp ::/0 1", true),
            ("tcp 192.0.2.1 1-65535", true),
            ("tcp 192.0.2.1 ephemeral", false),
            ("tcp a{any}.example.org 1", true),
        ] {
            assert_eq!(Endpoint::peer(entry).unwrap().too_wide().is_some(), wide, "{entry}");
        }
    }
}
