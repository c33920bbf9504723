//! One thing that happened.

use crate::account::AccountActivity;
use crate::authentication::{Activity, Authentication, Outcome};
use crate::compliance::Compliance;
use crate::dns::Dns;
use crate::file::FileActivity;
use crate::finding::Finding;
use crate::health::Health;
use crate::inventory::Inventory;
use crate::kernel::{FirewallChange, ModuleActivity};
use crate::network::{Direction, Flow, FlowChange, Listener};
use crate::peripheral::PeripheralActivity;
use crate::process::{Actor, Ancestor, Change, Deed, ExitReason, ProcessActivity, ProcessDeed};
use crate::remediation::{self, Action, Remediation};
use crate::service::{ServiceActivity, Submitted};
use crate::severity::Severity;
use crate::text::{file_name, printable, truncate};
use crate::time::Timestamp;

/// Longest attacker-supplied text in a one-line summary, in bytes.
const SUMMARY_TEXT: usize = 200;
/// The same of an alert: title, group and the event it rests on.
const ALERT_TEXT: usize = 600;
/// Longest name of an ancestor in an alert, in bytes.
const ANCESTOR_TEXT: usize = 32;

/// One thing that happened on the device, or that the agent concluded or did.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it happened, as near to the source as can be known (the kernel's stamp, the log line's arrival).
    pub time: Timestamp,
    /// Position in this boot's stream, from 1, without gaps; 0 until the pipeline has numbered the event.
    pub sequence: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// A program was started or ended.
    Process(Box<ProcessActivity>),
    /// A process traced another, or became root.
    Deed(Box<ProcessDeed>),
    /// Somebody logged in, failed to, or logged out.
    Authentication(Box<Authentication>),
    /// A connection began, went on or ended.
    Network(Box<Flow>),
    /// A socket began or ceased to listen.
    Listener(Box<Listener>),
    /// A name was looked up.
    Dns(Box<Dns>),
    /// A file was created, changed or removed.
    File(Box<FileActivity>),
    /// Hardware was plugged in or pulled out.
    Peripheral(Box<PeripheralActivity>),
    /// A kernel module was loaded or removed, or an eBPF program was loaded.
    Module(Box<ModuleActivity>),
    /// Somebody changed the packet filter.
    Firewall(Box<FirewallChange>),
    /// A local account or group is another.
    Account(Box<AccountActivity>),
    /// What the device consists of.
    Inventory(Box<Inventory>),
    /// Something became of a service.
    Service(Box<ServiceActivity>),
    /// A service handed in a security event of its own.
    Submitted(Box<Submitted>),
    /// A posture check concluded something.
    Compliance(Box<Compliance>),
    /// Detection concluded something.
    Finding(Box<Finding>),
    /// The agent acted.
    Remediation(Box<Remediation>),
    /// The agent speaks of itself.
    Health(Box<Health>),
}

impl Event {
    /// An event that the pipeline has not numbered yet.
    #[must_use]
    pub fn new(time: Timestamp, kind: EventKind) -> Self {
        Self { time, sequence: 0, kind }
    }

    /// How bad the event is by itself. What was merely observed is informational: rules say what it means.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match &self.kind {
            EventKind::Process(_)
            | EventKind::Deed(_)
            | EventKind::Network(_)
            | EventKind::Listener(_)
            | EventKind::Dns(_)
            | EventKind::File(_)
            | EventKind::Peripheral(_)
            | EventKind::Module(_)
            | EventKind::Firewall(_)
            | EventKind::Account(_)
            | EventKind::Inventory(_)
            | EventKind::Service(_) => Severity::Informational,
            EventKind::Submitted(s) => s.severity,
            EventKind::Authentication(a) => a.severity(),
            EventKind::Compliance(c) => c.severity(),
            EventKind::Finding(f) => f.severity,
            EventKind::Remediation(r) => r.severity(),
            EventKind::Health(h) => h.severity,
        }
    }
}

impl core::fmt::Display for Event {
    /// One line for people and for syslog: bounded, and free of control characters whatever the event holds.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let safe = |text: &str| printable(truncate(text, SUMMARY_TEXT)).into_owned();
        match &self.kind {
            EventKind::Process(activity) => {
                let process = &activity.process;
                match activity.change {
                    Change::Exec { .. } => write!(f, "exec pid={} ", process.pid)?,
                    Change::Exit(ExitReason::Code(code)) => {
                        write!(f, "exit pid={} code={code} ", process.pid)?;
                    }
                    Change::Exit(ExitReason::Signal(signal)) => {
                        write!(f, "exit pid={} signal={signal} ", process.pid)?;
                    }
                    Change::Exit(ExitReason::Unknown) => write!(f, "exit pid={} ", process.pid)?,
                }
                write!(f, "{}: {}", safe(&process.executable), safe(&process.command_line()))
            }
            EventKind::Deed(done) => {
                match &done.deed {
                    Deed::Traced(target) => {
                        write!(f, "traced process {} {}", target.pid, safe(&target.executable))?;
                    }
                    Deed::BecameRoot { from } => write!(f, "became root from uid={from}")?,
                }
                by(f, Some(&done.process))
            }
            EventKind::Authentication(login) => {
                let what = match (login.activity, login.outcome) {
                    (Activity::Logon, Outcome::Success) => "login",
                    (Activity::Logon, Outcome::Failure) => "failed login",
                    (Activity::Logoff, _) => "logout",
                    (Activity::AccountSwitch, Outcome::Success) => "account switch",
                    (Activity::AccountSwitch, Outcome::Failure) => "failed account switch",
                };
                write!(
                    f,
                    "{what} {} user={}",
                    safe(&login.service),
                    safe(login.user.as_deref().unwrap_or("-"))
                )?;
                match (login.source, &login.tty) {
                    (Some(source), _) => write!(f, " from={source}")?,
                    (None, Some(tty)) => write!(f, " tty={}", safe(tty))?,
                    (None, None) => {}
                }
                match login.duration_ms {
                    Some(millis) => write!(f, " after {} s", millis / 1000),
                    None => Ok(()),
                }
            }
            EventKind::Network(flow) => {
                let what = match flow.change {
                    FlowChange::Opened => "connection",
                    FlowChange::Closed => "connection closed",
                    FlowChange::Failed => "connection failed",
                    FlowChange::Traffic => "connection traffic",
                    FlowChange::Denied => "packet denied",
                };
                let way = match flow.direction {
                    Direction::Inbound => "inbound",
                    Direction::Outbound => "outbound",
                    Direction::Local => "local",
                    Direction::Unknown => "routed",
                };
                write!(f, "{what} {way} {} {} -> {}", flow.protocol, flow.source, flow.destination)?;
                if let Some(name) = &flow.destination_name {
                    write!(f, " ({})", safe(name))?;
                }
                if let Some(rule) = &flow.rule {
                    write!(f, " rule={}", safe(rule))?;
                }
                by(f, flow.process.as_ref())
            }
            EventKind::Listener(socket) => {
                let what = if socket.open { "listening" } else { "no longer listening" };
                write!(f, "{what} {} {}", socket.protocol, socket.local)?;
                by(f, socket.process.as_ref())
            }
            EventKind::Dns(dns) => {
                write!(f, "dns {} {}", safe(&dns.record_type), safe(&dns.name))?;
                match dns.rcode {
                    Some(0) => write!(f, " answers={}", dns.answers.len())?,
                    Some(rcode) => match Dns::rcode_name(rcode) {
                        Some(name) => write!(f, " {name}")?,
                        None => write!(f, " rcode={rcode}")?,
                    },
                    None => {}
                }
                by(f, dns.process.as_ref())
            }
            EventKind::File(file) => {
                write!(f, "file {} ", file.change.name())?;
                if let Some(old) = &file.old_path {
                    write!(f, "{} -> ", safe(old))?;
                }
                f.write_str(&safe(&file.path))?;
                if let Some(mode) = file.mode {
                    write!(f, " mode={mode:04o}")?;
                }
                by(f, file.process.as_ref())
            }
            EventKind::Peripheral(device) => {
                let what = if device.connected { "connected" } else { "disconnected" };
                write!(
                    f,
                    "device {what} {} {} {}",
                    device.class.name(),
                    safe(&device.bus),
                    safe(&device.interface)
                )?;
                if let (Some(vendor), Some(product)) = (device.vendor_id, device.product_id) {
                    write!(f, " {vendor:04x}:{product:04x}")?;
                }
                let named =
                    [("vendor", &device.vendor), ("product", &device.product), ("serial", &device.serial)];
                for (key, text) in named {
                    if let Some(text) = text {
                        write!(f, " {key}={}", safe(text))?;
                    }
                }
                if !device.functions.is_empty() {
                    write!(f, " functions={}", safe(&device.functions))?;
                }
                if let Some(parent) = &device.parent {
                    write!(f, " of={}", safe(parent))?;
                }
                f.write_str(if device.allowed == Some(false) { " NOT ALLOWED" } else { "" })
            }
            EventKind::Module(module) => {
                let what = if module.loaded { "loaded" } else { "removed" };
                match module.program {
                    None => write!(f, "kernel module {what} {}", safe(&module.name))?,
                    Some(kind) => write!(f, "eBPF program {what} {} {}", kind.name(), safe(&module.name))?,
                }
                if let Some(path) = &module.path {
                    write!(f, " {}", safe(path))?;
                }
                by(f, module.process.as_ref())
            }
            EventKind::Firewall(done) => {
                let what = done.change.name();
                write!(
                    f,
                    "firewall {what} {} {} {}",
                    safe(&done.family),
                    safe(&done.table),
                    safe(&done.operation)
                )?;
                if !done.effect.is_empty() {
                    write!(f, " effect={}", safe(&done.effect))?;
                }
                if !done.summary.is_empty() {
                    write!(f, " ({})", printable(&done.summary))?;
                }
                by(f, done.process.as_ref())
            }
            EventKind::Account(account) => {
                write!(f, "account {}", account.change.name())?;
                if !account.user.is_empty() {
                    write!(f, " user={}", safe(&account.user))?;
                    if let Some(uid) = account.uid {
                        write!(f, " uid={uid}")?;
                    }
                }
                if !account.group.is_empty() {
                    write!(f, " group={}", safe(&account.group))?;
                }
                if !account.detail.is_empty() {
                    write!(f, " ({})", safe(&account.detail))?;
                }
                by(f, account.process.as_ref())
            }
            EventKind::Inventory(inventory) => match &**inventory {
                Inventory::Device(info) => {
                    let (os, version) = &info.os;
                    write!(
                        f,
                        "inventory device {} {}, {} {}, kernel {}, {} interfaces",
                        safe(&info.vendor),
                        safe(&info.model),
                        safe(os),
                        safe(version),
                        safe(&info.kernel),
                        info.interfaces.len()
                    )
                }
                Inventory::Interface { interface, detail } => {
                    write!(f, "inventory interface {}: {}", safe(&interface.name), safe(detail))
                }
                Inventory::Software { packages, .. } => write!(f, "inventory software: {packages} packages"),
                Inventory::Package { package, change, before } => {
                    write!(
                        f,
                        "package {} {} {}",
                        change.name(),
                        safe(&package.name),
                        safe(&package.version)
                    )?;
                    match before.as_str() {
                        "" => Ok(()),
                        before => write!(f, " (was {})", safe(before)),
                    }
                }
            },
            EventKind::Service(service) => {
                write!(f, "service {} {}", safe(&service.name), service.change.name())?;
                match service.detail.as_str() {
                    "" => Ok(()),
                    detail => write!(f, ": {}", safe(detail)),
                }
            }
            EventKind::Submitted(said) => {
                write!(f, "submitted {} {}", said.severity, safe(&said.title))?;
                if !said.message.is_empty() {
                    write!(f, ": {}", safe(&said.message))?;
                }
                write!(f, " sender={}", safe(&said.sender))?;
                if let Some(process) = &said.process {
                    write!(f, " pid={}", process.pid)?;
                    if let Some(uid) = process.uid {
                        write!(f, " uid={uid}")?;
                    }
                }
                Ok(())
            }
            EventKind::Compliance(compliance) => {
                let title = safe(&compliance.title);
                write!(f, "posture {} {}: {title}", safe(&compliance.check), compliance.verdict.name())?;
                match compliance.reason.as_ref().or(compliance.evidence.first()) {
                    Some(why) => write!(f, " ({})", safe(why)),
                    None => Ok(()),
                }
            }
            EventKind::Finding(finding) => {
                write!(f, "ALERT {} [{}] ", finding.severity, finding.rule.id)?;
                // Most messages begin with the title already.
                if !finding.message.starts_with(&finding.rule.title) {
                    write!(f, "{}: ", safe(&finding.rule.title))?;
                }
                f.write_str(&printable(truncate(&finding.message, ALERT_TEXT)))?;
                lineage(f, finding.ancestors())
            }
            EventKind::Remediation(done) => {
                let action = match done.action {
                    Action::Block => "block",
                    Action::Unblock => "unblock",
                    Action::Restore => "restore",
                    Action::Kill => "kill",
                    Action::RunHook => "hook",
                    Action::Isolate => "isolate",
                    Action::EndIsolation => "end isolation",
                };
                write!(f, "{action}")?;
                if let Some(address) = done.address {
                    write!(f, " {address}")?;
                }
                if let Some(process) = &done.process {
                    write!(f, " pid={} {}", process.pid, safe(&process.executable))?;
                }
                if let Some(seconds) = done.seconds {
                    write!(f, " for {seconds} s")?;
                }
                match &done.outcome {
                    remediation::Outcome::Verified => write!(f, " verified")?,
                    remediation::Outcome::Refused(why) => write!(f, " refused ({})", safe(why))?,
                    remediation::Outcome::Failed(why) => write!(f, " FAILED ({})", safe(why))?,
                }
                write!(f, ": {}", safe(&done.reason))
            }
            EventKind::Health(said) => {
                write!(f, "{} {}: {}", said.component, said.kind.name(), safe(&said.message))?;
                for (name, value) in &said.counters {
                    write!(f, " {name}={value}")?;
                }
                Ok(())
            }
        }
    }
}

impl EventKind {
    /// The process behind something observed, where a sensor could tell.
    #[must_use]
    pub fn actor(&self) -> Option<&Actor> {
        match self {
            Self::Deed(done) => Some(&done.process),
            Self::Network(flow) => flow.process.as_ref(),
            Self::Listener(socket) => socket.process.as_ref(),
            Self::Dns(dns) => dns.process.as_ref(),
            Self::File(activity) => activity.process.as_ref(),
            Self::Module(activity) => activity.process.as_ref(),
            Self::Firewall(change) => change.process.as_ref(),
            Self::Submitted(said) => said.process.as_ref(),
            Self::Account(activity) => activity.process.as_ref(),
            Self::Inventory(_)
            | Self::Peripheral(_)
            | Self::Service(_)
            | Self::Process(_)
            | Self::Authentication(_)
            | Self::Finding(_)
            | Self::Remediation(_)
            | Self::Compliance(_)
            | Self::Health(_) => None,
        }
    }
}

/// Where a process came from, nearest first, at the end of an alert: names without directories.
fn lineage(f: &mut core::fmt::Formatter<'_>, ancestor: Option<&Ancestor>) -> core::fmt::Result {
    let Some(ancestor) = ancestor else { return Ok(()) };
    for (level, ancestor) in ancestor.chain().enumerate() {
        let name = file_name(&ancestor.executable);
        let name = if name.is_empty() { "?" } else { name };
        let arrow = if level == 0 { " [from" } else { " <" };
        write!(f, "{arrow} {}({})", printable(truncate(name, ANCESTOR_TEXT)), ancestor.pid)?;
    }
    f.write_str("]")
}

/// Who did it, at the end of a summary.
fn by(f: &mut core::fmt::Formatter<'_>, process: Option<&Actor>) -> core::fmt::Result {
    let Some(process) = process else { return Ok(()) };
    write!(f, " pid={} {}", process.pid, printable(truncate(&process.executable, SUMMARY_TEXT)))
}

impl From<ProcessActivity> for EventKind {
    fn from(value: ProcessActivity) -> Self {
        Self::Process(Box::new(value))
    }
}

impl From<ProcessDeed> for EventKind {
    fn from(value: ProcessDeed) -> Self {
        Self::Deed(Box::new(value))
    }
}

impl From<Authentication> for EventKind {
    fn from(value: Authentication) -> Self {
        Self::Authentication(Box::new(value))
    }
}

impl From<Compliance> for EventKind {
    fn from(value: Compliance) -> Self {
        Self::Compliance(Box::new(value))
    }
}

impl From<Finding> for EventKind {
    fn from(value: Finding) -> Self {
        Self::Finding(Box::new(value))
    }
}

impl From<Remediation> for EventKind {
    fn from(value: Remediation) -> Self {
        Self::Remediation(Box::new(value))
    }
}

impl From<ServiceActivity> for EventKind {
    fn from(value: ServiceActivity) -> Self {
        Self::Service(Box::new(value))
    }
}

impl From<Submitted> for EventKind {
    fn from(value: Submitted) -> Self {
        Self::Submitted(Box::new(value))
    }
}

impl From<Health> for EventKind {
    fn from(value: Health) -> Self {
        Self::Health(Box::new(value))
    }
}

impl From<Flow> for EventKind {
    fn from(value: Flow) -> Self {
        Self::Network(Box::new(value))
    }
}

impl From<Listener> for EventKind {
    fn from(value: Listener) -> Self {
        Self::Listener(Box::new(value))
    }
}

impl From<Dns> for EventKind {
    fn from(value: Dns) -> Self {
        Self::Dns(Box::new(value))
    }
}

impl From<FileActivity> for EventKind {
    fn from(value: FileActivity) -> Self {
        Self::File(Box::new(value))
    }
}

impl From<PeripheralActivity> for EventKind {
    fn from(value: PeripheralActivity) -> Self {
        Self::Peripheral(Box::new(value))
    }
}

impl From<ModuleActivity> for EventKind {
    fn from(value: ModuleActivity) -> Self {
        Self::Module(Box::new(value))
    }
}

impl From<FirewallChange> for EventKind {
    fn from(value: FirewallChange) -> Self {
        Self::Firewall(Box::new(value))
    }
}

impl From<AccountActivity> for EventKind {
    fn from(value: AccountActivity) -> Self {
        Self::Account(Box::new(value))
    }
}

impl From<Inventory> for EventKind {
    fn from(value: Inventory) -> Self {
        Self::Inventory(Box::new(value))
    }
}
