//! Every audit event has the next serial number: what was never seen was lost on the way.
//!
//! Numbers come slightly out of order, since events of different processors overlap. A number is given up for lost once it lies
//! far behind the highest, or when [`SerialTracker::settle`] is called a second time without it having come.

/// How far behind the highest number one may still arrive.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// Which of the latest serial numbers were seen, and which events were already handed on.
#[derive(Debug)]
pub(crate) struct SerialTracker {
    /// All numbers up to here are accounted for.
    floor: u64,
    highest: u64,
    highest_when_settled: u64,
    seen: [u64; WORDS],
    done: [u64; WORDS],
    lost: u64,
}

impl SerialTracker {
    pub(crate) const fn new() -> Self {
        Self { floor: 0, highest: 0, highest_when_settled: 0, seen: [0; WORDS], done: [0; WORDS], lost: 0 }
    }

    const fn slot(serial: u64) -> (usize, u64) {
        ((serial % WINDOW / 64) as usize, 1 << (serial % 64))
    }

    /// Notes a record of this event.
    pub(crate) fn see(&mut self, serial: u64) {
        if self.highest == 0 {
            // What was before we listened is none of our business.
            self.floor = serial.saturating_sub(1);
            self.highest = self.floor;
            self.highest_when_settled = self.floor;
        }
        if serial <= self.floor {
            return;
        }
        if serial > self.highest {
            if serial - self.floor > WINDOW {
                self.raise_floor(serial - WINDOW);
            }
            self.highest = serial;
        }
        let (word, bit) = Self::slot(serial);
        self.seen[word] |= bit;
    }

    /// True the first time an event is handed on; false for its copy from another socket.
    pub(crate) fn first_time(&mut self, serial: u64) -> bool {
        if serial <= self.floor {
            // Too old to tell; only an event that took over a thousand others to complete comes here.
            return true;
        }
        let (word, bit) = Self::slot(serial);
        let first = self.done[word] & bit == 0;
        self.done[word] |= bit;
        first
    }

    /// Gives up what was missing already at the last call. To be called about once a second.
    pub(crate) fn settle(&mut self) {
        let until = self.highest_when_settled;
        if until > self.floor {
            self.raise_floor(until);
        }
        self.highest_when_settled = self.highest;
    }

    /// Events never seen so far.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    fn raise_floor(&mut self, floor: u64) {
        let judged = floor.min(self.highest);
        for serial in self.floor + 1..=judged {
            let (word, bit) = Self::slot(serial);
            self.lost += u64::from(self.seen[word] & bit == 0);
            self.seen[word] &= !bit;
            self.done[word] &= !bit;
        }
        // Beyond the highest nothing was seen.
        self.lost += floor - judged;
        self.floor = floor;
        self.highest = self.highest.max(floor);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_is_counted_once_it_is_settled() {
        let mut tracker = SerialTracker::new();
        for serial in [10, 11, 13, 14] {
            tracker.see(serial);
        }
        tracker.settle();
        tracker.see(12);
        tracker.see(17);
        tracker.settle();
        assert_eq!(tracker.lost(), 0);
        tracker.settle();
        assert_eq!(tracker.lost(), 2);
    }

    #[test]
    fn a_leap_is_counted() {
        let mut tracker = SerialTracker::new();
        tracker.see(1);
        tracker.see(1_000_000_000_000);
        tracker.settle();
        tracker.settle();
        assert_eq!(tracker.lost(), 1_000_000_000_000 - 2);
    }

    #[test]
    fn copies_are_told_apart() {
        let mut tracker = SerialTracker::new();
        tracker.see(5);
        assert!(tracker.first_time(5));
        assert!(!tracker.first_time(5));
        tracker.see(5 + WINDOW * 2);
        assert!(tracker.first_time(5 + WINDOW * 2));
    }

    proptest! {
        /// Numbers shuffled by less than the window: lost is what is missing, exactly.
        #[test]
        fn lost_is_what_is_missing(present in prop::collection::btree_set(1u64..3000, 1..1500), shuffle in any::<u64>()) {
            let mut order: Vec<u64> = present.iter().copied().collect();
            let mut state = shuffle | 1;
            for i in 0..order.len().saturating_sub(1) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Neighbours change places, so that the first number stays the first seen; farther apart they never are.
                if i > 0 && state >> 63 == 1 && order[i + 1] - order[i] < WINDOW / 2 {
                    order.swap(i, i + 1);
                }
            }
            let mut tracker = SerialTracker::new();
            for serial in &order {
                tracker.see(*serial);
            }
            tracker.settle();
            tracker.settle();
            let first = order[0];
            let last = *present.last().unwrap();
            let expected = (first..=last).collect::<BTreeSet<_>>().difference(&present).count() as u64;
            prop_assert_eq!(tracker.lost(), expected);
        }
    }
}
