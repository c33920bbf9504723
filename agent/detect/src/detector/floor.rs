//! Floors: rules that hold when too little happens. No event tells of that, so the clock asks.

use std::sync::Arc;

use defender_model::finding::Finding;
use defender_model::order;
use defender_model::time::Timestamp;

use super::{memory, Detector, Group};
use crate::describe;
use crate::window::Window;

/// Longest time between two ticks, in milliseconds.
const LONGEST_STEP: i64 = 60_000;

impl Detector {
    /// Some rule waits for what does not happen: [`Detector::tick`] is to be called.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        self.rules.correlations.iter().any(|correlation| correlation.floor)
    }

    /// Lets time pass; appends what is concluded from what did not happen. Call it about once a second, and at least once a minute:
    /// a longer step is taken for a clock that was set, and every window begins anew.
    pub fn tick(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        let now = now.millis();
        let step = self.ticked.map_or(i64::MAX, |last| now.saturating_sub(last));
        if (-LONGEST_STEP..0).contains(&step) {
            return;
        }
        self.ticked = Some(now);
        let set = !(0..=LONGEST_STEP).contains(&step);
        for number in 0..self.rules.correlations.len() {
            if self.rules.correlations[number].floor {
                self.judge_floor(number, now, set, findings);
            }
        }
    }

    /// What has fallen below a floor by now. `set`: the clock was set.
    fn judge_floor(&mut self, number: usize, now: i64, set: bool, findings: &mut Vec<Finding>) {
        let rules = Arc::clone(&self.rules);
        let correlation = &rules.correlations[number];
        let groups = &mut self.groups[number].by_key;
        // Nothing at all is too little too; of groups only those are known that were seen.
        if correlation.group_by.is_empty() && groups.is_empty() {
            let window = Window::new(memory(correlation), correlation.span);
            let group = Group { values: Box::default(), window, slots: 0, touched: 0, since: now };
            groups.insert(Box::default(), group);
            self.group_count += 1;
        }
        let mut short: Vec<(Box<str>, u64)> = Vec::new();
        for (key, group) in groups.iter_mut() {
            if set {
                group.since = now;
            }
            if now.saturating_sub(group.since) < correlation.span {
                continue;
            }
            let value = group.window.value_at(now);
            let slots = group.window.memory.slots();
            self.slot_count = self.slot_count - group.slots + slots;
            group.slots = slots;
            if correlation.bounds.iter().all(|(comparison, bound)| comparison.holds(value, *bound)) {
                group.since = now;
                short.push((key.clone(), value));
            }
        }
        // The same input gives the same output.
        order::sort(&mut short);
        for (key, value) in short {
            let grouped = !correlation.group_by.is_empty();
            let groups = &mut self.groups[number].by_key;
            let Some(values) = groups.get(&key).map(|group| group.values.clone()) else { continue };
            if grouped && value == 0 {
                // It is told once that a group has ceased.
                if let Some(group) = groups.remove(&key) {
                    self.group_count -= 1;
                    self.slot_count -= group.slots;
                }
            }
            self.stats.matches += 1;
            let rule = &rules.rules[correlation.rule as usize];
            if rule.alerts {
                let n = self.next_number(correlation.rule);
                let about = describe::Group { correlation, values: &values };
                findings.push(describe::shortfall(rule, n, Timestamp(now), &about, value));
            }
        }
    }
}
