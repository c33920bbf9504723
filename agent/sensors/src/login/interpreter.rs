//! Lines to events, with what has to be remembered between lines.

use std::time::{Duration, Instant};

use defender_model::authentication::{Activity, Authentication};
use defender_model::health::{Health, Kind};
use defender_model::text;

use super::attempt::Attempts;
use super::line::{Line, MAX_LINE};
use super::message;
use super::sensor::COMPONENT;

/// Cut lines are reported at most this often.
const CUT_REPORT: Duration = Duration::from_secs(60);

/// Lines to events, with what has to be remembered between lines.
#[derive(Debug, Default)]
pub(super) struct Interpreter {
    attempts: Attempts,
    /// What the line before said, for daemons that log "last message repeated".
    last: Option<Authentication>,
    cut: u64,
    cut_reported: Option<(Instant, u64)>,
}

impl Interpreter {
    /// What a line says, if it says something that counts. `uid` is its sender's, where the kernel vouches for it.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        whole: bool,
        uid: Option<u32>,
        now: Instant,
    ) -> Option<Authentication> {
        if !whole {
            self.cut += 1;
        }
        let line = Line::parse(bytes);
        let message = text::from_bytes(line.message);
        let last = self.last.take();
        let Some(tag) = line.tag else {
            let count = message::repeats_of_last(&message)?;
            return last.map(|last| Authentication { count, ..last });
        };
        let tag = text::from_bytes(tag);
        if let Some((pid, origin)) = line.pid.zip(message::origin(&tag, &message)) {
            if whole && uid.unwrap_or(0) == 0 {
                self.attempts.began(pid, origin, now);
            }
            return None;
        }
        let found = message::parse(&tag, &message, whole)?;
        if !self.attempts.counts(line.pid, found.role, now) {
            return None;
        }
        let mut found = Authentication { pid: line.pid, ..found.authentication };
        if found.source.is_none() {
            // Its process has said before where its client is.
            (found.source, found.source_port) = line.pid.and_then(|pid| self.attempts.origin(pid)).unzip();
        }
        if uid.is_some_and(|uid| uid != 0) && found.activity == Activity::Logon {
            // Only root judges logins. Anybody can send to the socket; nobody gets an address blocked that way.
            (found.source, found.source_port) = (None, None);
        }
        self.last = Some(found.clone());
        Some(found)
    }

    /// The number of cut lines, if it has grown and was not reported just now.
    pub(super) fn cut_report(&mut self, now: Instant) -> Option<Health> {
        let due = match self.cut_reported {
            None => self.cut > 0,
            Some((at, count)) => self.cut > count && now.saturating_duration_since(at) >= CUT_REPORT,
        };
        if !due {
            return None;
        }
        self.cut_reported = Some((now, self.cut));
        let message = format!(
            "log lines were longer than {MAX_LINE} bytes or never finished: their ends were not read, addresses in them not used"
        );
        Some(Health::new(Kind::Lost, COMPONENT, message).with("lines_cut", self.cut))
    }
}

#[cfg(test)]
mod tests;
