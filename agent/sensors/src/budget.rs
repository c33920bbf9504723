//! How many events of a kind may pass in a second: a flood must not drive out what other sensors have to say.

use std::time::{Duration, Instant};

/// How many seconds' worth may pass at once after a quiet time.
const BURST: u64 = 5;

/// A bucket of tokens that fills by so many a second.
#[derive(Debug)]
pub struct Budget {
    per_second: u64,
    tokens: u64,
    filled: Instant,
    refused: u64,
}

impl Budget {
    /// A full bucket; 0 a second means without bound.
    #[must_use]
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, tokens: per_second * BURST, filled: now, refused: 0 }
    }

    /// One more may pass; what may not is counted.
    pub fn admits(&mut self, now: Instant) -> bool {
        if !self.has_room(now) {
            self.refused += 1;
            return false;
        }
        self.tokens = self.tokens.saturating_sub(1);
        true
    }

    /// Whether one more would pass, for a source that can wait.
    pub fn has_room(&mut self, now: Instant) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let passed = now.saturating_duration_since(self.filled);
        let grown =
            u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).saturating_mul(self.per_second) / 1000;
        if grown > 0 {
            self.tokens = self.tokens.saturating_add(grown).min(self.per_second * BURST);
            // Only what tokens were given for has passed.
            self.filled += Duration::from_millis(grown.saturating_mul(1000) / self.per_second);
            if self.tokens == self.per_second * BURST {
                self.filled = now;
            }
        }
        self.tokens > 0
    }

    /// How many were refused.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut budget = Budget::new(10, start);
        assert_eq!((0..100).filter(|_| budget.admits(start)).count(), 50);
        assert_eq!(budget.refused(), 50);
        let passed: usize =
            (1..=2000u64).filter(|ms| budget.admits(start + Duration::from_millis(*ms))).count();
        assert_eq!(passed, 20);
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| budget.admits(later)).count(), 50);
    }

    #[test]
    fn no_bound() {
        let now = Instant::now();
        let mut budget = Budget::new(0, now);
        assert!((0..10_000).all(|_| budget.admits(now)));
    }
}
