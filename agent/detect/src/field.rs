//! The field map: from the agent's events to the names Sigma rules use.
//!
//! Names are resolved to small numbers when a rule is compiled, so that an event never looks a name up.

use std::fmt::Write as _;

use defender_model::authentication::{Activity, Outcome};
use defender_model::event::{Event, EventKind};
use defender_model::process::Change;

use crate::error::Cause;

/// Upper bound on the fields of any class.
pub(crate) const MAX_FIELDS: usize = 16;

/// What a rule can be about: one class of events of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A program was started.
    ProcessCreation,
    /// Somebody logged in, failed to, or logged out.
    Authentication,
}

impl Class {
    pub(crate) const ALL: [Self; 2] = [Self::ProcessCreation, Self::Authentication];

    pub(crate) fn fields(self) -> &'static [FieldSpec] {
        match self {
            Self::ProcessCreation => PROCESS_CREATION,
            Self::Authentication => AUTHENTICATION,
        }
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

// The order of these tables is the order in which `read` fills the values.
const PROCESS_CREATION: &[FieldSpec] = &[
    text(&["Image", "exe", "NewProcessName"]),
    text(&["CommandLine", "ProcessCommandLine", "cmdline"]),
    text(&["ParentImage", "ParentProcessName"]),
    text(&["ParentCommandLine"]),
    text(&["CurrentDirectory", "cwd"]),
    word(&["User", "user", "username"]),
    word(&["tty", "Terminal"]),
    number(&["ProcessId", "pid"]),
    number(&["ParentProcessId", "ppid"]),
    number(&["LogonId", "session", "ses"]),
    number(&["uid", "UserId"]),
    number(&["euid", "EffectiveUserId"]),
    number(&["gid", "GroupId"]),
    number(&["auid", "LoginUserId"]),
];

const AUTHENTICATION: &[FieldSpec] = &[
    word(&["src_ip", "SourceIp", "IpAddress", "SourceAddress", "rhost"]),
    number(&["src_port", "SourcePort", "IpPort"]),
    text(&["TargetUserName", "user", "User", "username", "acct"]),
    word(&["service", "ServiceName", "program"]),
    word(&["outcome", "result"]),
    word(&["activity"]),
    word(&["method", "AuthenticationMethod"]),
    word(&["tty", "Terminal"]),
    word(&["user_known"]),
    number(&["ProcessId", "pid"]),
    text(&["message", "Message", "msg"]),
];

/// The address of an attempt, by which findings name a source.
pub(crate) const AUTHENTICATION_SOURCE: Field = Field(0);

/// The field of that name (ASCII case does not matter), or which names there are.
pub(crate) fn resolve(class: Class, name: &str) -> Result<Field, Cause> {
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
pub(crate) type Values<'e> = [Value<'e>; MAX_FIELDS];

/// Buffers for values that the event does not hold as text. Kept from event to event.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    command_line: String,
    address: String,
}

/// Capacity of the scratch buffers that is kept; a longer command line gives its memory back.
const KEEP: usize = 64 * 1024;

/// Reads the fields of an event; `None` for events no rule can be about.
pub(crate) fn read<'e>(event: &'e Event, scratch: &'e mut Scratch) -> Option<(Class, Values<'e>)> {
    let mut values = [Value::Absent; MAX_FIELDS];
    match &event.kind {
        EventKind::Process(activity) => {
            let Change::Exec { .. } = activity.change else { return None };
            let p = &activity.process;
            let line = &mut scratch.command_line;
            line.clear();
            if line.capacity() > KEEP {
                line.shrink_to(KEEP);
            }
            for (i, arg) in p.argv.iter().enumerate() {
                if i > 0 {
                    line.push(' ');
                }
                line.push_str(arg);
            }
            let user = match (&p.user, p.uid) {
                (Some(name), _) => Value::Text(name),
                (None, Some(0)) => Value::Text("root"),
                (None, _) => Value::Absent,
            };
            let parent = p.parent.as_ref();
            values[..14].copy_from_slice(&[
                non_empty(&p.executable),
                if p.argv.is_empty() { Value::Absent } else { Value::Text(line) },
                parent.map_or(Value::Absent, |a| non_empty(&a.executable)),
                parent.map_or(Value::Absent, |a| non_empty(&a.command_line)),
                non_empty(&p.cwd),
                user,
                p.tty.as_deref().map_or(Value::Absent, Value::Text),
                Value::Number(p.pid.into()),
                parent.map_or(Value::Absent, |a| Value::Number(a.pid.into())),
                optional(p.session),
                optional(p.uid),
                optional(p.euid),
                optional(p.gid),
                optional(p.auid),
            ]);
            Some((Class::ProcessCreation, values))
        }
        EventKind::Authentication(a) => {
            scratch.address.clear();
            let source = match a.source {
                Some(ip) => {
                    // Writing to a String cannot fail.
                    let _ = write!(scratch.address, "{ip}");
                    Value::Text(&scratch.address)
                }
                None => Value::Absent,
            };
            values[..11].copy_from_slice(&[
                source,
                optional(a.source_port.map(u32::from)),
                a.user.as_deref().map_or(Value::Absent, Value::Text),
                non_empty(&a.service),
                Value::Text(match a.outcome {
                    Outcome::Success => "success",
                    Outcome::Failure => "failure",
                }),
                Value::Text(match a.activity {
                    Activity::Logon => "logon",
                    Activity::Logoff => "logoff",
                    Activity::AccountSwitch => "account_switch",
                }),
                a.method.as_deref().map_or(Value::Absent, Value::Text),
                a.tty.as_deref().map_or(Value::Absent, Value::Text),
                match a.user_known {
                    Some(true) => Value::Text("true"),
                    Some(false) => Value::Text("false"),
                    None => Value::Absent,
                },
                optional(a.pid),
                non_empty(&a.message),
            ]);
            Some((Class::Authentication, values))
        }
        _ => None,
    }
}

fn non_empty(text: &str) -> Value<'_> {
    if text.is_empty() {
        Value::Absent
    } else {
        Value::Text(text)
    }
}

fn optional<'e>(n: Option<u32>) -> Value<'e> {
    n.map_or(Value::Absent, |n| Value::Number(n.into()))
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
        for class in Class::ALL {
            assert!(class.fields().len() <= MAX_FIELDS);
            for (i, spec) in class.fields().iter().enumerate() {
                for name in spec.names {
                    assert_eq!(resolve(class, name).unwrap(), Field(i as u8), "{name}");
                }
            }
        }
    }
}
