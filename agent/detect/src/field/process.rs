//! Programs started.

use defender_model::process::Process;

use super::{non_empty, number, optional, some_text, text, user, word, FieldSpec, Scratch, Value, Values};

// The order of a table is the order in which `read` fills the values.
pub(super) const FIELDS: &[FieldSpec] = &[
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

pub(super) fn read<'e>(p: &'e Process, scratch: &'e mut Scratch) -> Values<'e> {
    let line = command_line(&p.argv, &mut scratch.line);
    let parent = p.parent.as_ref();
    Values::of(&[
        non_empty(&p.executable),
        line,
        parent.map_or(Value::Absent, |a| non_empty(&a.executable)),
        parent.map_or(Value::Absent, |a| non_empty(&a.command_line)),
        non_empty(&p.cwd),
        user(p.user.as_deref(), p.uid),
        some_text(p.tty.as_deref()),
        Value::Number(p.pid.into()),
        parent.map_or(Value::Absent, |a| Value::Number(a.pid.into())),
        optional(p.session),
        optional(p.uid),
        optional(p.euid),
        optional(p.gid),
        optional(p.auid),
    ])
}

/// The arguments joined by one blank.
pub(super) fn command_line<'e>(argv: &[String], line: &'e mut String) -> Value<'e> {
    if argv.is_empty() {
        return Value::Absent;
    }
    for (i, arg) in argv.iter().enumerate() {
        if i > 0 {
            line.push(' ');
        }
        line.push_str(arg);
    }
    Value::Text(line)
}
