//! Commands that ask the running agent.

use std::os::unix::fs::MetadataExt;

use defender_daemon::control::{self, Operators};
use defender_daemon::request::{BlockedAddress, Desk, Reply, Request, RulesStatus, SinkStatus, StatusReport};
use serde_json::Value;

use super::{defender, Ended};

/// An agent's control socket with a pipeline of canned answers behind it.
struct Agent {
    directory: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn start(status: StatusReport) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = control::bind(&directory.path().join("control.sock")).unwrap();
        let (desk, mut requests) = Desk::open();
        let uid = std::fs::metadata("/proc/self").unwrap().uid();
        runtime.spawn(async move {
            while let Some((request, answer)) = requests.recv().await {
                let _ = answer.send(reply(&request, &status));
            }
        });
        runtime.spawn(control::serve(listener, desk, Operators { uid, gid: None }));
        Self { directory, _runtime: runtime }
    }

    fn armed() -> Self {
        Self::start(StatusReport { health: "ok".into(), armed: true, ..StatusReport::default() })
    }

    fn ask(&self, arguments: &[&str]) -> Ended {
        let socket = self.directory.path().join("control.sock");
        let mut all = arguments.to_vec();
        all.extend(["--socket", socket.to_str().unwrap()]);
        defender(&all)
    }
}

fn reply(request: &Request, status: &StatusReport) -> Reply {
    match request {
        Request::Status => Reply::Status(Box::new(status.clone())),
        Request::Alerts { limit } | Request::Events { limit } => {
            let lines = [
                r#"{"class_uid":2004,"time":0,"severity_id":4,"message":"Brute \u001b[2J force","observables":[{"value":"192.0.2.7"}],"unmapped":{"response":"block_source"}}"#,
                r#"{"class_uid":1007,"activity_id":1,"time":1,"severity_id":1,"process":{"pid":7,"cmd_line":"a b","file":{"path":"/bin/a"}},"metadata":{}}"#,
            ];
            Reply::Events { lines: lines.iter().take(*limit).map(|line| (*line).into()).collect() }
        }
        Request::Block { address, .. } => match address.to_string().as_str() {
            "192.0.2.1" => Reply::Refused { error: "192.0.2.1 is on the allow-list".into() },
            "192.0.2.2" => Reply::Failed { error: "nft: not found".into() },
            _ => Reply::Done { changed: true },
        },
        Request::Unblock { address } => Reply::Done { changed: address.is_ipv6() },
        Request::Isolate { .. } | Request::Pam { .. } => Reply::Done { changed: true },
        Request::EndIsolation => Reply::Done { changed: false },
        Request::AcceptBaseline { .. } => Reply::Done { changed: true },
        Request::Blocked => Reply::Blocked {
            addresses: vec![BlockedAddress {
                address: "198.51.100.7".parse().unwrap(),
                seconds_left: 3599,
                reason: "Brute force".into(),
            }],
        },
    }
}

#[test]
fn without_an_agent_queries_say_so() {
    for arguments in [&["status"][..], &["alerts", "--json"], &["block", "192.0.2.9"], &["blocked"]] {
        let mut all = arguments.to_vec();
        all.extend(["--socket", "/nonexistent/control.sock"]);
        let ended = defender(&all);
        assert_eq!((ended.status, ended.output.as_str()), (3, ""), "{ended:?}");
        assert!(ended.errors.contains("not running") && ended.errors.contains("/nonexistent/control.sock"));
    }
    // The run directory of the configuration holds the socket.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("d.toml");
    std::fs::write(&file, "[agent]\nrun_dir = \"/nonexistent/run\"\n").unwrap();
    let ended = defender(&["status", "--config", file.to_str().unwrap()]);
    assert!(ended.status == 3 && ended.errors.contains("/nonexistent/run/control.sock"), "{ended:?}");
}

#[test]
fn status_is_for_people_and_for_programs() {
    let mut report = StatusReport {
        version: "1.2.3".into(),
        health: "degraded".into(),
        armed: true,
        armed_after_ms: 84,
        uptime_s: 90,
        degraded: vec!["first \x1b[2J".into(), "second".into()],
        rules: RulesStatus { loaded: 58, errors: vec!["x.yml:3: rule \"y\"".into()] },
        sinks: vec![SinkStatus {
            name: "file".into(),
            state: "ok".into(),
            handed: 5,
            written: 5,
            ..SinkStatus::default()
        }],
        ..StatusReport::default()
    };
    report.process.source = "audit".into();
    report.process.detail = "as the audit daemon".into();
    let agent = Agent::start(report.clone());
    let ended = agent.ask(&["status"]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""));
    for part in [
        "degraded, armed 84 ms after start",
        "first \\u{1b}[2J\n",
        "\n                    second\n",
        "version 1.2.3, up 1 min 30 s",
        "audit: as the audit daemon",
        "58 loaded",
        "x.yml:3",
        "sink file           ok, 5 handed over = 5 written + 0 dropped + 0 waiting",
    ] {
        assert!(ended.output.contains(part), "{part}: {}", ended.output);
    }
    assert!(!ended.output.contains('\x1b'));
    let ended = agent.ask(&["status", "--json"]);
    assert_eq!(ended.output.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&ended.output).unwrap(), serde_json::to_value(&report).unwrap());
    // Not armed: the answer is "no", and still an answer.
    let ended = Agent::start(StatusReport::default()).ask(&["status", "--json"]);
    assert_eq!(ended.status, 1);
    assert_eq!(serde_json::from_str::<Value>(&ended.output).unwrap()["armed"], false);
}

#[test]
fn alerts_and_events_are_lines() {
    let agent = Agent::armed();
    let ended = agent.ask(&["events"]);
    assert_eq!(ended.status, 0);
    assert_eq!(
        ended.output,
        "1970-01-01T00:00:00.000Z  high           ALERT Brute \\u{1b}[2J force [block_source 192.0.2.7]\n\
         1970-01-01T00:00:00.001Z  informational  exec pid=7 /bin/a: a b\n"
    );
    let ended = agent.ask(&["alerts", "--json", "--limit", "1"]);
    let lines: Vec<Value> = ended.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["class_uid"], 2004);
}

#[test]
fn blocks_end_with_the_right_code() {
    let agent = Agent::armed();
    for (arguments, status, says) in [
        (&["block", "192.0.2.9", "--seconds", "60", "--reason", "noise"][..], 0, "192.0.2.9 is blocked"),
        (&["block", "192.0.2.1"], 1, "allow-list"),
        (&["block", "192.0.2.2"], 3, "nft: not found"),
        (&["block", "192.0.2.9", "--seconds", "0"], 2, "from 1 to 2592000"),
        (&["block", "192.0.2.0/24"], 2, "not an IPv4 or IPv6 address"),
        (&["unblock", "2001:db8::1"], 0, "2001:db8::1 is no longer blocked"),
        (&["unblock", "192.0.2.9"], 1, "192.0.2.9 was not blocked"),
        (&["unblock", "192.0.2.9", "--json"], 1, "{\"changed\":false}"),
        (&["baseline", "accept"], 0, "the files are being taken over"),
        (&["baseline", "accept-next", "--json"], 0, "{\"changed\":true}"),
        (&["blocked"], 0, "198.51.100.7  59 min 59 s  Brute force"),
    ] {
        let ended = agent.ask(arguments);
        let said = if status == 0 || ended.errors.is_empty() { &ended.output } else { &ended.errors };
        assert!(ended.status == status && said.contains(says), "{arguments:?}: {ended:?}");
    }
    let ended = agent.ask(&["blocked", "--json"]);
    let list: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!(list[0]["seconds_left"], 3599);
}
