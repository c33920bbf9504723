//! What processes do beyond starting and ending: they trace others, load eBPF programs, become root.

use std::time::Instant;

use defender_model::event::{Event, EventKind};
use defender_model::kernel::{ModuleActivity, ProgramType};
use defender_model::process::{Actor, Deed, Process, ProcessDeed, Source};
use defender_model::text;
use defender_model::time::Timestamp;

use super::{ProcessSensor, ANCESTORS};
use crate::budget::Budget;
use crate::process::procfs;
use crate::Observation;

/// Events within a second. A service manager loads several programs for each service it starts; a debugger attaches itself to every
/// thread.
const EVENTS_PER_SECOND: u32 = 20;
/// The same once more within this many milliseconds is told with the first.
const SAME: i64 = 10_000;

/// What was told last, and how much may be.
pub(super) struct Deeds {
    budget: Budget,
    last: Option<(Timestamp, (u32, u32, String))>,
}

impl Default for Deeds {
    fn default() -> Self {
        Self { budget: Budget::new(EVENTS_PER_SECOND, Instant::now()), last: None }
    }
}

impl ProcessSensor {
    /// `by`, of this short name, attached itself to `target`, a process or one of its threads.
    #[cfg(ebpf)]
    pub(super) fn traced(
        &mut self,
        time: Timestamp,
        by: u32,
        command: &[u8],
        target: u32,
        source: Source,
        out: &mut Vec<Observation>,
    ) {
        let process = self.directory().of_stream(by, command);
        self.told_traced(time, process, target, source, out);
    }

    pub(super) fn told_traced(
        &mut self,
        time: Timestamp,
        process: Actor,
        target: u32,
        source: Source,
        out: &mut Vec<Observation>,
    ) {
        let known = self.table().get(target).is_some();
        let target =
            if known { target } else { procfs::leader(&self.settings.proc, target).unwrap_or(target) };
        self.adopt(target, ANCESTORS);
        let target = self.directory().known(target);
        let same = (process.pid, target.pid, String::new());
        let deed = Deed::Traced(target);
        self.did(time, same, ProcessDeed { deed, process, source }.into(), out);
    }

    /// `by`, of this short name, loaded an eBPF program: its name and its `BPF_PROG_TYPE`, 0 where that is not known. What the agent
    /// itself loads is not told.
    #[cfg(ebpf)]
    pub(super) fn program(
        &mut self,
        time: Timestamp,
        by: u32,
        command: &[u8],
        name: String,
        kind: u32,
        out: &mut Vec<Observation>,
    ) {
        let process = self.directory().of_stream(by, command);
        self.told_program(time, process, name, kind, out);
    }

    pub(super) fn told_program(
        &mut self,
        time: Timestamp,
        process: Actor,
        name: String,
        kind: u32,
        out: &mut Vec<Observation>,
    ) {
        if process.pid == std::process::id() {
            return;
        }
        let same = (process.pid, kind, text::truncate(&name, 64).to_owned() + "/");
        let program = Some(ProgramType(kind));
        let process = Some(process);
        let activity = ModuleActivity { loaded: true, name, program, path: None, sha256: None, process };
        self.did(time, same, activity.into(), out);
    }

    /// A process of this short name has user id 0, had another before, and has started no set-user-ID program for it.
    #[cfg(ebpf)]
    pub(super) fn became_root(
        &mut self,
        time: Timestamp,
        pid: u32,
        command: &[u8],
        from_uid: u32,
        source: Source,
        out: &mut Vec<Observation>,
    ) {
        let process = self.directory().of_stream(pid, command);
        self.told_root(time, process, from_uid, source, out);
    }

    fn told_root(
        &mut self,
        time: Timestamp,
        process: Actor,
        from: u32,
        source: Source,
        out: &mut Vec<Observation>,
    ) {
        // Its next program is no news.
        self.table().is_root(process.pid);
        let process = Actor { uid: Some(0), user: self.accounts.name(0), ..process };
        let same = (process.pid, from, "root".to_owned());
        let deed = Deed::BecameRoot { from };
        self.did(time, same, ProcessDeed { deed, process, source }.into(), out);
    }

    /// A program was started as root by a process that was not: told where both are certain. A set-user-ID program leaves the real
    /// user id as it was, so one that is 0 was set by a call, which needs a privilege that the process did not get from a program.
    ///
    /// Must come before the table has the new program.
    pub(super) fn root_at_exec(
        &mut self,
        process: &Process,
        ppid: u32,
        time: Timestamp,
        source: Source,
        out: &mut Vec<Observation>,
    ) {
        // What is read from /proc afterwards may be of a later time: sudo sets its real user id before long.
        if !matches!(source, Source::Audit | Source::Ebpf) || process.uid != Some(0) {
            return;
        }
        let Some(from) = self.table().unprivileged(process.pid, ppid, source == Source::Audit) else {
            return;
        };
        let actor = Actor {
            pid: process.pid,
            executable: process.executable.clone(),
            command_line: text::truncate(&process.command_line(), 1024).into(),
            auid: process.auid,
            parent: process.parent.clone(),
            ..Actor::default()
        };
        self.told_root(time, actor, from, source, out);
    }

    /// Tells it, unless it was told just now or too much is.
    fn did(
        &mut self,
        time: Timestamp,
        same: (u32, u32, String),
        kind: EventKind,
        out: &mut Vec<Observation>,
    ) {
        let again =
            self.deeds.last.as_ref().is_some_and(|(at, last)| *last == same && time.since(*at) < SAME);
        let told = !again && self.deeds.budget.admits(Instant::now());
        self.tally(|status| {
            let balance = &mut status.balance;
            balance.produced += 1;
            *if told {
                &mut balance.delivered
            } else if again {
                &mut balance.aggregated
            } else {
                &mut balance.over_bound
            } += 1;
        });
        if told {
            self.deeds.last = Some((time, same));
            out.push(Observation::Event(Event::new(time, kind)));
        }
    }
}
