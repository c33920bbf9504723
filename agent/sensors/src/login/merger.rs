//! One login that several sources tell of is one event.
//!
//! ```text
//!  log line ─────────────► sent at once ─┐
//!  utmp, wtmp, btmp ─┐                   ├─► remembered for WINDOW: what another source tells of the same is merged
//!  audit ────────────┼─► held for HOLD ──┘
//!  PAM ──────────────┘
//! ```
//!
//! A log line says the most, so the others wait a moment for it, and what they know goes into its event. What comes after the event was
//! sent is counted only.
//!
//! # Failures are counted, not merged away
//!
//! Every event remembers how many of its attempts each source has told of. A report takes the attempts that its own source has not told of
//! yet, and only what is left is new. So five failures that three sources tell of are five, in whatever order the fifteen reports come; and
//! one source that tells of five within a second told of five.
//!
//! # What is the same
//!
//! Same activity and outcome; no user, service, address, port or terminal that contradicts; and one thing in common: process, address,
//! terminal, or the user where a side knows of no place at all. A failure that was sent without an address does not take in one that has
//! it: who can write into the log could otherwise hide an attack.
//!
//! A login opens a session, and its end closes it: by process, port, terminal, or user and address. The logout has then what the login had,
//! and a duration by the monotonic clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::event::Event;
use defender_model::time::Timestamp;

use super::accounting::record::USER_BYTES;
use super::report::{Report, Teller};

/// How long reports may be apart: PAM holds a failure's log line back for up to four seconds (pam_fail_delay(3)) after audit told of it.
pub const WINDOW: Duration = Duration::from_secs(10);
/// How long a report waits for a log line.
pub const HOLD: Duration = Duration::from_millis(500);
/// Events remembered. When more happen within the window, some may be reported twice.
const EVENTS: usize = 512;
/// Sessions remembered. The end of an older one has no duration.
const SESSIONS: usize = 256;

/// Merges what sources tell.
#[derive(Debug, Default)]
pub struct Merger {
    told: VecDeque<Told>,
    sessions: VecDeque<Session>,
    opened: u64,
    merged: u64,
    aggregated: u64,
    unchanged: u64,
}

/// What became of reports. All but the first two count attempts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Reports that were merged into events of others.
    pub merged: u64,
    /// Sessions that are open.
    pub sessions: u64,
    /// Attempts that another source had told of.
    pub aggregated: u64,
    /// The end of a session at a terminal where nobody was seen.
    pub unchanged: u64,
    /// Attempts that wait for a log line.
    pub held: u64,
}

/// An event, sent or held.
#[derive(Debug)]
struct Told {
    login: Authentication,
    /// Process that an accounting file names: the session's, not the judge's.
    child: Option<u32>,
    time: Timestamp,
    at: Instant,
    /// How many of its attempts each source has told of.
    by: [u32; Teller::COUNT],
    held: bool,
    /// The session it opened.
    session: Option<u64>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    login: Authentication,
    child: Option<u32>,
    began: Instant,
    /// How long it had lasted by then, in milliseconds.
    before: u64,
}

impl Merger {
    /// Takes a report and appends the events that are due by it. `time` is the wall clock, `now` monotonic.
    pub fn take(&mut self, report: Report, time: Timestamp, now: Instant, out: &mut Vec<Event>) {
        self.expire(now, out);
        let Report { teller, mut login, since } = report;
        let child = login.pid.filter(|_| login.service == Teller::ACCOUNTING);
        if let Some(since) = since {
            let before = time.millis().saturating_sub(since.saturating_mul(1000));
            self.open(login, child, now, u64::try_from(before).unwrap_or(0));
            return;
        }
        let mut left = login.count.max(1);
        // The same process first: of two logins at once each keeps its own.
        for same_process in [true, false] {
            for at in 0..self.told.len() {
                let told = &self.told[at];
                let free = told.login.count - told.by[teller.index()];
                if left == 0 || free == 0 || !told.is(&login, same_process) {
                    continue;
                }
                let taken = free.min(left);
                left -= taken;
                self.merge(at, teller, &login, child, taken, out);
            }
        }
        if left == 0 {
            return;
        }
        login.count = left;
        let (mut child, mut session) = (child, None);
        if login.activity == Activity::Logoff {
            match self.close(&login, child) {
                Some(ended) => {
                    let lasted = now.saturating_duration_since(ended.began).as_millis();
                    login.duration_ms =
                        Some(ended.before.saturating_add(u64::try_from(lasted).unwrap_or(u64::MAX)));
                    fill(&mut login, &ended.login);
                    child = child.or(ended.child);
                }
                // A terminal that nobody was seen at.
                None if child.is_some() || login.user.is_none() => {
                    self.unchanged += u64::from(left);
                    return;
                }
                None => {}
            }
        } else if login.outcome == Outcome::Success && login.service != "sudo" {
            session = Some(self.open(login.clone(), child, now, 0));
        }
        if self.told.len() == EVENTS {
            self.send(0, out);
            self.told.pop_front();
        }
        let mut by = [0; Teller::COUNT];
        by[teller.index()] = left;
        self.told.push_back(Told { login, child, time, at: now, by, held: true, session });
        if teller == Teller::Log {
            self.send_until(self.told.len() - 1, out);
        }
    }

    /// Appends the events that have waited long enough, and forgets those out of the window.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Event>) {
        for at in 0..self.told.len() {
            if now.saturating_duration_since(self.told[at].at) >= HOLD {
                self.send(at, out);
            }
        }
        while self.told.front().is_some_and(|told| now.saturating_duration_since(told.at) >= WINDOW) {
            self.told.pop_front();
        }
    }

    /// When [`Merger::expire`] has something to send.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        self.told.iter().find(|told| told.held).map(|told| told.at + HOLD)
    }

    /// What became of what was told.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let held = self.told.iter().filter(|told| told.held).map(|told| u64::from(told.login.count)).sum();
        Figures {
            merged: self.merged,
            sessions: self.sessions.len() as u64,
            aggregated: self.aggregated,
            unchanged: self.unchanged,
            held,
        }
    }

    /// An event has been told of by one more source.
    fn merge(
        &mut self,
        at: usize,
        teller: Teller,
        login: &Authentication,
        child: Option<u32>,
        attempts: u32,
        out: &mut Vec<Event>,
    ) {
        self.merged += 1;
        self.aggregated += u64::from(attempts);
        let told = &mut self.told[at];
        told.by[teller.index()] += attempts;
        if told.held && teller == Teller::Log {
            let less = std::mem::replace(&mut told.login, login.clone());
            told.login.count = less.count;
            told.login.duration_ms = less.duration_ms;
            fill(&mut told.login, &less);
        } else {
            // Of an event that was sent, for recognising what is yet to come.
            fill(&mut told.login, login);
        }
        told.child = told.child.or(child);
        let (session, child) = (told.session, told.child);
        let open = self.sessions.iter_mut().find(|open| session == Some(open.number));
        if let Some(open) = open {
            fill(&mut open.login, &self.told[at].login);
            open.child = child;
            let tty = open.login.tty.clone();
            self.vacate(tty.as_deref(), 1);
        }
        if teller == Teller::Log {
            self.send_until(at, out);
        }
    }

    /// What was held before this one goes first, when it is about the same session: a logout does not overtake its login.
    fn send_until(&mut self, at: usize, out: &mut Vec<Event>) {
        if self.told[at].login.activity == Activity::Logoff {
            for earlier in 0..at {
                self.send(earlier, out);
            }
        }
        self.send(at, out);
    }

    fn send(&mut self, at: usize, out: &mut Vec<Event>) {
        let told = &mut self.told[at];
        if std::mem::replace(&mut told.held, false) {
            out.push(Event::new(told.time, told.login.clone().into()));
        }
    }

    fn open(&mut self, login: Authentication, child: Option<u32>, began: Instant, before: u64) -> u64 {
        self.vacate(login.tty.as_deref().filter(|_| login.activity == Activity::Logon), 0);
        if self.sessions.len() == SESSIONS {
            self.sessions.pop_front();
        }
        let login = Authentication { message: String::new(), ..login };
        self.opened += 1;
        self.sessions.push_back(Session { number: self.opened, login, child, began, before });
        self.opened
    }

    /// Whoever was logged in at a terminal where somebody else is now is not any more. Keeps the `newest` ones of them.
    fn vacate(&mut self, tty: Option<&str>, newest: usize) {
        let Some(tty) = tty else { return };
        let there = |session: &Session| {
            session.login.tty.as_deref() == Some(tty) && session.login.activity == Activity::Logon
        };
        let mut surplus = self.sessions.iter().filter(|s| there(s)).count().saturating_sub(newest);
        self.sessions.retain(|session| {
            let goes = surplus > 0 && there(session);
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// Takes out the session that ends: by what is surest first.
    fn close(&mut self, end: &Authentication, child: Option<u32>) -> Option<Session> {
        let by_process = |s: &Session| has(s.login.pid, end.pid) || has(s.child, end.pid.or(child));
        let by_port =
            |s: &Session| has(s.login.source, end.source) && has(s.login.source_port, end.source_port);
        let by_terminal = |s: &Session| s.login.tty.is_some() && s.login.tty == end.tty;
        let by_user = |s: &Session| {
            s.login.user.is_some() && s.login.user == end.user && (s.login.source == end.source)
        };
        let ways: [&dyn Fn(&Session) -> bool; 4] = [&by_process, &by_port, &by_terminal, &by_user];
        let at = ways.iter().find_map(|way| {
            self.sessions.iter().position(|session| way(session) && !contradict(&session.login, end))
        })?;
        self.sessions.remove(at)
    }
}

impl Told {
    /// The report is about this event.
    fn is(&self, login: &Authentication, same_process: bool) -> bool {
        let own = has(self.login.pid, login.pid) || has(self.child, login.pid);
        // It was sent without the address that would be counted.
        let blind = !self.held && self.login.source.is_none() && login.source.is_some();
        self.login.activity == login.activity
            && self.login.outcome == login.outcome
            && (own || (!same_process && alike(&self.login, login)))
            && !contradict(&self.login, login)
            && !(blind && login.outcome == Outcome::Failure)
    }
}

/// Both are known, and equal.
fn has<T: PartialEq + Copy>(one: Option<T>, other: Option<T>) -> bool {
    one.is_some() && one == other
}

/// Both are known, and differ.
fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// They cannot be about the same login.
fn contradict(one: &Authentication, other: &Authentication) -> bool {
    let named = |login: &Authentication| login.service != Teller::ACCOUNTING;
    let switches = |login: &Authentication| matches!(login.service.as_str(), "su" | "sudo");
    differ(one.source.as_ref(), other.source.as_ref())
        || differ(one.source_port.as_ref(), other.source_port.as_ref())
        || differ(one.tty.as_ref(), other.tty.as_ref())
        || (named(one) && named(other) && one.service != other.service)
        // Accounting files do not tell of these.
        || switches(one) != switches(other)
        || one.user.as_ref().zip(other.user.as_ref()).is_some_and(|(one, other)| !same_name(one, other))
}

/// Records cut names, and daemons escape what does not print in ways of their own: such names do not contradict.
fn same_name(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let odd = |name: &str| !name.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    one == other || odd(one) || odd(other) || (short.len() >= USER_BYTES - 1 && long.starts_with(short))
}

/// They have something in common that makes them the same, provided that nothing contradicts.
fn alike(one: &Authentication, other: &Authentication) -> bool {
    let placeless = |login: &Authentication| login.source.is_none() && login.tty.is_none();
    has(one.source, other.source)
        || (one.tty.is_some() && one.tty == other.tty)
        || (one.user.is_some() && one.user == other.user && (placeless(one) || placeless(other)))
}

/// Fills in what `login` lacks.
fn fill(login: &mut Authentication, other: &Authentication) {
    if login.service == Teller::ACCOUNTING {
        login.service.clone_from(&other.service);
        login.pid = other.pid.or(login.pid);
    }
    if login.user.is_none() {
        login.user.clone_from(&other.user);
        login.user_known = login.user_known.or(other.user_known);
    }
    if login.method.is_none() && login.activity != Activity::Logoff {
        login.method.clone_from(&other.method);
    }
    if login.source.is_none() || login.source == other.source {
        login.source = login.source.or(other.source);
        login.source_port = login.source_port.or(other.source_port);
    }
    if login.tty.is_none() {
        login.tty.clone_from(&other.tty);
    }
    login.pid = login.pid.or(other.pid);
}

#[cfg(test)]
mod tests;
