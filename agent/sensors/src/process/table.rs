//! Which processes there are: a bounded table that gives every exec its parent, and every exit its program.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use defender_model::process::{Ancestor, Process};
use defender_model::text::truncate;
use defender_model::time::Timestamp;

/// Bytes of a parent's command line that its children carry.
const COMMAND_LINE: usize = 1024;

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) ppid: u32,
    pub(crate) executable: Arc<str>,
    pub(crate) command_line: Arc<str>,
    pub(crate) uid: Option<u32>,
    pub(crate) started: Option<Timestamp>,
    /// Its exec was reported, so its exit will be.
    pub(crate) reported: bool,
    /// It was found by comparing `/proc` after a loss; the record of its exec may still come.
    found: bool,
    exited: bool,
    generation: u64,
}

impl Known {
    /// The command line is that of the other process, as far as it is kept.
    pub(crate) fn runs(&self, process: &Process) -> bool {
        !self.command_line.is_empty()
            && *self.command_line == *truncate(&process.command_line(), COMMAND_LINE)
    }
}

/// Processes by id, at most a given number. Ended ones are kept as long as there is room, since their children come to be
/// judged after them; then the longest ended goes first, then the longest known.
#[derive(Debug)]
pub(crate) struct ProcessTable {
    entries: HashMap<u32, Known>,
    order: VecDeque<(u32, u64)>,
    ended: VecDeque<(u32, u64)>,
    capacity: usize,
    generation: u64,
    evicted: u64,
}

impl ProcessTable {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            ended: VecDeque::new(),
            capacity: capacity.max(1),
            generation: 0,
            evicted: 0,
        }
    }

    /// Puts a process in, in place of what had its id.
    pub(crate) fn insert(
        &mut self,
        process: &Process,
        ppid: u32,
        started: Option<Timestamp>,
        reported: bool,
    ) {
        let line = process.command_line();
        self.put(
            process.pid,
            Known {
                ppid,
                executable: Arc::clone(&process.executable),
                command_line: truncate(&line, COMMAND_LINE).into(),
                uid: process.uid,
                started,
                reported,
                found: false,
                exited: false,
                generation: 0,
            },
        );
    }

    /// A process that runs the same program as its parent, until it execs.
    pub(crate) fn fork(&mut self, pid: u32, ppid: u32) {
        if let Some(parent) = self.entries.get(&ppid) {
            let child =
                Known { ppid, reported: false, found: false, exited: false, started: None, ..parent.clone() };
            self.put(pid, child);
        }
    }

    fn put(&mut self, pid: u32, mut known: Known) {
        self.generation += 1;
        known.generation = self.generation;
        self.entries.insert(pid, known);
        self.order.push_back((pid, self.generation));
        while self.entries.len() > self.capacity {
            let Some((oldest, generation)) = self.ended.pop_front().or_else(|| self.order.pop_front()) else {
                break;
            };
            if self.entries.get(&oldest).is_some_and(|known| known.generation == generation) {
                self.entries.remove(&oldest);
                self.evicted += 1;
            }
        }
        // Marks of entries that are gone or were replaced are swept out before they outnumber the entries.
        if self.order.len() > self.capacity * 2 {
            let entries = &self.entries;
            let current =
                |mark: &(u32, u64)| entries.get(&mark.0).is_some_and(|known| known.generation == mark.1);
            self.order.retain(current);
            self.ended.retain(current);
        }
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Known> {
        self.entries.get(&pid)
    }

    /// Notes that a process was reported on the strength of `/proc` alone.
    pub(crate) fn mark_found(&mut self, pid: u32) {
        if let Some(known) = self.entries.get_mut(&pid) {
            known.found = true;
        }
    }

    /// True, once, when this exec was reported already because `/proc` showed it before its record came.
    pub(crate) fn was_found(&mut self, process: &Process) -> bool {
        let Some(known) = self.entries.get_mut(&process.pid).filter(|known| known.found) else {
            return false;
        };
        known.found = false;
        (known.executable.is_empty() || *known.executable == *process.executable) && known.runs(process)
    }

    /// Marks a process as ended and returns it, unless that was known already.
    pub(crate) fn exit(&mut self, pid: u32) -> Option<&Known> {
        let known = self.entries.get_mut(&pid).filter(|known| !known.exited)?;
        known.exited = true;
        self.ended.push_back((pid, known.generation));
        Some(known)
    }

    /// Ids of the processes believed to be running.
    pub(crate) fn running(&self) -> Vec<u32> {
        self.entries.iter().filter(|(_, known)| !known.exited).map(|(pid, _)| *pid).collect()
    }

    /// The process as its children see it.
    pub(crate) fn ancestor(&self, pid: u32) -> Option<Ancestor> {
        self.entries.get(&pid).map(|known| Ancestor {
            pid,
            executable: Arc::clone(&known.executable),
            command_line: Arc::clone(&known.command_line),
        })
    }

    /// Processes in the table, running and ended.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Processes that had to leave for want of room.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process(pid: u32, exe: &str) -> Process {
        Process { pid, executable: exe.into(), argv: vec![exe.into()], ..Process::default() }
    }

    #[test]
    fn ended_processes_leave_first() {
        let mut table = ProcessTable::new(2);
        table.insert(&process(1, "/init"), 0, None, false);
        table.insert(&process(2, "/sh"), 1, None, true);
        assert!(table.exit(2).is_some_and(|known| known.reported));
        assert!(table.exit(2).is_none());
        assert_eq!(*table.ancestor(2).unwrap().executable, *"/sh");
        table.insert(&process(3, "/ls"), 1, None, true);
        assert!(table.get(1).is_some() && table.get(2).is_none() && table.get(3).is_some());
        assert_eq!(table.evicted(), 1);
    }

    #[test]
    fn a_fork_runs_its_parent_s_program() {
        let mut table = ProcessTable::new(8);
        table.insert(&process(1, "/sh"), 0, None, true);
        table.fork(2, 1);
        let child = table.get(2).unwrap();
        assert!(!child.reported && *child.executable == *"/sh" && child.ppid == 1);
    }

    proptest! {
        #[test]
        fn never_grows_beyond_its_bounds(steps in prop::collection::vec((0u8..3, 1u32..60), 0..400)) {
            let mut table = ProcessTable::new(16);
            for (what, pid) in steps {
                match what {
                    0 => table.insert(&process(pid, "/x"), 1, None, true),
                    1 => table.fork(pid, pid / 2),
                    _ => { table.exit(pid); }
                }
                prop_assert!(table.len() <= 16);
                prop_assert!(table.order.len() <= 33);
                prop_assert!(table.ended.len() <= 16 * 3);
                prop_assert_eq!(table.running().iter().filter(|p| table.get(**p).is_none()).count(), 0);
            }
        }
    }
}
