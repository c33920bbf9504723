//! Sliding windows over event time: what one group of one correlation remembers.
//!
//! An event is in the window while it is at most the timespan older than the newest. Time comes from events, and a device's clock can
//! jump: an event that is older than the newest by up to the timespan counts as now, one that is older by more means that the clock
//! was set back, and the window starts anew from it.

use std::collections::VecDeque;

/// Entries a window may hold before it joins neighbours.
const EXACT: u64 = 1024;
/// Entries a window holds at least, for the count in a finding to be right beyond the threshold.
const COURTESY: usize = 64;
/// Connections a window holds at least.
const CONNECTIONS: usize = 1024;

/// What a window of a kind remembers.
#[derive(Debug, Clone)]
pub(crate) enum Memory {
    /// Times and weights of events.
    Count { entries: VecDeque<(i64, u32)>, total: u64, capacity: usize, resolution: i64 },
    /// Values and when each was last seen.
    Distinct { entries: Vec<(Box<str>, i64)>, capacity: usize },
    /// Connections: those that are open, and those that ended within the window.
    Active { connections: Vec<Connection>, capacity: usize },
    /// When each rule last fired.
    Set { seen: Box<[Option<i64>]> },
    /// For each rule: the latest start of a chain of firings that ends with this rule.
    Chain { links: Box<[Link]> },
}

/// A connection that a window remembers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    key: u64,
    open: bool,
    /// When it was last heard of.
    heard: i64,
}

/// An open connection that is not heard of for so long is taken for one whose end was missed: the kernel forgets it then too
/// (`nf_conntrack_tcp_timeout_established`, five days).
const STALE: i64 = 5 * 86_400_000;

/// A link of a chain.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Link {
    /// When the chain that ends here started, at the latest.
    start: Option<i64>,
    /// The event that said so last, and what was known before it: one event must not be two links.
    event: u64,
    before: Option<i64>,
}

impl Link {
    /// The start as it was before this event.
    fn start_before(&self, event: u64) -> Option<i64> {
        if self.event == event {
            self.before
        } else {
            self.start
        }
    }

    fn set(&mut self, event: u64, start: i64) {
        if self.event != event {
            self.before = self.start;
            self.event = event;
        }
        self.start = Some(self.start.map_or(start, |s| s.max(start)));
    }

    fn expire(&mut self, oldest: i64) {
        for time in [&mut self.start, &mut self.before] {
            if time.is_some_and(|t| t < oldest) {
                *time = None;
            }
        }
    }
}

impl Memory {
    /// Counts events, for comparison with numbers up to `highest`.
    pub(crate) fn count(highest: u64, span: i64) -> Self {
        let (capacity, resolution) = if highest < EXACT {
            // One more than the highest bound decides every comparison.
            (usize::try_from(highest).unwrap_or(0).saturating_add(1).max(COURTESY), 1)
        } else {
            (usize::MAX, (span / i64::try_from(EXACT).unwrap_or(1)).max(1))
        };
        Self::Count { entries: VecDeque::new(), total: 0, capacity, resolution }
    }

    /// Counts distinct values, for comparison with numbers up to `highest`.
    pub(crate) fn distinct(highest: u64) -> Self {
        let capacity = usize::try_from(highest).unwrap_or(0).saturating_add(1).max(COURTESY);
        Self::Distinct { entries: Vec::new(), capacity }
    }

    /// Counts connections, for comparison with numbers up to `highest`.
    pub(crate) fn active(highest: u64) -> Self {
        // One that is forgotten while it is open would be missed later.
        let capacity = usize::try_from(highest).unwrap_or(0).saturating_add(1).max(CONNECTIONS);
        Self::Active { connections: Vec::new(), capacity }
    }

    pub(crate) fn set(rules: usize) -> Self {
        Self::Set { seen: vec![None; rules].into() }
    }

    pub(crate) fn chain(rules: usize) -> Self {
        Self::Chain { links: vec![Link::default(); rules].into() }
    }

    /// Forgets everything.
    fn clear(&mut self) {
        match self {
            Self::Count { entries, total, .. } => {
                entries.clear();
                *total = 0;
            }
            Self::Distinct { entries, .. } => entries.clear(),
            Self::Active { connections, .. } => connections.clear(),
            Self::Set { seen: times } => times.fill(None),
            Self::Chain { links } => links.fill(Link::default()),
        }
    }

    /// Forgets what is older than `oldest`.
    fn expire(&mut self, oldest: i64) {
        match self {
            Self::Count { entries, total, .. } => {
                while let Some((time, weight)) = entries.front().copied() {
                    if time >= oldest {
                        break;
                    }
                    entries.pop_front();
                    *total -= u64::from(weight);
                }
            }
            Self::Distinct { entries, .. } => entries.retain(|(_, time)| *time >= oldest),
            Self::Active { connections, .. } => {
                let missed = oldest.saturating_sub(STALE);
                connections.retain(|c| c.heard >= if c.open { missed } else { oldest });
            }
            Self::Chain { links } => links.iter_mut().for_each(|link| link.expire(oldest)),
            Self::Set { seen: times } => {
                for time in times.iter_mut() {
                    if time.is_some_and(|t| t < oldest) {
                        *time = None;
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Count { entries, .. } => entries.is_empty(),
            Self::Distinct { entries, .. } => entries.is_empty(),
            Self::Active { connections, .. } => connections.is_empty(),
            Self::Set { seen: times } => times.iter().all(Option::is_none),
            Self::Chain { links } => links.iter().all(|link| link.start.is_none()),
        }
    }

    /// Time of the oldest thing remembered.
    fn oldest(&self) -> Option<i64> {
        match self {
            Self::Count { entries, .. } => entries.front().map(|(t, _)| *t),
            Self::Distinct { entries, .. } => entries.iter().map(|(_, t)| *t).min(),
            Self::Active { connections, .. } => connections.iter().map(|c| c.heard).min(),
            Self::Set { seen: times } => times.iter().flatten().copied().min(),
            Self::Chain { links } => links.last().and_then(|link| link.start),
        }
    }

    /// Slots in use: what the bound on all windows together counts.
    pub(crate) fn slots(&self) -> usize {
        match self {
            Self::Count { entries, .. } => entries.len(),
            Self::Distinct { entries, .. } => entries.len() * 2,
            Self::Active { connections, .. } => connections.len() * 2,
            Self::Set { seen: times } => times.len(),
            Self::Chain { links } => links.len() * 2,
        }
    }
}

/// One thing a window is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation<'a> {
    /// When, in milliseconds.
    pub(crate) time: i64,
    /// Number of the event, from 1: the same one may be told several times, by several rules.
    pub(crate) event: u64,
    /// For how many events it stands.
    pub(crate) weight: u32,
    /// Positions of the rule in the correlation's list, for temporal ones.
    pub(crate) positions: &'a [u8],
    /// Value of the counted field, for value counts.
    pub(crate) value: &'a str,
    /// The connection it is about, and whether that is open now; for counts of connections.
    pub(crate) connection: Option<(u64, bool)>,
}

/// A window with its memory of having fired.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) memory: Memory,
    span: i64,
    newest: i64,
    fired: Option<i64>,
    since_fired: u64,
    first_since_fired: i64,
}

/// What a window says once it has heard of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Events, values, or 1 for a complete set or chain.
    pub(crate) value: u64,
    /// The set or chain was completed by this event.
    pub(crate) complete: bool,
}

/// What a firing stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Firing {
    pub(crate) count: u64,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Window {
    pub(crate) fn new(memory: Memory, span: i64) -> Self {
        Self { memory, span, newest: i64::MIN, fired: None, since_fired: 0, first_since_fired: 0 }
    }

    /// Lets time pass, forgetting what is too old. Yields the time that counts: see the module's documentation.
    fn advance(&mut self, mut time: i64) -> i64 {
        if time < self.newest {
            if self.newest.saturating_sub(time) > self.span {
                self.set_clock(time);
            } else {
                time = self.newest;
            }
        } else if self.has_open() && time.saturating_sub(self.newest) > STALE {
            self.set_clock(time);
        }
        self.newest = time;
        self.memory.expire(time.saturating_sub(self.span));
        time
    }

    /// The clock was set. Events before that are no longer within any window; connections stay open, whatever the clock says.
    fn set_clock(&mut self, time: i64) {
        match &mut self.memory {
            Memory::Active { connections, .. } => connections.iter_mut().for_each(|c| c.heard = time),
            memory => memory.clear(),
        }
    }

    /// What is in the window at this time, without an event.
    pub(crate) fn value_at(&mut self, now: i64) -> u64 {
        self.advance(now);
        match &self.memory {
            Memory::Count { total, .. } => *total,
            Memory::Distinct { entries, .. } => entries.len() as u64,
            Memory::Active { connections, .. } => connections.len() as u64,
            Memory::Set { .. } | Memory::Chain { .. } => 0,
        }
    }

    /// Takes in an event.
    pub(crate) fn observe(&mut self, seen: &Observation<'_>) -> Reading {
        let time = self.advance(seen.time);
        if self.memory.is_empty() {
            self.fired = None;
            self.since_fired = 0;
        }
        if self.since_fired == 0 {
            self.first_since_fired = time;
        }
        self.since_fired = self.since_fired.saturating_add(u64::from(seen.weight));
        match &mut self.memory {
            Memory::Count { entries, total, capacity, resolution } => {
                *total += u64::from(seen.weight);
                match entries.back_mut() {
                    Some((t, weight))
                        if *resolution > 1
                            && *t / *resolution == time / *resolution
                            && weight.checked_add(seen.weight).is_some() =>
                    {
                        *weight += seen.weight;
                    }
                    _ => entries.push_back((time, seen.weight)),
                }
                if entries.len() > *capacity {
                    if let Some((_, weight)) = entries.pop_front() {
                        *total -= u64::from(weight);
                    }
                }
                Reading { value: *total, complete: true }
            }
            Memory::Distinct { entries, capacity } => {
                match entries.iter_mut().find(|(value, _)| **value == *seen.value) {
                    Some((_, last)) => *last = time,
                    None => {
                        if entries.len() >= *capacity {
                            let oldest =
                                entries.iter().enumerate().min_by_key(|(_, (_, t))| *t).map(|(i, _)| i);
                            if let Some(i) = oldest {
                                entries.remove(i);
                            }
                        }
                        entries.push((seen.value.into(), time));
                    }
                }
                Reading { value: entries.len() as u64, complete: true }
            }
            Memory::Active { connections, capacity } => {
                let Some((key, open)) = seen.connection else {
                    return Reading { value: connections.len() as u64, complete: false };
                };
                match connections.iter_mut().find(|c| c.key == key) {
                    Some(known) => (known.open, known.heard) = (open, time),
                    None => {
                        if connections.len() >= *capacity {
                            let oldest = connections
                                .iter()
                                .enumerate()
                                .min_by_key(|(_, c)| (c.open, c.heard))
                                .map(|(i, _)| i);
                            if let Some(i) = oldest {
                                connections.swap_remove(i);
                            }
                        }
                        connections.push(Connection { key, open, heard: time });
                    }
                }
                Reading { value: connections.len() as u64, complete: open }
            }
            Memory::Set { seen: times } => {
                for position in seen.positions {
                    if let Some(t) = times.get_mut(usize::from(*position)) {
                        *t = Some(time);
                    }
                }
                let complete = times.iter().all(Option::is_some);
                Reading { value: times.iter().flatten().count() as u64, complete }
            }
            Memory::Chain { links } => {
                let mut complete = false;
                for position in seen.positions {
                    let at = usize::from(*position);
                    let start = match at.checked_sub(1).and_then(|previous| links.get(previous)) {
                        Some(previous) => previous.start_before(seen.event),
                        None => Some(time),
                    };
                    if let (Some(start), Some(link)) = (start, links.get_mut(at)) {
                        link.set(seen.event, start);
                        complete |= at + 1 == links.len();
                    }
                }
                Reading { value: u64::from(complete), complete }
            }
        }
    }

    /// Fires, unless it fired less than a timespan ago and was never empty since.
    pub(crate) fn fire(&mut self) -> Option<Firing> {
        let now = self.newest;
        let (count, first) = match self.fired {
            Some(last) if now.saturating_sub(last) < self.span => return None,
            Some(_) => (self.since_fired, self.first_since_fired),
            None => {
                let in_window = match &self.memory {
                    Memory::Count { total, .. } => *total,
                    Memory::Active { connections, .. } => connections.len() as u64,
                    _ => self.since_fired,
                };
                (in_window, self.memory.oldest().unwrap_or(now))
            }
        };
        self.fired = Some(now);
        self.since_fired = 0;
        Some(Firing { count, first, last: now })
    }

    fn has_open(&self) -> bool {
        matches!(&self.memory, Memory::Active { connections, .. } if connections.iter().any(|c| c.open))
    }

    /// Nothing in it counts any more at this time.
    pub(crate) fn is_over(&self, now: i64) -> bool {
        now.saturating_sub(self.newest) > self.span && !self.has_open()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(time: i64) -> Observation<'static> {
        Observation { time, event: 1, weight: 1, positions: &[], value: "", connection: None }
    }

    #[test]
    fn fires_once_per_timespan_and_anew_after_it_emptied() {
        let mut w = Window::new(Memory::count(3, 100), 100);
        let mut fired = Vec::new();
        // A steady stream, then silence, then a burst.
        for t in (0..500).step_by(10).chain([1000, 1001, 1002, 1003]) {
            if w.observe(&at(t)).value >= 3 {
                if let Some(f) = w.fire() {
                    fired.push((f.last, f.count, f.first));
                }
            }
        }
        assert_eq!(
            fired,
            [(20, 3, 0), (120, 10, 30), (220, 10, 130), (320, 10, 230), (420, 10, 330), (1002, 3, 1000)]
        );
    }

    #[test]
    fn a_clock_set_back_starts_anew() {
        let mut w = Window::new(Memory::count(3, 100), 100);
        assert_eq!(w.observe(&at(1_000_000)).value, 1);
        assert_eq!(w.observe(&at(999_950)).value, 2, "a little late still counts");
        assert_eq!(w.observe(&at(500)).value, 1, "far back is a new start");
        assert_eq!(w.observe(&at(550)).value, 2);
        assert_eq!(w.observe(&at(i64::MAX)).value, 1);
        assert_eq!(w.observe(&at(i64::MIN)).value, 1);
    }

    #[test]
    fn chains_need_the_order() {
        let mut event = 0;
        let mut step = |w: &mut Window, time, positions: &'static [u8]| {
            event += 1;
            w.observe(&Observation { time, event, weight: 1, positions, value: "", connection: None })
                .complete
        };
        let mut w = Window::new(Memory::chain(2), 100);
        assert!(!step(&mut w, 0, &[1]));
        assert!(!step(&mut w, 10, &[0]));
        assert!(step(&mut w, 110, &[1]));
        assert!(!step(&mut w, 111, &[1]), "the first link is too old");
        let mut w = Window::new(Memory::chain(2), 100);
        assert!(!step(&mut w, 0, &[0, 1]), "one event is not a chain");
        assert!(step(&mut w, 1, &[0, 1]));
        let mut w = Window::new(Memory::chain(2), 100);
        let told =
            |positions| Observation { time: 5, event: 77, weight: 1, positions, value: "", connection: None };
        w.observe(&told(&[0]));
        assert!(!w.observe(&told(&[1])).complete, "nor when two rules tell of it");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Against the definition: all events, looked through at each step.
        #[test]
        fn counts_agree_with_the_definition(
            steps in prop::collection::vec((-150i64..150, 1u32..4, 0u8..6), 1..120), threshold in 1u64..80
        ) {
            let span = 100;
            let mut counts = Window::new(Memory::count(threshold, span), span);
            let mut values = Window::new(Memory::distinct(threshold), span);
            let (mut time, mut newest) = (0, i64::MIN);
            let mut all: Vec<(i64, u32, String)> = Vec::new();
            for (step, weight, value) in steps {
                time += step;
                let value = value.to_string();
                let seen = Observation { time, event: 1, weight, positions: &[], value: &value, connection: None };
                let (count, distinct) = (counts.observe(&seen).value, values.observe(&seen).value);
                let mut now = time;
                if now < newest {
                    if newest - now > span { all.clear(); } else { now = newest; }
                }
                newest = now;
                all.push((now, weight, value.clone()));
                let live: Vec<_> = all.iter().filter(|(t, _, _)| now - t <= span).collect();
                let expected: u64 = live.iter().map(|(_, w, _)| u64::from(*w)).sum();
                let mut names: Vec<_> = live.iter().map(|(_, _, v)| v).collect();
                names.sort();
                names.dedup();
                // Beyond the bounds it was made for, a window may say less, but never less than a bound needs.
                for bound in [0, threshold / 2, threshold] {
                    prop_assert_eq!(count > bound, expected > bound, "{} {}", count, expected);
                    prop_assert_eq!(count >= bound, expected >= bound);
                    prop_assert_eq!(count == bound, expected == bound);
                }
                prop_assert_eq!(distinct, names.len() as u64);
            }
        }

        #[test]
        fn sets_and_chains_agree_with_the_definition(
            steps in prop::collection::vec((0i64..60, 0u8..3), 1..60)
        ) {
            let span = 100;
            let mut set = Window::new(Memory::set(3), span);
            let mut chain = Window::new(Memory::chain(3), span);
            let mut all: Vec<(i64, u8)> = Vec::new();
            let mut time = 0;
            for (step, rule) in steps {
                time += step;
                let positions = [rule];
                let event = all.len() as u64 + 1;
                let seen = Observation { time, event, weight: 1, positions: &positions, value: "", connection: None };
                all.push((time, rule));
                let live: Vec<_> = all.iter().filter(|(t, _)| time - t <= span).collect();
                prop_assert_eq!(set.observe(&seen).complete, (0..3).all(|r| live.iter().any(|(_, x)| *x == r)));
                let last = live.len() - 1;
                let ordered = rule == 2
                    && (0..last).any(|j| live[j].1 == 1 && (0..j).any(|i| live[i].1 == 0));
                prop_assert_eq!(chain.observe(&seen).complete, ordered);
            }
        }
    }
}
