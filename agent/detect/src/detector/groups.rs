//! What correlations remember, and what they forget when it gets too much.

use std::collections::HashMap;

use super::Detector;
use crate::window::Window;

/// The groups of one correlation.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) by_key: HashMap<Box<str>, Group>,
    /// Groups forgotten before their time, since the last report.
    evicted: u64,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) values: Box<[Box<str>]>,
    pub(super) window: Window,
    pub(super) slots: usize,
    /// When it was last told something, in events.
    pub(super) touched: u64,
    /// Of a floor: from when on its window is judged, which is when it was made or last found too low.
    pub(super) since: i64,
}

impl Detector {
    /// Correlations that had to forget groups before their time since the last call: title, and how many.
    pub fn take_evicted(&mut self) -> Vec<(String, u64)> {
        let rules = &self.rules;
        let groups = self.groups.iter_mut().enumerate().filter(|(_, groups)| groups.evicted > 0);
        groups
            .map(|(number, groups)| {
                let rule = &rules.rules[rules.correlations[number].rule as usize];
                (rule.info.title.clone(), std::mem::take(&mut groups.evicted))
            })
            .collect()
    }

    /// Forgets groups until the bounds on all of them hold: first those whose window has passed, then, of the correlation that
    /// has most of what is short, those not heard of for longest. So whoever makes one correlation remember much drives out
    /// what that one remembers, never the few groups of another.
    pub(super) fn make_room(&mut self, now: i64) {
        let full =
            |d: &Self| d.group_count >= d.limits.groups_total || d.slot_count >= d.limits.entries_total;
        if full(self) {
            for i in 0..self.groups.len() {
                self.forget(i, now, usize::MAX);
            }
        }
        while full(self) {
            let many_groups = self.group_count >= self.limits.groups_total;
            // A floor for everything has one group, which must not be forgotten: what is missing would be missing unnoticed.
            let largest = (0..self.groups.len())
                .filter(|i| {
                    !self.rules.correlations[*i].floor || !self.rules.correlations[*i].group_by.is_empty()
                })
                .max_by_key(|i| {
                    let groups = &self.groups[*i];
                    if many_groups {
                        groups.by_key.len()
                    } else {
                        groups.slots_in_use()
                    }
                });
            let Some(largest) = largest else { return };
            let kept = self.groups[largest].by_key.len();
            if kept == 0 {
                return;
            }
            self.forget(largest, now, kept);
        }
    }

    /// Forgets the passed groups of a correlation, and if `bound` or more are left, the oldest eighth of them.
    pub(super) fn forget(&mut self, number: usize, now: i64, bound: usize) {
        let groups = &mut self.groups[number].by_key;
        // The clock ends the groups of a floor.
        if !self.rules.correlations[number].floor {
            groups.retain(|_, group| !group.window.is_over(now));
        }
        if groups.len() >= bound && !groups.is_empty() {
            let mut ages: Vec<u64> = groups.values().map(|g| g.touched).collect();
            let cut = (ages.len() - 1) / 8;
            let (_, oldest, _) = ages.select_nth_unstable(cut);
            let oldest = *oldest;
            let before = groups.len();
            groups.retain(|_, group| group.touched > oldest);
            let evicted = (before - groups.len()) as u64;
            self.groups[number].evicted += evicted;
            self.stats.evictions += evicted;
        }
        self.group_count = self.groups.iter().map(|g| g.by_key.len()).sum();
        self.slot_count = self.groups.iter().map(Groups::slots_in_use).sum();
    }
}

impl Groups {
    fn slots_in_use(&self) -> usize {
        self.by_key.values().map(|g| g.slots).sum()
    }
}
