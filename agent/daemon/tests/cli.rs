//! The command line as people and scripts meet it: the program itself, its output and its exit codes.

#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests; the functions they share are tests too.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use defender_daemon::control::{self, Operators};
use defender_daemon::request::{BlockedAddress, Desk, Reply, Request, RulesStatus, SinkStatus, StatusReport};
use serde_json::Value;

#[derive(Debug)]
struct Ended {
    status: i32,
    output: String,
    errors: String,
}

fn defender(arguments: &[&str]) -> Ended {
    with_input(arguments, b"")
}

fn with_input(arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_defender"))
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that has seen enough closes its input.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ended = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    Ended {
        status: ended.status.code().unwrap_or(-1),
        output: String::from_utf8(ended.stdout).unwrap(),
        errors: String::from_utf8(ended.stderr).unwrap(),
    }
}

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
        .canonicalize()
        .unwrap()
        .display()
        .to_string()
}

fn shipped_rules() -> String {
    repository("rootfs-overlay/usr/share/defender/rules")
}

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
        Request::Isolate { .. } => Reply::Done { changed: true },
        Request::EndIsolation => Reply::Done { changed: false },
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
fn help_and_version_are_answers_and_mistakes_are_not() {
    for arguments in [&["--help"][..], &["-h"], &["help"], &["block", "--help"], &["rules", "--help"]] {
        let ended = defender(arguments);
        assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{arguments:?}");
        assert!(ended.output.contains("block") || ended.output.contains("rules"), "{ended:?}");
    }
    assert_eq!(defender(&["--version"]).output, format!("defender {}\n", env!("CARGO_PKG_VERSION")));
    for arguments in [&[][..], &["stop"], &["block"], &["status", "--jsno"], &["block", "10.77.0.999"]] {
        let ended = defender(arguments);
        assert_eq!((ended.status, ended.output.as_str()), (2, ""), "{arguments:?}: {ended:?}");
        assert!(ended.errors.starts_with("defender: "), "{ended:?}");
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
        "sink file           ok, 5 written",
    ] {
        assert!(ended.output.contains(part), "{part}: {}", ended.output);
    }
    assert!(!ended.output.contains('\x1b'));
    let ended = agent.ask(&["status", "--json"]);
    assert_eq!(ended.output.lines().count(), 1);
    assert_eq!(serde_json::from_str::<StatusReport>(&ended.output).unwrap(), report);
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
        (&["blocked"], 0, "198.51.100.7  59 min 59 s  Brute force"),
    ] {
        let ended = agent.ask(arguments);
        let said = if status == 0 || ended.errors.is_empty() { &ended.output } else { &ended.errors };
        assert!(ended.status == status && said.contains(says), "{arguments:?}: {ended:?}");
    }
    let ended = agent.ask(&["blocked", "--json"]);
    let list: Vec<BlockedAddress> = serde_json::from_str(&ended.output).unwrap();
    assert_eq!(list[0].seconds_left, 3599);
}

#[test]
fn rules_are_checked_with_file_line_rule_and_cause() {
    let ended = defender(&["rules", "check", &shipped_rules()]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{ended:?}");
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = file(
        "bad.yml",
        "title: Bad\nid: 11111111-2222-3333-4444-555555555555\nlogsource:\n  product: linux\n  category: process_creation\n\
         detection:\n  selection:\n    Image|endswit: /x\n  condition: selection\nlevel: high\n",
    );
    let ended = defender(&["rules", "check", &bad]);
    assert_eq!(ended.status, 1);
    for part in [bad.as_str(), "rule \"Bad\"", "endswit"] {
        assert!(ended.errors.contains(part), "{part}: {ended:?}");
    }
    let ended = defender(&["rules", "check", "--json", &bad, &shipped_rules()]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((ended.status, said["errors"].as_array().unwrap().len()), (1, 1), "{ended:?}");
    assert_eq!(said["errors"][0]["file"], bad.as_str());
    assert!(said["errors"][0]["line"].as_u64().is_some_and(|line| (6..=8).contains(&line)), "{said}");
    assert!(said["rules"].as_u64().unwrap() >= 10);
    let expanding = file(
        "expanding.yml",
        "title: Tool\nid: 11111111-2222-3333-4444-666666666666\nlogsource:\n  product: linux\n  category: process_creation\n\
         detection:\n  selection:\n    Image|expand: '/usr/bin/%tools%'\n  condition: selection\nlevel: low\n",
    );
    let ended = defender(&["rules", "check", &expanding]);
    assert!(ended.status == 1 && ended.errors.contains("[rules.placeholders]"), "{ended:?}");
    let config = file("d.toml", "[rules.placeholders]\ntools = [\"curl\", \"wget*\"]\n");
    let ended = defender(&["rules", "check", "--config", &config, &expanding]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{ended:?}");
    for path in [&expanding, &config] {
        std::fs::remove_file(path).unwrap();
    }
    file("overlooked.yaml", "");
    for (path, says) in [
        ("/nonexistent".to_owned(), "/nonexistent: cannot be read"),
        (directory.path().display().to_string(), "overlooked.yaml: the agent does not read it"),
        (file("garbage.yml", "\u{1}\n\t- : ]"), "garbage.yml"),
    ] {
        let ended = defender(&["rules", "check", &path]);
        assert!(ended.status == 1 && ended.errors.contains(says), "{path}: {ended:?}");
    }
}

#[test]
fn rules_are_listed() {
    let ended = defender(&["rules", "list", "--json", "--rules", &shipped_rules()]);
    assert_eq!(ended.status, 0, "{ended:?}");
    let rules: Vec<Value> = serde_json::from_str(&ended.output).unwrap();
    let brute = rules.iter().find(|rule| rule["response"] == "block_source").unwrap();
    assert!(brute["id"].as_str().unwrap().len() == 36 && brute["tactics"][0] == "credential-access");
    let text = defender(&["rules", "list", "--rules", &shipped_rules()]);
    let lines: Vec<&str> = text.output.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), rules.len() + 1);
    let ended = defender(&["rules", "list", "--summary", "--rules", &shipped_rules()]);
    assert!(ended.status == 0 && text.output.ends_with(&format!("\n\n{}", ended.output)), "{ended:?}");
    // The configuration's changes to rules show.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("d.toml");
    let id = brute["id"].as_str().unwrap();
    let changes = format!(
        "[rules]\ndirectories = [\"{}\"]\n[[rule]]\nid = \"{id}\"\nenabled = false\n",
        shipped_rules()
    );
    std::fs::write(&file, changes).unwrap();
    let ended = defender(&["rules", "list", "--json", "--config", file.to_str().unwrap()]);
    let rules: Vec<Value> = serde_json::from_str(&ended.output).unwrap();
    assert!(rules.iter().any(|rule| rule["id"] == id && rule["enabled"] == false), "{ended:?}");
}

#[test]
fn rules_are_counted_by_tactic() {
    let directory = tempfile::tempdir().unwrap();
    let rule = |title: &str, category: &str, tags: &str| {
        format!(
            "title: {title}\nname: {title}\nlogsource:\n  product: linux\n  category: {category}\n\
             detection:\n  s:\n    User: x\n  condition: s\nlevel: low\ntags: [{tags}]\n---\n"
        )
    };
    let text = [
        rule("a", "process_creation", "attack.impact, attack.execution"),
        rule("b", "process_creation", "attack.execution"),
        rule("c", "authentication", ""),
        "title: d\ncorrelation:\n  type: event_count\n  rules: [b]\n  timespan: 1m\n  condition: {gte: 2}\n"
            .to_owned(),
    ]
    .concat();
    let rules = directory.path().join("r.yml");
    std::fs::write(&rules, text).unwrap();
    let config = directory.path().join("d.toml");
    std::fs::write(&config, "[login]\nenabled = false\n").unwrap();
    let (rules, config) = (rules.to_str().unwrap(), config.to_str().unwrap());
    let ended = defender(&["rules", "list", "--summary", "--rules", rules, "--config", config]);
    assert_eq!(
        ended.output,
        " RULES  ALERT   FEED   IDLE    OFF  TACTIC\n\
         \x20    2      1      1      0      0  execution\n\
         \x20    1      1      0      0      0  impact\n\
         \x20    2      1      0      1      0  -\n\
         \x20    4      2      1      1      0  all, those of several tactics counted once\n"
    );
    let ended = defender(&["rules", "list", "--summary", "--json", "--rules", rules, "--config", config]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((&said["rules"], &said["idle"]), (&4.into(), &1.into()), "{said}");
    let tactics: Vec<&Value> = said["tactics"].as_array().unwrap().iter().map(|t| &t["tactic"]).collect();
    assert_eq!(tactics, ["execution", "impact", "-"]);
    // Which rule is idle and why, without being a mistake.
    let ended = defender(&["rules", "check", rules, "--config", config]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{ended:?}");
    assert!(
        ended.output.contains("rule \"c\" is idle: it needs logins (`login.enabled` is false)\n"),
        "{ended:?}"
    );
    let ended = defender(&["rules", "check", "--json", rules, "--config", config]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((&said["idle"][0]["rule"], &said["idle"][0]["needs"][0]), (&"c".into(), &"login".into()));
    assert_eq!(said["idle"].as_array().unwrap().len(), 1, "{said}");
    let ended = defender(&["rules", "list", "--json", "--rules", rules, "--config", config]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert!(
        said[0]["idle"].is_null() && said[2]["idle"].as_str().unwrap().contains("login.enabled"),
        "{said}"
    );
}

#[test]
fn the_configuration_is_checked_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("defender.toml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "[response]\nblock_seconds = 60\n").unwrap();
    assert_eq!(defender(&["config", "check", name]).status, 0);
    let ended = defender(&["config", "show", name, "--json"]);
    let shown: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((ended.status, &shown["response"]["block_seconds"]), (0, &60.into()));
    assert!(defender(&["config", "show", name]).output.contains("\n[response]\n"));
    std::fs::write(&file, "[response]\nblock_secnds = 60\n").unwrap();
    let ended = defender(&["config", "check", name]);
    assert_eq!(ended.status, 2);
    assert!(ended.errors.contains("defender.toml:2:") && ended.errors.contains("block_seconds"), "{ended:?}");
    let ended = defender(&["config", "check", name, "--json"]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((ended.status, &said["problems"][0]["line"]), (2, &2.into()));
    // What is shown then is what an agent would run with.
    let ended = defender(&["config", "show", name, "--json"]);
    let shown: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((ended.status, &shown["response"]["block_seconds"]), (2, &3600.into()));
    assert_eq!(defender(&["config", "check", "/nonexistent.toml"]).status, 2);
    assert!(defender(&["config", "reference"]).output.contains("block_seconds"));
    let written = directory.path().join("default.toml");
    std::fs::write(&written, defender(&["config", "default"]).output).unwrap();
    assert_eq!(defender(&["config", "check", written.to_str().unwrap()]).status, 0);
}

/// Six failed logins and one that succeeds, as sshd logs them.
fn attack() -> String {
    let failed = (0..6).map(|second| {
        format!(
            "Nov  3 20:50:0{second} host sshd[{}]: Failed password for root from 198.51.100.7 port 4000{second} ssh2\n",
            100 + second
        )
    });
    let mut log: String = failed.collect();
    log.push_str(
        "Nov  3 20:50:09 host sshd[200]: Accepted password for root from 198.51.100.7 port 40009 ssh2\n",
    );
    log
}

#[test]
fn replay_finds_an_attack_in_a_log_and_says_the_same_each_time() {
    let rules = shipped_rules();
    let first = with_input(&["replay", "-", "--rules", &rules], attack().as_bytes());
    assert_eq!(first.status, 0, "{first:?}");
    assert!(
        first.output.starts_with("2000-11-03T20:50:04.000Z  high           ")
            && first.output.contains("[block_source 198.51.100.7]")
            && first.output.contains("critical"),
        "{first:?}"
    );
    assert!(
        first.errors.contains("7 lines: 7 events, 0 lines about something else, 0 lines not understood"),
        "{first:?}"
    );
    let json = || with_input(&["replay", "-", "--json", "--rules", &rules], attack().as_bytes());
    let once = json();
    assert_eq!(once.output, json().output);
    let alerts: Vec<Value> = once.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(alerts.len(), first.output.lines().count());
    assert_eq!(alerts[0]["metadata"]["sequence"], 6, "five events, then the alert: {}", alerts[0]);
    assert_eq!(
        (&alerts[0]["device"]["uid"], &alerts[0]["time"]),
        (&"replay".into(), &973_284_604_000_i64.into())
    );
}

#[test]
fn replay_reads_every_kind_of_line_mixed() {
    // Our own events, encoded again from the attack, give the same alerts as the log.
    let mut mixed = Vec::new();
    let device = defender_model::identity::DeviceIdentity::default();
    let address: std::net::IpAddr = "198.51.100.7".parse().unwrap();
    for second in 0..6 {
        let login = defender_model::authentication::Authentication {
            activity: defender_model::authentication::Activity::Logon,
            outcome: defender_model::authentication::Outcome::Failure,
            user: Some("root".into()),
            user_known: None,
            service: "sshd".into(),
            method: None,
            source: Some(address),
            source_port: None,
            tty: None,
            pid: Some(100 + second),
            count: 1,
            message: String::new(),
        };
        let time = defender_model::time::Timestamp(i64::from(second) * 1000);
        defender_model::ocsf::encode(
            &defender_model::event::Event::new(time, login.into()),
            &device,
            &mut mixed,
        );
        mixed.push(b'\n');
    }
    let audit = repository("agent/sensors/src/process/audit/testdata/plain.log");
    mixed.extend(std::fs::read(audit).unwrap());
    mixed.extend(b"\n{\"class_uid\":2004,\"time\":1}\nnonsense \xff\n{broken\n\n");
    let ended = with_input(&["replay", "-", "--rules", &shipped_rules()], &mixed);
    assert_eq!(ended.status, 0);
    assert_eq!(ended.output.matches("198.51.100.7]").count(), 1, "{ended:?}");
    assert!(ended.errors.contains("2 lines not understood"), "{ended:?}");
    let events: u64 =
        ended.errors.split("lines: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(events > 6, "audit records gave none: {ended:?}");
}

#[test]
fn replay_holds_events_against_the_feeds_of_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(file("bots.txt"), "# seen in our network\n198.51.100.0/24 ssh worm\nbad.example\n")
        .unwrap();
    std::fs::write(file("broken.txt"), "<html>\n").unwrap();
    let config = format!("[rules]\ndirectories = []\n[feeds]\ndirectories = [{:?}]\n", directory.path());
    std::fs::write(file("defender.toml"), config).unwrap();
    let line = r#"type=EXECVE msg=audit(1700000000.100:7): argc=2 a0="wget" a1="http://x.bad.example/a""#;
    let syscall = "type=SYSCALL msg=audit(1700000000.100:7): arch=c000003e syscall=59 success=yes exit=0 ppid=1 pid=9 uid=0 exe=\"/bin/wget\"";
    let log = format!("{syscall}\n{line}\ntype=EOE msg=audit(1700000000.100:7):\n{}", attack());
    let ended = with_input(&["replay", "-", "--config", &file("defender.toml")], log.as_bytes());
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.output.contains("198.51.100.0/24 (ssh worm)"), "{ended:?}");
    assert!(ended.output.contains("Program given a listed host (feed bots): bad.example"), "{ended:?}");
    assert!(ended.errors.contains("feed broken") && ended.errors.contains("line 1"), "{ended:?}");
}

#[test]
fn replay_tells_what_it_cannot_read() {
    let rules = shipped_rules();
    for (arguments, status, says) in [
        (&["replay", "/nonexistent", "--rules", &rules][..], 3, "/nonexistent: cannot be read"),
        (&["replay", "/", "--rules", &rules], 3, "cannot be read"),
        (&["replay", "-", "--rules", "/nonexistent"], 2, "no rules"),
        (&["replay"], 2, "FILE is missing"),
    ] {
        let ended = defender(arguments);
        assert!(ended.status == status && ended.errors.contains(says), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn replay_takes_any_bytes() {
    // A fixed generator (Knuth's MMIX), so that a failure can be repeated.
    let mut state = 1u64;
    let mut input = Vec::new();
    let parts: [&[u8]; 8] = [
        b"type=SYSCALL msg=audit(1700000000.1:",
        b"type=EXECVE msg=audit(1.1:1): argc=99 a0=",
        b"{\"class_uid\":1007,",
        b"Nov  3 20:50:52 h sshd[1]: ",
        b"<38>",
        b"Failed password for ",
        b" from 1.2.3.4 port 1 ssh2",
        b"\n",
    ];
    for _ in 0..60_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match (state >> 60) as usize {
            part @ 0..=7 => input.extend(parts[part]),
            _ => input.push((state >> 40) as u8),
        }
    }
    let ended = with_input(&["replay", "-", "--rules", &shipped_rules()], &input);
    assert_eq!(ended.status, 0, "{}", ended.errors);
}

#[test]
fn replay_runs_in_bounded_memory() {
    // 48 MiB of log through a process with an address space of 48 MiB, libraries included: it can never hold the log.
    let lines: String = (0..20_000)
        .map(|n| {
            format!(
                "2026-11-03T20:{:02}:{:02}Z h sshd[{n}]: Failed password for u{n} from 10.{}.{}.{} port 1 ssh2\n",
                n / 60 % 60,
                n % 60,
                n % 7,
                n / 256 % 256,
                n % 256
            )
        })
        .collect();
    let input = lines.repeat(1 + 48 * 1024 * 1024 / lines.len());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &input).unwrap();
    let script = format!(
        "ulimit -v 49152; exec {} replay {} --json --rules {} >/dev/null",
        env!("CARGO_BIN_EXE_defender"),
        file.path().display(),
        shipped_rules()
    );
    let ended = Command::new("sh").args(["-c", &script]).output().unwrap();
    let errors = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{errors}");
    assert!(errors.contains(&format!("{} lines: ", input.lines().count())), "{errors}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    for arguments in [&["rules", "list", "--json", "--rules", &shipped_rules()][..], &["--help"]] {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_defender"))
            .args(arguments)
            .stdout(OwnedFd::from(writer))
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
    // A disk that is full is one.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_defender")).arg("--help").stdout(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
}

#[test]
fn the_documentation_names_every_command_and_option() {
    let text = std::fs::read_to_string(PathBuf::from(repository("docs/command-line.md"))).unwrap();
    let overview = defender(&["--help"]).output;
    let commands = overview.lines().filter_map(|line| line.strip_prefix("  ")).map(|line| {
        line.split_whitespace()
            .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()))
            .collect::<Vec<_>>()
    });
    let mut found = 0;
    for words in commands.filter(|words| !words.is_empty()) {
        // The words of the command end where the description, which begins with a capital, or an argument does.
        let command = words.join(" ");
        assert!(text.contains(&format!("`{command}")), "docs/command-line.md does not know `{command}`");
        let mut arguments = words.clone();
        arguments.push("--help");
        let help = defender(&arguments).output;
        for option in help.split_whitespace().filter(|word| word.starts_with("--")) {
            let option = option.trim_matches(|c: char| !c.is_ascii_lowercase() && c != '-');
            assert!(text.contains(option), "docs/command-line.md does not know {option} of `{command}`");
        }
        found += 1;
    }
    assert!(found >= 14, "{found} commands in {overview}");
}

/// An image with one planted fault, and a policy of two checks.
fn image() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("root/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    write("root/etc/shadow", "root::::::::\n");
    write("root/etc/os-release", "PRETTY_NAME=\"Test image\"\n");
    let check = |id: &str, severity: &str, expect: &str| {
        format!("[[check]]\nid = \"{id}\"\ntitle = \"Title of {id}\"\nsection = \"S\"\nseverity = \"{severity}\"\nrationale = \"Rationale.\"\nremediation = \"Remedy.\"\nexpect = {expect}\n")
    };
    let checks = [
        check("no-empty-password", "critical", "{ not = { account = \"any\", password = \"empty\" } }"),
        check("passwd-mode", "low", "{ file = \"/etc/passwd\", owner = \"root\", mode_max = \"0644\" }"),
        check("kernel", "high", "{ kconfig = \"X\", is = \"y\" }"),
    ];
    write("policies/p.toml", &format!("[policy]\nid = \"p\"\ntitle = \"P\"\n{}", checks.concat()));
    directory
}

#[test]
fn the_gate_names_what_fails_and_ends_with_one() {
    let image = image();
    let path = |below: &str| image.path().join(below).display().to_string();
    let (root, policies) = (path("root"), path("policies"));
    let gate = |more: &[&str]| {
        let mut arguments = vec!["posture", "--root", &root, "--policies", &policies, "--assume-root-owned"];
        arguments.extend(more);
        defender(&arguments)
    };
    assert_eq!(gate(&[]).status, 0, "no bar");
    let failed = gate(&["--fail-on", "high"]);
    assert_eq!(failed.status, 1, "{failed:?}");
    assert!(
        failed.errors.contains("1 checks of severity high or above fail: no-empty-password"),
        "{failed:?}"
    );
    assert!(failed.output.contains("root: the password is empty"), "{failed:?}");
    let low = gate(&["--min-score", "50"]);
    assert_eq!(low.status, 1);
    assert!(low.errors.contains("the score is 9.1, below 50"), "{low:?}");
    assert!(gate(&["--fail-on", "high", "--strict"]).errors.contains("kernel"));
    // Mistakes of usage, of a policy, of a configuration, and a root that is not there.
    assert_eq!(gate(&["--fail-on", "severe"]).status, 2);
    assert_eq!(gate(&["--format", "pdf"]).status, 2);
    assert_eq!(gate(&["--policy", "q"]).status, 2);
    std::fs::write(image.path().join("policies/q.toml"), "[policy]\nid = \"q\"\n").unwrap();
    let broken = gate(&[]);
    assert_eq!(broken.status, 2);
    assert!(broken.errors.contains("q.toml:1: `title` is missing"), "{broken:?}");
    assert_eq!(gate(&["--policy", "p"]).status, 0, "another policy's mistakes do not matter");
    assert_eq!(defender(&["posture", "--root", "/nowhere", "--policies", &policies]).status, 3);
    // Every format is written.
    for (format, start) in [("json", "{"), ("junit", "<?xml"), ("sarif", "{"), ("html", "<!")] {
        let file = path("report");
        let ended = gate(&["--policy", "p", "--format", format, "--output", &file]);
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.output.contains("1 passed, 1 failed, 0 excepted, 1 could not be told"), "{ended:?}");
        assert!(std::fs::read_to_string(&file).unwrap().trim_start().starts_with(start), "{format}");
    }
}

#[test]
fn exceptions_of_the_image_are_in_force_until_their_day() {
    let image = image();
    let path = |below: &str| image.path().join(below).display().to_string();
    let (root, policies) = (path("root"), path("policies"));
    std::fs::create_dir_all(image.path().join("root/etc/defender")).unwrap();
    let scan = |expires: &str| {
        let text = format!("[[posture.exception]]\ncheck = \"no-empty-password\"\nreason = \"bench\"\nowner = \"jane\"\nexpires = \"{expires}\"\n");
        std::fs::write(image.path().join("root/etc/defender/defender.toml"), text).unwrap();
        defender(&[
            "posture",
            "--root",
            &root,
            "--policies",
            &policies,
            "--assume-root-owned",
            "--fail-on",
            "high",
        ])
    };
    assert_eq!(scan("2999-12-31").status, 0);
    let over = scan("2020-01-01");
    assert_eq!(over.status, 1, "{over:?}");
    assert!(over.output.contains("2020-01-01"), "{over:?}");
    assert_eq!(scan("soon").status, 2);
}

#[test]
fn checks_are_listed_explained_and_compared() {
    let image = image();
    let path = |below: &str| image.path().join(below).display().to_string();
    let (root, policies) = (path("root"), path("policies"));
    let listed = defender(&["posture", "list", "--policies", &policies]);
    assert!(listed.output.contains("critical  no-empty-password"), "{listed:?}");
    let json: Value =
        serde_json::from_str(&defender(&["posture", "list", "--policies", &policies, "--json"]).output)
            .unwrap();
    assert_eq!(json[0]["checks"].as_array().unwrap().len(), 3);
    let explained = defender(&["posture", "explain", "passwd-mode", "--policies", &policies]);
    assert!(explained.output.contains("What to do: Remedy."), "{explained:?}");
    let unknown = defender(&["posture", "explain", "passwd-mod", "--policies", &policies]);
    assert_eq!(unknown.status, 1);
    assert!(unknown.errors.contains("did you mean `passwd-mode`"), "{unknown:?}");
    let scan = |file: &str| {
        defender(&[
            "posture",
            "--root",
            &root,
            "--policies",
            &policies,
            "--assume-root-owned",
            "--format",
            "json",
            "--output",
            file,
        ])
    };
    let (before, after) = (path("before"), path("after"));
    scan(&before);
    std::fs::write(image.path().join("root/etc/shadow"), "root:!:::::::\n").unwrap();
    scan(&after);
    let better = defender(&["posture", "diff", &before, &after]);
    assert_eq!(better.status, 0, "{better:?}");
    assert!(better.output.contains("score 9.1 -> 100.0"), "{better:?}");
    assert_eq!(defender(&["posture", "diff", &after, &before]).status, 1);
    assert_eq!(defender(&["posture", "diff", &before, &root]).status, 3);
}

/// An unprivileged build: owners and devices are those of the environment, of a table, or taken for root's.
#[test]
fn owners_come_from_fakeroot_from_a_table_or_are_taken_for_roots() {
    let image = image();
    let path = |below: &str| image.path().join(below).display().to_string();
    let check = |id: &str, expect: &str| {
        format!("[[check]]\nid = \"{id}\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"high\"\nrationale = \"R\"\nremediation = \"M\"\nexpect = {expect}\n")
    };
    let policy = [
        "[policy]\nid = \"o\"\ntitle = \"O\"\n".to_owned(),
        check("owner", "{ file = [\"/etc/passwd\", \"/bin/su\"], owner = \"root\" }"),
        check("setuid", "{ find = \"setuid\" }"),
        check("node", "{ find = \"device_node\" }"),
        check("capability", "{ find = \"capability\" }"),
    ];
    std::fs::write(path("o.toml"), policy.concat()).unwrap();
    std::fs::create_dir_all(image.path().join("root/bin")).unwrap();
    std::fs::write(path("root/bin/su"), "x").unwrap();
    let failing = |output: &str| -> Vec<String> {
        let ids = ["owner", "setuid", "node", "capability"].into_iter();
        ids.filter(|id| output.lines().any(|line| line.contains("FAIL") && line.contains(&format!("[{id}]"))))
            .map(str::to_owned)
            .collect()
    };
    let (root, policy) = (path("root"), path("o.toml"));
    let plain = defender(&["posture", "--root", &root, "--policy", &policy, "--assume-root-owned"]);
    assert_eq!(failing(&plain.output), Vec::<String>::new(), "{plain:?}");
    std::fs::write(
        path("table"),
        "/etc/passwd f 644 5 5\n/bin/su f 4755 0 0\n|xattr cap_net_raw+ep\n/opt/mem c 600 0 0 1 1\n",
    )
    .unwrap();
    let told = defender(&["posture", "--root", &root, "--policy", &policy, "--device-table", &path("table")]);
    assert_eq!(failing(&told.output), ["owner", "setuid", "node", "capability"], "{told:?}");
    std::fs::write(path("table"), "/etc/passwd q\n").unwrap();
    let wrong =
        defender(&["posture", "--root", &root, "--policy", &policy, "--device-table", &path("table")]);
    assert_eq!(wrong.status, 2, "{wrong:?}");
    // A build's own environment, which stands between the scan and the kernel.
    let script = format!(
        "chown 5:5 {root}/etc/passwd && chown 0:0 {root}/bin/su && chmod 4755 {root}/bin/su && mknod {root}/bin/mem c 1 1 && exec {} posture --root {root} --policy {policy}",
        env!("CARGO_BIN_EXE_defender")
    );
    match Command::new("fakeroot").args(["sh", "-c", &script]).output() {
        Ok(ended) => {
            let output = String::from_utf8(ended.stdout).unwrap();
            assert_eq!(
                failing(&output),
                ["owner", "setuid", "node"],
                "{output} {}",
                String::from_utf8_lossy(&ended.stderr)
            );
        }
        Err(_) => println!("skipped: no fakeroot"),
    }
}
