//! What sudo and cron would write into the system log, told from the programs they start: on many devices nobody keeps that log.

use defender_model::event::{Event, EventKind};
use defender_model::process::{Change, Process};
use defender_model::text::file_name;

use super::{non_empty, number, optional, some_text, text, user, word, FieldSpec, Scratch, Value, Values};

pub(super) const FIELDS: &[FieldSpec] = &[
    word(&["program", "service", "ServiceName"]),
    text(&["message", "msg"]),
    word(&["USER", "TargetUserName"]),
    text(&["COMMAND", "CommandLine"]),
    text(&["PWD", "cwd"]),
    word(&["TTY"]),
    word(&["login_user", "SubjectUserName"]),
    number(&["pid", "ProcessId"]),
];

/// sudo(8): options that take a value.
const SUDO_VALUES: &str = "aCcDghpRrtTUu";

pub(super) fn read<'e>(event: &'e Event, scratch: &'e mut Scratch) -> Option<Values<'e>> {
    match &event.kind {
        EventKind::Process(activity) if matches!(activity.change, Change::Exec { .. }) => {
            let p = &activity.process;
            match file_name(p.argv.first()?) {
                "sudo" | "sudoedit" => Some(sudo(p, scratch)),
                "crontab" => Some(crontab(p, scratch)),
                _ if from_cron(p) => Some(job(p, scratch)),
                _ => None,
            }
        }
        EventKind::Authentication(login) if login.service == "sudo" => Some(Values::of(&[
            Value::Text("sudo"),
            non_empty(&login.message),
            some_text(login.user.as_deref()),
            Value::Absent,
            Value::Absent,
            some_text(login.tty.as_deref()),
            Value::Absent,
            optional(login.pid),
        ])),
        _ => None,
    }
}

fn from_cron(p: &Process) -> bool {
    p.parent.as_ref().is_some_and(|parent| {
        let called = parent.command_line.split(' ').next().unwrap_or_default();
        is_cron(&parent.executable) || is_cron(called)
    })
}

/// The program runs jobs by the clock.
fn is_cron(path: &str) -> bool {
    matches!(file_name(path), "cron" | "crond" | "anacron" | "dcron")
}

/// Who started the program.
fn caller(p: &Process) -> &str {
    match user(p.user.as_deref(), p.uid) {
        Value::Text(name) => name,
        Value::Absent | Value::Number(_) => "unknown",
    }
}

/// For whom sudo runs something, and where in its arguments that begins.
fn target(argv: &[String]) -> (&str, usize) {
    let mut name = "root";
    let mut at = 1;
    while let Some(arg) = argv.get(at) {
        if arg == "--" {
            return (name, at + 1);
        }
        if let Some(long) = arg.strip_prefix("--") {
            match (long.split_once('='), long) {
                (Some(("user", value)), _) => name = value,
                (None, "user") => {
                    at += 1;
                    name = argv.get(at).map_or("", String::as_str);
                }
                (
                    None,
                    "group" | "host" | "prompt" | "chdir" | "chroot" | "close-from" | "command-timeout",
                ) => {
                    at += 1;
                }
                _ => {}
            }
        } else if let Some(short) = arg.strip_prefix('-').filter(|short| !short.is_empty()) {
            // Flags may be joined; the first that takes a value takes the rest, or the next argument.
            if let Some((i, option)) = short.char_indices().find(|(_, c)| SUDO_VALUES.contains(*c)) {
                let mut value = &short[i + 1..];
                if value.is_empty() {
                    at += 1;
                    value = argv.get(at).map_or("", String::as_str);
                }
                if option == 'u' {
                    name = value;
                }
            }
        } else if !arg.contains('=') {
            return (name, at);
        }
        at += 1;
    }
    (name, at)
}

fn push_joined(out: &mut String, args: &[String]) {
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        out.push_str(arg);
    }
}

fn sudo<'e>(p: &'e Process, scratch: &'e mut Scratch) -> Values<'e> {
    let Scratch { line, first, .. } = scratch;
    let (name, at) = target(&p.argv);
    push_joined(first, p.argv.get(at..).unwrap_or_default());
    let parts = [
        caller(p),
        " : TTY=",
        p.tty.as_deref().unwrap_or("unknown"),
        " ; PWD=",
        &p.cwd,
        " ; USER=",
        name,
        " ; COMMAND=",
        first,
    ];
    parts.iter().for_each(|part| line.push_str(part));
    Values::of(&[
        Value::Text("sudo"),
        Value::Text(line),
        Value::Text(name),
        non_empty(first),
        non_empty(&p.cwd),
        some_text(p.tty.as_deref()),
        user(p.user.as_deref(), p.uid),
        Value::Number(p.pid.into()),
    ])
}

/// `(root) CMD (run-parts /etc/cron.daily)`.
fn job<'e>(p: &'e Process, scratch: &'e mut Scratch) -> Values<'e> {
    let Scratch { line, first, .. } = scratch;
    match p.argv.as_slice() {
        [_, flag, command, ..] if flag == "-c" => first.push_str(command),
        argv => push_joined(first, argv),
    }
    ["(", caller(p), ") CMD (", first, ")"].iter().for_each(|part| line.push_str(part));
    cron(p, line, non_empty(first))
}

/// `(root) REPLACE (root)`, as crontab(1) writes it.
fn crontab<'e>(p: &'e Process, scratch: &'e mut Scratch) -> Values<'e> {
    let does = |flag: &str| p.argv.iter().skip(1).any(|arg| arg == flag);
    let what = match () {
        () if does("-l") => "LIST",
        () if does("-r") => "DELETE",
        () if does("-e") => "BEGIN EDIT",
        () => "REPLACE",
    };
    let named = p.argv.iter().skip_while(|arg| *arg != "-u").nth(1).map_or(caller(p), String::as_str);
    let line = &mut scratch.line;
    ["(", caller(p), ") ", what, " (", named, ")"].iter().for_each(|part| line.push_str(part));
    cron(p, line, Value::Absent)
}

fn cron<'e>(p: &'e Process, line: &'e str, command: Value<'e>) -> Values<'e> {
    Values::of(&[
        Value::Text("cron"),
        Value::Text(line),
        user(p.user.as_deref(), p.uid),
        command,
        non_empty(&p.cwd),
        some_text(p.tty.as_deref()),
        user(p.user.as_deref(), p.uid),
        Value::Number(p.pid.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(user: &str, parent: &str, run: &str) -> Option<String> {
        let argv: Vec<String> = run.split(' ').map(str::to_owned).collect();
        let parent = defender_model::process::Ancestor { executable: parent.into(), ..Default::default() };
        let process = Process {
            argv,
            user: Some(user.into()),
            cwd: "/".into(),
            parent: Some(parent.into()),
            ..Process::default()
        };
        let change = Change::Exec { truncated: false };
        let source = defender_model::process::Source::Replay;
        let activity = defender_model::process::ProcessActivity { process, change, source, started: None };
        let event = Event::new(defender_model::time::Timestamp(0), activity.into());
        let mut scratch = Scratch::default();
        let values = read(&event, &mut scratch)?;
        match values.fixed[1] {
            Value::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }

    #[test]
    fn lines_read_as_the_programs_write_them() {
        for (run, user, command) in [
            ("sudo id", "root", "id"),
            ("sudo -u#-1 id -u", "#-1", "id -u"),
            ("sudo -nu bob -- ls -l", "bob", "ls -l"),
            ("sudo --user bob A=b ls", "bob", "ls"),
            ("sudo --user=bob -p x: ls", "bob", "ls"),
            ("sudo -s", "root", ""),
            ("sudo -u", "", ""),
        ] {
            let line = message("eve", "/bin/sh", run).unwrap();
            let expected = format!("eve : TTY=unknown ; PWD=/ ; USER={user} ; COMMAND={command}");
            assert_eq!(line, expected, "{run}");
        }
        assert_eq!(message("root", "/usr/sbin/crond", "/bin/x -y").unwrap(), "(root) CMD (/bin/x -y)");
        assert_eq!(message("eve", "/bin/sh", "crontab /tmp/x").unwrap(), "(eve) REPLACE (eve)");
        assert_eq!(message("root", "/bin/sh", "crontab -u bob -l").unwrap(), "(root) LIST (bob)");
        assert_eq!(message("root", "/bin/sh", "ls"), None);
    }
}
