//! Which lines of one process count: the memory behind [`Role::Fallback`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::message::Role;

/// Processes remembered. An attack with more connections at once than this makes some attempts count twice, which is no loss.
const CAPACITY: usize = 256;
/// How long: longer than any daemon lets an unauthenticated client stay, shorter than process ids need to come round.
const LIFETIME: Duration = Duration::from_secs(600);

/// Remembers, for a while, which processes had a line that counted.
#[derive(Debug, Default)]
pub struct Attempts {
    seen: VecDeque<(Instant, u32)>,
}

impl Attempts {
    /// Whether a line of process `pid` with that role counts. `now` is monotonic.
    ///
    /// A line without a process id cannot be tied to another and counts.
    pub fn counts(&mut self, pid: Option<u32>, role: Role, now: Instant) -> bool {
        let Some(pid) = pid else { return true };
        while self.seen.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > LIFETIME) {
            self.seen.pop_front();
        }
        let known = self.seen.iter().any(|(_, p)| *p == pid);
        if known && role == Role::Fallback {
            return false;
        }
        if !known {
            if self.seen.len() == CAPACITY {
                self.seen.pop_front();
            }
            self.seen.push_back((now, pid));
        }
        true
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
    fn memory_ends() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        assert!(attempts.counts(Some(1), Role::Counted, now));
        assert!(attempts.counts(Some(1), Role::Fallback, now + LIFETIME + Duration::from_secs(1)));
        for pid in 0..10_000 {
            attempts.counts(Some(pid), Role::Counted, now);
        }
        assert_eq!(attempts.seen.len(), CAPACITY);
    }
}
