//! Correlations: what they count, when they fire, what they are told to forget.

#![allow(clippy::unwrap_used)] // A test that cannot build its rules has failed.

mod common;

use common::{build, failure, good, inspect, login};
use defender_detect::{Detector, Limits, RuleOverride, RuleSet};
use defender_model::authentication::Outcome;
use defender_model::event::{Event, EventKind};
use defender_model::finding::{Evidence, Response, Responses};
use defender_model::severity::Severity;

const FAILED: &str = "title: Failed\nid: failed\nname: failed\nlogsource: {category: authentication, product: linux}\ndetection:\n  s: \
                      {outcome: failure}\n  condition: s\n";
const SUCCESS: &str = "title: Success\nid: success\nname: success\nlogsource: {category: authentication}\ndetection:\n  s: {outcome: \
                       success}\n  condition: s\ndefender: {alert: false}\n";

fn correlation(id: &str, body: &str) -> String {
    let indented: String = body.lines().map(|l| format!("  {l}\n")).collect();
    format!("title: C {id}\nid: {id}\nlevel: high\ncorrelation:\n{indented}")
}

fn brute() -> String {
    correlation(
        "brute",
        "type: event_count\nrules: [failed]\ngroup-by: [src_ip]\ntimespan: 2m\ncondition: {gte: 5}",
    ) + "defender: {response: block_source}\n"
}

const A: Option<&str> = Some("198.51.100.7");

#[test]
fn brute_force_has_its_particulars() {
    let events: Vec<Event> = (0..5).map(|i| failure(i * 10_000, A, "root")).collect();
    let findings = inspect(good(&[FAILED, &brute()]), &events);
    assert_eq!(findings.len(), 1, "the base rule does not alert by itself");
    let f = &findings[0];
    assert_eq!((f.uid.as_str(), f.count, f.severity), ("brute-1", 5, Severity::High));
    assert_eq!((f.first_seen, f.last_seen), (events[0].time, events[4].time));
    assert_eq!(f.source, Some("198.51.100.7".parse().unwrap()));
    assert_eq!(f.group, [("src_ip".to_owned(), "198.51.100.7".to_owned())]);
    assert_eq!(f.response, Responses::of(&[Response::BlockSource]));
    assert!(matches!(&f.evidence[..], [Evidence::Authentication(a)] if a.service == "sshd"));
    assert_eq!(
        f.message,
        "C brute: 5 events in 40 s from src_ip 198.51.100.7; last: failed login at sshd as root from 198.51.100.7"
    );
}

#[test]
fn a_steady_attack_fires_once_per_timespan() {
    let events: Vec<Event> = (0..600).map(|i| failure(i * 1000, A, "root")).collect();
    let findings = inspect(good(&[FAILED, &brute()]), &events);
    assert_eq!(findings.len(), 5, "at 4 s, then every 120 s of 600");
    assert_eq!(findings.iter().map(|f| f.count).sum::<u32>(), 485, "no event is counted twice");
    assert_eq!(findings[4].uid, "brute-5");
}

#[test]
fn repeated_messages_count() {
    let mut event = failure(0, A, "root");
    if let EventKind::Authentication(a) = &mut event.kind {
        a.count = 5;
    }
    assert_eq!(inspect(good(&[FAILED, &brute()]), &[event]).len(), 1);
}

#[test]
fn a_user_named_like_an_address_is_never_a_source() {
    let text = correlation(
        "users",
        "type: event_count\nrules: [failed]\ngroup-by: [user]\ntimespan: 2m\ncondition: {gte: 2}",
    ) + "defender: {response: block_source}\n";
    let events = [failure(0, None, "192.0.2.1"), failure(1, None, "192.0.2.1")];
    let findings = inspect(good(&[FAILED, &text]), &events);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].source, None);
    let aliased = correlation(
        "aliased",
        "type: event_count\nrules: [failed]\ngroup-by: [src_ip]\naliases: {src_ip: {failed: user}}\ntimespan: 2m\ncondition: {gte: 2}",
    );
    assert_eq!(inspect(good(&[FAILED, &aliased]), &events)[0].source, None);
}

#[test]
fn groups_do_not_run_together() {
    let text = correlation(
        "pair",
        "type: event_count\nrules: [failed]\ngroup-by: [user, service]\ntimespan: 2m\ncondition: {gte: 2}",
    );
    let event = |user: &str, service: &str| {
        let mut event = failure(0, A, user);
        if let EventKind::Authentication(a) = &mut event.kind {
            a.service = service.to_owned();
        }
        event
    };
    let pairs = [("ab", "c"), ("a", "bc"), ("a\0", "c"), ("a", "\0c"), ("a\0\u{31}\0", "c")];
    let events: Vec<Event> = pairs.iter().map(|(u, s)| event(u, s)).collect();
    assert!(inspect(good(&[FAILED, &text]), &events).is_empty());
}

#[test]
fn success_after_brute_force() {
    let after = correlation(
        "after",
        "type: temporal_ordered\nrules: [brute, success]\ngenerate: true\ngroup-by: [src_ip]\ntimespan: 10m",
    );
    let rules = || good(&[FAILED, SUCCESS, &brute(), &after]);
    // The attack goes on for longer than the timespan; that it still goes on keeps the chain alive.
    let mut events: Vec<Event> = (0..1000).map(|i| failure(i * 1000, A, "root")).collect();
    events.push(login(1_000_500, A, "root", Outcome::Success));
    let findings = inspect(rules(), &events);
    assert_eq!(findings.iter().filter(|f| f.rule.id == "after").count(), 1);
    let last = findings.last().unwrap();
    assert_eq!((last.rule.id.as_str(), last.source), ("after", "198.51.100.7".parse().ok()));
    assert!(findings.iter().all(|f| f.rule.id != "success"), "alert: false holds even under generate: true");
    let elsewhere =
        [&events[..1000], &[login(1_000_500, Some("192.0.2.1"), "root", Outcome::Success)]].concat();
    assert!(inspect(rules(), &elsewhere).iter().all(|f| f.rule.id != "after"));
}

#[test]
fn temporal_in_any_order_and_values() {
    let any = correlation("any", "type: temporal\nrules: [failed, success]\ngroup-by: [user]\ntimespan: 1m");
    let both = |x: Event, y: Event| inspect(good(&[FAILED, SUCCESS, &any]), &[x, y]).len();
    assert_eq!(both(login(0, A, "u", Outcome::Success), failure(1000, A, "u")), 1);
    assert_eq!(both(failure(0, A, "u"), login(1000, A, "u", Outcome::Success)), 1);
    assert_eq!(both(failure(0, A, "u"), login(61_000, A, "u", Outcome::Success)), 0);
    assert_eq!(both(failure(0, A, "u"), login(1000, A, "v", Outcome::Success)), 0);
    let values = correlation(
        "values",
        "type: value_count\nrules: [failed]\ngroup-by: [src_ip]\ntimespan: 1m\ncondition: {field: user, gt: 2}",
    );
    let users = |list: &[&str]| {
        let events: Vec<Event> = list.iter().zip(0..).map(|(u, i)| failure(i * 100, A, u)).collect();
        inspect(good(&[FAILED, &values]), &events).len()
    };
    assert_eq!(users(&["a", "b", "c"]), 1);
    assert_eq!(users(&["a", "b", "a", "b", "a"]), 0);
}

#[test]
fn overrides_change_rules_and_bad_ones_are_reported() {
    let change = |o: RuleOverride| {
        RuleSet::builder()
            .add_source("f.yml", FAILED.as_bytes())
            .add_source("b.yml", brute().as_bytes())
            .overrides(vec![o])
            .build()
    };
    let of = |id: &str| RuleOverride { id: id.to_owned(), ..RuleOverride::default() };
    let three: Vec<Event> = (0..3).map(|i| failure(i * 1000, A, "root")).collect();
    let (rules, errors) = change(RuleOverride {
        count: Some(3),
        level: Some(Severity::Low),
        response: Some(Responses::NONE),
        timespan_ms: Some(2000),
        ..of("brute")
    });
    assert!(errors.is_empty(), "{errors:?}");
    let findings = inspect(rules, &three);
    assert_eq!((findings[0].severity, findings[0].response), (Severity::Low, Responses::NONE));
    let (rules, errors) = change(RuleOverride { enabled: Some(false), ..of("brute") });
    assert!(errors.is_empty());
    let five: Vec<Event> = (0..5).map(|i| failure(i, A, "root")).collect();
    assert!(inspect(rules, &five).is_empty(), "and the rule it refers to stays silent");
    for (bad, word) in [
        (of("nothing"), "nothing"),
        (RuleOverride { count: Some(3), ..of("failed") }, "none"),
        (RuleOverride { count: Some(u32::MAX), ..of("brute") }, "bound"),
        (RuleOverride { timespan_ms: Some(0), ..of("brute") }, "0"),
    ] {
        let (_, errors) = change(bad);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].cause.name() == "override" && errors[0].to_string().contains(word),
            "{}",
            errors[0]
        );
    }
    let (rules, errors) = change(RuleOverride { enabled: Some(false), ..of("failed") });
    assert_eq!(errors[0].cause.name(), "unknown_rule");
    assert!(inspect(rules, &five).is_empty());
}

#[test]
fn what_is_wrong_with_a_correlation_is_named() {
    let count = "type: event_count\nrules: [failed]\ntimespan: 2m\ncondition: {gte: 5}";
    for (body, kind, word) in [
        (count.replace("failed", "missing"), "unknown_rule", "missing"),
        (count.replace("2m", "2x"), "structure", "2x"),
        (count.replace("2m", "0s"), "structure", "timespan"),
        (count.replace("gte: 5", "gte: 1000000"), "too_large", "10000"),
        (count.replace("gte: 5", "above: 5"), "structure", "above"),
        (count.replace("event_count", "event_sum"), "structure", "event_sum"),
        (count.replace("event_count", "value_count"), "structure", "field"),
        (count.replace("rules", "rulez"), "structure", "rulez"),
        (format!("{count}\ngroup-by: [Hashes]"), "unsupplied", "Hashes"),
        (format!("{count}\ngroup-by: [x]\naliases: {{x: {{other: user}}}}"), "structure", "names no field"),
        (count.replace("failed", "c"), "cycle", "itself"),
    ] {
        let (_, errors) = build(&[FAILED, &correlation("c", &body)]);
        assert_eq!(errors.len(), 1, "{body}: {errors:?}");
        let shown = errors[0].to_string();
        assert!(errors[0].cause.name() == kind && shown.contains(word), "{body}: {shown}");
    }
    let refer = |id: &str, to: &str| correlation(id, &count.replace("failed", to));
    let (rules, errors) = build(&[FAILED, &refer("x", "y"), &refer("y", "z"), &refer("z", "x"), &brute()]);
    assert_eq!(errors.iter().map(|e| e.cause.name()).collect::<Vec<_>>(), ["cycle"; 3]);
    assert_eq!(rules.rules().map(|r| r.info.id.as_str()).collect::<Vec<_>>(), ["failed", "brute"]);
    let five: Vec<Event> = (0..5).map(|i| failure(i, A, "root")).collect();
    assert_eq!(inspect(rules, &five).len(), 1, "what is sound still works after rules were left out");
}

#[test]
fn memory_is_bounded_and_forgetting_is_counted() {
    let limits = Limits { groups_per_rule: 100, groups_total: 150, entries_total: 400 };
    let other = correlation(
        "other",
        "type: event_count\nrules: [failed]\ngroup-by: [user]\ntimespan: 2m\ncondition: {gte: 5}",
    );
    let mut detector = Detector::new(good(&[FAILED, &brute(), &other]), limits);
    let mut findings = Vec::new();
    for i in 0..5000u32 {
        let address = format!("10.0.{}.{}", i / 256, i % 256);
        detector.inspect(&failure(i64::from(i), Some(&address), &format!("u{i}")), &mut findings);
        assert!(detector.stats().groups <= 150, "{:?}", detector.stats());
    }
    assert!(findings.is_empty());
    assert!(detector.stats().evictions > 4000, "{:?}", detector.stats());
    // An attacker who is heard of all the time is not the one who is forgotten.
    for i in 0..400u32 {
        let address = format!("10.1.{}.{}", i / 256, i % 256);
        detector.inspect(&failure(6000 + i64::from(i), Some(&address), "x"), &mut Vec::new());
        if i % 50 == 0 {
            detector.inspect(&failure(6000 + i64::from(i), A, "root"), &mut findings);
        }
    }
    assert!(findings.iter().any(|f| f.rule.id == "brute"), "{:?}", detector.stats());
}

#[test]
fn one_correlations_groups_do_not_drive_out_those_of_another() {
    // Failed logins fill two correlations, with a user of his own each; successful ones are what a third counts, slowly.
    let by_user = |id: &str| {
        correlation(
            id,
            "type: event_count\nrules: [failed]\ngroup-by: [user]\ntimespan: 1h\ncondition: {gte: 5}",
        )
    };
    let slow = correlation(
        "slow",
        "type: event_count\nrules: [success]\ngroup-by: [src_ip]\ntimespan: 1h\ncondition: {gte: 60}",
    );
    let limits = Limits { groups_per_rule: 90, groups_total: 100, ..Limits::default() };
    let rules = good(&[FAILED, SUCCESS, &by_user("one"), &by_user("two"), &slow]);
    let mut detector = Detector::new(rules, limits);
    let mut findings = Vec::new();
    let success = |i: i64| login(i, A, "root", Outcome::Success);
    for i in 0..59 {
        detector.inspect(&success(i), &mut findings);
    }
    assert!(detector.take_evicted().is_empty());
    for i in 0..1000 {
        detector.inspect(&failure(100 + i, A, &format!("u{i}")), &mut findings);
    }
    assert!(findings.is_empty());
    detector.inspect(&success(2000), &mut findings);
    assert_eq!(findings.len(), 1, "what the third remembered was driven out");
    let evicted = detector.take_evicted();
    let titles: Vec<&str> = evicted.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, ["C one", "C two"]);
    assert_eq!(evicted.iter().map(|(_, groups)| groups).sum::<u64>(), detector.stats().evictions);
    assert!(detector.take_evicted().is_empty());
}

#[test]
fn groups_that_grow_are_bounded_too() {
    let limits = Limits { entries_total: 200, ..Limits::default() };
    let mut detector = Detector::new(good(&[FAILED, &brute()]), limits);
    for round in 0..60 {
        for i in 0..20 {
            detector.inspect(&failure(round, Some(&format!("10.0.0.{i}")), "u"), &mut Vec::new());
        }
    }
    assert!(detector.stats().evictions > 0, "{:?}", detector.stats());
    assert!(detector.stats().groups > 0);
}

#[test]
fn one_event_is_not_two_links() {
    let again = FAILED.replace("failed", "again").replace("Failed", "Again");
    let chain = correlation(
        "chain",
        "type: temporal_ordered\nrules: [failed, again]\ngroup-by: [user]\ntimespan: 1m",
    );
    let rules = || good(&[FAILED, &again, &chain]);
    assert!(inspect(rules(), &[failure(0, A, "u")]).is_empty());
    assert_eq!(inspect(rules(), &[failure(0, A, "u"), failure(1, A, "u")]).len(), 1);
}

#[test]
fn groups_whose_window_passed_make_room_first() {
    let limits = Limits { groups_per_rule: 10, ..Limits::default() };
    let mut detector = Detector::new(good(&[FAILED, &brute()]), limits);
    for i in 0..1000i64 {
        let address = format!("10.0.{}.{}", i / 256, i % 256);
        detector.inspect(&failure(i * 100_000, Some(&address), "u"), &mut Vec::new());
    }
    assert_eq!(detector.stats().evictions, 0);
}

#[test]
fn time_may_go_backwards() {
    let mut events: Vec<Event> = (0..4).map(|i| failure(i * 1000, A, "root")).collect();
    events.push(failure(-1_000_000_000, A, "root"));
    assert!(
        inspect(good(&[FAILED, &brute()]), &events).is_empty(),
        "a clock set far back starts a new window"
    );
    let events: Vec<Event> = (0..5).map(|i| failure(-i * 1000, A, "root")).collect();
    assert_eq!(inspect(good(&[FAILED, &brute()]), &events).len(), 1, "a little out of order still counts");
    let extremes = [i64::MAX, i64::MIN, 0, i64::MAX, i64::MIN];
    let events: Vec<Event> = extremes
        .iter()
        .map(|t| Event { time: defender_model::time::Timestamp(*t), ..failure(0, A, "root") })
        .collect();
    inspect(good(&[FAILED, &brute()]), &events);
}
