//! Alert suppression: repeats of an alert become a count, and a rule gone wild is throttled. Nothing is dropped without being counted.
//!
//! The first finding of its kind goes out at once. Further ones within the window are held, and reported as one update with their
//! number when the window ends. Time comes from the events and from [`Suppressor::tick`], so a replay gives the same result.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use defender_model::finding::Finding;
use defender_model::order;
use defender_model::time::Timestamp;

/// Kinds of findings that are remembered at a time; beyond it the window that began first ends early.
const MAX_WINDOWS: usize = 512;
const HOUR: i64 = 3_600_000;

/// How findings are thinned out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds in which repeats are held after the first of their kind; 0 sends each.
    pub repeat_window: i64,
    /// Findings of one rule within an hour; 0 for no bound.
    pub per_hour: u32,
    /// The same for single rules, by id.
    pub per_hour_of: HashMap<String, u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { repeat_window: 300_000, per_hour: 600, per_hour_of: HashMap::new() }
    }
}

/// What became of all findings: `produced = delivered - updates + repeats + withheld`, where every repeat is in the count of an
/// update once its window ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Findings that came in.
    pub produced: u64,
    /// Findings that went out, updates among them.
    pub delivered: u64,
    /// Updates that went out, each standing for some repeats.
    pub updates: u64,
    /// Findings that were counted as repeats.
    pub repeats: u64,
    /// Findings that went over their rule's rate.
    pub withheld: u64,
}

/// Findings of one rule that went over its rate, since it was last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Id of the rule.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// How many.
    pub count: u64,
}

/// The first of its kind, and its repeats so far.
#[derive(Debug)]
struct Window {
    ends: i64,
    /// The latest repeat, its count and first time those of all so far.
    update: Option<Finding>,
    uid: String,
    count: u32,
    first_seen: Timestamp,
}

/// A token bucket: `tokens` are thousandths of a finding.
#[derive(Debug)]
struct Bucket {
    tokens: i64,
    filled: i64,
    withheld: u64,
    title: String,
}

/// Thins out findings.
#[derive(Debug, Default)]
pub struct Suppressor {
    settings: Settings,
    windows: BTreeMap<String, Window>,
    buckets: BTreeMap<String, Bucket>,
    stats: Stats,
}

impl Suppressor {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// What became of the findings so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Takes in a finding at `now`; appends what is to be sent.
    pub fn admit(&mut self, finding: Finding, now: Timestamp, out: &mut Vec<Finding>) {
        self.stats.produced += 1;
        self.tick(now, out);
        let key = (self.settings.repeat_window > 0).then(|| key(&finding));
        if let Some(window) = key.as_ref().and_then(|key| self.windows.get_mut(key)) {
            self.stats.repeats += 1;
            window.count = window.count.saturating_add(finding.count);
            window.update = Some(finding);
            return;
        }
        if !self.within_rate(&finding, now.millis()) {
            self.stats.withheld += 1;
            return;
        }
        if let Some(key) = key {
            if self.windows.len() >= MAX_WINDOWS {
                self.end_oldest(out);
            }
            let window = Window {
                ends: now.millis().saturating_add(self.settings.repeat_window),
                update: None,
                uid: finding.uid.clone(),
                count: finding.count,
                first_seen: finding.first_seen,
            };
            self.windows.insert(key, window);
        }
        self.send(finding, out);
    }

    /// Ends the windows that are over at `now`; appends the updates that are due.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Finding>) {
        let now = now.millis();
        // A clock that was set back must not hold repeats for ever.
        let over = |window: &Window, span: i64| now >= window.ends || window.ends - now > span;
        let span = self.settings.repeat_window;
        // Asked with every finding, and mostly no.
        if !self.windows.values().any(|window| over(window, span)) {
            return;
        }
        let mut due: Vec<String> =
            self.windows.iter().filter(|(_, w)| over(w, span)).map(|(key, _)| key.clone()).collect();
        order::sort_by_key(&mut due, |key| self.windows.get(key).map(|w| w.ends));
        for key in due {
            self.end(&key, out);
        }
    }

    /// Ends every window, as when the agent stops.
    pub fn flush(&mut self, out: &mut Vec<Finding>) {
        while !self.windows.is_empty() {
            self.end_oldest(out);
        }
    }

    /// What went over its rule's rate since the last call.
    pub fn take_withheld(&mut self) -> Vec<Withheld> {
        self.buckets
            .iter_mut()
            .filter(|(_, bucket)| bucket.withheld > 0)
            .map(|(rule, bucket)| Withheld {
                rule: rule.clone(),
                title: bucket.title.clone(),
                count: std::mem::take(&mut bucket.withheld),
            })
            .collect()
    }

    fn end_oldest(&mut self, out: &mut Vec<Finding>) {
        let oldest = self.windows.iter().min_by_key(|(_, window)| window.ends).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.end(&key, out);
        }
    }

    fn end(&mut self, key: &str, out: &mut Vec<Finding>) {
        let Some(window) = self.windows.remove(key) else { return };
        let Some(mut update) = window.update else { return };
        update.uid = window.uid;
        update.count = window.count;
        update.first_seen = window.first_seen;
        update.update = true;
        // Writing to a String cannot fail.
        let _ = write!(update.message, " (repeated: {} in all since {})", update.count, update.first_seen);
        self.stats.updates += 1;
        self.send(update, out);
    }

    fn send(&mut self, finding: Finding, out: &mut Vec<Finding>) {
        self.stats.delivered += 1;
        out.push(finding);
    }

    fn within_rate(&mut self, finding: &Finding, now: i64) -> bool {
        let rule = &finding.rule;
        let limit = self.settings.per_hour_of.get(&rule.id).copied().unwrap_or(self.settings.per_hour);
        if limit == 0 {
            return true;
        }
        let full = i64::from(limit) * 1000;
        let bucket = self.buckets.entry(rule.id.clone()).or_insert_with(|| Bucket {
            tokens: full,
            filled: now,
            withheld: 0,
            title: rule.title.clone(),
        });
        // An hour fills it; a clock that was set back starts anew.
        let passed = (now - bucket.filled).clamp(0, HOUR);
        bucket.tokens = full.min(bucket.tokens + passed * full / HOUR);
        bucket.filled = now;
        if bucket.tokens < 1000 {
            bucket.withheld += 1;
            return false;
        }
        bucket.tokens -= 1000;
        true
    }
}

/// What makes two findings repeats: the rule, the addresses, and what the correlation groups by or else the message, numbers aside.
fn key(finding: &Finding) -> String {
    let mut key = String::with_capacity(160);
    // Writing to a String cannot fail.
    let _ = write!(key, "{}\u{0}{:?}\u{0}{:?}\u{0}", finding.rule.id, finding.source, finding.destination);
    if finding.rule.correlation {
        for (name, value) in &finding.group {
            let _ = write!(key, "{name}={}:{value}\u{0}", value.len());
        }
        return key;
    }
    let mut digits = false;
    for c in finding.message.chars() {
        if !c.is_ascii_digit() {
            key.push(c);
        } else if !digits {
            key.push('#');
        }
        digits = c.is_ascii_digit();
    }
    key
}
