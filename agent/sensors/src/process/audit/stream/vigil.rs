//! Since when the kernel may have told of nothing. It counts what it drops, but not what it was told to keep to itself.

use std::time::{Duration, Instant};

/// When all was well, and since when it is not.
#[derive(Debug)]
pub(super) struct Vigil {
    /// Whatever was told by then was read.
    heard: Instant,
    /// Auditing was on by then, and the rules were there.
    sure: Instant,
    /// It is known that nothing is told since then.
    deaf: Option<Instant>,
}

impl Vigil {
    pub(super) const fn new(now: Instant) -> Self {
        Self { heard: now, sure: now, deaf: None }
    }

    /// All that waited was read, from then on.
    pub(super) fn heard(&mut self, began: Instant) {
        self.heard = began;
    }

    /// The kernel was asked, and nothing was wrong.
    pub(super) fn sure(&mut self, now: Instant) {
        self.sure = now;
    }

    /// It has just been said that nothing more will be told, or nothing can be read any more: all is known up to the last time that
    /// everything was read.
    pub(super) fn deaf(&mut self) {
        self.deaf.get_or_insert(self.heard);
    }

    pub(super) const fn is_deaf(&self) -> bool {
        self.deaf.is_some()
    }

    /// Since when things may have gone unseen. What nobody said was wrong went wrong after the last look at the earliest.
    pub(super) fn unsure_since(&self) -> Instant {
        self.deaf.unwrap_or(self.sure)
    }

    /// How long that was, now that it is over.
    pub(super) fn tells_again(&mut self, now: Instant) -> Duration {
        let unseen = now.saturating_duration_since(self.unsure_since());
        (self.deaf, self.sure) = (None, now);
        unseen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn what_a_record_tells_began_after_what_was_heard_before() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        vigil.sure(start + seconds(5));
        vigil.heard(start + seconds(7));
        vigil.deaf();
        // More is read meanwhile, and a second cause changes nothing.
        vigil.heard(start + seconds(8));
        vigil.deaf();
        assert_eq!(vigil.unsure_since(), start + seconds(7));
        assert_eq!(vigil.tells_again(start + seconds(9)), seconds(2));
        assert!(!vigil.is_deaf());
        // From here on anew.
        assert_eq!(vigil.unsure_since(), start + seconds(9));
    }

    #[test]
    fn what_nobody_told_began_after_the_last_look() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        for second in 1..=5 {
            vigil.heard(start + seconds(second));
        }
        vigil.sure(start + seconds(5));
        vigil.heard(start + seconds(9));
        assert_eq!(vigil.tells_again(start + seconds(10)), seconds(5));
    }
}
