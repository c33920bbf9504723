//! Rules and events for tests.

#![allow(dead_code, unreachable_pub)] // Each test file uses its part.
#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use defender_detect::{Detector, Limits, RuleError, RuleSet};
use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::event::Event;
use defender_model::finding::Finding;
use defender_model::process::{Ancestor, Change, Process, ProcessActivity, Source};
use defender_model::time::Timestamp;

/// Builds a set from documents.
pub fn build(documents: &[&str]) -> (RuleSet, Vec<RuleError>) {
    let mut builder = RuleSet::builder();
    for (i, text) in documents.iter().enumerate() {
        builder = builder.add_source(&format!("{i}.yml"), text.as_bytes());
    }
    builder.build()
}

/// Builds a set that must have no errors.
pub fn good(documents: &[&str]) -> RuleSet {
    let (rules, errors) = build(documents);
    assert!(errors.is_empty(), "{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    rules
}

/// A rule about program starts with this detection.
pub fn rule(detection: &str) -> String {
    let indented: String = detection.lines().map(|l| format!("  {l}\n")).collect();
    format!("title: T\nid: t\nlogsource: {{category: process_creation, product: linux}}\ndetection:\n{indented}level: high\n")
}

/// A process as most tests want it.
pub fn process(executable: &str, argv: &[&str]) -> Process {
    Process {
        pid: 4444,
        executable: executable.into(),
        argv: argv.iter().map(|s| (*s).to_owned()).collect(),
        cwd: "/tmp".into(),
        uid: Some(0),
        euid: Some(0),
        user: Some("root".into()),
        parent: Some(
            Ancestor { pid: 7, executable: "/bin/Sh".into(), command_line: "sh -c x".into(), parent: None }
                .into(),
        ),
        ..Process::default()
    }
}

/// The start of a program.
pub fn exec(process: Process) -> Event {
    let change = Change::Exec { truncated: false };
    let activity = ProcessActivity { process, change, source: Source::Replay, started: None };
    Event::new(Timestamp::from_secs(1_700_000_000), activity.into())
}

/// A failed login, so many milliseconds after the start.
pub fn failure(at: i64, from: Option<&str>, user: &str) -> Event {
    login(at, from, user, Outcome::Failure)
}

/// A login.
pub fn login(at: i64, from: Option<&str>, user: &str, outcome: Outcome) -> Event {
    let authentication = Authentication {
        activity: Activity::Logon,
        outcome,
        user: Some(user.to_owned()),
        user_known: None,
        service: "sshd".to_owned(),
        method: Some("password".to_owned()),
        source: from.map(|a| a.parse().unwrap()),
        source_port: Some(4000),
        tty: None,
        pid: Some(9),
        count: 1,
        duration_ms: None,
        message: "line".to_owned(),
    };
    Event::new(Timestamp(1_700_000_000_000 + at), authentication.into())
}

/// What a new detector concludes.
pub fn inspect(rules: RuleSet, events: &[Event]) -> Vec<Finding> {
    let mut detector = Detector::new(rules, Limits::default());
    let mut findings = Vec::new();
    for event in events {
        detector.inspect(event, &mut findings);
    }
    findings
}

/// Where the rules of the image lie.
pub fn rules_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/usr/share/defender/rules")
}

/// Files below `directory` with that ending, sorted.
pub fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// All shipped rules, which have no errors.
pub fn shipped() -> Arc<RuleSet> {
    let mut builder = RuleSet::builder();
    for path in files(&rules_directory(), ".yml") {
        builder = builder.add_source(path.to_str().unwrap(), &fs::read(&path).unwrap());
    }
    let (rules, errors) = builder.build();
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    Arc::new(rules)
}
