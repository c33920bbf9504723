//! Suppression: repeats become counts, rates are kept, and the totals always add up.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

use std::sync::Arc;

use defender_detect::suppression::{Settings, Suppressor};
use defender_model::finding::{Finding, Responses, RuleInfo};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use proptest::prelude::*;

fn finding(number: u64, rule: &str, message: &str, seconds: i64) -> Finding {
    let time = Timestamp::from_secs(seconds);
    Finding {
        uid: format!("{rule}-{number}"),
        rule: Arc::new(RuleInfo {
            id: rule.into(),
            title: format!("Title of {rule}"),
            ..RuleInfo::default()
        }),
        severity: Severity::High,
        message: message.into(),
        count: 1,
        first_seen: time,
        last_seen: time,
        group: Vec::new(),
        source: None,
        destination: None,
        evidence: Vec::new(),
        response: Responses::NONE,
        update: false,
    }
}

fn settings(window_s: i64, per_hour: u32) -> Settings {
    Settings { repeat_window: window_s * 1000, per_hour, ..Settings::default() }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

#[test]
fn the_first_goes_out_at_once_and_repeats_as_one_update() {
    let mut suppressor = Suppressor::new(settings(300, 0));
    let mut out = Vec::new();
    for n in 0..10 {
        let message = format!("ran /tmp/x (pid {}): x", 4000 + n);
        suppressor.admit(finding(n, "r", &message, 10 * n as i64), at(10 * n as i64), &mut out);
    }
    assert_eq!(out.len(), 1);
    suppressor.tick(at(299), &mut out);
    assert_eq!(out.len(), 1);
    suppressor.tick(at(300), &mut out);
    let [first, update] = out.as_slice() else { panic!("{out:?}") };
    assert!(!first.update && update.update);
    assert_eq!((update.uid.as_str(), update.count), ("r-0", 10));
    assert_eq!((update.first_seen, update.last_seen), (at(0), at(90)));
    assert!(update.message.contains("10 in all since"), "{}", update.message);
    // Nothing is left to say of a kind that was not repeated.
    out.clear();
    suppressor.admit(finding(11, "r", "ran /tmp/x (pid 1): x", 400), at(400), &mut out);
    suppressor.flush(&mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn what_differs_in_more_than_numbers_is_no_repeat() {
    let mut suppressor = Suppressor::new(settings(300, 0));
    let mut out = Vec::new();
    let mut other = finding(2, "r", "ran x 1", 0);
    other.source = Some("192.0.2.1".parse().unwrap());
    for finding in
        [finding(1, "r", "ran x 1", 0), other, finding(3, "r", "ran y 1", 0), finding(4, "s", "ran x 1", 0)]
    {
        suppressor.admit(finding, at(0), &mut out);
    }
    assert_eq!(out.len(), 4);
}

#[test]
fn a_rule_gone_wild_is_throttled_and_said() {
    let mut suppressor = Suppressor::new(settings(0, 60));
    let mut out = Vec::new();
    for n in 0..100 {
        suppressor.admit(finding(n, "r", "m", 0), at(0), &mut out);
    }
    suppressor.admit(finding(0, "s", "m", 0), at(0), &mut out);
    assert_eq!(out.len(), 61);
    let said = suppressor.take_withheld();
    assert_eq!((said[0].rule.as_str(), said[0].count, said.len()), ("r", 40, 1));
    assert!(suppressor.take_withheld().is_empty());
    // One a minute comes back.
    for n in 0..3 {
        suppressor.admit(finding(n, "r", "m", 60), at(60), &mut out);
    }
    assert_eq!(out.len(), 62);
}

#[test]
fn a_clock_set_back_holds_nothing_for_ever() {
    let mut suppressor = Suppressor::new(settings(300, 0));
    let mut out = Vec::new();
    for n in 0..2 {
        suppressor.admit(finding(n, "r", "m", 1_000_000), at(1_000_000), &mut out);
    }
    suppressor.tick(at(10), &mut out);
    assert_eq!(out.len(), 2);
}

proptest! {
    #[test]
    fn totals_add_up(
        window in 0i64..400,
        per_hour in 0u32..50,
        steps in proptest::collection::vec((0i64..200, 0u8..4, 0u8..6), 0..400),
    ) {
        let mut suppressor = Suppressor::new(settings(window, per_hour));
        let (mut out, mut now) = (Vec::new(), 0);
        for (n, (wait, rule, message)) in steps.iter().enumerate() {
            now += wait;
            let message = format!("message {}", char::from(b'a' + message));
            suppressor.admit(finding(n as u64, &rule.to_string(), &message, now), at(now), &mut out);
        }
        suppressor.flush(&mut out);
        let stats = suppressor.stats();
        prop_assert_eq!(stats.produced, steps.len() as u64);
        prop_assert_eq!(stats.delivered, out.len() as u64);
        prop_assert_eq!(stats.produced, stats.delivered - stats.updates + stats.repeats + stats.withheld);
        // Every event is in the count of the first or of its update, unless it was withheld and said so.
        let updates: u64 = out.iter().filter(|f| f.update).map(|f| u64::from(f.count)).sum();
        let firsts = out.iter().filter(|f| !f.update).count() as u64;
        prop_assert_eq!(updates - stats.updates + firsts + stats.withheld, stats.produced);
        let said: u64 = suppressor.take_withheld().iter().map(|w| w.count).sum();
        prop_assert_eq!(said, stats.withheld);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn memory_is_bounded(messages in proptest::collection::vec("[a-z]{1,6}", 600..900)) {
        let mut suppressor = Suppressor::new(settings(300, 0));
        let mut out = Vec::new();
        for (n, message) in messages.iter().enumerate() {
            suppressor.admit(finding(n as u64, "r", message, 0), at(0), &mut out);
        }
        suppressor.flush(&mut out);
        let stats = suppressor.stats();
        prop_assert_eq!(stats.produced, stats.delivered - stats.updates + stats.repeats);
    }
}
