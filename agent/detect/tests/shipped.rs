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
    assert!(lines.len() >= 250, "{}", lines.len());
    let raised: Vec<_> =
        findings.iter().filter(|f| f.severity >= Severity::Medium).map(|f| &f.message).collect();
    assert!(raised.is_empty(), "{raised:#?}");
}

/// Other ways to start the same program. A BusyBox shell runs applets by itself where it was built to
/// (`FEATURE_SH_STANDALONE`): then the shell's own command line is all there is.
fn disguises(argv: &[String], applet: bool) -> Vec<Vec<String>> {
    let Some(name) = argv.first().filter(|name| !name.contains('/') && !name.starts_with(['-', '['])) else {
        return Vec::new();
    };
    let rest = &argv[1..];
    let with =
        |words: &[&str]| words.iter().map(|word| (*word).to_owned()).chain(rest.iter().cloned()).collect();
    let shell = |script: String| vec!["sh".to_owned(), "-c".to_owned(), script];
    let mut out = vec![with(&[&format!("/usr/bin/{name}")]), with(&[&format!("/tmp/../bin/{name}")])];
    if applet {
        let line = rest.join(" ");
        out.extend([with(&["busybox", name]), with(&["/bin/busybox", name])]);
        out.extend([
            shell(format!("{name} {line}")),
            shell(format!("cd /tmp;{name} {line};exit")),
            shell(format!("(/bin/busybox {name} {line})&")),
        ]);
    }
    out
}

#[test]
fn another_way_to_call_a_program_hides_nothing() {
    let rules = shipped();
    let mut hidden = Vec::new();
    let mut tried = 0;
    for (path, scenario) in scenarios() {
        let rule =
            rules.rules().find(|r| r.info.id == scenario.rule || r.info.title == scenario.rule).unwrap();
        for case in scenario.cases.iter().filter(|case| case.fires && case.events.len() == 1) {
            let EventKind::Process(activity) = &case.events[0].kind else { continue };
            let applet = &*activity.process.executable == "/bin/busybox";
            if activity
                .process
                .argv
                .first()
                .is_some_and(|name| ["sh", "bash", "busybox", "x"].contains(&name.as_str()))
            {
                continue;
            }
            for argv in disguises(&activity.process.argv, applet) {
                tried += 1;
                let mut other = case.clone();
                let EventKind::Process(activity) = &mut other.events[0].kind else { continue };
                activity.process.argv = argv;
                if !other.passes(&rules, &rule.info.id) {
                    let file = path.file_name().unwrap().to_str().unwrap();
                    hidden.push(format!("{file}: \"{}\" misses {}", rule.info.title, activity_text(&other)));
                }
            }
        }
    }
    println!("{tried} disguises");
    assert!(hidden.is_empty(), "{} of {tried}:\n{}", hidden.len(), hidden.join("\n"));
}

fn activity_text(case: &scenario::Case) -> String {
    match &case.events[0].kind {
        EventKind::Process(activity) => activity.process.argv.join(" "),
        _ => String::new(),
    }
}
