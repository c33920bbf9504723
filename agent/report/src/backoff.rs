//! Waiting longer after each failure.

use std::time::Duration;

/// Doubling delays between two bounds.
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

    /// The delay after this failure.
    pub(crate) fn failed(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.longest);
        delay
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
    fn doubles_between_bounds() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        assert_eq!([(); 4].map(|()| backoff.failed().as_secs()), [1, 2, 4, 5]);
        backoff.worked();
        assert_eq!(backoff.failed().as_secs(), 1);
    }
}
