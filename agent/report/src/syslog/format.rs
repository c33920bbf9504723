//! Records to syslog lines.
//!
//! | Format | Line | Stamp |
//! |---|---|---|
//! | RFC 5424 | `<PRI>1 TIME HOST defender PID CLASS [defender@32473 ...] SUMMARY` | the record's, UTC |
//! | RFC 3164 | `<PRI>TIME HOST defender[PID]: SUMMARY` | the record's, UTC |
//! | CEF | `<PRI>TIME HOST CEF:0\|...`, the header of RFC 3164 | the record's, UTC |
//! | to the local daemon | `<PRI>defender[PID]: SUMMARY` | the daemon's own: without one it takes the time of arrival, in the zone of its log |
//!
//! The stamp is the record's own, not the time of sending: what waited in the spool for days is not dated today.

use std::fmt::Write as _;

use defender_model::severity::Severity;
use defender_model::text;
use defender_model::time::Timestamp;
use serde_json::Value;

use super::{cef, Config, Transport};
use crate::event;
use crate::record::Record;

const PROCESS: &str = "defender";
/// RFC 5424 section 6.3.2 wants an enterprise number; this one is for documentation (RFC 5612), so nobody else's.
const STRUCTURED_DATA: &str = "defender@32473";
/// Parameters of the structured data and where the event has them. Device, boot and sequence name an event for ever.
const PARAMETERS: [(&str, &str); 4] = [
    ("device", "/device/uid"),
    ("boot", "/device/boot_uid"),
    ("rule", "/finding_info/analytic/uid"),
    ("finding", "/finding_info/uid"),
];
/// Longest value of such a parameter, in bytes.
const MAX_PARAMETER: usize = 64;
/// RFC 5424 section 6.1: receivers should take 2048 bytes; this leaves room for header and structured data.
const MAX_TEXT: usize = 1500;
/// RFC 3164 section 4.1: a packet has at most 1024 bytes.
const MAX_OLD_TEXT: usize = 900;
/// The daemon's own limit is what its socket takes.
const MAX_LOCAL_TEXT: usize = 1800;

/// Syslog facility, by its number (RFC 5424 section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// System daemons.
    pub const DAEMON: Self = Self(3);
    /// Security and authorization, private.
    pub const AUTHPRIV: Self = Self(10);
}

/// How lines to a remote collector look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// RFC 5424 with structured data.
    #[default]
    Rfc5424,
    /// RFC 3164, for old collectors.
    Rfc3164,
    /// ArcSight's Common Event Format behind the header of RFC 3164, for Microsoft Sentinel, ArcSight, QRadar.
    Cef,
}

#[derive(Debug)]
pub(super) struct Formatter {
    /// `None`: to the local daemon.
    format: Option<Format>,
    facility: Facility,
    hostname: String,
    pid: u32,
}

impl Formatter {
    pub(super) fn new(config: &Config) -> Self {
        let local = matches!(config.transport, Transport::Local { .. });
        // RFC 5424 section 6.2.4: printable ASCII without spaces, at most 255.
        let mut hostname: String = config.hostname.chars().filter(char::is_ascii_graphic).take(255).collect();
        if hostname.is_empty() {
            hostname.push('-');
        }
        let format = (!local).then_some(config.format);
        Self { format, facility: config.facility, hostname, pid: std::process::id() }
    }

    /// The record as a line without line end.
    pub(super) fn line(&self, record: &Record) -> Vec<u8> {
        let printable = text::printable(&record.summary);
        let cut = |most| text::truncate(&printable, most);
        let (host, pid) = (&self.hostname, self.pid);
        let mut line = format!("<{}>", self.facility.0 * 8 + record.severity.syslog());
        // Writing to a String cannot fail.
        let _ = match self.format {
            None => write!(line, "{PROCESS}[{pid}]: {}", cut(MAX_LOCAL_TEXT)),
            Some(Format::Rfc3164) => {
                write!(line, "{} {host} {PROCESS}[{pid}]: {}", stamp(record.time), cut(MAX_OLD_TEXT))
            }
            Some(Format::Rfc5424) => {
                let event = event::of(record);
                let class = event.pointer("/class_uid").and_then(Value::as_u64);
                let class = class.map_or_else(|| "-".to_owned(), |class| class.to_string());
                let _ = write!(line, "1 {} {host} {PROCESS} {pid} {class} [{STRUCTURED_DATA}", record.time);
                for (name, place) in PARAMETERS {
                    if let Some(value) = event.pointer(place).and_then(Value::as_str) {
                        let _ = write!(line, " {name}=\"{}\"", parameter(value));
                    }
                }
                write!(line, " sequence=\"{}\"] {}", record.sequence, cut(MAX_TEXT))
            }
            Some(Format::Cef) => {
                write!(line, "{} {host} {}", stamp(record.time), cef::encode(record, &event::of(record)))
            }
        };
        line.into_bytes()
    }
}

/// A value of structured data: `"`, `\` and `]` escaped (RFC 5424 section 6.3.3), no control characters.
fn parameter(value: &str) -> String {
    let mut escaped = String::new();
    for c in text::printable(text::truncate(value, MAX_PARAMETER)).chars() {
        if matches!(c, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// `Nov  3 20:50:52` (RFC 3164 section 4.1.2).
fn stamp(time: Timestamp) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = time.to_string();
    // `2023-11-03T20:50:52.000Z`, from the end since the year may be longer.
    let part = |from: usize, length: usize| {
        let start = text.len().saturating_sub(from);
        text.get(start..start + length).unwrap_or_default()
    };
    let month = part(19, 2).parse::<usize>().unwrap_or(1);
    let day = part(16, 2).parse::<u8>().unwrap_or(1);
    let month = MONTHS.get(month.saturating_sub(1)).unwrap_or(&MONTHS[0]);
    format!("{month} {day:>2} {}", part(13, 8))
}

/// CEF's severity, 0 to 10, in its own four ranges: 0-3 low, 4-6 medium, 7-8 high, 9-10 very high.
pub(super) const fn of_ten(severity: Severity) -> u8 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::tests::record;

    fn line(format: Option<Format>, record: &Record) -> String {
        let transport = match format {
            None => Transport::Local { path: "/dev/log".into() },
            Some(_) => Transport::Udp { host: "h".to_owned(), port: 514 },
        };
        let format = format.unwrap_or_default();
        let config =
            Config { transport, format, facility: Facility::AUTHPRIV, hostname: "device 1".to_owned() };
        String::from_utf8(Formatter::new(&config).line(record)).expect("text")
    }

    #[test]
    fn every_format() {
        let ocsf = br#"{"class_uid":2004,"finding_info":{"uid":"9d]1\"c-1","analytic":{"uid":"9d1c"}},"device":{"uid":"d","boot_uid":"b0a7"}}"#;
        let record =
            Record { summary: "a \"bad\" thing\n\u{1b}[2J".into(), ocsf: ocsf[..].into(), ..record(7, true) };
        let pid = std::process::id();
        // authpriv (10) times 8 plus error (3).
        let text = "a \"bad\" thing\\n\\u{1b}[2J";
        assert_eq!(line(None, &record), format!("<83>defender[{pid}]: {text}"));
        assert_eq!(
            line(Some(Format::Rfc5424), &record),
            format!(
                "<83>1 2023-11-14T22:13:20.000Z device1 defender {pid} 2004 [defender@32473 device=\"d\" boot=\"b0a7\" rule=\"9d1c\" finding=\"9d\\]1\\\"c-1\" sequence=\"7\"] {text}"
            )
        );
        assert_eq!(
            line(Some(Format::Rfc3164), &record),
            format!("<83>Nov 14 22:13:20 device1 defender[{pid}]: {text}")
        );
        assert!(line(Some(Format::Cef), &record)
            .starts_with("<83>Nov 14 22:13:20 device1 CEF:0|defender project|"));
    }

    #[test]
    fn what_is_not_an_event_has_its_summary_all_the_same() {
        let record = Record { ocsf: b"{\"half"[..].into(), ..record(7, true) };
        let pid = std::process::id();
        assert_eq!(
            line(Some(Format::Rfc5424), &record),
            format!("<83>1 2023-11-14T22:13:20.000Z device1 defender {pid} - [defender@32473 sequence=\"7\"] record 7")
        );
    }

    #[test]
    fn days_of_one_digit_have_a_space_before_them() {
        assert_eq!(stamp(Timestamp(1_699_044_652_999)), "Nov  3 20:50:52");
        assert_eq!(stamp(Timestamp(0)), "Jan  1 00:00:00");
    }

    #[test]
    fn long_summaries_are_cut() {
        let record = Record { summary: "ß".repeat(5000).into(), ..record(1, true) };
        for (format, most) in [(Format::Rfc5424, 2048), (Format::Rfc3164, 1024)] {
            let line = line(Some(format), &record);
            assert!(line.len() < most && line.ends_with('ß'), "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_whatever_the_event_holds(
            summary in "\\PC*|(?s).*", device in "(?s).*", time in any::<i64>(), sequence: u64,
        ) {
            let ocsf = serde_json::json!({ "device": { "uid": device }, "message": summary }).to_string();
            let record = Record {
                summary: summary.as_str().into(),
                ocsf: ocsf.into_bytes().into(),
                time: Timestamp(time),
                sequence,
                ..record(1, true)
            };
            for format in [None, Some(Format::Rfc5424), Some(Format::Rfc3164), Some(Format::Cef)] {
                let line = line(format, &record);
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
                prop_assert!(line.starts_with("<83>"));
            }
        }
    }
}
