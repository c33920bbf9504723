//! What is remembered of each process between its lines: whether it was counted, and where its client is.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::message::Role;

/// Processes remembered. An attack with more connections at once than this makes some attempts count twice, which is no loss.
const CAPACITY: usize = 256;
/// How long: longer than any daemon lets an unauthenticated client stay, shorter than process ids need to come round.
const LIFETIME: Duration = Duration::from_secs(600);

/// Remembers processes for a while.
#[derive(Debug, Default)]
pub struct Attempts {
    seen: VecDeque<Seen>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    pid: u32,
    counted: bool,
    origin: Option<(IpAddr, u16)>,
}

impl Attempts {
    /// Process `pid` has just begun to serve a client at that address and port. `now` is monotonic.
    pub fn began(&mut self, pid: u32, origin: (IpAddr, u16), now: Instant) {
        self.seen.retain(|seen| seen.pid != pid);
        self.remember(pid, now).origin = Some(origin);
    }

    /// Where the client of process `pid` is, if it was said.
    #[must_use]
    pub fn origin(&self, pid: u32) -> Option<(IpAddr, u16)> {
        self.seen.iter().find(|seen| seen.pid == pid)?.origin
    }

    /// Whether a line of process `pid` with that role counts. `now` is monotonic.
    ///
    /// A line without a process id cannot be tied to another and counts.
    pub fn counts(&mut self, pid: Option<u32>, role: Role, now: Instant) -> bool {
        let Some(pid) = pid else { return true };
        while self.seen.front().is_some_and(|seen| now.saturating_duration_since(seen.at) > LIFETIME) {
            self.seen.pop_front();
        }
        let known = self.seen.iter().position(|seen| seen.pid == pid);
        let seen = match known {
            Some(at) => &mut self.seen[at],
            None => self.remember(pid, now),
        };
        let before = std::mem::replace(&mut seen.counted, true);
        role == Role::Counted || !before
    }

    fn remember(&mut self, pid: u32, now: Instant) -> &mut Seen {
        if self.seen.len() == CAPACITY {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { at: now, pid, counted: false, origin: None });
        let last = self.seen.len() - 1;
        &mut self.seen[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_counts_once_and_only_alone() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        assert!(attempts.counts(Some(1), Role::Counted, now));
        assert!(attempts.counts(Some(1), Role::Counted, now));
        assert!(!attempts.counts(Some(1), Role::Fallback, now));
        assert!(attempts.counts(Some(2), Role::Fallback, now));
        assert!(!attempts.counts(Some(2), Role::Fallback, now));
        assert!(attempts.counts(None, Role::Fallback, now));
        assert!(attempts.counts(None, Role::Fallback, now));
    }

    #[test]
    fn a_new_client_makes_a_process_new() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let origin = ("192.0.2.7".parse().expect("v4"), 40022);
        assert!(attempts.counts(Some(1), Role::Counted, now));
        attempts.began(1, origin, now);
        assert_eq!((attempts.origin(1), attempts.origin(2)), (Some(origin), None));
        assert!(attempts.counts(Some(1), Role::Fallback, now));
        assert_eq!(attempts.origin(1), Some(origin));
    }

    #[test]
    fn memory_ends() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        assert!(attempts.counts(Some(1), Role::Counted, now));
        assert!(attempts.counts(Some(1), Role::Fallback, now + LIFETIME + Duration::from_secs(1)));
        for pid in 0..10_000 {
            attempts.counts(Some(pid), Role::Counted, now);
            attempts.began(pid + 20_000, ([192, 0, 2, 7].into(), 1), now);
        }
        assert_eq!(attempts.seen.len(), CAPACITY);
    }
}
