//! Which processes change the ruleset for the agent: every `nft` that it starts.
//!
//! The kernel names a change by a process id, and by then the process may be gone. One list for the whole process, since the ids are.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ids remembered. The agent starts a few `nft` a second at most.
const REMEMBERED: usize = 256;
/// An id may be another process's later; word of a change comes within this time, or was lost.
const LIFETIME: Duration = Duration::from_secs(60);

static STARTED: Mutex<VecDeque<(u32, Instant)>> = Mutex::new(VecDeque::new());

/// Takes note of an `nft` that was started.
pub(crate) fn note(pid: u32) {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if started.len() == REMEMBERED {
        started.pop_front();
    }
    started.push_back((pid, Instant::now()));
}

/// Whether this process was an `nft` of the agent within the last minute.
#[must_use]
pub fn is_own(pid: u32) -> bool {
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.iter().any(|(own, at)| *own == pid && at.elapsed() < LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known() {
        // Above any real id, so that other tests of this process do not matter.
        (0..1000).for_each(|n| note(1 << 30 | n));
        assert!(is_own(1 << 30 | 999) && is_own(1 << 30 | 900));
        assert!(!is_own(1 << 30) && !is_own(1 << 29));
        assert!(STARTED.lock().unwrap().len() <= REMEMBERED);
    }
}
