//! One event of every kind, checked against the published OCSF schema with a validator that is not ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::event::{Event, EventKind};
use defender_model::finding::{Evidence, Finding, Response, RuleInfo};
use defender_model::health::{Health, Kind};
use defender_model::identity::DeviceIdentity;
use defender_model::ocsf;
use defender_model::process::{Ancestor, Change, ExitReason, Process, ProcessActivity, Source};
use defender_model::remediation::{self, Action, Remediation};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_validation::python::environment;

fn process() -> Process {
    Process {
        pid: 4242,
        executable: "/bin/busybox".into(),
        argv: vec!["wget".into(), "-O-".into(), "two words".into(), "\u{1b}[2J".into()],
        cwd: "/tmp".into(),
        uid: Some(0),
        euid: Some(0),
        gid: Some(0),
        auid: Some(1000),
        user: Some("root".into()),
        session: Some(3),
        tty: Some("pts0".into()),
        parent: Some(Ancestor { pid: 1, executable: "/sbin/init".into(), command_line: "init".into() }),
    }
}

fn activity(process: Process, change: Change) -> EventKind {
    ProcessActivity { process, change, source: Source::Audit, started: Some(Timestamp(1)) }.into()
}

fn login(activity: Activity, outcome: Outcome, source: Option<&str>) -> Authentication {
    Authentication {
        activity,
        outcome,
        user: source.map(|_| "admin".into()),
        user_known: Some(false),
        service: "sshd".into(),
        method: Some("password".into()),
        source: source.map(|address| address.parse().unwrap()),
        source_port: source.map(|_| 50_000),
        tty: source.is_none().then(|| "ttyS0".into()),
        pid: Some(77),
        count: 3,
        message: "Failed password for invalid user admin".into(),
    }
}

fn finding(evidence: Vec<Evidence>, techniques: &[&str], tactics: &[&str]) -> Finding {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Finding {
        uid: "9d1c-1".into(),
        rule: Arc::new(RuleInfo {
            id: "9d1c".into(),
            title: "Brute force".into(),
            description: String::new(),
            techniques: words(techniques),
            tactics: words(tactics),
            correlation: true,
        }),
        severity: Severity::High,
        message: "5 failed logins from 192.0.2.7".into(),
        count: 5,
        first_seen: Timestamp(1_700_000_000_000),
        last_seen: Timestamp(1_700_000_041_000),
        group: vec![("src_ip".into(), "192.0.2.7".into())],
        source: Some("192.0.2.7".parse().unwrap()),
        evidence,
        response: Response::BlockSource,
    }
}

fn samples() -> Vec<EventKind> {
    let bare = Process { pid: 9, ..Process::default() };
    let mut kinds = vec![
        activity(process(), Change::Exec { truncated: true }),
        activity(bare.clone(), Change::Exec { truncated: false }),
        activity(process(), Change::Exit(ExitReason::Code(7))),
        activity(process(), Change::Exit(ExitReason::Signal(9))),
        activity(bare, Change::Exit(ExitReason::Unknown)),
    ];
    for activity in [Activity::Logon, Activity::Logoff, Activity::AccountSwitch] {
        for outcome in [Outcome::Success, Outcome::Failure] {
            for source in [None, Some("192.0.2.7"), Some("2001:db8::7")] {
                kinds.push(login(activity, outcome, source).into());
            }
        }
    }
    let attempt = login(Activity::Logon, Outcome::Failure, Some("192.0.2.7"));
    kinds.push(
        finding(vec![Evidence::Authentication(Box::new(attempt))], &["T1110.001"], &["credential-access"])
            .into(),
    );
    kinds.push(
        finding(vec![Evidence::Process(Box::new(process()))], &["T1059", "T1105"], &["execution", "impact"])
            .into(),
    );
    kinds.push(finding(Vec::new(), &[], &[]).into());
    for action in [Action::Block, Action::Unblock, Action::Restore] {
        for outcome in [
            remediation::Outcome::Verified,
            remediation::Outcome::Refused("on the allow-list".into()),
            remediation::Outcome::Failed("no nft".into()),
        ] {
            kinds.push(
                Remediation {
                    action,
                    address: Some("2001:db8::7".parse().unwrap()),
                    seconds: Some(3600),
                    outcome,
                    reason: "Brute force".into(),
                    finding: Some("9d1c-1".into()),
                }
                .into(),
            );
        }
    }
    for kind in Kind::ALL {
        kinds.push(Health::new(kind, "process", "words").with("events", 3).into());
    }
    kinds
}

#[test]
fn every_kind_of_event_is_valid_ocsf() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let device = DeviceIdentity {
        uid: "device-1".into(),
        boot_id: "b0a7".into(),
        hostname: "camera".into(),
        agent_version: "0.1.0".into(),
    };
    let mut lines = Vec::new();
    for (sequence, kind) in (1..).zip(samples()) {
        let event = Event { time: Timestamp(1_700_000_000_000), sequence, kind };
        ocsf::encode(&event, &device, &mut lines);
        lines.push(b'\n');
    }
    let file = directory.join("samples.jsonl");
    fs::write(&file, lines).unwrap();
    let packages = ["ocsf-json-schema==1.2.0", "jsonschema==4.26.0"];
    let Some(python) = environment(directory, "venv", &packages) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib/ocsf_validate.py");
    let output = Command::new(python).arg(script).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("class 7004") && said.contains("class 3002"), "{said}");
}
