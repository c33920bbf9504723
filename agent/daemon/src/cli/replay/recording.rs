//! Lines of a recording to events. Each line is of the kind it looks like, so that logs may be mixed.

use std::time::{Duration, Instant};

use defender_model::authentication::Authentication;
use defender_model::event::Event;
use defender_model::ocsf;
use defender_model::text;
use defender_model::time::Timestamp;
use defender_sensors::login::attempt::Attempts;
use defender_sensors::login::line::{self, Line};
use defender_sensors::login::message;
use defender_sensors::process::AuditLog;

use super::stamp::Calendar;

/// What was read so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli) struct Counts {
    /// Lines, empty ones among them.
    pub(in crate::cli) lines: u64,
    /// Events that came out.
    pub(in crate::cli) events: u64,
    /// Lines that were understood and are about something that rules do not judge.
    pub(in crate::cli) other: u64,
    /// Lines of no kind that is known, or broken ones.
    pub(in crate::cli) not_understood: u64,
}

/// Reads a recording line by line.
#[derive(Debug)]
pub(super) struct Recording {
    audit: AuditLog,
    logins: Logins,
    counts: Counts,
}

impl Default for Recording {
    fn default() -> Self {
        Self { audit: AuditLog::default(), logins: Logins::new(), counts: Counts::default() }
    }
}

/// What became of a line.
enum Became {
    Judged,
    Other,
    NotUnderstood,
}

impl Recording {
    /// Takes a line without its end; `whole` is false when it is not all of it. Appends the events that are complete.
    pub(super) fn line(&mut self, bytes: &[u8], whole: bool, events: &mut Vec<Event>) {
        self.counts.lines += 1;
        let before = events.len();
        let became = match bytes.trim_ascii() {
            [] => Became::Other,
            _ if !whole => Became::NotUnderstood,
            trimmed @ [b'{', ..] => match ocsf::decode(trimmed) {
                Ok(Some(mut event)) => {
                    self.audit.event(&mut event);
                    events.push(event);
                    Became::Judged
                }
                Ok(None) => Became::Other,
                Err(_) => Became::NotUnderstood,
            },
            trimmed if is_audit(trimmed) => match self.audit.line(trimmed, events) {
                true => Became::Judged,
                false => Became::Other,
            },
            _ => self.logins.line(bytes, events),
        };
        match became {
            Became::Judged => {}
            Became::Other => self.counts.other += 1,
            Became::NotUnderstood => self.counts.not_understood += 1,
        }
        self.counts.events += (events.len() - before) as u64;
    }

    /// The recording is over: appends what is left.
    pub(super) fn finish(&mut self, events: &mut Vec<Event>) {
        let before = events.len();
        self.audit.finish(events);
        self.counts.events += (events.len() - before) as u64;
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

/// A record of auditd(8)'s log: `type=... msg=audit(...)`, possibly behind `node=...`.
fn is_audit(line: &[u8]) -> bool {
    let line = match line.strip_prefix(b"node=") {
        Some(rest) => rest.splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default(),
        None => line,
    };
    line.starts_with(b"type=") && line.windows(10).take(64).any(|part| part == b"msg=audit(")
}

/// Lines of syslog daemons: logins, with the same memory as the sensor's.
#[derive(Debug)]
struct Logins {
    calendar: Calendar,
    attempts: Attempts,
    /// What the line before said, for daemons that log "last message repeated".
    last: Option<Authentication>,
    time: Timestamp,
    /// [`Attempts`] wants a monotonic clock; only differences matter, and these come from the recording.
    epoch: Instant,
    first: Option<Timestamp>,
    elapsed: Duration,
}

impl Logins {
    fn new() -> Self {
        Self {
            calendar: Calendar::default(),
            attempts: Attempts::default(),
            last: None,
            time: Timestamp::default(),
            epoch: Instant::now(),
            first: None,
            elapsed: Duration::ZERO,
        }
    }

    fn line(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Became {
        let whole = bytes.len() <= line::MAX_LINE;
        let bytes = &bytes[..bytes.len().min(line::MAX_LINE)];
        let stamp = self.calendar.read(bytes);
        if let Some(time) = stamp {
            // Without a stamp (a datagram may have none) the time is that of the line before.
            self.time = time;
        }
        let line = Line::parse(bytes);
        if stamp.is_none() && line.priority.is_none() {
            self.last = None;
            return Became::NotUnderstood;
        }
        match self.login(&line, whole) {
            Some(login) => {
                events.push(Event::new(self.time, login.into()));
                Became::Judged
            }
            None => Became::Other,
        }
    }

    fn login(&mut self, line: &Line<'_>, whole: bool) -> Option<Authentication> {
        let message = text::from_bytes(line.message);
        let last = self.last.take();
        let Some(tag) = line.tag else {
            let count = message::repeats_of_last(&message)?;
            return last.map(|last| Authentication { count, ..last });
        };
        let found = message::parse(&text::from_bytes(tag), &message, whole)?;
        let now = self.monotonic();
        if !self.attempts.counts(line.pid, found.role, now) {
            return None;
        }
        let login = Authentication { pid: line.pid, ..found.authentication };
        self.last = Some(login.clone());
        Some(login)
    }

    fn monotonic(&mut self) -> Instant {
        let first = *self.first.get_or_insert(self.time);
        let passed = u64::try_from(self.time.since(first)).unwrap_or(0);
        self.elapsed = self.elapsed.max(Duration::from_millis(passed));
        // Out of the clock's range only for stamps thousands of years apart.
        self.epoch.checked_add(self.elapsed).unwrap_or(self.epoch)
    }
}
