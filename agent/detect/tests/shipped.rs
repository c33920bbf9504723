//! Every shipped rule loads, and its tests pass: each fires on what it is for and stays quiet on a near miss.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use defender_detect::scenario::{self, Scenario};
use defender_detect::{Detector, Limits};
use defender_model::event::EventKind;
use defender_model::severity::Severity;

use common::{files, rules_directory, shipped};

fn scenarios() -> Vec<(PathBuf, Scenario)> {
    let mut out = Vec::new();
    for path in files(&rules_directory(), ".tests.yaml") {
        let parsed = scenario::parse(path.to_str().unwrap(), &fs::read(&path).unwrap());
        match parsed {
            Ok(parsed) => out.extend(parsed.into_iter().map(|s| (path.clone(), s))),
            Err(e) => panic!("{e}"),
        }
    }
    out
}

#[test]
fn every_case_comes_out_as_it_must() {
    let rules = shipped();
    let mut failures = Vec::new();
    let mut cases = 0;
    for (path, scenario) in scenarios() {
        let file = path.file_name().unwrap().to_str().unwrap();
        let Some(rule) = rules.rules().find(|r| r.info.id == scenario.rule || r.info.title == scenario.rule)
        else {
            failures.push(format!("{file}: no rule is called {}", scenario.rule));
            continue;
        };
        for case in &scenario.cases {
            cases += 1;
            if !case.passes(&rules, &rule.info.id) {
                let verb = if case.fires { "does not fire" } else { "fires" };
                failures.push(format!("{file}:{}: \"{}\" {verb}", case.line, rule.info.title));
            }
        }
    }
    println!("{cases} cases");
    assert!(failures.is_empty(), "{} of {cases}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_alerting_rule_has_a_case_for_and_one_against() {
    let rules = shipped();
    let scenarios = scenarios();
    let mut missing = Vec::new();
    for rule in rules.rules().filter(|r| r.alerts) {
        let cases = || {
            scenarios
                .iter()
                .filter(|(_, s)| s.rule == rule.info.id || s.rule == rule.info.title)
                .flat_map(|(_, s)| &s.cases)
        };
        if !cases().any(|c| c.fires) || !cases().any(|c| !c.fires) {
            missing.push(rule.info.title.clone());
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn ordinary_work_raises_nothing() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/benign.txt")).unwrap();
    let mut detector = Detector::new(shipped(), Limits::default());
    let mut findings = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    for (line, i) in lines.iter().zip(0i64..) {
        let (image, command) = line.split_once('|').unwrap();
        let argv: Vec<&str> = command.split(' ').collect();
        let mut event = common::exec(common::process(image, &argv));
        event.time = event.time + i * 10_000;
        if let EventKind::Process(activity) = &mut event.kind {
            activity.process.cwd = "/".to_owned();
        }
        detector.inspect(&event, &mut findings);
    }
    assert!(lines.len() > 80);
    let raised: Vec<_> =
        findings.iter().filter(|f| f.severity >= Severity::Medium).map(|f| &f.message).collect();
    assert!(raised.is_empty(), "{raised:#?}");
}
