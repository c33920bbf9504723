//! Wall-clock time as events carry it.

use core::ops::{Add, Sub};

/// Milliseconds since the Unix epoch, UTC: the unit of OCSF's `timestamp_t` and of the kernel's audit stamps.
///
/// Wall time of a device can jump (no battery-backed clock, first time sync); whatever measures a *duration* uses a monotonic
/// clock instead and never this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// A timestamp from whole seconds.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Whole milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to `self`; negative when the clock went back.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<i64> for Timestamp {
    type Output = Self;
    /// Adds milliseconds.
    fn add(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl Sub<i64> for Timestamp {
    type Output = Self;
    /// Subtracts milliseconds.
    fn sub(self, millis: i64) -> Self {
        Self(self.0.saturating_sub(millis))
    }
}

impl Timestamp {
    /// Midnight UTC at the beginning of a day written as `YYYY-MM-DD`; `None` for what is no day.
    #[must_use]
    pub fn from_day(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |range: core::ops::Range<usize>| {
            let digits = bytes.get(range)?;
            digits.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
        };
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        if !(1..=12).contains(&month) || day < 1 {
            return None;
        }
        let days = days_from_civil(year, month, day);
        // The thirty-first of a month that has thirty is another day.
        (civil_from_days(days) == (year, month, day)).then_some(Self(days * 86_400_000))
    }
}

impl core::fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds, such as `2026-11-23T20:59:15.042Z`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let days = self.0.div_euclid(86_400_000);
        let in_day = self.0.rem_euclid(86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
        let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// Proleptic Gregorian date of a day count from 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

/// Day count from 1970-01-01 of a proleptic Gregorian date: the inverse.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (month + 9) % 12;
    let doy = (153 * mp + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// Milliseconds since boot, time asleep included, from the bytes of `/proc/uptime` (proc(5)): its first number, seconds with two decimals.
#[must_use]
pub fn uptime_ms(uptime: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(uptime).ok()?;
    let (whole, part) = text.split_ascii_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = part.get(..2)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(hundredths * 10)
}

#[cfg(test)]
mod tests {
    use super::{uptime_ms, Timestamp};

    #[test]
    fn prints_rfc3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_709_210_096_789).to_string(), "2024-02-29T12:34:56.789Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Timestamp(4_102_444_800_000).to_string(), "2100-01-01T00:00:00.000Z");
    }

    #[test]
    fn reads_days() {
        for day in ["1970-01-01", "2024-02-29", "2026-11-27", "1969-12-31", "2100-12-31", "0000-01-01"] {
            let read = Timestamp::from_day(day).unwrap();
            assert_eq!(&read.to_string()[..10], day);
            assert!(read.to_string().ends_with("T00:00:00.000Z"));
        }
        for day in [
            "2023-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-04-31",
            "2026-1-1",
            "26-01-01",
            "2026/01/01",
            "",
            "٢٠٢٦-01-0",
        ] {
            assert_eq!(Timestamp::from_day(day), None, "{day}");
        }
    }

    #[test]
    fn uptime_is_read() {
        assert_eq!(uptime_ms(b"12.34 20.00\n"), Some(12_340));
        for bytes in [&b""[..], b"12", b"x.34 1", b"12.3", b"9223372036854775807.99 1", b"\xff.00"] {
            assert_eq!(uptime_ms(bytes), None);
        }
    }
}
