//! A syslog line, from a file or a datagram, taken apart into tag, process id and message.
//!
//! What it reads, and where each shape comes from:
//!
//! | Shape | Written by |
//! |---|---|
//! | `Nov  3 20:50:52 host sshd[123]: text` | RFC 3164 section 4.1; files of sysklogd, rsyslog's traditional format, syslog-ng |
//! | `Nov  3 20:50:52 host auth.info sshd[123]: text` | files of BusyBox syslogd (without `-S`) |
//! | `Mon Nov  3 20:50:52 2026 authpriv.warn dropbear[9]: text` | files of OpenWrt's logd |
//! | `2026-11-03T20:50:52.123456+01:00 host sshd[123]: text` | rsyslog's default file format since Debian 12, systemd |
//! | `<38>Nov  3 20:50:52 sshd[123]: text` | `/dev/log`: syslog(3) of glibc and musl |
//! | `<38>Nov  3 20:50:52 host sshd[123]: text` | the same, relayed |
//! | `<38>1 2026-11-03T20:50:52Z host sshd 123 - - text` | RFC 5424 section 6 |
//!
//! A line without a stamp and without a priority has no tag: no syslog daemon writes such lines, so one that looks like
//! `sshd[1]: ...` is text that somebody got into the file, and is not believed.

/// Longest line that is read, in bytes; what is longer is cut (and known to be cut). RFC 5424 section 6.1 asks receivers for
/// 2048 at least, rsyslog's own limit is 8192.
pub const MAX_LINE: usize = 8192;

/// A syslog line taken apart. Everything borrows from the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Facility times eight plus severity, when the line carries it as a number.
    pub priority: Option<u8>,
    /// Name of the program, without the directory it may come with; `None` when the line has no tag.
    pub tag: Option<&'a [u8]>,
    /// Process id after the tag.
    pub pid: Option<u32>,
    /// What the program said.
    pub message: &'a [u8],
}

impl<'a> Line<'a> {
    /// Takes a line apart. Never fails: a line that has no known shape has no tag and is all message.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Self {
        let line = trim(bytes);
        let (priority, rest) = match priority(line) {
            Some((value, rest)) => (Some(value), rest),
            None => (None, line),
        };
        if priority.is_some() {
            if let Some(parsed) = rfc5424(rest) {
                return Self { priority, ..parsed };
            }
        }
        let stamped = timestamp(rest);
        let after = stamped.unwrap_or(rest);
        if stamped.is_none() && priority.is_none() {
            return Self { priority, tag: None, pid: None, message: line };
        }
        Self { priority, ..header(after) }
    }
}

/// Without line ends, and without the NUL that some senders put at the end of a datagram.
fn trim(bytes: &[u8]) -> &[u8] {
    let mut line = bytes;
    while let [head @ .., b'\n' | b'\r' | 0] = line {
        line = head;
    }
    line
}

/// `<0>` to `<191>` (RFC 3164 section 4.1.1).
fn priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let rest = line.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|&b| b == b'>')?;
    let value: u8 = number(&rest[..end])?;
    (value <= 191).then_some((value, &rest[end + 1..]))
}

/// A decimal number that is nothing but digits.
fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The first word and what follows the one space after it.
fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == b' ')?;
    (end > 0).then(|| (&bytes[..end], &bytes[end + 1..]))
}

/// The header of RFC 5424 section 6 behind the priority, from the version on.
fn rfc5424(bytes: &[u8]) -> Option<Line<'_>> {
    let rest = bytes.strip_prefix(b"1 ")?;
    let (stamp, rest) = word(rest)?;
    if stamp != b"-" && !is_iso(stamp) {
        return None;
    }
    let (_host, rest) = word(rest)?;
    let (tag, rest) = word(rest)?;
    let (pid, rest) = word(rest)?;
    let (_message_id, rest) = word(rest)?;
    let message = structured_data(rest)?;
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    let tag = (tag != b"-").then(|| base_name(tag));
    Some(Line { priority: None, tag, pid: number(pid), message })
}

/// What follows the structured data (RFC 5424 section 6.3): `-`, or elements in brackets with quoted values.
fn structured_data(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    if let Some(after) = rest.strip_prefix(b"-") {
        rest = after;
    } else {
        if rest.first() != Some(&b'[') {
            return None;
        }
        while let Some(element) = rest.strip_prefix(b"[") {
            let (mut quoted, mut escaped, mut end) = (false, false, None);
            for (at, &byte) in element.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    b']' if !quoted => {
                        end = Some(at);
                        break;
                    }
                    _ => {}
                }
            }
            rest = &element[end? + 1..];
        }
    }
    if rest.is_empty() {
        Some(rest)
    } else {
        rest.strip_prefix(b" ")
    }
}

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const DAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// What follows a time stamp and the space after it.
fn timestamp(bytes: &[u8]) -> Option<&[u8]> {
    if let Some((first, rest)) = word(bytes) {
        if is_iso(first) {
            return Some(rest);
        }
        if is_iso_date(first) {
            let (second, rest) = word(rest)?;
            return is_clock(second).then_some(rest);
        }
    }
    let weekday = matches!(bytes.get(..4), Some([day @ .., b' ']) if DAYS.contains(&day));
    let rest = if weekday { &bytes[4..] } else { bytes };
    // "Mmm dd ", the day padded with a space (RFC 3164) or, by some, with a zero.
    let [a, b, c, b' ', tens, ones, b' ', clock @ ..] = rest else { return None };
    if !MONTHS.contains(&[*a, *b, *c].as_slice())
        || !(*tens == b' ' || tens.is_ascii_digit())
        || !ones.is_ascii_digit()
    {
        return None;
    }
    // Some daemons of network equipment, and none else, put the year first.
    let clock = match word(clock) {
        Some((year, after)) if year.len() == 4 && number::<u16>(year).is_some() => after,
        _ => clock,
    };
    let (clock, rest) = word(clock)?;
    if !is_clock(clock) {
        return None;
    }
    match word(rest) {
        Some((year, after)) if weekday && year.len() == 4 && number::<u16>(year).is_some() => Some(after),
        _ => Some(rest),
    }
}

/// `hh:mm:ss`, possibly with a fraction.
fn is_clock(text: &[u8]) -> bool {
    let [h1, h2, b':', m1, m2, b':', s1, s2, fraction @ ..] = text else { return false };
    [h1, h2, m1, m2, s1, s2].iter().all(|b| b.is_ascii_digit())
        && (fraction.is_empty()
            || (fraction[0] == b'.' && fraction.len() <= 10 && fraction[1..].iter().all(u8::is_ascii_digit)))
}

/// `yyyy-mm-dd`.
fn is_iso_date(text: &[u8]) -> bool {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return false };
    [y1, y2, y3, y4, m1, m2, d1, d2].iter().all(|b| b.is_ascii_digit())
}

/// RFC 3339 with `T`: date, clock with or without a fraction, zone or none.
fn is_iso(text: &[u8]) -> bool {
    let Some((date, rest)) = text.split_at_checked(10) else { return false };
    let Some(rest) = rest.strip_prefix(b"T") else { return false };
    let zone = rest.iter().position(|b| matches!(b, b'Z' | b'+' | b'-')).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone);
    is_iso_date(date)
        && is_clock(clock)
        && zone.len() <= 6
        && zone.iter().all(|b| b.is_ascii_digit() || matches!(b, b'Z' | b'+' | b'-' | b':'))
}

/// `[host ][facility.severity ]tag[pid]: message`, everything in front of the message optional.
fn header(bytes: &[u8]) -> Line<'_> {
    let untagged = |message| Line { priority: None, tag: None, pid: None, message };
    if let Some((first, rest)) = word(bytes) {
        if is_priority_name(first) {
            return tagged(rest).unwrap_or(untagged(rest));
        }
    }
    if let Some(found) = tagged(bytes) {
        return found;
    }
    let Some((_host, rest)) = word(bytes) else { return untagged(bytes) };
    let rest = match word(rest) {
        Some((first, after)) if is_priority_name(first) => after,
        _ => rest,
    };
    tagged(rest).unwrap_or(untagged(rest))
}

/// `name: `, `name[pid]: ` or `name[pid] `; `None` if the text does not begin like that.
fn tagged(bytes: &[u8]) -> Option<Line<'_>> {
    // RFC 3164 allows 32 characters, RFC 5424 48; paths and systemd's names are longer.
    let end = bytes.iter().take(128).position(|b| matches!(b, b':' | b'[' | b' '))?;
    let (name, rest) = bytes.split_at(end);
    let tag = Some(base_name(name)).filter(|name| !name.is_empty());
    tag?;
    match rest.strip_prefix(b"[") {
        None if rest.starts_with(b":") => {
            Some(Line { priority: None, tag, pid: None, message: after_colon(rest) })
        }
        None => None,
        Some(inside) => {
            let close = inside.iter().take(24).position(|&b| b == b']')?;
            let after = &inside[close + 1..];
            let ends = after.is_empty() || after[0] == b':' || after[0] == b' ';
            ends.then(|| Line {
                priority: None,
                tag,
                pid: number(&inside[..close]),
                message: after_colon(after),
            })
        }
    }
}

fn after_colon(bytes: &[u8]) -> &[u8] {
    let rest = bytes.strip_prefix(b":").unwrap_or(bytes);
    rest.strip_prefix(b" ").unwrap_or(rest)
}

fn base_name(name: &[u8]) -> &[u8] {
    name.rsplit(|&b| b == b'/').next().filter(|n| !n.is_empty()).unwrap_or(name)
}

/// `auth.info` and the like, as BusyBox syslogd and logd write it.
fn is_priority_name(word: &[u8]) -> bool {
    const FACILITIES: [&[u8]; 21] = [
        b"kern",
        b"user",
        b"mail",
        b"daemon",
        b"auth",
        b"syslog",
        b"lpr",
        b"news",
        b"uucp",
        b"cron",
        b"authpriv",
        b"ftp",
        b"security",
        b"local0",
        b"local1",
        b"local2",
        b"local3",
        b"local4",
        b"local5",
        b"local6",
        b"local7",
    ];
    const SEVERITIES: [&[u8]; 11] = [
        b"emerg", b"panic", b"alert", b"crit", b"err", b"error", b"warn", b"warning", b"notice", b"info",
        b"debug",
    ];
    let Some(dot) = word.iter().position(|&b| b == b'.') else { return false };
    let (facility, severity) = (&word[..dot], &word[dot + 1..]);
    (FACILITIES.contains(&facility) || number::<u8>(facility).is_some()) && SEVERITIES.contains(&severity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(line: &str) -> (Option<u8>, Option<&str>, Option<u32>, &str) {
        let parsed = Line::parse(line.as_bytes());
        let text = |b| std::str::from_utf8(b).expect("ASCII in, ASCII out");
        (parsed.priority, parsed.tag.map(text), parsed.pid, text(parsed.message))
    }

    #[test]
    fn every_shape_of_the_table() {
        for line in [
            "Nov  3 20:50:52 host sshd[123]: text: with [all] of it",
            "Nov 03 20:50:52 host sshd[123]: text: with [all] of it\n",
            "Nov  3 20:50:52.123 host sshd[123]: text: with [all] of it\r\n",
            "Nov  3 2026 20:50:52 host sshd[123]: text: with [all] of it",
            "Nov  3 20:50:52 host auth.info sshd[123]: text: with [all] of it",
            "Nov  3 20:50:52 auth.info sshd[123]: text: with [all] of it",
            "Tue Nov  3 20:50:52 2026 authpriv.warn sshd[123]: text: with [all] of it",
            "2026-11-03T20:50:52.123456+01:00 host sshd[123]: text: with [all] of it",
            "2026-11-03T20:50:52Z host sshd[123]: text: with [all] of it",
            "2026-11-03 20:50:52 host sshd[123]: text: with [all] of it",
            "Nov  3 20:50:52 host /usr/sbin/sshd[123]: text: with [all] of it\0",
        ] {
            assert_eq!(parts(line), (None, Some("sshd"), Some(123), "text: with [all] of it"), "{line}");
        }
        for line in [
            "<38>Nov  3 20:50:52 sshd[123]: text: with [all] of it",
            "<38>Nov  3 20:50:52 host sshd[123]: text: with [all] of it\0\n",
            "<38>sshd[123]: text: with [all] of it",
            "<38>1 2026-11-03T20:50:52.003Z host sshd 123 - - text: with [all] of it",
            "<38>1 - - sshd 123 ID47 [a@1 k=\"\\\"]\\]\"][b] \u{feff}text: with [all] of it",
        ] {
            assert_eq!(parts(line), (Some(38), Some("sshd"), Some(123), "text: with [all] of it"), "{line}");
        }
    }

    #[test]
    fn tags_without_pid_and_lines_without_tag() {
        assert_eq!(
            parts("Nov  3 20:50:52 h su: + /dev/pts/0 a:root"),
            (None, Some("su"), None, "+ /dev/pts/0 a:root")
        );
        assert_eq!(
            parts("Nov  3 20:50:52 h last message repeated 3 times").3,
            "last message repeated 3 times"
        );
        assert_eq!(parts("Nov  3 20:50:52 h -- MARK --"), (None, None, None, "-- MARK --"));
        assert_eq!(parts("<38>1 - - - - - -"), (Some(38), None, None, ""));
        assert_eq!(parts("").3, "");
        assert_eq!(parts("<999>Nov  3 20:50:52 sshd[1]: x").0, None);
    }

    #[test]
    fn a_line_without_stamp_is_not_believed() {
        assert_eq!(parts("sshd[1]: Failed password for root from 1.2.3.4 port 1 ssh2").1, None);
        // The rest of somebody's text after a line break.
        assert_eq!(parts("x host sshd[1]: y").1, None);
    }

    #[test]
    fn a_priority_out_of_bounds_is_text() {
        assert_eq!(parts("<192>sshd[1]: x"), (None, None, None, "<192>sshd[1]: x"));
        assert_eq!(parts("<>sshd[1]: x").0, None);
        assert_eq!(parts("<-1>sshd[1]: x").0, None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = Line::parse(&bytes);
            prop_assert!(line.message.len() <= bytes.len());
        }

        #[test]
        fn never_panics_on_nearly_right_lines(text in "(<[0-9]{0,4}>)?(1 )?(Nov  3 20:50:52|2026-11-03T20:50:5[0-9Z.+-]{0,9})? ?([a-z.0-9]{0,9} ){0,2}[a-z/]{0,5}(\\[[0-9a-z]{0,12}\\]?)?:? ?[ -~]{0,40}") {
            let line = Line::parse(text.as_bytes());
            prop_assert!(text.as_bytes().ends_with(line.message));
        }

        #[test]
        fn the_message_survives_every_wrapping(message in "[!-~][ -~]{0,60}", pid in 1u32..4_194_304) {
            for line in [
                format!("Nov  3 20:50:52 host sshd[{pid}]: {message}"),
                format!("Nov  3 20:50:52 host auth.info sshd[{pid}]: {message}"),
                format!("<38>Nov  3 20:50:52 sshd[{pid}]: {message}"),
                format!("<38>1 2026-11-03T20:50:52Z host sshd {pid} - - {message}"),
            ] {
                let parsed = Line::parse(line.as_bytes());
                prop_assert_eq!(parsed.tag, Some(&b"sshd"[..]));
                prop_assert_eq!(parsed.pid, Some(pid));
                prop_assert_eq!(parsed.message, message.as_bytes());
            }
        }
    }
}
