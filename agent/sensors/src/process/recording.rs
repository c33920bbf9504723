//! Audit log text to events: how a field incident is examined again.

use std::sync::Arc;

use defender_model::event::{Event, EventKind};
use defender_model::kernel::{ModuleActivity, ProgramType};
use defender_model::process::{Actor, Ancestor, Change, Deed, Process, ProcessActivity, ProcessDeed, Source};
use defender_model::time::Timestamp;

use super::audit::assembly::{Assembler, Audited, Exec};
use super::audit::record::{log_line, Stamp};
use super::table::ProcessTable;

/// How far back in serial numbers records of one event may be apart in a log. The kernel interleaves the events of at most a few
/// processors.
const INTERLEAVED: u64 = 64;
const CAPACITY: usize = 4096;
/// A serial number that lies so far back is no straggler: the kernel counts from the beginning again at every boot.
const REBOOT: u64 = 4096;
/// Nor is one of a short boot's log that lies less far back but so many milliseconds after every record before it.
const REBOOT_TIME: i64 = 1000;

/// Reads an audit log line by line. What comes out depends on the lines alone: no clock, no `/proc`.
#[derive(Debug)]
pub struct AuditLog {
    assembler: Assembler,
    table: ProcessTable,
    highest: u64,
    /// The latest time of a record since boot.
    latest: Timestamp,
}

impl Default for AuditLog {
    fn default() -> Self {
        Self {
            assembler: Assembler::default(),
            table: ProcessTable::new(CAPACITY),
            highest: 0,
            latest: Timestamp(0),
        }
    }
}

impl AuditLog {
    /// Takes one line, such as `type=SYSCALL msg=audit(1700000000.123:456): arch=...`, and appends the events that are complete.
    /// False when the line is not an audit record of a kind the agent reads.
    pub fn line(&mut self, line: &[u8], events: &mut Vec<Event>) -> bool {
        let Some((kind, stamp, fields)) = log_line(line) else { return false };
        if self.rebooted(stamp) {
            // The processes of before are gone, and their ids will be used again.
            self.finish(events);
            self.table = ProcessTable::new(CAPACITY);
            self.highest = stamp.serial;
            self.latest = stamp.time;
        }
        let complete = self.assembler.push(kind, stamp, fields);
        self.highest = self.highest.max(stamp.serial);
        self.latest = self.latest.max(stamp.time);
        let table = &mut self.table;
        if let Some(event) = complete {
            activity(event, table, events);
        }
        // Logs leave the end-of-event records out.
        self.assembler
            .flush(self.highest.saturating_sub(INTERLEAVED), |event| activity(event, table, events));
        true
    }

    /// Takes an event that an agent wrote. A start tells of the parent only; those further up told of themselves before.
    pub fn event(&mut self, event: &mut Event) {
        let EventKind::Process(activity) = &mut event.kind else { return };
        let process = &mut activity.process;
        match activity.change {
            Change::Exec { .. } => {
                let ppid = process.parent.as_ref().map_or(0, |parent| parent.pid);
                let known = self.table.ancestor(ppid);
                let same = |known: &Arc<Ancestor>| {
                    process.parent.as_ref().is_some_and(|parent| {
                        parent.executable == known.executable && parent.command_line == known.command_line
                    })
                };
                if let Some(known) = known.filter(same) {
                    process.parent = Some(known);
                }
                self.table.insert(process, ppid, Some(event.time), true);
            }
            Change::Exit(_) => {
                self.table.exit(process.pid);
            }
        }
    }

    fn rebooted(&self, stamp: Stamp) -> bool {
        let later = || stamp.time.since(self.latest) >= REBOOT_TIME;
        stamp.serial.saturating_add(REBOOT) < self.highest
            || (stamp.serial.saturating_add(INTERLEAVED) < self.highest && later())
    }

    /// The log is over: appends what is left.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        let table = &mut self.table;
        self.assembler.flush(u64::MAX, |event| activity(event, table, events));
    }
}

/// Appends what an audit event tells.
fn activity(event: Audited, table: &mut ProcessTable, events: &mut Vec<Event>) {
    let told = match event {
        Audited::Exec(exec) => {
            let (time, ppid, truncated) = (exec.stamp.time, exec.ppid, exec.truncated);
            let mut process = into_process(*exec);
            process.parent = table.ancestor(ppid);
            if let Some((from, process)) = table.insert_exec(&process, ppid, time, Source::Audit) {
                let deed = ProcessDeed { deed: Deed::BecameRoot { from }, process, source: Source::Replay };
                events.push(Event::new(time, deed.into()));
            }
            let change = Change::Exec { truncated };
            let activity = ProcessActivity { process, change, source: Source::Replay, started: None };
            Some(Event::new(time, activity.into()))
        }
        Audited::Exit { stamp, pid, reason } => {
            let Some(known) = table.exit(pid).filter(|known| known.reported) else { return };
            let process = Process {
                pid,
                executable: known.image.executable.clone(),
                uid: known.uid,
                ..Process::default()
            };
            let activity = ProcessActivity {
                process,
                change: Change::Exit(reason),
                source: Source::Replay,
                started: known.started,
            };
            Some(Event::new(stamp.time, activity.into()))
        }
        Audited::Module { loaded, name, by } => {
            let (time, process) = (by.stamp.time, Some(actor(&by, table, None)));
            let activity = ModuleActivity { loaded, name, program: None, path: None, sha256: None, process };
            Some(Event::new(time, activity.into()))
        }
        Audited::Traced { target, by } => {
            let process = actor(&by, table, None);
            let (time, deed) = (by.stamp.time, Deed::Traced(traced(table, target)));
            Some(Event::new(time, ProcessDeed { deed, process, source: Source::Replay }.into()))
        }
        Audited::Program { by } => {
            let (time, process) = (by.stamp.time, Some(actor(&by, table, None)));
            let (name, program) = (String::new(), Some(ProgramType(0)));
            let activity = ModuleActivity { loaded: true, name, program, path: None, sha256: None, process };
            Some(Event::new(time, activity.into()))
        }
        Audited::Wrote { .. } | Audited::Said { .. } | Audited::ConfigChange { .. } => None,
    };
    events.extend(told);
}

/// The process that was traced. Of one that started before the log there is the number, which may be a thread's.
fn traced(table: &ProcessTable, pid: u32) -> Actor {
    table.alive(pid).unwrap_or_else(|| Actor { pid, ..Actor::default() })
}

/// The process that made a system call: as the record has it, with what is known of the program it runs.
pub(super) fn actor(by: &Exec, table: &ProcessTable, user: Option<Arc<str>>) -> Actor {
    let known = table.get(by.pid).filter(|known| *known.image.executable == *by.executable);
    Actor {
        pid: by.pid,
        executable: by.executable.as_str().into(),
        command_line: known.map(|known| Arc::clone(&known.image.command_line)).unwrap_or_default(),
        uid: by.uid,
        auid: by.auid,
        user,
        parent: known.map_or_else(|| table.ancestor(by.ppid), |known| known.image.parent.clone()),
    }
}

/// The process an exec record speaks of, without its parent.
pub(super) fn into_process(exec: Exec) -> Process {
    Process {
        pid: exec.pid,
        executable: exec.executable.into(),
        argv: exec.argv,
        cwd: exec.cwd,
        uid: exec.uid,
        euid: exec.euid,
        gid: exec.gid,
        auid: exec.auid,
        user: None,
        session: exec.session,
        tty: exec.tty,
        parent: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_did_is_read_from_a_log() {
        let shell = exec(1, 10, 70, 60).replace("uid=0 gid=0 euid=0", "uid=1000 gid=0 euid=1000");
        let root = exec(2, 11, 70, 60);
        let deeds = std::str::from_utf8(include_bytes!("audit/testdata/deeds.log")).unwrap();
        let mut log = AuditLog::default();
        let mut events = Vec::new();
        for line in (shell + &root + deeds).lines() {
            log.line(line.as_bytes(), &mut events);
        }
        log.finish(&mut events);
        let mut seen = Vec::new();
        for event in events {
            seen.push(match event.kind {
                EventKind::Deed(done) => {
                    format!("{} {:?}", done.process.pid, done.deed).replace("Actor { ", "")
                }
                EventKind::Module(module) => format!("{:?}", module.program),
                EventKind::Process(activity) => format!("{} starts", activity.process.pid),
                other => panic!("{other:?}"),
            });
        }
        seen.iter_mut().for_each(|line| line.truncate(28));
        assert_eq!(
            seen,
            [
                "70 starts",
                "70 BecameRoot { from: 1000 }",
                "70 starts",
                "18738 Traced(pid: 9092, exec",
                "18738 Traced(pid: 9092, exec",
                "Some(ProgramType(0))"
            ]
        );
    }

    fn syscall(second: u64, serial: u64, pid: u32, ppid: u32) -> String {
        format!(
            "type=SYSCALL msg=audit({second}.000:{serial}): arch=c000003e syscall=59 success=yes exit=0 a0=1 ppid={ppid} pid={pid} auid=0 uid=0 gid=0 euid=0 tty=(none) ses=1 comm=\"p\" exe=\"/bin/p{pid}\" key=\"k\"\n"
        )
    }

    fn exec(second: u64, serial: u64, pid: u32, ppid: u32) -> String {
        let stamp = format!("msg=audit({second}.000:{serial}):");
        syscall(second, serial, pid, ppid)
            + &format!(
                "type=EXECVE {stamp} argc=2 a0=\"p{pid}\" a1=\"{serial}\"\ntype=CWD {stamp} cwd=\"/\"\n"
            )
    }

    fn replay(log: &str) -> Vec<ProcessActivity> {
        let (mut audit, mut events) = (AuditLog::default(), Vec::new());
        for line in log.lines() {
            assert!(audit.line(line.as_bytes(), &mut events), "{line}");
        }
        audit.finish(&mut events);
        let activity = |event: Event| match event.kind {
            EventKind::Process(activity) => *activity,
            other => panic!("{other:?}"),
        };
        events.into_iter().map(activity).collect()
    }

    fn a_log_of_two_boots(last: u64) {
        // The power fails in the middle of the second event.
        let mut log = exec(100, last - 1, 7, 1) + &syscall(101, last, 8, 7);
        for serial in 1..=200 {
            // A process id of the boot before is some other process now.
            log += &exec(200 + serial, serial, 1000 + serial as u32, 7);
        }
        let seen = replay(&log);
        assert_eq!(seen.len(), 202);
        assert_eq!(seen[0].process.argv, ["p7".to_owned(), (last - 1).to_string()]);
        assert_eq!((seen[1].process.pid, seen[1].change.clone()), (8, Change::Exec { truncated: true }));
        assert!(seen[1].process.parent.as_ref().is_some_and(|p| &*p.executable == "/bin/p7"));
        for (serial, activity) in (1..=200).zip(&seen[2..]) {
            let process = &activity.process;
            assert_eq!(process.argv, [format!("p{}", 1000 + serial), serial.to_string()]);
            assert_eq!(activity.change, Change::Exec { truncated: false });
            assert!(process.parent.is_none(), "{:?}", process.parent);
        }
    }

    #[test]
    fn a_reboot_after_a_long_boot() {
        a_log_of_two_boots(100_000);
    }

    #[test]
    fn a_reboot_after_a_short_boot() {
        a_log_of_two_boots(2_000);
    }

    /// An event tells of the parent alone, a recording of events of those further up too.
    #[test]
    fn events_are_related_to_those_before_them() {
        let log =
            exec(100, 500, 7, 1) + &exec(101, 501, 8, 7) + &exec(102, 502, 9, 8) + &exec(103, 503, 10, 7);
        let mut audit = AuditLog::default();
        let mut chains = Vec::new();
        for mut activity in replay(&log) {
            if let Some(parent) = &activity.process.parent {
                activity.process.parent = Some(Arc::new(Ancestor { parent: None, ..(**parent).clone() }));
            }
            let mut event = Event::new(Timestamp(1), activity.into());
            audit.event(&mut event);
            let EventKind::Process(activity) = event.kind else { panic!() };
            let parent = activity.process.parent.as_deref();
            chains.push(parent.into_iter().flat_map(Ancestor::chain).map(|one| one.pid).collect::<Vec<_>>());
        }
        assert_eq!(chains, [vec![], vec![7], vec![8, 7], vec![7]]);
    }

    #[test]
    fn a_straggler_is_no_reboot() {
        let log =
            exec(100, 500, 7, 1) + &exec(101, 1000, 8, 7) + &exec(99, 600, 9, 1) + &exec(101, 1001, 10, 7);
        let parents: Vec<bool> = replay(&log)
            .iter()
            .map(|a| a.process.parent.as_ref().is_some_and(|p| &*p.executable == "/bin/p7"))
            .collect();
        assert_eq!(parents.iter().filter(|known| **known).count(), 2, "{parents:?}");
    }
}
