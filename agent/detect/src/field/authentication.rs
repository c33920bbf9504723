//! Logins.

use std::fmt::Write as _;

use defender_model::authentication::{Activity, Authentication, Outcome};

use super::{
    non_empty, number, optional, some_text, text, truth, word, Field, FieldSpec, Scratch, Value, Values,
};

pub(super) const FIELDS: &[FieldSpec] = &[
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
pub(super) const SOURCE: Field = Field(0);

pub(super) fn read<'e>(a: &'e Authentication, scratch: &'e mut Scratch) -> Values<'e> {
    let source = match a.source {
        Some(ip) => {
            // Writing to a String cannot fail.
            let _ = write!(scratch.first, "{ip}");
            Value::Text(&scratch.first)
        }
        None => Value::Absent,
    };
    Values::of(&[
        source,
        optional(a.source_port.map(u32::from)),
        some_text(a.user.as_deref()),
        non_empty(&a.service),
        Value::Text(outcome(a)),
        Value::Text(match a.activity {
            Activity::Logon => "logon",
            Activity::Logoff => "logoff",
            Activity::AccountSwitch => "account_switch",
        }),
        some_text(a.method.as_deref()),
        some_text(a.tty.as_deref()),
        a.user_known.map_or(Value::Absent, truth),
        optional(a.pid),
        non_empty(&a.message),
    ])
}

pub(super) const fn outcome(a: &Authentication) -> &'static str {
    match a.outcome {
        Outcome::Success => "success",
        Outcome::Failure => "failure",
    }
}
