//! Findings: what is said of a rule that held.

use std::fmt::Write as _;
use std::net::IpAddr;

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::event::{Event, EventKind};
use defender_model::finding::{Evidence, Finding};
use defender_model::network::Direction;
use defender_model::process::Process;
use defender_model::text::{printable, truncate};
use defender_model::time::Timestamp;

use crate::feed::Hit;
use crate::ruleset::{Correlation, Rule};
use crate::sigma::correlation::CorrelationKind;
use crate::window::Firing;

/// Bytes of a command line or log line in a message.
const MESSAGE_PART: usize = 200;
/// Bytes of arguments kept as evidence.
const EVIDENCE_ARGUMENTS: usize = 16 * 1024;
/// Bytes of a log line kept as evidence.
const EVIDENCE_LINE: usize = 4 * 1024;

/// The group of a correlation that fired.
pub(crate) struct Group<'a> {
    pub(crate) correlation: &'a Correlation,
    pub(crate) values: &'a [Box<str>],
}

/// The finding of a rule that judges single events.
pub(crate) fn single(rule: &Rule, number: u64, event: &Event) -> Finding {
    let mut message = format!("{}: ", rule.info.title);
    particulars(event, &mut message);
    let count = match &event.kind {
        EventKind::Authentication(a) => a.count.max(1),
        _ => 1,
    };
    finding(rule, number, event, &message, count, event.time)
}

/// The finding of a profile that lacks something; `entry` is what it would have to say.
pub(crate) fn unprofiled(rule: &Rule, number: u64, event: &Event, program: &str, entry: String) -> Finding {
    let mut finding = single(rule, number, event);
    finding.group = vec![("entry".to_owned(), entry)];
    if !program.is_empty() {
        finding.group.insert(0, ("program".to_owned(), program.to_owned()));
    }
    finding
}

/// The finding of a feed that lists something an event shows; `address` is the listed one of the event.
pub(crate) fn listed(
    rule: &Rule,
    number: u64,
    event: &Event,
    feed: &str,
    hit: &Hit,
    address: Option<IpAddr>,
) -> Finding {
    let mut message = format!("{}: {}", rule.info.title, hit.entry);
    if !hit.label.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(message, " ({})", hit.label);
    }
    message.push_str("; ");
    particulars(event, &mut message);
    let mut finding = finding(rule, number, event, &message, 1, event.time);
    finding.group = vec![("entry".to_owned(), hit.entry.clone()), ("feed".to_owned(), feed.to_owned())];
    if !hit.label.is_empty() {
        finding.group.push(("label".to_owned(), hit.label.clone()));
    }
    // Where the event has no direction, a listed address is one the device goes to.
    if finding.source.is_none() && finding.destination.is_none() {
        finding.destination = address;
    }
    finding
}

/// The finding of a correlation.
pub(crate) fn correlation(
    rule: &Rule,
    number: u64,
    event: &Event,
    group: &Group<'_>,
    firing: Firing,
    reading: u64,
) -> Finding {
    let mut message = format!("{}: ", rule.info.title);
    let (count, seconds) = (firing.count, firing.last.saturating_sub(firing.first) / 1000);
    // Writing to a String cannot fail.
    let _ = match group.correlation.kind {
        CorrelationKind::EventCount => write!(message, "{count} events in {seconds} s"),
        CorrelationKind::ActiveCount => write!(message, "{reading} active connections"),
        CorrelationKind::ValueCount => {
            write!(message, "{reading} different values of {} in {seconds} s", group.correlation.counted)
        }
        CorrelationKind::Temporal => write!(message, "all of its rules held within {seconds} s"),
        CorrelationKind::TemporalOrdered => {
            write!(message, "its rules held one after the other within {seconds} s")
        }
    };
    let pairs = || group.correlation.group_by.iter().zip(group.values);
    for (i, (name, value)) in pairs().enumerate() {
        let _ = write!(
            message,
            "{} {name} {}",
            if i == 0 { " from" } else { "," },
            truncate(value, MESSAGE_PART)
        );
    }
    message.push_str("; last: ");
    particulars(event, &mut message);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let mut finding = finding(rule, number, event, &message, count, Timestamp(firing.first));
    finding.last_seen = Timestamp(firing.last);
    finding.group = pairs().map(|(name, value)| (name.clone(), value.to_string())).collect();
    if finding.source.is_none() {
        let at = group.correlation.source_at.and_then(|at| group.values.get(at));
        finding.source = at.and_then(|text| text.parse::<IpAddr>().ok());
    }
    finding
}

/// The finding of a floor that was not reached: of what did not happen there is no evidence.
pub(crate) fn shortfall(rule: &Rule, number: u64, now: Timestamp, group: &Group<'_>, value: u64) -> Finding {
    let Group { correlation, values } = group;
    let what = match correlation.kind {
        CorrelationKind::ActiveCount => "active connections",
        _ => "events",
    };
    let minimum = correlation.bounds.first().map_or(0, |(_, bound)| *bound);
    let seconds = correlation.span / 1000;
    let mut message = format!("{}: {value} {what} in {seconds} s, fewer than {minimum}", rule.info.title);
    for (name, value) in correlation.group_by.iter().zip(*values) {
        // Writing to a String cannot fail.
        let _ = write!(message, ", {name} {}", truncate(value, MESSAGE_PART));
    }
    let source = correlation.source_at.and_then(|at| values.get(at)).and_then(|text| text.parse().ok());
    Finding {
        uid: format!("{}-{number}", rule.info.id),
        rule: rule.info.clone(),
        severity: rule.level,
        message: printable(&message).into_owned(),
        count: 1,
        first_seen: now - correlation.span,
        last_seen: now,
        group: correlation.group_by.iter().cloned().zip(values.iter().map(ToString::to_string)).collect(),
        source,
        destination: None,
        evidence: Vec::new(),
        response: rule.response,
        update: false,
    }
}

fn finding(rule: &Rule, number: u64, event: &Event, message: &str, count: u32, first: Timestamp) -> Finding {
    let (mut source, mut destination) = (None, None);
    let evidence = match &event.kind {
        EventKind::Process(a) => vec![Evidence::Process(Box::new(bounded_process(&a.process)))],
        EventKind::Authentication(a) => {
            let evidence =
                Authentication { message: truncate(&a.message, EVIDENCE_LINE).to_owned(), ..(**a).clone() };
            source = a.source;
            vec![Evidence::Authentication(Box::new(evidence))]
        }
        EventKind::Network(flow) => {
            match flow.direction {
                Direction::Inbound => source = Some(flow.source.address),
                Direction::Outbound => destination = Some(flow.destination.address),
                Direction::Local | Direction::Unknown => {}
            }
            vec![Evidence::Observed(Box::new(event.kind.clone()))]
        }
        EventKind::Listener(_)
        | EventKind::Dns(_)
        | EventKind::File(_)
        | EventKind::Peripheral(_)
        | EventKind::Module(_)
        | EventKind::Deed(_)
        | EventKind::Firewall(_)
        | EventKind::Account(_)
        | EventKind::Service(_)
        | EventKind::Submitted(_) => vec![Evidence::Observed(Box::new(event.kind.clone()))],
        EventKind::Compliance(_)
        | EventKind::Finding(_)
        | EventKind::Remediation(_)
        | EventKind::Inventory(_)
        | EventKind::Health(_) => Vec::new(),
    };
    Finding {
        uid: format!("{}-{number}", rule.info.id),
        rule: rule.info.clone(),
        severity: rule.level,
        message: printable(message).into_owned(),
        count,
        first_seen: first,
        last_seen: event.time,
        group: Vec::new(),
        source,
        destination,
        evidence,
        response: rule.response,
        update: false,
    }
}

/// Who did what, in a few words.
fn particulars(event: &Event, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match &event.kind {
        EventKind::Process(activity) => {
            let p = &activity.process;
            let _ = match (&p.user, p.uid) {
                (Some(user), _) => write!(out, "{user} "),
                (None, Some(uid)) => write!(out, "uid {uid} "),
                (None, None) => Ok(()),
            };
            let _ = write!(out, "ran {} (pid {}", or_unknown(&p.executable), p.pid);
            if let Some(parent) = &p.parent {
                let _ = write!(out, ", parent {} {}", or_unknown(&parent.executable), parent.pid);
            }
            out.push_str("): ");
            command_line(p, out);
            Ok(())
        }
        EventKind::Authentication(a) => {
            let what = match (a.activity, a.outcome) {
                (Activity::Logon, Outcome::Success) => "login",
                (Activity::Logon, Outcome::Failure) => "failed login",
                (Activity::Logoff, _) => "logout",
                (Activity::AccountSwitch, Outcome::Success) => "change of account",
                (Activity::AccountSwitch, Outcome::Failure) => "failed change of account",
            };
            let _ = write!(out, "{what} at {}", or_unknown(&a.service));
            if let Some(user) = &a.user {
                let _ = write!(out, " as {}", truncate(user, MESSAGE_PART));
            }
            match (a.source, &a.tty) {
                (Some(source), _) => write!(out, " from {source}"),
                (None, Some(tty)) => write!(out, " on {}", truncate(tty, MESSAGE_PART)),
                (None, None) => Ok(()),
            }
        }
        EventKind::Network(_)
        | EventKind::Listener(_)
        | EventKind::Dns(_)
        | EventKind::File(_)
        | EventKind::Peripheral(_)
        | EventKind::Module(_)
        | EventKind::Deed(_)
        | EventKind::Firewall(_)
        | EventKind::Account(_)
        | EventKind::Service(_)
        | EventKind::Submitted(_) => write!(out, "{event}"),
        EventKind::Compliance(_)
        | EventKind::Finding(_)
        | EventKind::Remediation(_)
        | EventKind::Inventory(_)
        | EventKind::Health(_) => Ok(()),
    };
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() {
        "(unknown)"
    } else {
        truncate(text, MESSAGE_PART)
    }
}

fn command_line(p: &Process, out: &mut String) {
    let start = out.len();
    for (i, arg) in p.argv.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        let room = MESSAGE_PART.saturating_sub(out.len() - start);
        let shown = truncate(arg, room);
        out.push_str(shown);
        if shown.len() < arg.len() || (room == 0 && i + 1 < p.argv.len()) {
            out.push_str(" ...");
            break;
        }
    }
}

/// The process with its arguments cut to a bound.
fn bounded_process(p: &Process) -> Process {
    let mut room = EVIDENCE_ARGUMENTS;
    let mut argv = Vec::new();
    for arg in &p.argv {
        let kept = truncate(arg, room);
        room = room.saturating_sub(kept.len() + 1);
        argv.push(kept.to_owned());
        if room == 0 {
            break;
        }
    }
    Process {
        pid: p.pid,
        executable: p.executable.clone(),
        argv,
        cwd: p.cwd.clone(),
        uid: p.uid,
        euid: p.euid,
        gid: p.gid,
        auid: p.auid,
        user: p.user.clone(),
        session: p.session,
        tty: p.tty.clone(),
        parent: p.parent.clone(),
    }
}
