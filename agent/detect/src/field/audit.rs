//! Events as the records they are in `audit.log`, one at a time: a rule for auditd judges records, not events.
//!
//! Values are those `ausearch -i` shows: system calls and file names by name, arguments decoded.

use std::fmt::Write as _;

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::event::{Event, EventKind};
use defender_model::file::{FileActivity, FileChange};
use defender_model::process::{Actor, Change, Process};
use defender_model::text::{file_name, truncate};

use super::process::command_line;
use super::{non_empty, number, optional, some_text, text, word, FieldSpec, Scratch, Value, Values};

/// `TASK_COMM_LEN - 1` of the kernel (`include/linux/sched.h`): what is kept of a program's name.
const COMM: usize = 15;

pub(super) const FIELDS: &[FieldSpec] = &[
    word(&["type"]),
    word(&["syscall"]),
    text(&["exe"]),
    text(&["comm"]),
    word(&["success"]),
    word(&["tty", "terminal"]),
    text(&["name"]),
    word(&["nametype"]),
    text(&["cwd"]),
    text(&["proctitle"]),
    number(&["pid"]),
    number(&["ppid"]),
    number(&["uid"]),
    number(&["euid"]),
    number(&["gid"]),
    number(&["auid"]),
    number(&["ses"]),
    number(&["argc"]),
    word(&["mode"]),
    number(&["ouid"]),
    word(&["op"]),
    word(&["table"]),
    text(&["acct"]),
    word(&["addr"]),
    word(&["res"]),
];

const TYPE: usize = 0;
const SYSCALL: usize = 1;
const EXE: usize = 2;
const COMM_FIELD: usize = 3;
const SUCCESS: usize = 4;
const TTY: usize = 5;
const NAME: usize = 6;
const NAMETYPE: usize = 7;
const CWD: usize = 8;
const PROCTITLE: usize = 9;
const PID: usize = 10;
const PPID: usize = 11;
const UID: usize = 12;
const EUID: usize = 13;
const GID: usize = 14;
const AUID: usize = 15;
const SES: usize = 16;
const ARGC: usize = 17;
const MODE: usize = 18;
const OUID: usize = 19;
const OP: usize = 20;
const TABLE: usize = 21;
const ACCT: usize = 22;
const ADDR: usize = 23;
const RES: usize = 24;

/// The number of an argument's name: 0 for `a0`.
pub(super) fn argument(name: &str) -> Option<u8> {
    let digits = name.strip_prefix(['a', 'A'])?;
    let plain = digits == "0" || (digits.starts_with(|c| matches!(c, '1'..='9')) && digits.len() <= 3);
    digits.parse().ok().filter(|n| plain && *n < 128)
}

/// A record of that type with these fields.
fn of<'e>(record_type: &'static str, fields: &[(usize, Value<'e>)]) -> Values<'e> {
    let mut values = Values::none();
    values.fixed[TYPE] = Value::Text(record_type);
    for (at, value) in fields {
        values.fixed[*at] = *value;
    }
    values
}

/// The `number`th record of the event.
pub(super) fn record<'e>(event: &'e Event, number: usize, scratch: &'e mut Scratch) -> Option<Values<'e>> {
    match &event.kind {
        EventKind::Process(activity) if matches!(activity.change, Change::Exec { .. }) => {
            execution(&activity.process, number, scratch)
        }
        EventKind::Authentication(login) if number == 0 => Some(authentication(login, scratch)),
        EventKind::File(file) => match (number, &file.old_path) {
            (0, _) => Some(path(file, scratch)),
            (1, Some(old)) => {
                Some(of("PATH", &[(NAME, Value::Text(old)), (NAMETYPE, Value::Text("DELETE"))]))
            }
            (1, None) | (2, Some(_)) => file.process.as_ref().map(|actor| actor_record(None, actor)),
            _ => None,
        },
        EventKind::Module(module) if module.program.is_none() => match number {
            0 => Some(of("KERN_MODULE", &[(NAME, Value::Text(&module.name))])),
            1 => {
                let call = if module.loaded { "finit_module" } else { "delete_module" };
                module.process.as_ref().map(|actor| actor_record(Some(call), actor))
            }
            _ => None,
        },
        EventKind::Firewall(done) => match number {
            0 => {
                let actor = done.process.as_ref();
                Some(of(
                    "NETFILTER_CFG",
                    &[
                        (TABLE, non_empty(&done.table)),
                        (OP, non_empty(&done.operation)),
                        (PID, optional(actor.map(|a| a.pid))),
                        (COMM_FIELD, actor.map_or(Value::Absent, |a| comm(&a.executable))),
                    ],
                ))
            }
            1 => done.process.as_ref().map(|actor| actor_record(None, actor)),
            _ => None,
        },
        _ => None,
    }
}

fn execution<'e>(p: &'e Process, number: usize, scratch: &'e mut Scratch) -> Option<Values<'e>> {
    Some(match number {
        0 => of(
            "SYSCALL",
            &[
                (SYSCALL, Value::Text("execve")),
                (SUCCESS, Value::Text("yes")),
                (EXE, non_empty(&p.executable)),
                (COMM_FIELD, comm(&p.executable)),
                (TTY, some_text(p.tty.as_deref())),
                (PID, Value::Number(p.pid.into())),
                (PPID, optional(p.parent.as_ref().map(|parent| parent.pid))),
                (UID, optional(p.uid)),
                (EUID, optional(p.euid)),
                (GID, optional(p.gid)),
                (AUID, optional(p.auid)),
                (SES, optional(p.session)),
            ],
        ),
        1 => {
            let count = i64::try_from(p.argv.len()).unwrap_or(i64::MAX);
            let mut values = of("EXECVE", &[(ARGC, Value::Number(count))]);
            values.arguments = &p.argv;
            values
        }
        2 => of("CWD", &[(CWD, non_empty(&p.cwd))]),
        3 => of("PATH", &[(NAME, non_empty(&p.executable)), (NAMETYPE, Value::Text("NORMAL"))]),
        4 => of("PROCTITLE", &[(PROCTITLE, command_line(&p.argv, &mut scratch.line))]),
        _ => return None,
    })
}

/// The SYSCALL record of a process that is known only in outline.
fn actor_record<'e>(call: Option<&'static str>, actor: &'e Actor) -> Values<'e> {
    of(
        "SYSCALL",
        &[
            (SYSCALL, some_text(call)),
            (SUCCESS, Value::Text("yes")),
            (EXE, non_empty(&actor.executable)),
            (COMM_FIELD, comm(&actor.executable)),
            (PID, Value::Number(actor.pid.into())),
            (PPID, optional(actor.parent.as_ref().map(|parent| parent.pid))),
            (UID, optional(actor.uid)),
            (AUID, optional(actor.auid)),
        ],
    )
}

fn path<'e>(file: &'e FileActivity, scratch: &'e mut Scratch) -> Values<'e> {
    let nametype = match file.change {
        FileChange::Created | FileChange::Renamed => "CREATE",
        FileChange::Deleted => "DELETE",
        FileChange::Modified | FileChange::Attributes | FileChange::Read => "NORMAL",
    };
    let mode = match file.mode {
        Some(mode) => {
            // Writing to a String cannot fail.
            let _ = write!(scratch.first, "{mode:04o}");
            Value::Text(&scratch.first)
        }
        None => Value::Absent,
    };
    let name = Value::Text(file.path.as_str());
    of("PATH", &[(NAME, name), (NAMETYPE, Value::Text(nametype)), (MODE, mode), (OUID, optional(file.owner))])
}

/// The records login programs write themselves (`linux-pam`, `shadow`).
fn authentication<'e>(login: &'e Authentication, scratch: &'e mut Scratch) -> Values<'e> {
    let record_type = match login.activity {
        Activity::Logon => "USER_LOGIN",
        Activity::Logoff => "USER_LOGOUT",
        Activity::AccountSwitch => "USER_AUTH",
    };
    let address = match login.source {
        Some(address) => {
            // Writing to a String cannot fail.
            let _ = write!(scratch.first, "{address}");
            Value::Text(&scratch.first)
        }
        None => Value::Absent,
    };
    let result = match login.outcome {
        Outcome::Success => "success",
        Outcome::Failure => "failed",
    };
    of(
        record_type,
        &[
            (ACCT, some_text(login.user.as_deref())),
            (ADDR, address),
            (RES, Value::Text(result)),
            (TTY, some_text(login.tty.as_deref())),
            (PID, optional(login.pid)),
        ],
    )
}

/// The program's name as the kernel keeps it. Of a script it is the interpreter's: the script's own is not recorded.
fn comm(executable: &str) -> Value<'_> {
    non_empty(truncate(file_name(executable), COMM))
}
