//! Events in, findings out.

mod floor;
mod groups;

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use defender_model::event::{Event, EventKind};
use defender_model::file::Sha256;
use defender_model::finding::Finding;
use defender_model::network::FlowChange;
use defender_model::text::truncate;
use defender_model::time::Timestamp;

use crate::describe;
use crate::exception::Exception;
use crate::feed::{Feed as ThreatFeed, Feeds};
use crate::field::{self, Class, Scratch, Value, Values};
use crate::matcher::Answers;
use crate::predicate::decimal;
use crate::profile::{Lack, Profile};
use crate::ruleset::{Correlation, Feed, Input, Key, RuleSet};
use crate::sigma::correlation::CorrelationKind;
use crate::window::{Memory, Observation, Window};
use groups::{Group, Groups};

/// Longest value of a field that correlations tell apart, in bytes.
const MAX_KEY: usize = 256;

/// Bounds on what correlations remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Groups of one correlation.
    pub groups_per_rule: usize,
    /// Groups of all correlations together.
    pub groups_total: usize,
    /// Remembered events and values of all groups together; each takes 16 to 300 bytes.
    pub entries_total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { groups_per_rule: 1024, groups_total: 4096, entries_total: 32_768 }
    }
}

/// What the detector has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Events rules could be about.
    pub events: u64,
    /// Rules looked at further because one of their literals was found, over all events.
    pub evaluated: u64,
    /// Rules that held, alerting or not.
    pub matches: u64,
    /// Findings yielded.
    pub findings: u64,
    /// Groups that correlations remember now.
    pub groups: usize,
    /// Groups forgotten before their time because a bound was reached.
    pub evictions: u64,
}

/// Buffers kept from event to event.
#[derive(Debug, Default)]
struct Buffers {
    found: Vec<u32>,
    /// Rules about audit records that held for this event.
    held: Vec<u32>,
    /// Exceptions that cover the event under judgement, and the rule each is about.
    covering: Vec<(usize, Option<u32>)>,
    key: String,
    value: String,
}

/// A correlation that held, and is about to be told to those that refer to it.
struct Held {
    rule: u32,
    group: Box<[Box<str>]>,
    emitted: bool,
}

/// Judges events by a set of rules.
#[derive(Debug)]
pub struct Detector {
    rules: Arc<RuleSet>,
    limits: Limits,
    scratch: Scratch,
    buffers: Buffers,
    /// By class.
    answers: Vec<Answers>,
    groups: Vec<Groups>,
    group_count: usize,
    slot_count: usize,
    /// By rule: findings so far.
    numbers: Vec<u64>,
    /// By exception: how often it covered what a rule held for.
    excepted: Vec<u64>,
    threat_feeds: Feeds,
    /// The learned profile in force.
    profile: Option<Box<Profile>>,
    /// The latest time the clock told.
    ticked: Option<i64>,
    stats: Stats,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(rules: impl Into<Arc<RuleSet>>, limits: Limits) -> Self {
        let rules = rules.into();
        let answers = rules.matchers.iter().map(Answers::new).collect();
        let groups = rules.correlations.iter().map(|_| Groups::default()).collect();
        let numbers = vec![0; rules.rules.len()];
        let excepted = vec![0; rules.exceptions.len()];
        Self {
            limits,
            scratch: Scratch::default(),
            buffers: Buffers::default(),
            answers,
            groups,
            group_count: 0,
            slot_count: 0,
            numbers,
            excepted,
            threat_feeds: Feeds::default(),
            profile: None,
            ticked: None,
            stats: Stats::default(),
            rules,
        }
    }

    /// The rules it judges by.
    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let evaluated = self.answers.iter().map(|a| a.evaluated).sum();
        Stats { groups: self.group_count, evaluated, ..self.stats }
    }

    /// Judges one event; appends what it concludes. Allocates nothing unless a rule holds.
    pub fn inspect(&mut self, event: &Event, findings: &mut Vec<Finding>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(reading) = field::read(event, &mut scratch) {
            self.stats.events += 1;
            self.buffers.held.clear();
            for class in reading.classes {
                self.judge(*class, event, &reading.values, findings);
            }
            self.judge_views(event, &mut scratch, findings);
            if self.slot_count > self.limits.entries_total {
                self.make_room(event.time.millis());
            }
        }
        self.scratch = scratch;
        if let Some(mut profile) = self.profile.take() {
            profile.inspect(event, &mut |lack, program, entry| {
                self.lacking(lack, program, entry, event, findings);
            });
            self.profile = Some(profile);
        }
        let before = findings.len();
        self.threat_feeds.inspect(event, findings);
        self.stats.findings += (findings.len() - before) as u64;
    }

    /// Puts a learned profile in force. It says something only with the rules of [`RuleSetBuilder::profile`].
    ///
    /// [`RuleSetBuilder::profile`]: crate::RuleSetBuilder::profile
    pub fn set_profile(&mut self, profile: Profile) {
        self.profile = Some(Box::new(profile));
    }

    /// The profile lacks something of this event.
    fn lacking(
        &mut self,
        lack: Lack,
        program: &str,
        entry: String,
        event: &Event,
        findings: &mut Vec<Finding>,
    ) {
        let Some(rule) = self.rules.profile.map(|first| first + lack as u32) else { return };
        if !self.rules.rules[rule as usize].alerts {
            return;
        }
        // What was read for the rules is gone by now; that it is read again costs only what alerts.
        let mut scratch = std::mem::take(&mut self.scratch);
        let excepted = field::read(event, &mut scratch).is_some_and(|reading| {
            reading.classes.iter().any(|class| {
                self.find_exceptions(*class, &reading.values, event.time);
                self.is_excepted(rule)
            })
        });
        self.scratch = scratch;
        if excepted {
            return;
        }
        self.stats.matches += 1;
        let n = self.next_number(rule);
        findings.push(describe::unprofiled(&self.rules.rules[rule as usize], n, event, program, entry));
    }

    /// Puts a threat feed in force, in place of the one of that name.
    pub fn set_feed(&mut self, feed: ThreatFeed) {
        self.threat_feeds.set(feed);
    }

    /// Takes a threat feed out of force; false when there is none of that name.
    pub fn remove_feed(&mut self, name: &str) -> bool {
        self.threat_feeds.remove(name)
    }

    /// Digests of files that are run are wanted: tell [`Detector::inspect_digest`] of them.
    #[must_use]
    pub fn wants_digests(&self) -> bool {
        self.threat_feeds.wants_digests()
    }

    /// Judges the start of a program once more, now by the digest of its file. Computing it takes longer than an event may.
    pub fn inspect_digest(&mut self, event: &Event, digest: Sha256, findings: &mut Vec<Finding>) {
        let before = findings.len();
        self.threat_feeds.inspect_digest(event, digest, findings);
        self.stats.findings += (findings.len() - before) as u64;
    }

    /// The threat feeds in force.
    pub fn threat_feeds(&self) -> impl Iterator<Item = &ThreatFeed> {
        self.threat_feeds.iter()
    }

    /// Judges the event as audit records, and as a line of the system log, where there are rules about these.
    fn judge_views(&mut self, event: &Event, scratch: &mut Scratch, findings: &mut Vec<Finding>) {
        let has_rules =
            |class: Class| self.rules.matchers.get(class as usize).is_some_and(|matcher| !matcher.is_empty());
        let (audit, log) = (has_rules(Class::Audit), has_rules(Class::Log));
        if audit {
            let mut number = 0;
            while let Some(values) = field::audit_record(event, number, scratch) {
                self.judge(Class::Audit, event, &values, findings);
                number += 1;
            }
        }
        if log {
            if let Some(values) = field::log_line(event, scratch) {
                self.judge(Class::Log, event, &values, findings);
            }
        }
    }

    /// Judges one view of an event. A rule holds once per event, whichever of its records it holds for.
    fn judge(&mut self, class: Class, event: &Event, values: &Values<'_>, findings: &mut Vec<Finding>) {
        let number = class as usize;
        if number >= self.answers.len() {
            return;
        }
        let mut found = std::mem::take(&mut self.buffers.found);
        found.clear();
        self.rules.matchers[number].run(values, &mut self.answers[number], &mut found);
        if !found.is_empty() {
            self.find_exceptions(class, values, event.time);
        }
        for rule in &found {
            if self.is_excepted(*rule) {
                continue;
            }
            if class == Class::Audit {
                if self.buffers.held.contains(rule) {
                    continue;
                }
                self.buffers.held.push(*rule);
            }
            self.stats.matches += 1;
            self.rule_held(*rule, event, values, findings);
        }
        self.buffers.found = found;
    }

    /// Notes which exceptions cover the event under judgement.
    fn find_exceptions(&mut self, class: Class, values: &Values<'_>, time: Timestamp) {
        self.buffers.covering.clear();
        for (number, exception) in self.rules.exceptions.iter().enumerate() {
            if exception.covers(class, values, time) {
                self.buffers.covering.push((number, exception.rule));
            }
        }
    }

    /// Whether one of them covers what `rule` holds for; it is counted then.
    fn is_excepted(&mut self, rule: u32) -> bool {
        let covering = self.buffers.covering.iter().find(|(_, of)| of.is_none_or(|of| of == rule));
        let Some((number, _)) = covering else { return false };
        self.excepted[*number] += 1;
        true
    }

    /// The exceptions, and how often each has covered what a rule held for.
    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = (&Exception, u64)> {
        self.rules.exceptions.iter().zip(self.excepted.iter().copied())
    }

    fn rule_held(&mut self, rule: u32, event: &Event, values: &Values<'_>, findings: &mut Vec<Finding>) {
        if self.rules.rules[rule as usize].alerts {
            let n = self.next_number(rule);
            findings.push(describe::single(&self.rules.rules[rule as usize], n, event));
        }
        let mut pending: Vec<Held> = Vec::new();
        for at in 0..self.rules.feeds[rule as usize].len() {
            let feed = self.rules.feeds[rule as usize][at];
            self.feed(feed, event, Some(values), None, &mut pending, findings);
        }
        // Correlations of correlations. They refer to each other without circles, so this ends.
        while let Some(held) = pending.pop() {
            for at in 0..self.rules.feeds[held.rule as usize].len() {
                let feed = self.rules.feeds[held.rule as usize][at];
                self.feed(feed, event, None, Some(&held), &mut pending, findings);
            }
        }
    }

    /// Tells a correlation that one of its inputs held.
    fn feed(
        &mut self,
        feed: Feed,
        event: &Event,
        values: Option<&Values<'_>>,
        held: Option<&Held>,
        pending: &mut Vec<Held>,
        findings: &mut Vec<Finding>,
    ) {
        let number = feed.correlation as usize;
        if self.is_excepted(self.rules.correlations[number].rule) {
            return;
        }
        let correlation = &self.rules.correlations[number];
        let floor = correlation.floor;
        let temporal =
            matches!(correlation.kind, CorrelationKind::Temporal | CorrelationKind::TemporalOrdered);
        // A correlation that goes on holding stays a link of a chain; it is counted only when it fires.
        if !temporal && held.is_some_and(|h| !h.emitted) {
            return;
        }
        let input = &correlation.inputs[feed.input as usize];
        let Buffers { key, value, .. } = &mut self.buffers;
        if !write_key(key, input, values, held) {
            return;
        }
        value.clear();
        if let Some(from) = input.value {
            if !write_value(value, from, values, held) {
                return;
            }
        }
        if !self.groups[number].by_key.contains_key(key.as_str()) {
            if self.groups[number].by_key.len() >= self.limits.groups_per_rule {
                self.forget(number, event.time.millis(), self.limits.groups_per_rule);
            }
            self.make_room(event.time.millis());
            let correlation = &self.rules.correlations[number];
            let input = &correlation.inputs[feed.input as usize];
            let group = Group {
                values: input.group.iter().map(|from| key_text(*from, values, held)).collect(),
                window: Window::new(memory(correlation), correlation.span),
                slots: 0,
                touched: 0,
                since: event.time.millis(),
            };
            self.groups[number].by_key.insert(self.buffers.key.as_str().into(), group);
            self.group_count += 1;
        }
        let correlation = &self.rules.correlations[number];
        let input = &correlation.inputs[feed.input as usize];
        let Some(group) = self.groups[number].by_key.get_mut(self.buffers.key.as_str()) else { return };
        group.touched = self.stats.events;
        let weight = match (&event.kind, held) {
            (EventKind::Authentication(a), None) => a.count.max(1),
            _ => 1,
        };
        let reading = group.window.observe(&Observation {
            time: event.time.millis(),
            event: self.stats.events,
            weight,
            positions: &input.positions,
            value: &self.buffers.value,
            connection: connection(correlation.kind, event),
        });
        let slots = group.window.memory.slots();
        self.slot_count = self.slot_count - group.slots + slots;
        group.slots = slots;
        let holds = !floor
            && reading.complete
            && correlation.bounds.iter().all(|(c, bound)| c.holds(reading.value, *bound));
        if !holds {
            return;
        }
        let rule = correlation.rule;
        let firing = group.window.fire();
        let feeds_others = !self.rules.feeds[rule as usize].is_empty();
        if feeds_others {
            pending.push(Held { rule, group: group.values.clone(), emitted: firing.is_some() });
        }
        let Some(firing) = firing else { return };
        self.stats.matches += 1;
        if self.rules.rules[rule as usize].alerts {
            let values = group.values.clone();
            let n = self.next_number(rule);
            let about = describe::Group { correlation: &self.rules.correlations[number], values: &values };
            findings.push(describe::correlation(
                &self.rules.rules[rule as usize],
                n,
                event,
                &about,
                firing,
                reading.value,
            ));
        }
    }

    fn next_number(&mut self, rule: u32) -> u64 {
        let number = &mut self.numbers[rule as usize];
        *number += 1;
        self.stats.findings += 1;
        *number
    }
}

fn memory(correlation: &Correlation) -> Memory {
    let highest = correlation.bounds.iter().map(|(_, bound)| *bound).max().unwrap_or(0);
    match correlation.kind {
        CorrelationKind::EventCount => Memory::count(highest, correlation.span),
        CorrelationKind::ValueCount => Memory::distinct(highest),
        CorrelationKind::ActiveCount => Memory::active(highest),
        CorrelationKind::Temporal => Memory::set(correlation.rules),
        CorrelationKind::TemporalOrdered => Memory::chain(correlation.rules),
    }
}

/// The connection an event is about, and whether it is open after it; for counts of connections.
fn connection(kind: CorrelationKind, event: &Event) -> Option<(u64, bool)> {
    let EventKind::Network(flow) = &event.kind else { return None };
    if kind != CorrelationKind::ActiveCount {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    (flow.protocol, flow.source, flow.destination).hash(&mut hasher);
    Some((hasher.finish(), matches!(flow.change, FlowChange::Opened | FlowChange::Traffic)))
}

/// Writes the group's key; false when the event lacks a field the correlation groups by.
fn write_key(key: &mut String, input: &Input, values: Option<&Values<'_>>, held: Option<&Held>) -> bool {
    key.clear();
    for from in &input.group {
        let start = key.len();
        if !write_value(key, *from, values, held) {
            return false;
        }
        // The length after each value keeps `a`, `bc` apart from `ab`, `c`.
        let length = key.len() - start;
        // Writing to a String cannot fail.
        let _ = write!(key, "\u{0}{length}\u{0}");
    }
    true
}

fn write_value(out: &mut String, from: Key, values: Option<&Values<'_>>, held: Option<&Held>) -> bool {
    match (from, values, held) {
        (Key::Field(field), Some(values), _) => match values.get(field) {
            Value::Absent => false,
            Value::Text(text) => {
                out.push_str(truncate(text, MAX_KEY));
                true
            }
            Value::Number(n) => {
                out.push_str(decimal(n, &mut [0; 20]));
                true
            }
        },
        (Key::Group(at), _, Some(held)) => held.group.get(at).is_some_and(|text| {
            out.push_str(text);
            true
        }),
        _ => false,
    }
}

fn key_text(from: Key, values: Option<&Values<'_>>, held: Option<&Held>) -> Box<str> {
    let mut text = String::new();
    write_value(&mut text, from, values, held);
    text.into_boxed_str()
}
