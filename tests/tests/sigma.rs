//! Our reading of Sigma against other people's: pySigma, with its SQLite back end, over rules and events made at random, and
//! sigma-cli's own check over the rules we ship.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use defender_detect::{Detector, Limits, RuleSet};
use defender_model::event::Event;
use defender_model::process::{Ancestor, Change, Process, ProcessActivity, Source};
use defender_model::time::Timestamp;
use defender_validation::python::environment;
use serde_json::Value;

/// What the two environments hold; versions are part of what is compared.
const PACKAGES: [&str; 3] = ["pySigma==1.5.1", "pySigma-backend-sqlite==2.0.0", "sigma-cli==3.1.0"];

/// A program start with the fields of `fields`, named as Sigma names them.
fn event(fields: &Value) -> Event {
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    let number = |name: &str| fields[name].as_u64().map(|n| u32::try_from(n).unwrap());
    let parent = Ancestor {
        pid: 1,
        executable: text("ParentImage").unwrap_or_default().into(),
        command_line: text("ParentCommandLine").unwrap_or_default().into(),
        parent: None,
    };
    let process = Process {
        pid: number("ProcessId").unwrap(),
        executable: text("Image").unwrap().into(),
        argv: vec![text("CommandLine").unwrap()],
        cwd: text("CurrentDirectory").unwrap_or_default(),
        uid: number("uid"),
        euid: number("euid"),
        gid: number("gid"),
        auid: number("auid"),
        user: text("User").map(Into::into),
        session: number("LogonId"),
        tty: text("tty"),
        parent: Some(parent.into()),
    };
    let change = Change::Exec { truncated: false };
    let activity = ProcessActivity { process, change, source: Source::Replay, started: None };
    Event::new(Timestamp::from_secs(1_700_000_000), activity.into())
}

#[test]
fn verdicts_are_those_of_pysigma() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(python) = environment(directory, "sigma", &PACKAGES) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib/sigma_differential.py");
    let place = directory.join("differential");
    fs::create_dir_all(&place).unwrap();
    let output =
        Command::new(python).arg(script).arg(&place).args(["2026", "2000", "3000"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read =
        |name: &str| -> Vec<Value> { serde_json::from_slice(&fs::read(place.join(name)).unwrap()).unwrap() };
    let (events, verdicts) = (read("events.json"), read("verdicts.json"));

    let rules = fs::read(place.join("rules.yml")).unwrap();
    let (set, errors) = RuleSet::builder().add_source("rules.yml", &rules).build();
    let refused: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let ids: HashMap<String, usize> = set
        .rules()
        .filter_map(|rule| Some((rule.info.id.clone(), rule.info.title[5..].parse().ok()?)))
        .collect();
    let mut ours: Vec<Vec<u64>> = vec![Vec::new(); verdicts.len()];
    let mut detector = Detector::new(set, Limits::default());
    let mut findings = Vec::new();
    for (number, fields) in events.iter().enumerate() {
        detector.inspect(&event(fields), &mut findings);
        for finding in findings.drain(..) {
            ours[ids[&finding.rule.id]].push(number as u64);
        }
    }

    let loaded: HashSet<usize> = ids.values().copied().collect();
    let (mut compared, mut held, mut differences) = (0, 0, Vec::new());
    for (number, theirs) in verdicts.iter().enumerate() {
        let Some(theirs) = theirs.as_array() else { continue };
        if !loaded.contains(&number) {
            continue;
        }
        let theirs: Vec<u64> = theirs.iter().map(|n| n.as_u64().unwrap()).collect();
        compared += 1;
        held += theirs.len();
        // Both are sorted.
        let only = |a: &[u64], b: &[u64]| a.iter().copied().find(|n| b.binary_search(n).is_err());
        for (who, at) in
            [("only ours", only(&ours[number], &theirs)), ("only theirs", only(&theirs, &ours[number]))]
        {
            if let Some(at) = at {
                differences.push(format!("r{number} {who}: {}", events[at as usize]));
            }
        }
    }
    println!(
        "{compared} rules, {} events, {held} verdicts that hold; {} rules refused by us, {} by pySigma",
        events.len(),
        refused.len(),
        said.lines().count()
    );
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(
        compared > 1900 && held > 100_000,
        "{compared} rules and {held} verdicts compare too little\n{said}"
    );
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn shipped_rules_pass_sigmas_own_check() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(python) = environment(directory, "sigma", &PACKAGES) else { return };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs-overlay/usr/share/defender/rules");
    // The two validators left out download ATT&CK and D3FEND.
    let output = Command::new(python.with_file_name("sigma"))
        .args(["check", "-e", "-i", "-x", "attacktag", "-x", "d3_fendtag"])
        .arg(rules)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Found 0 errors, 0 condition errors and 0 issues"), "{said}");
}
