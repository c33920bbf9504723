//! The field map: from the agent's events to the names Sigma rules use.
//!
//! Names are resolved to small numbers when a rule is compiled, so that an event never looks a name up.
//!
//! | Module | Classes of events |
//! |---|---|
//! | `process` | programs started |
//! | `authentication` | logins |
//! | `network` | connections, listening sockets, names looked up |
//! | `file` | files |
//! | `system` | peripherals, kernel modules, the packet filter |
//! | `deed` | what processes do to others, and becoming root |
//! | `account` | local users and groups |
//! | `service` | services and what they submit |
//! | `audit` | the same events as the audit records they would be in `audit.log` |
//! | `log` | what sudo and cron would write into the system log |

mod account;
mod audit;
mod authentication;
mod deed;
mod file;
mod log;
mod network;
mod process;
mod service;
mod system;

use defender_model::event::{Event, EventKind};
use defender_model::process::{Actor, Change};

use crate::error::Cause;
use crate::source::DataSource;

/// Upper bound on the fields of any class, arguments of audit records not counted.
pub(crate) const MAX_FIELDS: usize = 25;

/// Number of the field `a0` of audit records; `a1` is the next.
const FIRST_ARGUMENT: u8 = 128;

/// What a rule can be about: one class of events of ours, named like Sigma's category where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A program was started.
    ProcessCreation,
    /// Somebody logged in, failed to, or logged out.
    Authentication,
    /// A connection was opened.
    NetworkConnection,
    /// Anything that happens to a connection.
    NetworkFlow,
    /// A socket began to listen.
    NetworkListen,
    /// A name was looked up.
    DnsQuery,
    /// A file has content it did not have: created, modified, renamed to.
    FileEvent,
    /// A file was changed: content or attributes.
    FileChange,
    /// A file was deleted.
    FileDelete,
    /// A file was renamed.
    FileRename,
    /// A file was read.
    FileAccess,
    /// A peripheral was plugged in.
    DeviceConnection,
    /// A peripheral was pulled out.
    DeviceDisconnection,
    /// A process attached itself to another.
    ProcessAccess,
    /// A process became root by itself.
    PrivilegeChange,
    /// A kernel module was loaded.
    DriverLoad,
    /// A kernel module was removed.
    DriverUnload,
    /// An eBPF program was loaded.
    EbpfLoad,
    /// The packet filter was changed.
    FirewallChange,
    /// A local account or group is another.
    AccountChange,
    /// Something became of a service.
    ServiceChange,
    /// A service submitted an event.
    SubmittedEvent,
    /// One audit record of an event.
    Audit,
    /// A line sudo or cron would write.
    Log,
}

impl Class {
    /// How many there are.
    pub(crate) const COUNT: usize = 24;

    /// Every class, in the order of their numbers.
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::ProcessCreation,
        Self::Authentication,
        Self::NetworkConnection,
        Self::NetworkFlow,
        Self::NetworkListen,
        Self::DnsQuery,
        Self::FileEvent,
        Self::FileChange,
        Self::FileDelete,
        Self::FileRename,
        Self::FileAccess,
        Self::DeviceConnection,
        Self::DeviceDisconnection,
        Self::ProcessAccess,
        Self::PrivilegeChange,
        Self::DriverLoad,
        Self::DriverUnload,
        Self::EbpfLoad,
        Self::FirewallChange,
        Self::AccountChange,
        Self::ServiceChange,
        Self::SubmittedEvent,
        Self::Audit,
        Self::Log,
    ];

    /// What has to be observed for there to be such events.
    pub(crate) const fn data_source(self) -> DataSource {
        match self {
            // Most records, and all lines of sudo and cron, are told from programs started.
            Self::ProcessCreation | Self::Audit | Self::Log => DataSource::Process,
            Self::Authentication => DataSource::Login,
            Self::NetworkConnection | Self::NetworkFlow => DataSource::Flow,
            Self::NetworkListen => DataSource::Listener,
            Self::DnsQuery => DataSource::Dns,
            Self::FileEvent | Self::FileChange | Self::FileDelete | Self::FileRename => DataSource::File,
            Self::FileAccess => DataSource::FileRead,
            Self::DeviceConnection | Self::DeviceDisconnection => DataSource::Peripheral,
            Self::ProcessAccess | Self::PrivilegeChange | Self::EbpfLoad => DataSource::Deed,
            Self::DriverLoad | Self::DriverUnload => DataSource::Module,
            Self::FirewallChange => DataSource::Firewall,
            Self::AccountChange => DataSource::Account,
            Self::ServiceChange => DataSource::Service,
            Self::SubmittedEvent => DataSource::Submitted,
        }
    }

    pub(crate) fn fields(self) -> &'static [FieldSpec] {
        match self {
            Self::ProcessCreation => process::FIELDS,
            Self::Authentication => authentication::FIELDS,
            Self::NetworkConnection | Self::NetworkFlow => network::FLOW,
            Self::NetworkListen => network::LISTENER,
            Self::DnsQuery => network::DNS,
            Self::FileEvent | Self::FileChange | Self::FileDelete | Self::FileRename | Self::FileAccess => {
                file::FIELDS
            }
            Self::DeviceConnection | Self::DeviceDisconnection => system::PERIPHERAL,
            Self::ProcessAccess => deed::ACCESS,
            Self::PrivilegeChange => deed::PRIVILEGE,
            Self::DriverLoad | Self::DriverUnload => system::MODULE,
            Self::EbpfLoad => system::EBPF,
            Self::FirewallChange => system::FIREWALL,
            Self::AccountChange => account::FIELDS,
            Self::ServiceChange => service::CHANGE,
            Self::SubmittedEvent => service::SUBMITTED,
            Self::Audit => audit::FIELDS,
            Self::Log => log::FIELDS,
        }
    }

    /// The field holds numbers rather than text.
    pub(crate) fn is_numeric(self, field: Field) -> bool {
        self.fields().get(usize::from(field.0)).is_some_and(|spec| spec.numeric)
    }

    /// The field that holds the address an event came from, by which findings name a source.
    pub(crate) fn source_address(self) -> Option<Field> {
        (self == Self::Authentication).then_some(authentication::SOURCE)
    }
}

/// Number of a field within its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Field(pub(crate) u8);

/// One field of a class.
pub(crate) struct FieldSpec {
    /// Its names, the documented one first.
    pub(crate) names: &'static [&'static str],
    /// It holds numbers rather than text.
    pub(crate) numeric: bool,
    /// Keyword searches look into it.
    pub(crate) keyword: bool,
}

const fn text(names: &'static [&'static str]) -> FieldSpec {
    FieldSpec { names, numeric: false, keyword: true }
}

const fn word(names: &'static [&'static str]) -> FieldSpec {
    FieldSpec { names, numeric: false, keyword: false }
}

const fn number(names: &'static [&'static str]) -> FieldSpec {
    FieldSpec { names, numeric: true, keyword: false }
}

/// A class's fields, then those of the process behind the event, in the order of [`Values::actor`].
macro_rules! with_actor {
    ($($spec:expr),* $(,)?) => {
        &[
            $($spec,)*
            $crate::field::text(&["Image", "exe"]),
            $crate::field::text(&["CommandLine", "ProcessCommandLine", "cmdline"]),
            $crate::field::text(&["ParentImage"]),
            $crate::field::text(&["ParentCommandLine"]),
            $crate::field::word(&["User", "user", "username"]),
            $crate::field::number(&["ProcessId", "pid"]),
            $crate::field::number(&["uid", "UserId"]),
            $crate::field::number(&["auid", "LoginUserId"]),
        ]
    };
}
use with_actor;

/// The field of that name (ASCII case does not matter), or which names there are.
pub(crate) fn resolve(class: Class, name: &str) -> Result<Field, Cause> {
    if class == Class::Audit {
        if let Some(number) = audit::argument(name) {
            return Ok(Field(FIRST_ARGUMENT + number));
        }
    }
    class
        .fields()
        .iter()
        .position(|spec| spec.names.iter().any(|n| n.eq_ignore_ascii_case(name)))
        .and_then(|i| u8::try_from(i).ok())
        .map(Field)
        .ok_or_else(|| {
            let known: Vec<_> = class.fields().iter().map(|spec| spec.names[0]).collect();
            Cause::Unsupplied(format!(
                "no sensor supplies the field `{name}`; there are {}",
                known.join(", ")
            ))
        })
}

/// Value of a field in one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'e> {
    /// The event does not have it: Sigma's `null`.
    Absent,
    Text(&'e str),
    Number(i64),
}

/// The values of an event, by [`Field`].
#[derive(Debug, Clone)]
pub(crate) struct Values<'e> {
    pub(crate) fixed: [Value<'e>; MAX_FIELDS],
    /// Arguments of an audit record.
    arguments: &'e [String],
}

impl<'e> Values<'e> {
    /// An event that has nothing.
    pub(crate) const fn none() -> Self {
        // A constant, which is copied at once; an array that is filled is filled value by value.
        const NONE: Values<'_> = Values { fixed: [Value::Absent; MAX_FIELDS], arguments: &[] };
        NONE
    }

    /// An event whose first fields have these values.
    fn of(first: &[Value<'e>]) -> Self {
        let mut values = Self::none();
        values.fixed[..first.len()].copy_from_slice(first);
        values
    }

    /// The value of a field.
    #[inline]
    pub(crate) fn get(&self, field: Field) -> Value<'e> {
        match field.0.checked_sub(FIRST_ARGUMENT) {
            None => self.fixed.get(usize::from(field.0)).copied().unwrap_or(Value::Absent),
            Some(n) => self.arguments.get(usize::from(n)).map_or(Value::Absent, |a| Value::Text(a)),
        }
    }

    /// Fills in the process behind the event, from the field of that number on.
    fn actor(mut self, from: usize, actor: Option<&'e Actor>) -> Self {
        let Some(actor) = actor else { return self };
        let parent = actor.parent.as_ref();
        self.fixed[from..from + 8].copy_from_slice(&[
            non_empty(&actor.executable),
            non_empty(&actor.command_line),
            parent.map_or(Value::Absent, |p| non_empty(&p.executable)),
            parent.map_or(Value::Absent, |p| non_empty(&p.command_line)),
            user(actor.user.as_deref(), actor.uid),
            Value::Number(actor.pid.into()),
            optional(actor.uid),
            optional(actor.auid),
        ]);
        self
    }
}

/// Buffers for values that the event does not hold as text. Kept from event to event.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    line: String,
    first: String,
    second: String,
}

/// Capacity of the scratch buffers that is kept; a longer command line gives its memory back.
const KEEP: usize = 64 * 1024;

impl Scratch {
    /// Empties the buffers, and gives back what a very long text took.
    fn clear(&mut self) {
        for buffer in [&mut self.line, &mut self.first, &mut self.second] {
            buffer.clear();
            if buffer.capacity() > KEEP {
                buffer.shrink_to(KEEP);
            }
        }
    }
}

/// An event as rules see it.
pub(crate) struct Reading<'e> {
    /// The classes it belongs to; their fields are the same.
    pub(crate) classes: &'static [Class],
    pub(crate) values: Values<'e>,
}

/// Reads the fields of an event; `None` for events no rule can be about.
pub(crate) fn read<'e>(event: &'e Event, scratch: &'e mut Scratch) -> Option<Reading<'e>> {
    scratch.clear();
    let (classes, values): (&'static [Class], _) = match &event.kind {
        EventKind::Process(activity) => match activity.change {
            Change::Exec { .. } => (&[Class::ProcessCreation], process::read(&activity.process, scratch)),
            Change::Exit(_) => return None,
        },
        EventKind::Authentication(login) => (&[Class::Authentication], authentication::read(login, scratch)),
        EventKind::Network(flow) => (network::classes(flow), network::flow(flow, scratch)),
        EventKind::Listener(socket) if socket.open => {
            (&[Class::NetworkListen], network::listener(socket, scratch))
        }
        EventKind::Dns(dns) => (&[Class::DnsQuery], network::dns(dns, scratch)),
        EventKind::File(file) => (file::classes(file.change), file::read(file, scratch)),
        EventKind::Peripheral(device) => {
            let class: &'static [Class] =
                if device.connected { &[Class::DeviceConnection] } else { &[Class::DeviceDisconnection] };
            (class, system::peripheral(device, scratch))
        }
        EventKind::Deed(done) => deed::read(done),
        EventKind::Module(module) if module.program.is_some() => {
            let class: &'static [Class] = if module.loaded { &[Class::EbpfLoad] } else { &[] };
            (class, system::ebpf(module))
        }
        EventKind::Module(module) => {
            let class: &'static [Class] =
                if module.loaded { &[Class::DriverLoad] } else { &[Class::DriverUnload] };
            (class, system::module(module, scratch))
        }
        EventKind::Firewall(change) => (&[Class::FirewallChange], system::firewall(change)),
        EventKind::Account(activity) => (&[Class::AccountChange], account::read(activity)),
        EventKind::Service(activity) => (&[Class::ServiceChange], service::change(activity)),
        EventKind::Submitted(said) => (&[Class::SubmittedEvent], service::submitted(said, scratch)),
        EventKind::Listener(_)
        | EventKind::Finding(_)
        | EventKind::Compliance(_)
        | EventKind::Remediation(_)
        | EventKind::Inventory(_)
        | EventKind::Health(_) => return None,
    };
    Some(Reading { classes, values })
}

/// The `number`th audit record of an event; `None` when there are no more.
pub(crate) fn audit_record<'e>(
    event: &'e Event,
    number: usize,
    scratch: &'e mut Scratch,
) -> Option<Values<'e>> {
    scratch.clear();
    audit::record(event, number, scratch)
}

/// The line of the system log that an event would be; `None` for events that are none.
pub(crate) fn log_line<'e>(event: &'e Event, scratch: &'e mut Scratch) -> Option<Values<'e>> {
    scratch.clear();
    log::read(event, scratch)
}

fn non_empty(text: &str) -> Value<'_> {
    if text.is_empty() {
        Value::Absent
    } else {
        Value::Text(text)
    }
}

fn some_text(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Absent, Value::Text)
}

fn optional<'e>(n: Option<u32>) -> Value<'e> {
    n.map_or(Value::Absent, |n| Value::Number(n.into()))
}

fn counter<'e>(n: Option<u64>) -> Value<'e> {
    n.map_or(Value::Absent, |n| Value::Number(i64::try_from(n).unwrap_or(i64::MAX)))
}

const fn truth<'e>(yes: bool) -> Value<'e> {
    Value::Text(if yes { "true" } else { "false" })
}

/// The account's name; `root` for user id 0 even where names are unknown.
fn user<'e>(name: Option<&'e str>, uid: Option<u32>) -> Value<'e> {
    match (name, uid) {
        (Some(name), _) => Value::Text(name),
        (None, Some(0)) => Value::Text("root"),
        (None, _) => Value::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_whatever_their_case_and_never_twice() {
        assert_eq!(resolve(Class::ProcessCreation, "commandline").unwrap(), Field(1));
        assert_eq!(resolve(Class::Authentication, "User").unwrap(), Field(2));
        assert!(
            matches!(resolve(Class::ProcessCreation, "Hashes"), Err(Cause::Unsupplied(m)) if m.contains("Hashes"))
        );
        for (number, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, number);
            assert!(class.fields().len() <= MAX_FIELDS, "{class:?}");
            for (i, spec) in class.fields().iter().enumerate() {
                for name in spec.names {
                    assert_eq!(resolve(class, name).unwrap(), Field(i as u8), "{class:?} {name}");
                }
            }
        }
    }

    #[test]
    fn arguments_of_audit_records_have_numbers() {
        assert_eq!(resolve(Class::Audit, "a0").unwrap(), Field(128));
        assert_eq!(resolve(Class::Audit, "A127").unwrap(), Field(255));
        for name in ["a", "a128", "a-1", "a01", "b0"] {
            assert!(resolve(Class::Audit, name).is_err(), "{name}");
        }
        assert!(resolve(Class::ProcessCreation, "a0").is_err());
    }
}
