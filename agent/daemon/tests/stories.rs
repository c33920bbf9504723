//! Attack stories and ordinary days, replayed: what `defender replay` says about each recording in `stories/` is what is written
//! beside it, byte for byte, each time.
//!
//! `NAME.log` is the recording: audit records, log lines and events of ours, as a device would have written them. `NAME.alerts` is
//! the answer; `UPDATE_GOLDEN=1` writes it anew, and the difference shows what a changed rule means.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A recording, and words of which each must be in its alerts: the story is told from its beginning to its end.
const ATTACKS: &[(&str, &[&str])] = &[
    (
        "telnet-worm",
        &[
            "succeeded after brute force",
            "applet in capitals",
            "copied to take its place",
            "Telnet tried",
            "Watchdog",
        ],
    ),
    ("upnp-dropper", &["port mapping", "diagnostic command", "several processors", "IRC", "Weak ports"]),
    (
        "ssh-bruteforce-miner",
        &["succeeded after brute force", "miner", "SSH key added", "System logs removed"],
    ),
    ("web-shell", &["Web server runs", "Reverse shell", "rights of root", "schedule"]),
    ("ransomware", &["Back-ups", "renamed as ransomware", "Ransom note", "encrypted one after the other"]),
    (
        "firmware-tampering",
        &["Read-only root", "Boot loader environment", "Flash partition", "System program replaced"],
    ),
    (
        "agent-kill",
        &["Security agent stopped", "Audit switched off", "Firewall flushed", "Files of the security agent"],
    ),
    ("update-tampering", &["Keys of the updater", "Certificate authority", "Start-up file", "Telnet daemon"]),
    (
        "data-exfiltration",
        &["Secret file sent", "piped to the network", "carried in name look-ups", "Much sent"],
    ),
    (
        "serial-console",
        &["serial console", "after a series of failures", "program run from it", "Password removed"],
    ),
    (
        "kernel-rootkit",
        &["Compiler used", "Root gained", "Kernel module loaded", "preloaded", "without a file"],
    ),
    ("proxy-ddos", &["Proxy server", "Tunnel or port forwarding", "denial of service", "nobody answers"]),
];

/// Nothing in them is worth more than a low alert.
const ORDINARY_DAYS: &[&str] = &["benign-day-busybox", "benign-day-systemd"];

fn stories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories")
}

/// A recording that is judged by the `[[alert]]` sections of the file beside it, and by nothing else.
const CUSTOM_ALERTS: &str = "custom-alerts";

/// What the program says about the recording, and its words about the recording as a whole.
fn replay(name: &str, arguments: &[&str]) -> (String, String) {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/usr/share/defender/rules");
    let recording = stories().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_defender"));
    command.arg("replay").arg(recording.with_extension("log"));
    match name {
        CUSTOM_ALERTS => command.arg("--config").arg(recording.with_extension("toml")),
        _ => command.arg("--rules").arg(rules),
    };
    let output = command.args(arguments).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{name}: {errors}");
    (String::from_utf8(output.stdout).unwrap(), errors)
}

/// The alerts of a story, the same in every run and as they are written down.
fn golden(name: &str) -> String {
    let (alerts, words) = replay(name, &[]);
    assert!(words.contains(" 0 lines not understood"), "{name}: {words}");
    assert_eq!(alerts, replay(name, &[]).0, "{name}: a second run says something else");
    assert_eq!(
        replay(name, &["--json"]).0,
        replay(name, &["--json"]).0,
        "{name}: a second run says something else"
    );
    let path = stories().join(name).with_extension("alerts");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &alerts).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (line, (is, must)) in alerts.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is, must, "{name}.alerts:{}; UPDATE_GOLDEN=1 writes the files anew", line + 1);
    }
    assert_eq!(alerts, expected, "{name}.alerts; UPDATE_GOLDEN=1 writes the files anew");
    alerts
}

#[test]
fn attacks_are_told_from_beginning_to_end() {
    for (name, words) in ATTACKS {
        let alerts = golden(name);
        for word in *words {
            assert!(alerts.contains(word), "{name}: nothing about {word:?} in\n{alerts}");
        }
    }
}

/// Each kind of alert is told where the recording breaks it, and stays silent about the event beside that.
#[test]
fn custom_alerts_are_told_and_nothing_beside_them() {
    let alerts = golden(CUSTOM_ALERTS);
    let expected = [
        "Foreign name: dns A example.org.attacker.example",
        "Foreign visitor: connection inbound tcp 203.0.113.9:50000",
        "Foreign visitor: connection inbound tcp 192.0.2.33:50001 -> 192.0.2.10:23",
        "Foreign destination: connection outbound tcp 192.0.2.10:40002 -> 198.51.100.200:443",
        "Foreign destination: connection failed outbound tcp 192.0.2.10:40003 -> 203.0.113.80:443",
        "Foreign program (content): file modified /usr/bin/app",
        "Foreign program: uid 0 ran /tmp/vi",
        "Foreign program: uid 0 ran /opt/app2/run",
        "Login of a stranger: login at sshd as pi",
        "Failed logins: 4 events in 3 s from src_ip 203.0.113.9",
        "Downloads: 2 events in 5 s",
        "Connections: 3 active connections",
        "No sign of life: 0 events in 300 s, fewer than 1",
        "Connections: 0 active connections in 60 s, fewer than 1",
    ];
    assert_eq!(alerts.lines().count(), expected.len(), "{alerts}");
    for (line, words) in alerts.lines().zip(expected) {
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
}

#[test]
fn ordinary_days_raise_nothing() {
    for name in ORDINARY_DAYS {
        let alerts = golden(name);
        let loud: Vec<_> = alerts
            .lines()
            .filter(|line| {
                ["medium", "high", "critical"].contains(&line.split_whitespace().nth(1).unwrap_or_default())
            })
            .collect();
        assert!(loud.is_empty(), "{name}: {loud:#?}");
    }
}

/// From the web server down to the command: whoever reads the alert alone sees how the intruder came in.
#[test]
fn an_alert_names_the_ancestors_of_the_process() {
    let (alerts, _) = replay("web-shell", &["--json"]);
    let alert = alerts.lines().find(|line| line.contains("Account added in an unusual way")).unwrap();
    let alert: serde_json::Value = serde_json::from_str(alert).unwrap();
    let first = &alert["evidences"][0]["process"];
    let chain = std::iter::successors(Some(first), |process| process.get("parent_process"));
    let chain: Vec<_> = chain
        .map(|process| {
            (
                process["pid"].as_u64().unwrap(),
                process["cmd_line"].as_str().unwrap().split(' ').next().unwrap(),
            )
        })
        .collect();
    let expected = [
        (2014, "useradd"),
        (2013, "/bin/sh"),
        (2012, "sudo"),
        (2009, "/bin/sh"),
        (2007, "sh"),
        (2002, "/usr/bin/php-cgi"),
        (2001, "/usr/sbin/lighttpd"),
    ];
    assert_eq!(chain, expected);
}

#[test]
fn every_recording_is_replayed() {
    let mut known: Vec<_> = ATTACKS.iter().map(|(name, _)| *name).collect();
    known.extend(ORDINARY_DAYS);
    known.push(CUSTOM_ALERTS);
    for entry in fs::read_dir(stories()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(known.contains(&name) || name == "README", "{} belongs to no story", path.display());
    }
}
