//! One line of a feed.

use std::net::IpAddr;

use defender_model::file::Sha256;

use super::domain::MAX_NAME;

/// What a line lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Network(IpAddr, u8),
    /// `below`: only what lies below the name.
    Domain {
        name: &'a [u8],
        below: bool,
    },
    Digest(Sha256),
}

/// Why a line is not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    Address,
    Everything,
    Domain,
    OneLabel,
    NotAscii,
}

impl Bad {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Address => "neither an address nor a network in CIDR notation",
            Self::Everything => "a prefix of length 0 would list every address",
            Self::Domain => "neither an address, a network, a domain nor a SHA-256 digest",
            Self::OneLabel => "a name without a dot would list a whole top-level domain",
            Self::NotAscii => "not ASCII; write international names in their xn-- form",
        }
    }
}

/// Reads a line without its end: nothing, or an entry and its label.
pub(super) fn parse(line: &[u8]) -> Result<Option<(Entry<'_>, &[u8])>, Bad> {
    let line = line.trim_ascii();
    if line.is_empty() || matches!(line[0], b'#' | b';') {
        return Ok(None);
    }
    let (word, rest) = first_word(line);
    let label = label(rest);
    if hosts_address(word) {
        // A hosts file: what follows the address is the entry. Names of the machine itself have no dot.
        let (name, rest) = first_word(rest);
        if !name.is_empty() && !matches!(name[0], b'#' | b';') {
            let named = name.contains(&b'.') && name.iter().any(u8::is_ascii_alphabetic);
            return if named { Ok(Some((domain(name)?, self::label(rest)))) } else { Ok(None) };
        }
    }
    Ok(Some((entry(word)?, label)))
}

fn first_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_ascii())
}

/// What follows the entry, without a comment.
fn label(rest: &[u8]) -> &[u8] {
    let comment =
        |at: usize| matches!(rest[at], b'#' | b';') && (at == 0 || rest[at - 1].is_ascii_whitespace());
    let end = (0..rest.len()).find(|at| comment(*at)).unwrap_or(rest.len());
    rest[..end].trim_ascii()
}

/// What hosts files put before names that are not to be reached.
fn hosts_address(word: &[u8]) -> bool {
    matches!(word, b"0.0.0.0" | b"127.0.0.1" | b"::" | b"::1")
}

fn entry(word: &[u8]) -> Result<Entry<'_>, Bad> {
    if let Some(digest) = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok()) {
        return Ok(Entry::Digest(digest));
    }
    let last = word.iter().rposition(|b| *b == b'.').map_or(0, |dot| dot + 1);
    // No top-level domain consists of digits (RFC 3696 section 2), and only addresses have `:` or `/`.
    let numeric = word[last..].first().is_some_and(u8::is_ascii_digit)
        && !word[last..].iter().any(u8::is_ascii_alphabetic);
    if numeric || word.iter().any(|b| matches!(b, b':' | b'/')) {
        return network(word);
    }
    domain(word)
}

fn network(word: &[u8]) -> Result<Entry<'_>, Bad> {
    let text = std::str::from_utf8(word).map_err(|_| Bad::NotAscii)?;
    let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
    let address: IpAddr = address.parse().map_err(|_| Bad::Address)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| Bad::Address)?
        }
        Some(_) => return Err(Bad::Address),
        None => longest,
    };
    match prefix {
        0 => Err(Bad::Everything),
        _ if prefix > longest => Err(Bad::Address),
        _ => Ok(Entry::Network(address, prefix)),
    }
}

fn domain(word: &[u8]) -> Result<Entry<'_>, Bad> {
    let (name, below) = match word.strip_prefix(b"*.") {
        Some(name) => (name, true),
        None => (word.strip_prefix(b".").unwrap_or(word), false),
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    if !name.is_ascii() {
        return Err(Bad::NotAscii);
    }
    let right = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() > MAX_NAME || !name.split(|b| *b == b'.').all(right) {
        return Err(Bad::Domain);
    }
    if !name.contains(&b'.') {
        return Err(Bad::OneLabel);
    }
    Ok(Entry::Domain { name, below })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(line: &str) -> Result<Option<(Entry<'_>, &str)>, Bad> {
        parse(line.as_bytes()).map(|found| found.map(|(e, l)| (e, std::str::from_utf8(l).unwrap())))
    }

    fn domain(name: &str, below: bool) -> Entry<'_> {
        Entry::Domain { name: name.as_bytes(), below }
    }

    #[test]
    fn each_line_says_what_it_is() {
        let network = |text: &str, prefix| Entry::Network(text.parse().unwrap(), prefix);
        for (line, entry, label) in [
            ("192.0.2.1", network("192.0.2.1", 32), ""),
            ("192.0.2.1/24\tbotnet C2 # seen", network("192.0.2.1", 24), "botnet C2"),
            (" 2001:db8::/32 ;x", network("2001:db8::", 32), ""),
            ("::1", network("::1", 128), ""),
            ("bad.example mirai\r", domain("bad.example", false), "mirai"),
            ("*.bad.example.", domain("bad.example", true), ""),
            (".bad.example", domain("bad.example", false), ""),
            ("0.0.0.0 ads.example tracker", domain("ads.example", false), "tracker"),
            ("xn--bcher-kva.example c#sharp", domain("xn--bcher-kva.example", false), "c#sharp"),
            ("1.2.3.4.example", domain("1.2.3.4.example", false), ""),
        ] {
            assert_eq!(parsed(line), Ok(Some((entry, label))), "{line}");
        }
        let digest = "ab".repeat(32);
        assert_eq!(
            parsed(&format!("{digest}  busybox.mips")),
            Ok(Some((Entry::Digest(Sha256([0xab; 32])), "busybox.mips")))
        );
    }

    #[test]
    fn lines_without_an_entry() {
        for line in [
            "",
            "  \r",
            "# note",
            ";note",
            "127.0.0.1 localhost",
            "::1 ip6-localhost ip6-loopback",
            "0.0.0.0 0.0.0.0",
        ] {
            assert_eq!(parsed(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn bad_lines_say_why() {
        for (line, bad) in [
            ("0.0.0.0/0", Bad::Everything),
            ("::/0", Bad::Everything),
            ("10.0.0.0/33", Bad::Address),
            ("10.0.0/8", Bad::Address),
            ("10.0.0.256", Bad::Address),
            ("10.0.0.1/", Bad::Address),
            ("10.0.0.1/+8", Bad::Address),
            ("http://bad.example/x", Bad::Address),
            ("com", Bad::OneLabel),
            ("*.com", Bad::OneLabel),
            ("a..example", Bad::Domain),
            ("bad.example,botnet", Bad::Domain),
            ("127.0.0.1 x.example#part", Bad::Domain),
            ("bücher.example", Bad::NotAscii),
            ("<html>", Bad::Domain),
        ] {
            assert_eq!(parsed(line), Err(bad), "{line}");
        }
        assert_eq!(parsed(&format!("{}.example", "a".repeat(64))), Err(Bad::Domain));
        assert_eq!(parsed(&format!("{}example", "a.".repeat(130))), Err(Bad::Domain));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }

        #[test]
        fn networks_are_read_back(bits: u32, wide: u128, prefix in 1u8..=32) {
            let address = IpAddr::V4(bits.into());
            let line = format!("{address}/{prefix}");
            prop_assert_eq!(parsed(&line), Ok(Some((Entry::Network(address, prefix), ""))));
            let address = IpAddr::V6(wide.into());
            let line = format!("{address} label");
            if !matches!(line.as_str(), "::1 label" | ":: label") {
                prop_assert_eq!(parsed(&line), Ok(Some((Entry::Network(address, 128), "label"))));
            }
        }
    }
}
