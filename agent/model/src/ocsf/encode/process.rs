//! Process Activity, 1007, and processes in other events.

use std::sync::Arc;

use super::{file, name, user, Logged, Object};
use crate::ocsf::class;
use crate::ocsf::json::members;
use crate::process::{Ancestor, Change, ExitReason, Process, ProcessActivity};
use crate::text::truncate;

/// Bytes of a command line that an event carries. Rules have seen all of it; a line of JSON can be six times as long as what it
/// says, and every sink has to hold it.
const COMMAND_LINE: usize = 256 << 10;

pub(super) fn class(activity: &ProcessActivity) -> (u32, u32) {
    let number = match activity.change {
        Change::Exec { .. } => 1,
        Change::Exit(_) => 2,
    };
    (class::PROCESS_ACTIVITY, number)
}

/// The latest process that started another, as it was written: mostly the next is started by the same.
#[derive(Debug, Default)]
pub(super) struct Launcher {
    of: Option<Arc<Ancestor>>,
    members: Vec<u8>,
}

impl Launcher {
    fn write(&mut self, process: &mut Object<'_>, launcher: &Arc<Ancestor>) {
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, launcher)) {
            self.members = members(|process| ancestor(process, launcher));
            self.of = Some(Arc::clone(launcher));
        }
        process.written(&self.members);
    }
}

pub(super) fn activity<'a>(
    record: &mut Object<'_>,
    activity: &'a ProcessActivity,
    latest: &mut Launcher,
) -> Logged<'a> {
    let subject = &activity.process;
    let whole = subject.command_line();
    let command_line = truncate(&whole, COMMAND_LINE);
    let cut = command_line.len() < whole.len();
    let mut logged = Logged { provider: Some(activity.source.name()), ..Logged::default() };
    let mut code = None;
    let mut signal = None;
    let mut created = None;
    let mut launcher = None;
    match activity.change {
        Change::Exec { truncated } => {
            logged.truncated = truncated || cut;
            logged.whole = cut.then_some(whole.len() as u64);
            // OCSF: the actor of a launch is the process that launched; the host profile demands an actor.
            launcher = subject.parent.as_ref();
        }
        Change::Exit(reason) => {
            created = activity.started;
            match reason {
                ExitReason::Code(number) => code = Some(i32::from(number)),
                ExitReason::Signal(number) => {
                    // The shell's convention, bash(1) "EXIT STATUS".
                    code = Some(128 + i32::from(number));
                    signal = Some(number);
                }
                ExitReason::Unknown => {}
            }
        }
    }
    if let Some(code) = code {
        record.signed(name!("exit_code"), code.into());
    }
    record.object(name!("actor"), |actor| {
        actor.object(name!("process"), |process| match launcher {
            Some(launcher) => latest.write(process, launcher),
            None => process.number(name!("pid"), subject.pid),
        });
    });
    record.object(name!("process"), |process| {
        described(process, subject, command_line);
        if let Some(created) = created {
            process.signed(name!("created_time"), created.millis());
        }
    });
    record.any(name!("unmapped"), |unmapped| {
        // A command line that was cut is not spelt out a second time.
        if !cut && ambiguous(&subject.argv) {
            unmapped.texts(name!("argv"), &mut subject.argv.iter().map(String::as_str));
        }
        unmapped.counted(name!("signal"), signal);
    });
    logged
}

/// A process, without those above it: an event tells of the nearest, its own event told of the next.
pub(super) fn described(process: &mut Object<'_>, subject: &Process, command_line: &str) {
    process.number(name!("pid"), subject.pid);
    process.said(name!("name"), subject.name());
    file(process, &subject.executable);
    process.said(name!("cmd_line"), command_line);
    process.said(name!("working_directory"), &subject.cwd);
    user(process, name!("user"), subject.uid, subject.user.as_deref());
    process.counted(name!("euid"), subject.euid);
    process.any(name!("group"), |group| group.decimal(name!("uid"), subject.gid));
    process.counted(name!("auid"), subject.auid);
    process.any(name!("session"), |session| {
        session.decimal(name!("uid"), subject.session);
        session.known(name!("terminal"), subject.tty.as_deref());
    });
}

/// One ancestor, without those above it.
pub(super) fn ancestor(process: &mut Object<'_>, ancestor: &Ancestor) {
    process.number(name!("pid"), ancestor.pid);
    file(process, &ancestor.executable);
    process.said(name!("cmd_line"), &ancestor.command_line);
}

/// The chain of ancestors, as far as it is known: what a finding needs to be understood by itself.
pub(super) fn lineage(process: &mut Object<'_>, nearest: Option<&Ancestor>) {
    fn above(process: &mut Object<'_>, nearest: &Ancestor, levels: usize) {
        process.object(name!("parent_process"), |parent| {
            ancestor(parent, nearest);
            if let (Some(next), 2..) = (nearest.parent.as_deref(), levels) {
                above(parent, next, levels - 1);
            }
        });
    }
    if let Some(nearest) = nearest {
        above(process, nearest, Ancestor::LEVELS);
    }
}

/// The command line does not spell out the arguments already: one of them is empty or holds a space.
fn ambiguous(argv: &[String]) -> bool {
    argv.iter().any(|argument| argument.is_empty() || argument.contains(' '))
}
