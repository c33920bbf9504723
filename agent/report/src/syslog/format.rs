//! Records to syslog lines, by the formatters of the crate `syslog`.

use std::collections::BTreeMap;

use defender_model::text;
pub use syslog::Facility;
use syslog::{Formatter3164, Formatter5424, LogFormat, Severity};

use super::{Config, Transport};
use crate::record::Record;

const PROCESS: &str = "defender";
/// RFC 5424 section 6.3.2 wants an enterprise number; this one is for documentation (RFC 5612), so nobody else's.
const STRUCTURED_DATA: &str = "defender@32473";
/// RFC 5424 section 6.1: receivers should take 2048 bytes; this leaves room for the header.
const MAX_TEXT: usize = 1800;

#[derive(Debug)]
pub(super) enum Formatter {
    Local(Formatter3164),
    Remote(Formatter5424),
}

impl Formatter {
    pub(super) fn new(config: &Config) -> Self {
        let (facility, process, pid) = (config.facility, PROCESS.to_owned(), std::process::id());
        if matches!(config.transport, Transport::Local { .. }) {
            return Self::Local(Formatter3164 { facility, hostname: None, process, pid });
        }
        // RFC 5424 section 6.2.4: printable ASCII without spaces, at most 255.
        let hostname: String = config.hostname.chars().filter(char::is_ascii_graphic).take(255).collect();
        let hostname = Some(hostname).filter(|name| !name.is_empty()).or_else(|| Some("-".to_owned()));
        Self::Remote(Formatter5424 { facility, hostname, process, pid })
    }

    /// The record's summary as a line without line end. The stamp is the time of formatting, which is what the formatters offer; the
    /// record's own time and its sequence number are in the structured data.
    pub(super) fn line(&self, record: &Record) -> Vec<u8> {
        let severity = severity(record.severity);
        let printable = text::printable(&record.summary);
        let text = text::truncate(&printable, MAX_TEXT);
        let mut line = Vec::with_capacity(text.len() + 128);
        let done = match self {
            Self::Local(formatter) => formatter.format(&mut line, severity, text),
            Self::Remote(formatter) => {
                let parameters = BTreeMap::from([
                    ("sequence".to_owned(), record.sequence.to_string()),
                    ("time".to_owned(), record.time.to_string()),
                ]);
                let data = BTreeMap::from([(STRUCTURED_DATA.to_owned(), parameters)]);
                formatter.format(&mut line, severity, (0, data, text))
            }
        };
        debug_assert!(done.is_ok(), "writing to memory cannot fail");
        line
    }
}

/// `Severity::syslog` of the model gives the numbers of RFC 5424; this is the formatter's name for them.
fn severity(severity: defender_model::severity::Severity) -> Severity {
    match severity.syslog() {
        0 => Severity::LOG_EMERG,
        1 => Severity::LOG_ALERT,
        2 => Severity::LOG_CRIT,
        3 => Severity::LOG_ERR,
        4 => Severity::LOG_WARNING,
        5 => Severity::LOG_NOTICE,
        6 => Severity::LOG_INFO,
        _ => Severity::LOG_DEBUG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::record;

    fn line(transport: Transport, record: &Record) -> String {
        let config = Config { transport, facility: Facility::LOG_AUTHPRIV, hostname: "device 1".to_owned() };
        String::from_utf8(Formatter::new(&config).line(record)).expect("text")
    }

    #[test]
    fn local_and_remote_lines() {
        let record = Record { summary: "a \"bad\" thing\n\u{1b}[2J".into(), ..record(7, true) };
        let pid = std::process::id();
        let local = line(Transport::Local { path: "/dev/log".into() }, &record);
        // authpriv (10) times 8 plus error (3); "<83>Nov  3 20:50:52 ".
        let end = format!(" defender[{pid}]: a \"bad\" thing\\n\\u{{1b}}[2J");
        assert!(local.starts_with("<83>") && local.ends_with(&end), "{local}");
        let remote = line(Transport::Udp { host: "h".to_owned(), port: 514 }, &record);
        let end = format!(
            "Z device1 defender {pid} 0 [defender@32473 sequence=\"7\" time=\"2023-11-14T22:13:20.000Z\"] a \"bad\" thing\\n\\u{{1b}}[2J"
        );
        assert!(remote.starts_with("<83>1 2") && remote.ends_with(&end), "{remote}");
    }

    #[test]
    fn long_summaries_are_cut() {
        let record = Record { summary: "ß".repeat(5000).into(), ..record(1, true) };
        let line = line(Transport::Tcp { host: "h".to_owned(), port: 514 }, &record);
        assert!(line.len() < 2048 && line.ends_with('ß'));
    }
}
