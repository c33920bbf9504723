//! Waiting longer after each failure.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Doubling delays between two bounds, each shortened by chance: a fleet that lost its server at one time must not come back at one
/// time.
#[derive(Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// The delay after this failure: at least half of what its turn is.
    pub(crate) fn failed(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.longest);
        // The standard library's only source of chance: keys of a new hash are random (128 bits of the system's a process, counted on).
        let chance = RandomState::new().build_hasher().finish() % 1024;
        delay / 2 + delay * u32::try_from(chance).unwrap_or(0) / 2048
    }

    /// It worked: the next failure starts from the beginning.
    pub(crate) fn worked(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_between_bounds_and_no_two_are_the_same() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for turn in [1, 2, 4, 5, 5] {
            let (delay, turn) = (backoff.failed(), Duration::from_secs(turn));
            assert!(delay >= turn / 2 && delay <= turn, "{delay:?} of {turn:?}");
        }
        backoff.worked();
        assert!(backoff.failed() <= Duration::from_secs(1));
        let mut delays: Vec<Duration> = (0..64).map(|_| backoff.failed()).skip(4).collect();
        delays.sort();
        delays.dedup();
        assert!(delays.len() > 10, "{delays:?}");
    }
}
