//! Arbitrary bytes as rules never panic and never take long.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{exec, process};
use defender_detect::{scenario, Detector, Limits, RuleSet};
use proptest::prelude::*;

fn load(bytes: &[u8]) {
    let (rules, errors) = RuleSet::builder().add_source("x.yml", bytes).build();
    for error in &errors {
        assert!(!error.to_string().contains(char::is_control));
    }
    let mut detector = Detector::new(rules, Limits::default());
    detector.inspect(&exec(process("/bin/a", &["a", "b"])), &mut Vec::new());
    let _ = scenario::parse("x.tests.yaml", bytes);
}

/// A rule to take apart.
const SEED: &str = "title: T\nid: t\nname: n\ntags:\n- attack.t1059\nlogsource:\n  product: linux\n  category: process_creation\ndetection:\n  \
                    sel:\n    Image|endswith|all: ['/a', \"b\\n\"]\n    CommandLine|re|i: '^(a|b)+$'\n  kw:\n  - word\n  - {uid: 0}\n  condition: \
                    1 of sel* or (kw and not sel)\nlevel: high\n---\ntitle: C\nid: c\ncorrelation:\n  type: event_count\n  rules: [n]\n  \
                    group-by:\n  - uid\n  timespan: 2m\n  condition:\n    gte: 2\n";

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("---\n".to_owned()),
        Just("\n".to_owned()),
        Just("  ".to_owned()),
        Just("? ".to_owned()),
        Just(": ".to_owned()),
        Just("- ".to_owned()),
        Just("&a ".to_owned()),
        Just("*a".to_owned()),
        Just("!!map ".to_owned()),
        Just("|\n".to_owned()),
        Just(">-\n".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(", ".to_owned()),
        Just("'".to_owned()),
        Just("\"".to_owned()),
        Just("\\x".to_owned()),
        Just("#".to_owned()),
        Just("%TAG ! x\n".to_owned()),
        Just("\t".to_owned()),
        Just("\u{feff}".to_owned()),
        Just("...\n".to_owned()),
        "[a-z|*?:]{1,6}",
        "\\PC{1,3}",
    ]
}

proptest! {
    // PROPTEST_CASES sets how many; nothing found is written beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        load(&bytes);
    }

    #[test]
    fn pieces_of_yaml(pieces in prop::collection::vec(piece(), 0..60)) {
        load(pieces.concat().as_bytes());
    }

    #[test]
    fn broken_rules(
        edits in prop::collection::vec((0usize..SEED.len(), 0usize..12, piece()), 1..6)
    ) {
        let mut text: Vec<u8> = SEED.as_bytes().to_vec();
        for (at, cut, piece) in edits {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.into_bytes());
        }
        load(&text);
    }
}

#[test]
fn the_seed_is_sound() {
    let (rules, errors) = RuleSet::builder().add_source("x.yml", SEED.as_bytes()).build();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(rules.rules().len(), 2);
}

#[test]
fn large_input_takes_bounded_time() {
    let deep = |c: &str| c.repeat(200_000);
    let started = Instant::now();
    for text in [
        deep("["),
        deep("{"),
        deep("- "),
        deep("? "),
        deep("a: "),
        deep("\n"),
        deep("'"),
        deep("&a "),
        deep("---\n"),
        deep("{a: "),
        deep("[a, "),
        format!("title: {}\n", "x".repeat(200_000)),
        format!("a: |\n{}", " x\n".repeat(60_000)),
        format!("[{}]", "a,".repeat(100_000)),
        format!("title: T\ndetection:\n  condition: {}\n", "(".repeat(60_000)),
        common::rule(&format!("s:\n  CommandLine|re: '{}'\ncondition: s", "(a?){9}".repeat(500))),
        common::rule(&format!("s:\n  CommandLine: '{}'\ncondition: s", "*a".repeat(2000))),
        common::rule(&format!("s:\n  CommandLine|contains: [{}]\ncondition: s", "abcdefgh, ".repeat(10_000))),
    ] {
        let one = Instant::now();
        load(text.as_bytes());
        println!(
            "{:>6} ms {}",
            one.elapsed().as_millis(),
            defender_model::text::truncate(&text, 40).escape_debug()
        );
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn large_values_take_bounded_time() {
    let rules = [
        common::rule("s:\n  CommandLine|re: '(a|aa)+$'\ncondition: s"),
        common::rule("s:\n  CommandLine|contains: 'a*a*a*a*a*a*a*ab'\ncondition: s")
            .replace("id: t", "id: u"),
        common::rule("s:\n  CommandLine|contains: 'aaaaaaaaaaaaaaaaaaab'\ncondition: s")
            .replace("id: t", "id: v"),
    ];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let mut detector = Detector::new(common::good(&rules), Limits::default());
    let event = exec(process("/bin/a", &[&("a".repeat(1 << 20) + "c")]));
    let started = Instant::now();
    let mut findings = Vec::new();
    detector.inspect(&event, &mut findings);
    println!("{:>6} ms for an argument of 1 MiB", started.elapsed().as_millis());
    assert!(findings.is_empty());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
