//! Replies and events as text for people: aligned, and safe on a terminal whatever the device's attackers wrote into it.

use std::io::{self, Write};
use std::net::IpAddr;

use defender_model::ocsf;
use defender_model::process::Ancestor;
use defender_model::severity::Severity;
use defender_model::text::{printable, truncate};
use defender_model::time::Timestamp;

use defender_sensors::balance;

use crate::request::{BlockedAddress, SinkStatus, StatusReport};
use crate::wire::{wire, Wire as _};

/// Longest text of one event, in bytes; the whole of it is in the JSON.
const TEXT: usize = 1000;
/// Longest name of an ancestor, in bytes.
const ANCESTOR: usize = 32;

/// A status report.
pub(super) fn status(out: &mut dyn Write, report: &StatusReport) -> io::Result<()> {
    let armed = match (report.armed, report.armed_after_ms) {
        (true, after) => format!("armed {after} ms after start"),
        (false, _) => "NOT ARMED".to_owned(),
    };
    row(out, "health", &format!("{}, {armed}", report.health))?;
    rows(out, "degraded", &report.degraded)?;
    row(out, "agent", &format!("version {}, up {}", report.version, duration(report.uptime_s)))?;
    row(out, "device", &format!("{}, boot {}", report.device, report.boot))?;
    let process = &report.process;
    let source = match process.source.as_str() {
        "" => "off".to_owned(),
        source => format!("{source}: {}", process.detail),
    };
    row(out, "processes", &format!("{source}; {} lost, {} known", process.lost, process.table))?;
    rows(out, "  not used", &process.declined)?;
    figures(out, &process.counters)?;
    let sensors = [
        ("logins", &report.logins),
        ("network", &report.network),
        ("files", &report.files),
        ("peripherals", &report.peripherals),
        ("packet filter", &report.packet_filter),
        ("modules", &report.modules),
        ("services", &report.services),
        ("submitted", &report.submissions),
        ("accounts", &report.accounts),
        ("inventory", &report.inventory),
    ];
    for (name, sensor) in sensors {
        rows(out, name, &sensor.modes)?;
        rows(out, "  missing", &sensor.lacks)?;
        figures(out, &sensor.counters)?;
    }
    let events = &report.events;
    let counts = [
        ("process", events.process),
        ("authentication", events.authentication),
        ("network", events.network),
        ("file", events.files),
        ("peripheral", events.peripherals),
        ("finding", events.findings),
        ("remediation", events.remediations),
        ("health", events.health),
    ];
    let mut seen: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    seen.push(format!("{} dropped", events.dropped));
    seen.push(format!("{} received, {} emitted", events.received, events.emitted));
    row(out, "events", &seen.join(", "))?;
    row(out, "rules", &format!("{} loaded", report.rules.loaded))?;
    rows(out, "  left out", &report.rules.errors)?;
    let firewall = &report.firewall;
    let ready = if firewall.ready { "ready".to_owned() } else { format!("NOT READY: {}", firewall.error) };
    row(out, "firewall", &ready)?;
    if let Some(isolation) = &firewall.isolation {
        let left = duration(isolation.seconds_left);
        row(out, "  ISOLATED", &format!("for {left} more: {}", isolation.reason))?;
    }
    for sink in &report.sinks {
        row(out, &format!("sink {}", sink.name), &sink_words(sink))?;
    }
    rows(out, "confinement", &report.confinement)
}

/// A sensor's figures: its balance sheet, and what else is counted.
fn figures(out: &mut dyn Write, counters: &[(String, u64)]) -> io::Result<()> {
    let (mut others, mut sheet) = (String::new(), String::new());
    let mut add = |name: &str, count: u64| {
        let (to, mark) = match name {
            balance::PRODUCED => return,
            _ if balance::is_entry(name) => (&mut sheet, " + "),
            _ => (&mut others, ", "),
        };
        if !to.is_empty() {
            to.push_str(mark);
        }
        to.push_str(&format!("{count} {name}"));
    };
    counters.iter().for_each(|(name, count)| add(name, *count));
    if !others.is_empty() {
        row(out, "  counted", &others)?;
    }
    let named = counters.iter().map(|(name, count)| (name.as_str(), *count));
    let Some((produced, rest)) = balance::sides(named) else { return Ok(()) };
    // Either would be a defect of the agent, and is not to be hidden.
    let difference = match produced.abs_diff(rest) {
        0 => String::new(),
        difference => format!("; IT DOES NOT ADD UP by {difference}"),
    };
    row(out, "  balance", &format!("{produced} produced = {sheet}{difference}"))
}

/// How a sink is doing, how far behind it is, and why.
fn sink_words(sink: &SinkStatus) -> String {
    let mut words = sink.state.clone();
    if sink.next_try_s > 0 {
        words = format!("{words} in {}", duration(sink.next_try_s));
    }
    words = format!(
        "{words}, {} handed over = {} written + {} dropped + {} waiting",
        sink.handed, sink.written, sink.dropped, sink.waiting
    );
    if sink.spooled > 0 {
        words = format!("{words}, {} KiB wait in the spool", sink.spooled.div_ceil(1024));
    }
    if sink.lag_s > 0 {
        words = format!("{words}, behind by {}", duration(sink.lag_s));
    }
    if !sink.last_error.is_empty() {
        words = format!("{words}; last error: {}", sink.last_error);
    }
    words
}

fn row(out: &mut dyn Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{:<19} {}", printable(label), printable(text))
}

/// Several lines under one label.
fn rows(out: &mut dyn Write, label: &str, texts: &[String]) -> io::Result<()> {
    for (at, text) in texts.iter().enumerate() {
        row(out, if at == 0 { label } else { "" }, text)?;
    }
    Ok(())
}

/// Blocked addresses.
pub(super) fn blocked(out: &mut dyn Write, addresses: &[BlockedAddress]) -> io::Result<()> {
    if addresses.is_empty() {
        return writeln!(out, "no address is blocked");
    }
    let cells: Vec<[String; 2]> = addresses
        .iter()
        .map(|blocked| [blocked.address.to_string(), duration(blocked.seconds_left)])
        .collect();
    let width = |column: usize, title: &str| {
        cells.iter().map(|cell| cell[column].len()).max().unwrap_or(0).max(title.len())
    };
    let (first, second) = (width(0, "ADDRESS"), width(1, "TIME LEFT"));
    writeln!(out, "{:<first$}  {:>second$}  REASON", "ADDRESS", "TIME LEFT")?;
    for ([address, left], blocked) in cells.iter().zip(addresses) {
        writeln!(out, "{address:<first$}  {left:>second$}  {}", printable(&blocked.reason))?;
    }
    Ok(())
}

/// Seconds as people say them: the two largest units.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// What a line of text needs of an OCSF event of the classes that [`ocsf::decode`] does not read back.
#[derive(Default)]
struct Brief {
    class_uid: u32,
    activity_id: u32,
    severity_id: u8,
    time: i64,
    message: String,
    status_id: u8,
    status_code: String,
    status_detail: String,
    observables: Vec<Observable>,
    process: Option<Subject>,
    evidences: Vec<Evidence>,
    unmapped: Unmapped,
}

/// A process, and where it came from.
#[derive(Default)]
struct Subject {
    pid: u32,
    file: Executable,
    parent_process: Option<Box<Subject>>,
}

#[derive(Default)]
struct Evidence {
    process: Option<Subject>,
    actor: Option<Actor>,
}

#[derive(Default)]
struct Actor {
    process: Option<Subject>,
}

wire! {
    Brief {
        class_uid, activity_id, severity_id, time, message, status_id, status_code, status_detail, observables, process, evidences,
        unmapped,
    }
    Subject { pid, file, parent_process }
    Evidence { process, actor }
    Actor { process }
    Executable { path }
    Observable { value }
    Unmapped { kind, component, seconds, response }
}

impl Brief {
    fn read(line: &str) -> Option<Self> {
        let mut brief = Self::default();
        brief.fill(&serde_json::from_str(line).ok()?).ok()?;
        Some(brief)
    }

    /// ` [from sh(12) < sshd(9)]`: the ancestors of the first process among the evidence, names without directories.
    fn lineage(&self) -> String {
        let mut above = self
            .evidences
            .iter()
            .find_map(|evidence| evidence.process.as_ref().or(evidence.actor.as_ref()?.process.as_ref()))
            .and_then(|process| process.parent_process.as_deref());
        let mut names = Vec::new();
        while let Some(ancestor) = above.filter(|_| names.len() < Ancestor::LEVELS) {
            let name = ancestor.file.path.rsplit('/').next().unwrap_or_default();
            let name = if name.is_empty() { "?" } else { truncate(name, ANCESTOR) };
            names.push(format!("{name}({})", ancestor.pid));
            above = ancestor.parent_process.as_deref();
        }
        if names.is_empty() {
            String::new()
        } else {
            format!(" [from {}]", names.join(" < "))
        }
    }
}

#[derive(Default)]
struct Executable {
    path: String,
}

#[derive(Default)]
struct Observable {
    value: String,
}

#[derive(Default)]
struct Unmapped {
    kind: String,
    component: String,
    seconds: Option<u64>,
    response: String,
}

/// One event, from its OCSF line.
pub(super) fn event(out: &mut dyn Write, line: &str, colour: bool) -> io::Result<()> {
    if let Ok(Some(event)) = ocsf::decode(line.as_bytes()) {
        return entry(out, event.time, event.severity(), &event.to_string(), colour);
    }
    let Some(brief) = Brief::read(line) else {
        // Another version's agent may send what this one cannot read; it is shown as it is.
        return writeln!(out, "{}", printable(truncate(line, TEXT)));
    };
    let address = brief.observables.first().and_then(|observable| observable.value.parse::<IpAddr>().ok());
    let text = match brief.class_uid {
        ocsf_class::DETECTION_FINDING => {
            let from = brief.lineage();
            match (brief.unmapped.response.as_str(), address) {
                ("" | "none", _) => format!("ALERT {}{from}", brief.message),
                (response, None) => format!("ALERT {}{from} [{response}]", brief.message),
                (response, Some(address)) => {
                    format!("ALERT {}{from} [{response} {address}]", brief.message)
                }
            }
        }
        ocsf_class::REMEDIATION | ocsf_class::PROCESS_REMEDIATION | ocsf_class::NETWORK_REMEDIATION => {
            let mut words = match (brief.class_uid, brief.activity_id, address) {
                (ocsf_class::REMEDIATION, ..) => "hook",
                (ocsf_class::PROCESS_REMEDIATION, ..) => "kill",
                (_, 3, None) => "end isolation",
                (_, 3, _) => "unblock",
                (_, _, None) => "isolate",
                _ => "block",
            }
            .to_owned();
            if let Some(process) = brief.process {
                words = format!("{words} pid={} {}", process.pid, process.file.path);
            }
            if let Some(address) = address {
                words = format!("{words} {address}");
            }
            if let Some(seconds) = brief.unmapped.seconds {
                words = format!("{words} for {}", duration(seconds));
            }
            words = match brief.status_id {
                1 => format!("{words} verified"),
                _ => format!("{words} {} ({})", brief.status_code, brief.status_detail),
            };
            format!("{words}: {}", brief.message)
        }
        _ => format!("{} {}: {}", brief.unmapped.component, brief.unmapped.kind, brief.message),
    };
    let severity = Severity::from_id(brief.severity_id).unwrap_or_default();
    entry(out, Timestamp(brief.time), severity, &text, colour)
}

/// OCSF classes that are conclusions.
mod ocsf_class {
    pub(super) const DETECTION_FINDING: u32 = 2004;
    pub(super) const REMEDIATION: u32 = 7001;
    pub(super) const PROCESS_REMEDIATION: u32 = 7003;
    pub(super) const NETWORK_REMEDIATION: u32 = 7004;
}

/// One line with time and severity.
pub(super) fn entry(
    out: &mut dyn Write,
    time: Timestamp,
    severity: Severity,
    text: &str,
    colour: bool,
) -> io::Result<()> {
    let (on, off) = match severity {
        // SGR (ECMA-48 section 8.3.117): 1 bold, 31 red, 33 yellow, 0 reset.
        Severity::High | Severity::Critical if colour => ("\x1b[1;31m", "\x1b[0m"),
        Severity::Medium if colour => ("\x1b[33m", "\x1b[0m"),
        _ => ("", ""),
    };
    writeln!(out, "{time}  {on}{:<13}{off}  {}", severity.level(), printable(truncate(text, TEXT)))
}

#[cfg(test)]
mod tests {
    use defender_model::event::Event;
    use defender_model::health::{Health, Kind};
    use defender_model::identity::DeviceIdentity;
    use defender_model::process::{Ancestor, Change, Process, ProcessActivity, Source};
    use defender_model::remediation::{Action, Outcome, Remediation};

    use super::*;

    #[test]
    fn a_sink_in_words() {
        let sink = SinkStatus {
            name: "mqtt".into(),
            state: "retrying".into(),
            handed: 45,
            waiting: 3,
            written: 40,
            dropped: 2,
            spooled: 2049,
            lag_s: 7380,
            next_try_s: 12,
            last_error: "cannot connect to broker:8883: Connection refused".into(),
        };
        assert_eq!(
            sink_words(&sink),
            "retrying in 12 s, 45 handed over = 40 written + 2 dropped + 3 waiting, 3 KiB wait in the spool, behind by 2 h 3 min; \
             last error: cannot connect to broker:8883: Connection refused"
        );
        let fine = SinkStatus { state: "ok".into(), handed: 1, written: 1, ..SinkStatus::default() };
        assert_eq!(sink_words(&fine), "ok, 1 handed over = 1 written + 0 dropped + 0 waiting");
    }

    #[test]
    fn a_sheet_that_does_not_add_up_says_so() {
        let shown = |delivered| {
            let counters = [("table", 9), ("produced", 12), ("delivered", delivered), ("dropped_kernel", 2)];
            let counters = counters.map(|(name, count)| (name.to_owned(), count));
            let mut out = Vec::new();
            figures(&mut out, &counters).unwrap();
            String::from_utf8(out).unwrap()
        };
        let sheet =
            "  counted           9 table\n  balance           12 produced = 10 delivered + 2 dropped_kernel";
        assert_eq!(shown(10), format!("{sheet}\n"));
        assert!(shown(9).ends_with("; IT DOES NOT ADD UP by 1\n"), "{}", shown(9));
    }

    fn shown(event_of_ours: &Event, colour: bool) -> String {
        let (mut line, mut out) = (Vec::new(), Vec::new());
        ocsf::encode(event_of_ours, &DeviceIdentity::default(), &mut line);
        event(&mut out, std::str::from_utf8(&line).unwrap(), colour).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_of_every_kind_have_a_line() {
        let process = Process {
            pid: 7,
            executable: "/bin/sh".into(),
            argv: vec!["sh".into(), "-c".into(), "\x1b[2J".into()],
            ..Process::default()
        };
        let exec = ProcessActivity {
            process,
            change: Change::Exec { truncated: false },
            source: Source::Audit,
            started: None,
        };
        assert_eq!(
            shown(&Event::new(Timestamp(0), exec.into()), true),
            "1970-01-01T00:00:00.000Z  informational  exec pid=7 /bin/sh: sh -c \\u{1b}[2J\n"
        );
        let block = Remediation {
            action: Action::Block,
            address: Some("2001:db8::1".parse().unwrap()),
            process: None,
            seconds: Some(3600),
            outcome: Outcome::Failed("nft: not found".into()),
            reason: "Brute force".into(),
            finding: None,
        };
        assert_eq!(
            shown(&Event::new(Timestamp(0), block.into()), true),
            "1970-01-01T00:00:00.000Z  \x1b[1;31mhigh         \x1b[0m  \
             block 2001:db8::1 for 1 h 0 min failed (nft: not found): Brute force\n"
        );
        let done = |action, process, seconds| {
            let (outcome, reason) = (Outcome::Verified, "Dropper".into());
            let done =
                Remediation { action, address: None, process, seconds, outcome, reason, finding: None };
            shown(&Event::new(Timestamp(0), done.into()), false)
        };
        let killed =
            Ancestor { pid: 4242, executable: "/tmp/x".into(), command_line: "x -y".into(), parent: None };
        for (line, words) in [
            (done(Action::Kill, Some(killed), None), "kill pid=4242 /tmp/x verified: Dropper"),
            (done(Action::RunHook, None, None), "hook verified: Dropper"),
            (done(Action::Isolate, None, Some(900)), "isolate for 15 min 0 s verified: Dropper"),
            (done(Action::EndIsolation, None, None), "end isolation verified: Dropper"),
        ] {
            assert!(line.ends_with(&format!("  {words}\n")), "{line}");
        }
        let alert = r#"{"class_uid":2004,"severity_id":4,"message":"Dropper","evidences":[{"actor":{"process":{"pid":9,
            "parent_process":{"pid":8,"file":{"path":"/bin/sh"},"parent_process":{"pid":7,"file":{"path":"/a/\u001b[2J"}}}}}}],
            "unmapped":{"response":"isolate"}}"#;
        let mut out = Vec::new();
        event(&mut out, alert, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("ALERT Dropper [from sh(8) < \\u{1b}[2J(7)] [isolate]\n"), "{text}");
        let health = Health::new(Kind::Degraded, "sink.file", "no room");
        assert_eq!(
            shown(&Event::new(Timestamp(0), health.into()), false),
            "1970-01-01T00:00:00.000Z  medium         sink.file degraded: no room\n"
        );
    }

    #[test]
    fn what_is_no_event_is_shown_as_it_is_and_harmless() {
        let mut out = Vec::new();
        event(&mut out, "[\x1b]", false).unwrap();
        assert_eq!(out, b"[\\u{1b}]\n");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, words) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), words);
        }
    }

    #[test]
    fn blocked_addresses_are_aligned() {
        let list = ["192.0.2.1", "2001:db8::ffff"].map(|address| BlockedAddress {
            address: address.parse().unwrap(),
            seconds_left: 5,
            reason: "x\ny".into(),
        });
        let mut out = Vec::new();
        blocked(&mut out, &list).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "ADDRESS         TIME LEFT  REASON\n\
             192.0.2.1             5 s  x\\ny\n\
             2001:db8::ffff        5 s  x\\ny\n"
        );
    }
}
