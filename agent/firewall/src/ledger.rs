//! Which blocks we believe in force: bounded, in memory, with time passed in.
//!
//! Times are milliseconds of a clock that never steps (the firewall's own start is zero), as the kernel's set time-outs are;
//! the wall clock enters only when blocks are saved or restored.
//!
//! At the bound, the block that would end soonest makes room for a new one that ends later: it has the least protection left
//! to give. A new block that would itself end soonest is refused. So a flood of short blocks never drives out a long one.

use std::collections::BTreeMap;

use crate::address::Target;

/// How long after its end a block may still be found in the kernel: time-outs are set and read back in whole seconds, and
/// the two clocks are read at slightly different moments.
pub(crate) const GRACE_MS: u64 = 2_000;

/// Longest reason kept, in bytes.
pub(crate) const MAX_REASON: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) reason: String,
    pub(crate) ends_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    entries: BTreeMap<Target, Entry>,
    limit: usize,
}

/// What one accepted block asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Not in the set.
    Add,
    /// In the set, or was a moment ago; its time-out must be replaced.
    Extend,
    /// In force already, for at least as long as asked.
    Keep,
    /// Refused: the ledger is full of blocks that end later.
    Full,
}

/// Changes that can be taken back.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    before: Vec<(Target, Option<Entry>)>,
    /// Targets driven out to make room.
    pub(crate) evicted: Vec<Target>,
}

impl Ledger {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), limit }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Enters a block of `duration_ms` from `now_ms`. A block in force is made longer, never shorter.
    pub(crate) fn block(
        &mut self,
        target: Target,
        duration_ms: u64,
        reason: &str,
        now_ms: u64,
        journal: &mut Journal,
    ) -> Change {
        let entry = Entry { reason: short(reason), ends_ms: now_ms.saturating_add(duration_ms) };
        if let Some(old) = self.entries.get(&target) {
            if old.ends_ms >= entry.ends_ms {
                return Change::Keep;
            }
            journal.before.push((target, self.entries.insert(target, entry)));
            return Change::Extend;
        }
        if self.entries.len() >= self.limit {
            let soonest = self.entries.iter().min_by_key(|(_, e)| e.ends_ms).map(|(t, e)| (*t, e.ends_ms));
            match soonest {
                Some((out, ends_ms)) if ends_ms < entry.ends_ms => {
                    journal.before.push((out, self.entries.remove(&out)));
                    journal.evicted.push(out);
                }
                _ => return Change::Full,
            }
        }
        journal.before.push((target, self.entries.insert(target, entry)));
        // Driven out a moment ago by the same batch: still in the kernel.
        if let Some(n) = journal.evicted.iter().position(|t| *t == target) {
            journal.evicted.swap_remove(n);
            return Change::Extend;
        }
        Change::Add
    }

    /// Takes back everything in the journal.
    pub(crate) fn undo(&mut self, journal: Journal) {
        for (target, before) in journal.before.into_iter().rev() {
            match before {
                Some(entry) => self.entries.insert(target, entry),
                None => self.entries.remove(&target),
            };
        }
    }

    /// Forgets a block; true when there was one.
    pub(crate) fn remove(&mut self, target: Target) -> bool {
        self.entries.remove(&target).is_some()
    }

    /// Forgets every block.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Forgets blocks that ended longer than [`GRACE_MS`] ago.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        self.entries.retain(|_, e| e.ends_ms.saturating_add(GRACE_MS) > now_ms);
    }

    pub(crate) fn get(&self, target: Target) -> Option<&Entry> {
        self.entries.get(&target)
    }

    /// Blocks that have not ended, with the milliseconds left.
    pub(crate) fn active(&self, now_ms: u64) -> impl Iterator<Item = (Target, &Entry, u64)> {
        self.entries
            .iter()
            .filter(move |(_, e)| e.ends_ms > now_ms)
            .map(move |(t, e)| (*t, e, e.ends_ms - now_ms))
    }
}

/// The reason, cut to [`MAX_REASON`] bytes at a character.
pub(crate) fn short(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn target(n: u32) -> Target {
        Target::from(Ipv4Addr::from_bits(0x0b00_0000 + n))
    }

    fn enter(ledger: &mut Ledger, n: u32, duration: u64, now: u64) -> (Change, Vec<Target>) {
        let mut journal = Journal::default();
        let change = ledger.block(target(n), duration, "r", now, &mut journal);
        (change, journal.evicted)
    }

    #[test]
    fn again_makes_longer_never_shorter() {
        let mut ledger = Ledger::new(10);
        assert_eq!(enter(&mut ledger, 1, 1000, 0).0, Change::Add);
        assert_eq!(enter(&mut ledger, 1, 500, 100).0, Change::Keep);
        assert_eq!(ledger.get(target(1)).unwrap().ends_ms, 1000);
        assert_eq!(enter(&mut ledger, 1, 1000, 100).0, Change::Extend);
        assert_eq!(ledger.get(target(1)).unwrap().ends_ms, 1100);
        // Ended, but perhaps a moment longer in the kernel.
        ledger.expire(2000);
        assert_eq!(enter(&mut ledger, 1, 1000, 2000).0, Change::Extend);
        ledger.expire(3000 + GRACE_MS);
        assert_eq!(enter(&mut ledger, 1, 1000, 9000).0, Change::Add);
    }

    #[test]
    fn the_soonest_to_end_makes_room_and_a_shorter_one_is_refused() {
        let mut ledger = Ledger::new(2);
        enter(&mut ledger, 1, 1000, 0);
        enter(&mut ledger, 2, 2000, 0);
        assert_eq!(enter(&mut ledger, 3, 500, 0), (Change::Full, vec![]));
        assert_eq!(enter(&mut ledger, 3, 1500, 0), (Change::Add, vec![target(1)]));
    }

    #[test]
    fn one_driven_out_and_asked_for_in_the_same_batch() {
        let mut ledger = Ledger::new(1);
        enter(&mut ledger, 1, 1000, 0);
        let mut journal = Journal::default();
        assert_eq!(ledger.block(target(2), 2000, "", 0, &mut journal), Change::Add);
        assert_eq!(ledger.block(target(1), 3000, "", 0, &mut journal), Change::Extend);
        assert_eq!(journal.evicted, [target(2)]);
        ledger.undo(journal);
        assert_eq!(ledger.active(0).map(|(t, _, left)| (t, left)).collect::<Vec<_>>(), [(target(1), 1000)]);
    }

    #[test]
    fn reasons_are_cut_at_a_character() {
        assert_eq!(short(&"ä".repeat(100)).len(), 128);
        assert_eq!(short(&format!("x{}", "ä".repeat(100))).len(), 127);
        assert_eq!(short("ssh"), "ssh");
    }

    proptest! {
        #[test]
        fn never_over_the_bound_never_shortened_and_undone_without_trace(
            limit in 1usize..6,
            asked in proptest::collection::vec((0u32..8, 1u64..5000, 0u64..300), 1..40),
            undo_from in 0usize..40,
        ) {
            let mut ledger = Ledger::new(limit);
            let mut now = 0;
            let mut journal = Journal::default();
            let mut kept = None;
            for (step, (n, duration, pause)) in asked.into_iter().enumerate() {
                now += pause;
                if step == undo_from {
                    kept = Some(ledger.entries.clone());
                    journal = Journal::default();
                }
                let before = ledger.get(target(n)).map(|e| e.ends_ms);
                let change = ledger.block(target(n), duration, "r", now, &mut journal);
                let after = ledger.get(target(n)).map(|e| e.ends_ms);
                prop_assert!(ledger.entries.len() <= limit);
                prop_assert!(after >= before);
                match change {
                    Change::Full => prop_assert!(after.is_none() && ledger.entries.values().all(|e| e.ends_ms >= now + duration)),
                    _ => prop_assert!(after.unwrap() >= now + duration),
                }
                // What a batch drives out is not also in force.
                prop_assert!(journal.evicted.iter().all(|t| ledger.get(*t).is_none()));
            }
            if let Some(kept) = kept {
                ledger.undo(journal);
                prop_assert_eq!(&ledger.entries, &kept);
            }
        }
    }
}
