//! A rule as what it looks at and what it does, from either way of writing it.

use std::net::IpAddr;

use super::Family;

/// What a rule looks at. All of a rule's must fit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Match {
    /// The interface a packet comes in by, or goes out by.
    Interface {
        out: bool,
        names: Vec<String>,
        negated: bool,
    },
    Address {
        source: bool,
        prefixes: Vec<Range>,
        negated: bool,
    },
    Port {
        source: bool,
        ranges: Vec<(u16, u16)>,
        negated: bool,
    },
    /// Protocols above the network layer, by name or number.
    Protocol {
        names: Vec<String>,
        negated: bool,
    },
    /// Connection tracking.
    State(Vec<String>),
    /// Packets of one family.
    Family(Family),
    /// Something else: the rule is for fewer packets than the rest of it says.
    Other,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u128,
    pub(crate) last: u128,
    pub(crate) v6: bool,
}

impl Range {
    /// Of `10.0.0.0/8`, `::1`, `10.0.0.1-10.0.0.9`.
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| match text.parse::<IpAddr>().ok()? {
            IpAddr::V4(address) => Some((u128::from(u32::from(address)), false)),
            IpAddr::V6(address) => Some((u128::from(address), true)),
        };
        if let Some((address, bits)) = text.split_once('/') {
            let ((first, v6), bits) = (number(address)?, bits.parse::<u32>().ok()?);
            let host = (if v6 { 128_u32 } else { 32 }).checked_sub(bits)?;
            let mask = if host == 128 { u128::MAX } else { (1_u128 << host) - 1 };
            return Some(Self { first: first & !mask, last: first | mask, v6 });
        }
        if let Some((first, last)) = text.split_once('-') {
            let ((first, v6), (last, _)) = (number(first)?, number(last)?);
            return Some(Self { first, last, v6 });
        }
        let (first, v6) = number(text)?;
        Some(Self { first, last: first, v6 })
    }

    /// Length of the longest prefix that is no larger: 0 for all addresses.
    pub(crate) fn prefix_length(&self) -> u32 {
        let bits = 128 - (self.last.saturating_sub(self.first)).leading_zeros();
        (if self.v6 { 128 } else { 32_u32 }).saturating_sub(bits)
    }
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    /// Drop or reject.
    Drop,
    Jump(String),
    Goto(String),
    Return,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<Match>,
    pub(crate) verdict: Option<Verdict>,
    /// As it is written, for evidence.
    pub(crate) shown: String,
}

/// A rule as it is read, sets still by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Draft {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Option<Verdict>,
    /// A verdict map: what is looked up, and verdict by value.
    pub(super) map: Option<(String, Vec<(String, Verdict)>)>,
    pub(super) shown: String,
}

/// One condition: what is looked at, such as `ip saddr`, and the values, `@name` for a set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) key: String,
    pub(super) negated: bool,
    pub(super) values: Vec<String>,
}

impl Draft {
    /// The rules it stands for: itself, or one for each entry of its verdict map.
    pub(super) fn rules<'s>(&self, set: &impl Fn(&str) -> Option<&'s [String]>) -> Vec<Rule> {
        let matches: Vec<Match> =
            self.conditions.iter().flat_map(|condition| condition.matches(set)).collect();
        let Some((key, entries)) = &self.map else {
            return vec![Rule { matches, verdict: self.verdict.clone(), shown: self.shown.clone() }];
        };
        let of_entry = |(value, verdict): &(String, Verdict)| {
            let condition = Condition { key: key.clone(), negated: false, values: vec![value.clone()] };
            let mut matches = matches.clone();
            if value != "*" {
                matches.extend(condition.matches(set));
            }
            Rule { matches, verdict: Some(verdict.clone()), shown: self.shown.clone() }
        };
        entries.iter().map(of_entry).collect()
    }
}

impl Condition {
    fn matches<'s>(&self, set: &impl Fn(&str) -> Option<&'s [String]>) -> Vec<Match> {
        let mut values = Vec::new();
        for value in &self.values {
            match value.strip_prefix('@') {
                // An empty set or one that is filled later: who is in it is not known, so the rule counts as narrow.
                Some(name) => match set(name) {
                    Some(elements) if !elements.is_empty() => values.extend(elements.iter().cloned()),
                    _ => return vec![Match::Other],
                },
                None => values.push(value.clone()),
            }
        }
        let negated = self.negated;
        let parts: Vec<&str> = self.key.split(' ').collect();
        match parts.as_slice() {
            ["iif" | "iifname"] => vec![Match::Interface { out: false, names: values, negated }],
            ["oif" | "oifname"] => vec![Match::Interface { out: true, names: values, negated }],
            [family @ ("ip" | "ip6"), field @ ("saddr" | "daddr")] => {
                let ranges: Option<Vec<Range>> = values.iter().map(|value| Range::parse(value)).collect();
                let prefixes = ranges.unwrap_or_default();
                let family = Match::Family(Family::of(family));
                match prefixes.is_empty() {
                    true => vec![family, Match::Other],
                    false => vec![family, Match::Address { source: *field == "saddr", prefixes, negated }],
                }
            }
            ["ip", "protocol"] => vec![Match::Family(Family::Ip), Match::Protocol { names: values, negated }],
            ["ip6", "nexthdr"] => {
                vec![Match::Family(Family::Ip6), Match::Protocol { names: values, negated }]
            }
            ["l4proto"] => vec![Match::Protocol { names: values, negated }],
            ["nfproto"] if !negated => match values.as_slice() {
                [one] if one == "ipv4" => vec![Match::Family(Family::Ip)],
                [one] if one == "ipv6" => vec![Match::Family(Family::Ip6)],
                _ => Vec::new(),
            },
            ["protocol"] if !negated => match values.as_slice() {
                [one] if one == "ip" => vec![Match::Family(Family::Ip)],
                [one] if one == "ip6" => vec![Match::Family(Family::Ip6)],
                _ => vec![Match::Other],
            },
            ["ct", "state"] if !negated => vec![Match::State(values)],
            [transport @ ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th"), field @ ("sport" | "dport")] =>
            {
                let ranges: Option<Vec<_>> = values.iter().map(|value| ports(value)).collect();
                let port = match ranges {
                    Some(ranges) => Match::Port { source: *field == "sport", ranges, negated },
                    None => Match::Other,
                };
                match *transport {
                    "th" => vec![port],
                    transport => {
                        vec![Match::Protocol { names: vec![transport.to_owned()], negated: false }, port]
                    }
                }
            }
            ["icmp" | "icmpv6", _] => {
                vec![Match::Protocol { names: vec![parts[0].to_owned()], negated: false }, Match::Other]
            }
            _ => vec![Match::Other],
        }
    }
}

/// Names of ports as nft prints them without `-n`.
const SERVICES: &[(&str, u16)] = &[
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("http", 80),
    ("pop3", 110),
    ("sunrpc", 111),
    ("ntp", 123),
    ("imap2", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("https", 443),
    ("microsoft-ds", 445),
    ("syslog", 514),
    ("dhcpv6-client", 546),
    ("dhcpv6-server", 547),
    ("ipp", 631),
    ("mqtt", 1883),
    ("nfs", 2049),
    ("mdns", 5353),
    ("coap", 5683),
    ("http-alt", 8080),
    ("secure-mqtt", 8883),
];

fn ports(value: &str) -> Option<(u16, u16)> {
    let one = |text: &str| {
        text.parse().ok().or_else(|| SERVICES.iter().find(|(name, _)| *name == text).map(|(_, port)| *port))
    };
    if let Some(port) = one(value) {
        return Some((port, port));
    }
    let (first, last) = value.split_once('-')?;
    Some((one(first)?, one(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_of_addresses() {
        let length = |text: &str| Range::parse(text).map(|range| range.prefix_length());
        assert_eq!(length("0.0.0.0/0"), Some(0));
        assert_eq!(length("::/0"), Some(0));
        assert_eq!(length("10.0.0.0/8"), Some(8));
        assert_eq!(length("192.0.2.1"), Some(32));
        assert_eq!(length("10.0.0.0-10.255.255.255"), Some(8));
        assert_eq!(length("2001:db8::/32"), Some(32));
        assert_eq!(length("10.0.0.0/99"), None);
        assert_eq!(length("eth0"), None);
    }

    #[test]
    fn ports_by_number_name_and_range() {
        assert_eq!(
            [ports("22"), ports("https"), ports("1-65535"), ports("x")],
            [Some((22, 22)), Some((443, 443)), Some((1, 65535)), None]
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9a-f:./-]{0,40}") {
            let _ = (Range::parse(&text).map(|range| range.prefix_length()), ports(&text));
        }
    }
}
