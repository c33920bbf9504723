use std::net::IpAddr;

use defender_model::authentication::Outcome;

use super::*;

/// One log line as the sensor reads it, rendered as the golden files have it.
fn read(line: &str, interpreter: &mut Interpreter) -> String {
    let Some(a) = interpreter.read(line.as_bytes(), true, None, Instant::now()) else {
        return "-".to_owned();
    };
    let or = |o: Option<String>| o.unwrap_or_else(|| "-".to_owned());
    let source = match a.source {
        Some(IpAddr::V6(v6)) => format!("[{v6}]"),
        other => or(other.map(|s| s.to_string())),
    };
    format!(
        "{} {} {}{} user={}({}) method={} source={source}:{}{} x{}",
        match a.activity {
            Activity::Logon => "logon",
            Activity::Logoff => "logoff",
            Activity::AccountSwitch => "switch",
        },
        if a.outcome == Outcome::Success { "success" } else { "failure" },
        a.service,
        a.pid.map(|p| format!("[{p}]")).unwrap_or_default(),
        or(a.user),
        match a.user_known {
            Some(true) => "known",
            Some(false) => "unknown",
            None => "-",
        },
        or(a.method),
        or(a.source_port.map(|p| p.to_string())),
        a.tty.map(|t| format!(" tty={t}")).unwrap_or_default(),
        a.count,
    )
}

fn golden(name: &str, content: &str) {
    let mut interpreter = Interpreter::default();
    let mut checked = 0;
    let mut line: Option<&str> = None;
    for (number, text) in content.lines().enumerate() {
        if text.starts_with('#') {
            continue;
        }
        match (line.take(), text.strip_prefix("= ")) {
            (Some(line), Some(expected)) => {
                assert_eq!(read(line, &mut interpreter), expected, "{name}:{}: {line}", number + 1);
                checked += 1;
            }
            (None, None) => line = Some(text),
            _ => panic!("{name}:{}: a line and its expectation take turns", number + 1),
        }
    }
    assert!(line.is_none() && checked >= 10, "{name}: {checked} lines");
}

#[test]
fn openssh() {
    golden("openssh.log", include_str!("../testdata/openssh.log"));
}

#[test]
fn dropbear() {
    golden("dropbear.log", include_str!("../testdata/dropbear.log"));
}

#[test]
fn console() {
    golden("console.log", include_str!("../testdata/console.log"));
}

#[test]
fn su_and_other_services() {
    golden("su.log", include_str!("../testdata/su.log"));
}

#[test]
fn recorded() {
    golden("recorded.log", include_str!("../testdata/recorded.log"));
}

#[test]
fn only_roots_datagrams_give_addresses() {
    let line = b"<38>Nov  3 20:50:52 sshd[9]: Failed password for root from 192.0.2.7 port 40022 ssh2";
    let mut interpreter = Interpreter::default();
    let mut source = |uid| interpreter.read(line, true, uid, Instant::now()).expect("an event").source;
    assert_eq!(source(Some(1000)), None);
    assert_eq!(source(Some(0)), "192.0.2.7".parse().ok());
}

#[test]
fn cut_lines_are_reported_but_not_too_often() {
    let (mut interpreter, now) = (Interpreter::default(), Instant::now());
    assert_eq!(interpreter.cut_report(now), None);
    for _ in 0..5 {
        interpreter.read(b"x", false, None, now);
    }
    assert_eq!(interpreter.cut_report(now).expect("a report").counters, [("lines_cut".to_owned(), 5)]);
    assert_eq!(interpreter.cut_report(now + CUT_REPORT), None);
    interpreter.read(b"x", false, None, now);
    assert_eq!(interpreter.cut_report(now), None);
    assert!(interpreter.cut_report(now + CUT_REPORT).is_some());
}

#[test]
fn a_repetition_of_another_line_is_nothing() {
    let (mut interpreter, now) = (Interpreter::default(), Instant::now());
    let mut read = |line: &str| interpreter.read(line.as_bytes(), true, None, now);
    assert!(
        read("Nov  3 20:50:52 h sshd[7]: Failed password for root from 192.0.2.7 port 40022 ssh2").is_some()
    );
    assert!(read("Nov  3 20:50:52 h kernel: something").is_none());
    assert!(read("Nov  3 20:50:53 h last message repeated 2 times").is_none());
}
