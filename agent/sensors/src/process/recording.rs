//! Audit log text to events: how a field incident is examined again.

use defender_model::event::Event;
use defender_model::process::{Change, Process, ProcessActivity, Source};

use super::audit::assembly::{Assembler, Audited, Exec};
use super::audit::record::log_line;
use super::table::ProcessTable;

/// How far back in serial numbers records of one event may be apart in a log. The kernel interleaves the events of at most a few
/// processors.
const INTERLEAVED: u64 = 64;
const CAPACITY: usize = 4096;

/// Reads an audit log line by line. What comes out depends on the lines alone: no clock, no `/proc`.
#[derive(Debug)]
pub struct AuditLog {
    assembler: Assembler,
    table: ProcessTable,
    highest: u64,
}

impl Default for AuditLog {
    fn default() -> Self {
        Self { assembler: Assembler::default(), table: ProcessTable::new(CAPACITY), highest: 0 }
    }
}

impl AuditLog {
    /// Takes one line, such as `type=SYSCALL msg=audit(1700000000.123:456): arch=...`, and appends the events that are complete.
    /// False when the line is not an audit record of a kind the agent reads.
    pub fn line(&mut self, line: &[u8], events: &mut Vec<Event>) -> bool {
        let Some((kind, stamp, fields)) = log_line(line) else { return false };
        let complete = self.assembler.push(kind, stamp, fields);
        self.highest = self.highest.max(stamp.serial);
        let table = &mut self.table;
        if let Some(event) = complete {
            events.extend(activity(event, table));
        }
        // Logs leave the end-of-event records out.
        self.assembler
            .flush(self.highest.saturating_sub(INTERLEAVED), |event| events.extend(activity(event, table)));
        true
    }

    /// The log is over: appends what is left.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        let table = &mut self.table;
        self.assembler.flush(u64::MAX, |event| events.extend(activity(event, table)));
    }
}

fn activity(event: Audited, table: &mut ProcessTable) -> Option<Event> {
    match event {
        Audited::Exec(exec) => {
            let (time, ppid, truncated) = (exec.stamp.time, exec.ppid, exec.truncated);
            let mut process = into_process(*exec);
            process.parent = table.ancestor(ppid);
            table.insert(&process, ppid, Some(time), true);
            let change = Change::Exec { truncated };
            let activity = ProcessActivity { process, change, source: Source::Replay, started: None };
            Some(Event::new(time, activity.into()))
        }
        Audited::Exit { stamp, pid, reason } => {
            let known = table.exit(pid).filter(|known| known.reported)?;
            let process =
                Process { pid, executable: known.executable.clone(), uid: known.uid, ..Process::default() };
            let activity = ProcessActivity {
                process,
                change: Change::Exit(reason),
                source: Source::Replay,
                started: known.started,
            };
            Some(Event::new(stamp.time, activity.into()))
        }
        Audited::ConfigChange { .. } => None,
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
