//! The time a syslog line states, for recordings: on a device the time of a line is that of its arrival.
//!
//! | Shape | From |
//! |---|---|
//! | `Nov  3 20:50:52`, with a fraction or not | RFC 3164 section 4.1.2 |
//! | `Tue Nov  3 20:50:52 2026` | OpenWrt's logd |
//! | `2026-11-03T20:50:52.123+01:00`, also without zone | RFC 5424 section 6.2.3, rsyslog, systemd |
//! | `2026-11-03 20:50:52` | syslog-ng, s6 |
//!
//! The first kind has no year and most have no zone. Lines are taken as UTC; the year is that of the last line that had one, else
//! 2000 (a leap year), and goes up by one where December is followed by a month of the first half of a year.

use defender_model::time::Timestamp;

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// What is remembered from line to line.
#[derive(Debug)]
pub(super) struct Calendar {
    year: i64,
    month: i64,
}

impl Default for Calendar {
    fn default() -> Self {
        Self { year: 2000, month: 1 }
    }
}

impl Calendar {
    /// The time stamp at the start of a line, behind a priority if there is one.
    pub(super) fn read(&mut self, line: &[u8]) -> Option<Timestamp> {
        let line = after_priority(line);
        let line = line.strip_prefix(b"1 ").unwrap_or(line);
        iso(line).map(|(time, year, month)| self.noted(time, year, month)).or_else(|| self.named_month(line))
    }

    fn noted(&mut self, time: Timestamp, year: i64, month: i64) -> Timestamp {
        (self.year, self.month) = (year, month);
        time
    }

    fn named_month(&mut self, line: &[u8]) -> Option<Timestamp> {
        let weekday = matches!(line, [a, b, c, b' ', ..] if [a, b, c].iter().all(|b| b.is_ascii_alphabetic()))
            && !MONTHS.contains(&&line[..3]);
        let line = if weekday { &line[4..] } else { line };
        let name = line.get(..3)?;
        let month = (1..).zip(MONTHS).find(|(_, month)| *month == name)?.0;
        let mut words = line[3..].split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let day = number(words.next()?, 1..=2)?;
        let mut word = words.next()?;
        let mut year = number(word, 4..=4);
        if year.is_some() {
            word = words.next()?;
        }
        let clock = clock(word)?.0;
        if weekday && year.is_none() {
            year = words.next().and_then(|word| number(word, 4..=4));
        }
        let year = year.unwrap_or_else(|| self.year + i64::from(self.month == 12 && month <= 6));
        let time = Timestamp(days(year, month, day)? * 86_400_000 + clock);
        Some(self.noted(time, year, month))
    }
}

fn after_priority(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"<") else { return line };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match rest.get(digits) {
        Some(b'>') if (1..=3).contains(&digits) => &rest[digits + 1..],
        _ => line,
    }
}

/// Time, year and month of `yyyy-mm-ddThh:mm:ss[.fraction][zone]`, a space for the `T` allowed.
fn iso(line: &[u8]) -> Option<(Timestamp, i64, i64)> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T' | b' ', rest @ ..] = line else { return None };
    let year = number(&[*y1, *y2, *y3, *y4], 4..=4)?;
    let (month, day) = (number(&[*m1, *m2], 2..=2)?, number(&[*d1, *d2], 2..=2)?);
    let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let (millis, zone) = clock(&rest[..end])?;
    let offset = match zone {
        b"" | b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, minutes @ ..] => {
            let minutes = minutes.strip_prefix(b":").unwrap_or(minutes);
            let minutes = if minutes.is_empty() { 0 } else { number(minutes, 2..=2)? };
            let minutes = number(&[*h1, *h2], 2..=2)? * 60 + minutes;
            if *sign == b'-' {
                -minutes
            } else {
                minutes
            }
        }
        _ => return None,
    };
    Some((Timestamp(days(year, month, day)? * 86_400_000 + millis - offset * 60_000), year, month))
}

/// Milliseconds of `hh:mm:ss[.fraction]`, and what follows.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else { return None };
    let two = |a: &u8, b: &u8| number(&[*a, *b], 2..=2);
    let (hours, minutes, seconds) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    // 60: a leap second.
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let millis = (hours * 3600 + minutes * 60 + seconds) * 1000;
    let Some(fraction) = rest.strip_prefix(b".") else { return Some((millis, rest)) };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let thousandths =
        (0..3).fold(0, |sum, at| sum * 10 + if at < digits { i64::from(fraction[at] - b'0') } else { 0 });
    (digits > 0).then(|| (millis + thousandths, &fraction[digits..]))
}

/// A decimal number of that many digits and nothing else.
fn number(text: &[u8], digits: std::ops::RangeInclusive<usize>) -> Option<i64> {
    if !digits.contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Option<String> {
        Calendar::default().read(line.as_bytes()).map(|time| time.to_string())
    }

    #[test]
    fn every_shape_of_the_table() {
        for (line, time) in [
            ("Nov  3 20:50:52 host sshd[1]: x", "2000-11-03T20:50:52.000Z"),
            ("<38>Nov 03 20:50:52.125 sshd[1]: x", "2000-11-03T20:50:52.125Z"),
            ("Feb 29 00:00:00 h x", "2000-02-29T00:00:00.000Z"),
            ("Nov  3 2026 20:50:52 host x", "2026-11-03T20:50:52.000Z"),
            ("Tue Nov  3 20:50:52 2026 authpriv.warn dropbear[9]: x", "2026-11-03T20:50:52.000Z"),
            ("2026-11-03T20:50:52.123456+01:00 host sshd[1]: x", "2026-11-03T19:50:52.123Z"),
            ("2026-01-01T00:00:00-0230 host x", "2026-01-01T02:30:00.000Z"),
            ("2026-11-03 20:50:52 host x", "2026-11-03T20:50:52.000Z"),
            ("<38>1 2026-11-03T20:50:52Z host sshd 1 - - x", "2026-11-03T20:50:52.000Z"),
        ] {
            assert_eq!(read(line).as_deref(), Some(time), "{line}");
        }
        for line in [
            "",
            "x",
            "Nov",
            "Nov 3",
            "Nov 32 00:00:00 x",
            "Nov  3 24:00:00 x",
            "<38>sshd[1]: x",
            "2026-13-01T00:00:00Z",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn the_year_turns() {
        let mut calendar = Calendar::default();
        let mut year = |line: &str| calendar.read(line.as_bytes()).unwrap().to_string()[..4].to_owned();
        assert_eq!(year("2025-12-30T00:00:00Z x"), "2025");
        assert_eq!(year("Dec 31 23:59:59 h x"), "2025");
        assert_eq!(year("Jan  1 00:00:00 h x"), "2026");
        // A line that comes late does not turn it again.
        assert_eq!(year("Jan  1 00:00:01 h x"), "2026");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Calendar::default().read(&bytes);
        }

        #[test]
        fn agrees_with_the_model_s_calendar(millis in 0i64..4_102_444_800_000) {
            let text = Timestamp(millis).to_string();
            prop_assert_eq!(Calendar::default().read(text.as_bytes()), Some(Timestamp(millis)));
        }
    }
}
