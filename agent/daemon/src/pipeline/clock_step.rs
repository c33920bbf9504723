//! Steps of the wall clock: a device without a battery wakes up in 1970, and time synchronisation sets it right later.
//!
//! Events that were numbered before have the old clock's times. Who receives them is told by how much these are off, and up to which number.

use std::path::Path;

use defender_model::health::{Health, Kind};
use defender_model::time::uptime_ms;

use crate::small_file;

/// Bytes of `/proc/uptime` that are read.
const LIMIT: u64 = 64;
/// From so many milliseconds on it is a step. Less than that is slewed by those who keep the time.
const STEP: i64 = 1000;
/// So many milliseconds may pass while the clocks are compared: who was held up between them has compared nothing.
const AT_ONCE: i64 = 200;

/// What the clocks said last.
#[derive(Debug, Default)]
pub(super) struct ClockStep {
    /// Wall clock less the time since boot, in milliseconds.
    offset: Option<i64>,
    /// The last number given out by then.
    sequence: u64,
}

impl ClockStep {
    /// What there is to say. `wall` is the wall clock in milliseconds, read between the two times since boot; `sequence` is the last number
    /// given out.
    pub(super) fn turn(&mut self, since_boot: [i64; 2], wall: i64, sequence: u64) -> Option<Health> {
        if since_boot[1] - since_boot[0] > AT_ONCE {
            return None;
        }
        let offset = wall - since_boot[1];
        let last = std::mem::replace(&mut self.sequence, sequence);
        let by = offset - self.offset.replace(offset)?;
        if by.abs() < STEP {
            return None;
        }
        let (direction, figure) = if by > 0 { ("forward", "forward_ms") } else { ("back", "back_ms") };
        let words = format!(
            "the wall clock was set {direction} by {} s; events of this boot up to number {last} have the old clock's times",
            by.unsigned_abs() / 1000
        );
        Some(
            Health::new(Kind::Changed, "clock", words).with(figure, by.unsigned_abs()).with("last_old", last),
        )
    }
}

/// Milliseconds since boot, time asleep included: a device that was asleep has not had its clock set.
pub(super) fn since_boot() -> Option<i64> {
    let uptime = small_file::read(Path::new("/proc/uptime"), LIMIT).ok()?;
    i64::try_from(uptime_ms(&uptime)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_and_a_slew_is_not() {
        let mut step = ClockStep::default();
        assert_eq!(step.turn([5000, 5000], 5000, 3), None, "1970");
        assert_eq!(step.turn([6000, 6010], 6510, 7), None);
        let told = step.turn([7000, 7000], 1_795_000_007_500, 9).expect("a step");
        assert_eq!(told.kind, Kind::Changed);
        assert!(
            told.message.contains("forward by 1795000000 s; events of this boot up to number 7 "),
            "{told:?}"
        );
        assert_eq!(step.turn([8000, 8000], 1_795_000_008_500, 10), None, "once");
        // Held up between the clocks, and then back.
        assert_eq!(step.turn([9000, 9900], 1_795_000_008_600, 11), None);
        let told = step.turn([10_000, 10_000], 1_794_999_990_500, 12).expect("a step");
        assert!(told.message.contains("back by 20 s; events of this boot up to number 10 "), "{told:?}");
    }

    #[test]
    fn the_time_since_boot_grows() {
        let (one, two) = (since_boot().expect("/proc"), since_boot().expect("/proc"));
        assert!(one > 0 && two >= one);
    }
}
