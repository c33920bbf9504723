//! Events to JSON lines.

mod compliance;
mod inventory;
mod observed;

use super::wire::{
    Actor, Analytic, Attack, ConnectionInfo, Decimal, Device, Endpoint, EvidenceData, FindingInfo, Label,
    Metadata, Named, Observable, Pairs, Product, Record, Session, Unmapped, User,
};
use super::{class, wire, VERSION};
use crate::authentication::{Activity, Authentication, Outcome};
use crate::event::{Event, EventKind};
use crate::finding::{Evidence, Finding};
use crate::health::{Health, Kind};
use crate::identity::DeviceIdentity;
use crate::process::{Ancestor, Change, ExitReason, Process, ProcessActivity};
use crate::remediation::{self, Action, Remediation};
use crate::text::truncate;

const PROFILES: &[&str] = &["host", "linux/linux_users"];
/// `observable.type_id` 2: IP Address.
const OBSERVABLE_IP: u8 = 2;
/// Bytes of a command line that an event carries. Rules have seen all of it; a line of JSON can be six times as long as what it
/// says, and every sink has to hold it.
const COMMAND_LINE: usize = 256 << 10;
/// Bytes of a command line that a finding carries.
const EVIDENCE: usize = 16 << 10;
/// `file.type_id` 1: Regular File.
const REGULAR_FILE: u8 = 1;

/// Appends the event as one line of JSON, without the newline.
pub fn encode(event: &Event, device: &DeviceIdentity, out: &mut Vec<u8>) {
    let command_line;
    let mut record = match &event.kind {
        EventKind::Process(activity) => {
            command_line = activity.process.command_line();
            process_activity(activity, &command_line)
        }
        EventKind::Authentication(authentication) => login(authentication),
        EventKind::Finding(found) => {
            let lines: Vec<String> = found.evidence.iter().map(evidence_command_line).collect();
            return write(event, device, finding(found, &lines), out);
        }
        EventKind::Compliance(concluded) => compliance::record(concluded),
        EventKind::Remediation(done) => remediation(done),
        EventKind::Health(said) => health(said, device),
        EventKind::Network(_)
        | EventKind::Listener(_)
        | EventKind::Dns(_)
        | EventKind::File(_)
        | EventKind::Peripheral(_)
        | EventKind::Module(_)
        | EventKind::Firewall(_)
        | EventKind::Account(_)
        | EventKind::Inventory(_)
        | EventKind::Service(_)
        | EventKind::Submitted(_) => observed::record(&event.kind).unwrap_or_default(),
    };
    record.severity_id = Some(event.severity().id());
    write(event, device, record, out);
}

fn write<'a>(event: &Event, device: &'a DeviceIdentity, mut record: Record<'a>, out: &mut Vec<u8>) {
    record.time = Some(event.time.millis());
    record.severity_id = Some(event.severity().id());
    let class = record.class_uid.unwrap_or_default();
    record.category_uid = Some(class / 1000);
    record.type_uid = Some(class * 100 + record.activity_id.unwrap_or_default());
    let metadata = record.metadata.get_or_insert_with(Metadata::default);
    metadata.version = Some(VERSION);
    metadata.profiles = Some(PROFILES);
    metadata.sequence = Some(event.sequence);
    metadata.product = Some(product(device));
    let described = record.device.get_or_insert_with(Device::default);
    // 7: IOT.
    described.type_id = Some(7);
    described.uid = Some(device.uid.as_str());
    described.hostname = Some(device.hostname.as_str());
    described.boot_uid = Some(device.boot_id.as_str());
    // Writing maps with string keys to a Vec cannot fail: no I/O, and no value of ours refuses to be serialized.
    let _ = serde_json::to_writer(out, &record);
}

fn product(device: &DeviceIdentity) -> Product<'_> {
    Product {
        name: Some("defender"),
        vendor_name: Some("defender project"),
        version: Some(device.agent_version.as_str()),
        ..Product::default()
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn file(path: &str) -> Option<wire::File<'_>> {
    some(path).map(|path| wire::File {
        path: Some(path),
        name: Some(path.rsplit('/').next().unwrap_or(path)),
        type_id: Some(REGULAR_FILE),
        ..wire::File::default()
    })
}

/// The chain of ancestors, as far as it is known: what a finding needs to be understood by itself.
fn lineage(nearest: Option<&Ancestor>) -> Option<Box<wire::Process<'_>>> {
    let chain: Vec<_> = nearest.into_iter().flat_map(Ancestor::chain).map(parent).collect();
    chain.into_iter().rev().fold(None, |above, mut described| {
        described.parent_process = above;
        Some(Box::new(described))
    })
}

/// One ancestor, without those above it: an event tells of the nearest, its own event told of the next.
fn parent(ancestor: &Ancestor) -> wire::Process<'_> {
    wire::Process {
        pid: Some(ancestor.pid),
        file: file(&ancestor.executable),
        cmd_line: some(&ancestor.command_line),
        ..wire::Process::default()
    }
}

fn process<'a>(process: &'a Process, command_line: &'a str) -> wire::Process<'a> {
    let session = (process.session.is_some() || process.tty.is_some()).then(|| Session {
        uid: process.session.map(Decimal),
        terminal: process.tty.as_deref(),
        ..Session::default()
    });
    let user = (process.uid.is_some() || process.user.is_some()).then(|| User {
        uid: process.uid.map(Decimal),
        name: process.user.as_deref(),
        ..User::default()
    });
    wire::Process {
        pid: Some(process.pid),
        name: some(process.name()),
        file: file(&process.executable),
        cmd_line: some(command_line),
        working_directory: some(&process.cwd),
        user,
        euid: process.euid,
        group: process.gid.map(|gid| Named { uid: Some(Decimal(gid)), ..Named::default() }),
        auid: process.auid,
        session,
        ..wire::Process::default()
    }
}

/// An argument vector that the command line does not already spell out: some argument is empty or holds a space.
fn ambiguous(argv: &[String]) -> Option<&[String]> {
    argv.iter().any(|argument| argument.is_empty() || argument.contains(' ')).then_some(argv)
}

fn process_activity<'a>(activity: &'a ProcessActivity, whole: &'a str) -> Record<'a> {
    let subject = &activity.process;
    let command_line = truncate(whole, COMMAND_LINE);
    let cut = command_line.len() < whole.len();
    // A command line that was cut is not spelt out a second time.
    let argv = if cut { None } else { ambiguous(&subject.argv) };
    let mut unmapped = Unmapped { argv, ..Unmapped::default() };
    let mut record = Record { class_uid: Some(class::PROCESS_ACTIVITY), ..Record::default() };
    let mut metadata = Metadata { log_provider: Some(activity.source.name()), ..Metadata::default() };
    let mut described = process(subject, command_line);
    match activity.change {
        Change::Exec { truncated } => {
            record.activity_id = Some(1);
            metadata.is_truncated = (truncated || cut).then_some(true);
            metadata.untruncated_size = cut.then_some(whole.len() as u64);
            // OCSF: the actor of a launch is the process that launched; the host profile demands an actor.
            record.actor = Some(match &subject.parent {
                Some(ancestor) => Actor { process: Some(parent(ancestor)), ..Actor::default() },
                None => Actor { process: Some(bare(subject)), ..Actor::default() },
            });
        }
        Change::Exit(reason) => {
            record.activity_id = Some(2);
            described.created_time = activity.started.map(crate::time::Timestamp::millis);
            record.actor = Some(Actor { process: Some(bare(subject)), ..Actor::default() });
            match reason {
                ExitReason::Code(code) => record.exit_code = Some(code.into()),
                ExitReason::Signal(signal) => {
                    // The shell's convention, bash(1) "EXIT STATUS".
                    record.exit_code = Some(128 + i32::from(signal));
                    unmapped.signal = Some(signal);
                }
                ExitReason::Unknown => {}
            }
        }
    }
    record.metadata = Some(metadata);
    record.process = Some(described);
    record.unmapped = unmapped.none_if_empty();
    record
}

fn bare(subject: &Process) -> wire::Process<'_> {
    wire::Process { pid: Some(subject.pid), ..wire::Process::default() }
}

fn login(authentication: &Authentication) -> Record<'_> {
    Record {
        class_uid: Some(class::AUTHENTICATION),
        activity_id: Some(match authentication.activity {
            Activity::Logon => 1,
            Activity::Logoff => 2,
            Activity::AccountSwitch => 7,
        }),
        message: some(&authentication.message),
        count: (authentication.count > 1).then_some(authentication.count),
        duration: authentication.duration_ms,
        status_id: Some(match authentication.outcome {
            Outcome::Success => 1,
            Outcome::Failure => 2,
        }),
        // 2 Interactive, 3 Network.
        logon_type_id: Some(if authentication.source.is_some() { 3 } else { 2 }),
        is_remote: Some(authentication.source.is_some()),
        user: Some(User { name: Some(authentication.user.as_deref().unwrap_or("")), ..User::default() }),
        service: Some(Named { name: Some(authentication.service.as_str()), ..Named::default() }),
        session: authentication
            .tty
            .as_deref()
            .map(|tty| Session { terminal: Some(tty), ..Session::default() }),
        src_endpoint: endpoint(authentication),
        actor: authentication.pid.map(|pid| Actor {
            process: Some(wire::Process { pid: Some(pid), ..wire::Process::default() }),
            ..Actor::default()
        }),
        unmapped: Unmapped {
            method: authentication.method.as_deref(),
            user_known: authentication.user_known,
            ..Unmapped::default()
        }
        .none_if_empty(),
        ..Record::default()
    }
}

fn endpoint(authentication: &Authentication) -> Option<Endpoint<'_>> {
    authentication.source.map(|ip| Endpoint {
        ip: Some(ip),
        port: authentication.source_port,
        ..Endpoint::default()
    })
}

fn evidence_command_line(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Process(process) => truncate(&process.command_line(), EVIDENCE).to_owned(),
        Evidence::Authentication(_) | Evidence::Observed(_) => String::new(),
    }
}

fn finding<'a>(finding: &'a Finding, command_lines: &'a [String]) -> Record<'a> {
    let rule = &*finding.rule;
    let evidences = finding.evidence.iter().zip(command_lines).map(|(evidence, line)| match evidence {
        Evidence::Process(subject) => {
            let mut described = process(subject, line);
            described.parent_process = lineage(subject.parent.as_deref());
            wire::Evidence { process: Some(described), ..wire::Evidence::default() }
        }
        Evidence::Authentication(attempt) => wire::Evidence {
            user: Some(User { name: Some(attempt.user.as_deref().unwrap_or("")), ..User::default() }),
            src_endpoint: endpoint(attempt),
            data: Some(EvidenceData {
                service: Some(attempt.service.as_str()),
                message: Some(attempt.message.as_str()),
                ..EvidenceData::default()
            }),
            ..wire::Evidence::default()
        },
        Evidence::Observed(kind) => observed::evidence(kind),
    });
    Record {
        class_uid: Some(class::DETECTION_FINDING),
        // 1: Create, 2: Update.
        activity_id: Some(if finding.update { 2 } else { 1 }),
        message: Some(finding.message.as_str()),
        count: Some(finding.count),
        is_alert: Some(true),
        // 1: New.
        status_id: Some(1),
        finding_info: Some(FindingInfo {
            uid: Some(finding.uid.as_str()),
            title: Some(rule.title.as_str()),
            desc: some(&rule.description),
            // 1: Rule.
            analytic: Some(Analytic {
                type_id: Some(1),
                uid: Some(rule.id.as_str()),
                name: Some(rule.title.as_str()),
                ..Analytic::default()
            }),
            attacks: attacks(rule),
            first_seen_time: Some(finding.first_seen.millis()),
            last_seen_time: Some(finding.last_seen.millis()),
            ..FindingInfo::default()
        }),
        evidences: Some(evidences.collect()),
        observables: addresses(finding),
        unmapped: Some(Unmapped {
            response: Some(wire::Shown(finding.response)),
            group: (!finding.group.is_empty()).then_some(Pairs(&finding.group)),
            replaces: (!rule.replaces.is_empty()).then_some(&rule.replaces),
            ..Unmapped::default()
        }),
        ..Record::default()
    }
}

fn addresses(finding: &Finding) -> Option<Vec<Observable<'_>>> {
    let named =
        [("evidences.src_endpoint.ip", finding.source), ("evidences.dst_endpoint.ip", finding.destination)];
    let observables: Vec<_> = named
        .into_iter()
        .filter(|(_, value)| value.is_some())
        .map(|(name, value)| Observable {
            name: Some(name),
            type_id: Some(OBSERVABLE_IP),
            value,
            ..Observable::default()
        })
        .collect();
    (!observables.is_empty()).then_some(observables)
}

/// ATT&CK references of a rule. A tactic is tied to a technique only where the rule leaves no doubt: it names just one.
fn attacks(rule: &crate::finding::RuleInfo) -> Option<Vec<Attack<'_>>> {
    let label = |uid| Label { uid: Some(uid), ..Label::default() };
    let tactic = |name| Label { name: Some(name), ..Label::default() };
    let only_tactic = match rule.tactics.as_slice() {
        [one] => Some(one.as_str()),
        _ => None,
    };
    let mut attacks: Vec<Attack<'_>> = rule
        .techniques
        .iter()
        .map(|id| {
            let base = id.split('.').next().unwrap_or(id);
            Attack {
                tactic: only_tactic.map(tactic),
                technique: Some(label(base)),
                sub_technique: (base != id).then(|| label(id.as_str())),
                ..Attack::default()
            }
        })
        .collect();
    if attacks.is_empty() || only_tactic.is_none() {
        let tactics =
            rule.tactics.iter().map(|name| Attack { tactic: Some(tactic(name)), ..Attack::default() });
        attacks.extend(tactics);
    }
    (!attacks.is_empty()).then_some(attacks)
}

fn remediation(done: &Remediation) -> Record<'_> {
    let network = !matches!(done.action, Action::Kill | Action::RunHook);
    let (status, code, detail) = match &done.outcome {
        remediation::Outcome::Verified => (1, None, None),
        remediation::Outcome::Refused(why) => (2, Some("refused"), Some(why.as_str())),
        remediation::Outcome::Failed(why) => (2, Some("failed"), Some(why.as_str())),
    };
    Record {
        class_uid: Some(match done.action {
            Action::Block | Action::Unblock | Action::Restore | Action::Isolate | Action::EndIsolation => {
                class::NETWORK_REMEDIATION
            }
            Action::Kill => class::PROCESS_REMEDIATION,
            Action::RunHook => class::REMEDIATION,
        }),
        // 1 Isolate, 2 Evict, 3 Restore, 99 Other.
        activity_id: Some(match done.action {
            Action::Block | Action::Restore | Action::Isolate => 1,
            Action::Kill => 2,
            Action::Unblock | Action::EndIsolation => 3,
            Action::RunHook => 99,
        }),
        message: some(&done.reason),
        status_id: Some(status),
        status_code: code,
        status_detail: detail,
        command_uid: Some(done.finding.as_deref().unwrap_or("operator")),
        // 99: both directions are dropped.
        connection_info: network
            .then(|| ConnectionInfo { direction_id: Some(99), ..ConnectionInfo::default() }),
        process: done.process.as_ref().map(parent),
        observables: done.address.map(|value| {
            vec![Observable {
                name: Some("blocked.ip"),
                type_id: Some(OBSERVABLE_IP),
                value: Some(value),
                ..Observable::default()
            }]
        }),
        unmapped: Unmapped {
            seconds: done.seconds,
            finding_uid: done.finding.as_deref(),
            ..Unmapped::default()
        }
        .none_if_empty(),
        ..Record::default()
    }
}

fn health<'a>(said: &'a Health, device: &'a DeviceIdentity) -> Record<'a> {
    let error = matches!(said.kind, Kind::Degraded | Kind::Lost);
    Record {
        class_uid: Some(if error { class::APPLICATION_ERROR } else { class::APPLICATION_LIFECYCLE }),
        activity_id: Some(match said.kind {
            Kind::Degraded | Kind::Lost => 1,
            Kind::Started => 3,
            Kind::Stopping => 4,
            Kind::Armed => 6,
            Kind::Changed | Kind::Recovered | Kind::Statistics => 99,
        }),
        message: Some(said.message.as_str()),
        app: (!error).then(|| product(device)),
        unmapped: Some(Unmapped {
            kind: Some(said.kind.name()),
            component: Some(said.component.as_str()),
            counters: (!said.counters.is_empty()).then_some(Pairs(&said.counters)),
            ..Unmapped::default()
        }),
        ..Record::default()
    }
}
