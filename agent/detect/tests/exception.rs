//! Exceptions: what they cover, until when, and what is refused.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

mod common;

use common::{exec, process, rule};
use defender_detect::exception::Scalar;
use defender_detect::{Detector, ExceptionSpec, Limits, RuleError, RuleSet};
use defender_model::time::Timestamp;

const COUNT: &str = "title: Three\nid: three\ncorrelation:\n  type: event_count\n  rules: [t]\n  group-by: [User]\n  timespan: 1h\n  \
                     condition: {gte: 3}\n  generate: true\nlevel: high\n";

fn spec(rule: &str, when: &[(&str, &[&str])]) -> ExceptionSpec {
    let text = |values: &[&str]| values.iter().map(|v| Scalar::Text((*v).to_owned())).collect();
    ExceptionSpec {
        rule: rule.to_owned(),
        when: when.iter().map(|(field, values)| ((*field).to_owned(), text(values))).collect(),
        reason: "the updater does this".to_owned(),
        owner: "ops".to_owned(),
        expires: None,
    }
}

fn detector(exceptions: Vec<ExceptionSpec>) -> (Detector, Vec<RuleError>) {
    let (set, errors) = RuleSet::builder()
        .exceptions(exceptions)
        .add_source("rule.yml", rule("s:\n  Image|endswith: /wget\ncondition: s").as_bytes())
        .add_source("count.yml", COUNT.as_bytes())
        .build();
    (Detector::new(set, Limits::default()), errors)
}

/// Ids of the rules that a start of `image` by `user` makes alert.
fn raised(detector: &mut Detector, image: &str, argument: &str) -> Vec<String> {
    let mut findings = Vec::new();
    detector.inspect(&exec(process(image, &["wget", argument])), &mut findings);
    findings.into_iter().map(|f| f.rule.id.clone()).collect()
}

#[test]
fn what_is_covered_neither_alerts_nor_counts() {
    let covered = spec("t", &[("CommandLine|contains", &["update.example", "mirror.example"])]);
    let (mut detector, errors) = detector(vec![covered]);
    assert!(errors.is_empty(), "{errors:?}");
    for _ in 0..5 {
        assert!(raised(&mut detector, "/usr/bin/wget", "http://update.example/x").is_empty());
    }
    assert_eq!(raised(&mut detector, "/usr/bin/wget", "http://other/x"), ["t"]);
    assert_eq!(raised(&mut detector, "/usr/bin/wget", "http://other/x"), ["t"]);
    assert_eq!(raised(&mut detector, "/usr/bin/wget", "http://other/x"), ["t", "three"]);
    let counts: Vec<u64> = detector.exceptions().map(|(_, count)| count).collect();
    assert_eq!(counts, [5]);
}

#[test]
fn for_every_rule_or_for_a_correlation_by_its_title() {
    let (mut all, errors) = detector(vec![spec("*", &[("Image", &["/opt/*/wget"])])]);
    assert!(errors.is_empty(), "{errors:?}");
    assert!(raised(&mut all, "/opt/app/wget", "x").is_empty());
    assert_eq!(raised(&mut all, "/usr/bin/wget", "x"), ["t"]);
    let (mut correlation, _) = detector(vec![spec("Three", &[])]);
    for _ in 0..5 {
        assert_eq!(raised(&mut correlation, "/usr/bin/wget", "x"), ["t"]);
    }
}

#[test]
fn it_ends_when_it_says() {
    // The events of these tests happen at 1,700,000,000 s.
    let until = |seconds| ExceptionSpec { expires: Some(Timestamp::from_secs(seconds)), ..spec("t", &[]) };
    let (mut later, _) = detector(vec![until(1_700_000_001)]);
    assert!(raised(&mut later, "/usr/bin/wget", "x").is_empty());
    let (mut over, _) = detector(vec![until(1_700_000_000)]);
    assert_eq!(raised(&mut over, "/usr/bin/wget", "x"), ["t"]);
    assert!(over
        .exceptions()
        .all(|(e, count)| e.is_expired(Timestamp::from_secs(1_700_000_000)) && count == 0));
}

#[test]
fn what_is_wrong_is_refused_and_the_rest_holds() {
    let without_reason = ExceptionSpec { reason: " ".to_owned(), ..spec("t", &[]) };
    let wrong = vec![
        (spec("nothing", &[]), "no rule has the id"),
        (without_reason, "no reason"),
        (spec("*", &[]), "give it a `when`"),
        (spec("t", &[("QueryName", &["x"])]), "QueryName"),
        (spec("t", &[("Image|nonsense", &["x"])]), "nonsense"),
    ];
    let mut specs: Vec<ExceptionSpec> = wrong.iter().map(|(spec, _)| spec.clone()).collect();
    specs.push(spec("t", &[("Image", &["/usr/bin/wget"])]));
    let (mut detector, errors) = detector(specs);
    assert_eq!(errors.len(), wrong.len(), "{errors:?}");
    for (error, (_, words)) in errors.iter().zip(&wrong) {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(raised(&mut detector, "/usr/bin/wget", "x").is_empty());
    let (_, errors) = self::detector(vec![spec("t", &[]); 300]);
    assert_eq!(errors.len(), 300 - 256);
}
