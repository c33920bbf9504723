//! Which processes there are: a bounded table that gives every exec its parent, and every exit its program.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use defender_model::process::{Actor, Ancestor, Process, Source};
use defender_model::text::{file_name, truncate};
use defender_model::time::Timestamp;

/// Bytes of a parent's command line that its children carry.
const COMMAND_LINE: usize = 1024;
/// The same for those further up. They may have left the table long ago, and live as long as a descendant does.
const FURTHER_UP: usize = 256;

/// Ended processes kept. A child comes to be judged after its parent's end only by what the source gathers; after that its parent is another.
const ENDED: usize = 512;

/// Longest short name of a process, `TASK_COMM_LEN` (linux/sched.h) less its end.
const SHORT_NAME: usize = 15;

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) ppid: u32,
    /// The process as its children see it, with at most [`Ancestor::LEVELS`] levels.
    pub(crate) image: Arc<Ancestor>,
    pub(crate) uid: Option<u32>,
    euid: Option<u32>,
    pub(crate) auid: Option<u32>,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) started: Option<Timestamp>,
    /// Its exec was reported, so its exit will be.
    pub(crate) reported: bool,
    /// It was found by comparing `/proc` after a loss; the record of its exec may still come.
    found: bool,
    exited: bool,
    /// Its user ids are those it had when its program was started, as the kernel told from inside the call.
    certain: bool,
    generation: u64,
}

impl Known {
    /// The command line is that of the other process, as far as it is kept.
    pub(crate) fn runs(&self, process: &Process) -> bool {
        let line = &*self.image.command_line;
        !line.is_empty() && *line == *truncate(&process.command_line(), COMMAND_LINE)
    }

    /// As the process behind an event.
    pub(crate) fn actor(&self, pid: u32) -> Actor {
        Actor {
            pid,
            executable: Arc::clone(&self.image.executable),
            command_line: Arc::clone(&self.image.command_line),
            uid: self.uid,
            auid: self.auid,
            user: self.user.clone(),
            parent: self.image.parent.clone(),
        }
    }

    /// Its program goes by this short name.
    pub(crate) fn is_called(&self, name: &[u8]) -> bool {
        let program = file_name(&self.image.executable).as_bytes();
        !name.is_empty() && program[..program.len().min(SHORT_NAME)] == *name
    }

    /// Its real user id, where neither that nor the effective one was root's when its program was started. It came by root's since only
    /// if it has a capability for it, or by a fault of the kernel.
    fn unprivileged(&self) -> Option<u32> {
        let root = self.euid? == 0 || self.exited || !self.certain;
        self.uid.filter(|uid| *uid != 0 && !root)
    }

    /// It is remembered for its children's sake only.
    pub(crate) const fn has_ended(&self) -> bool {
        self.exited
    }
}

/// Process ids are numbers of the kernel's choice, one after the other: no key has to keep them apart, as it must names from outside.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32((*byte).into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Processes by id, at most a given number. The latest [`ENDED`] that ended are kept as long as there is room, since their children come to
/// be judged after them; then the longest ended goes first, then the longest known.
#[derive(Debug)]
pub(crate) struct ProcessTable {
    entries: HashMap<u32, Known, BuildHasherDefault<Spread>>,
    order: VecDeque<(u32, u64)>,
    ended: VecDeque<(u32, u64)>,
    /// The latest parent, and what its children show of it: mostly the next has the same.
    shown: Option<(Arc<Ancestor>, Arc<Ancestor>)>,
    capacity: usize,
    generation: u64,
    evicted: u64,
}

impl ProcessTable {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::default(),
            order: VecDeque::new(),
            ended: VecDeque::new(),
            shown: None,
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
        let parent = self.further_up(process.parent.as_ref());
        self.put(
            process.pid,
            Known {
                ppid,
                image: Arc::new(Ancestor {
                    pid: process.pid,
                    executable: Arc::clone(&process.executable),
                    command_line: truncate(&line, COMMAND_LINE).into(),
                    parent,
                }),
                uid: process.uid,
                euid: process.euid,
                auid: process.auid,
                user: process.user.clone(),
                started,
                reported,
                found: false,
                exited: false,
                certain: false,
                generation: 0,
            },
        );
    }

    /// A process that runs the same program as its parent, until it execs.
    pub(crate) fn fork(&mut self, pid: u32, ppid: u32) {
        if let Some(parent) = self.entries.get(&ppid).cloned() {
            let image =
                Ancestor { pid, parent: self.further_up(Some(&parent.image)), ..(*parent.image).clone() };
            let child = Known {
                ppid,
                image: Arc::new(image),
                reported: false,
                found: false,
                exited: false,
                started: None,
                ..parent
            };
            self.put(pid, child);
        }
    }

    /// A parent as its grandchildren see it.
    fn further_up(&mut self, parent: Option<&Arc<Ancestor>>) -> Option<Arc<Ancestor>> {
        let parent = parent?;
        if let Some((_, shown)) = self.shown.as_ref().filter(|(of, _)| Arc::ptr_eq(of, parent)) {
            return Some(Arc::clone(shown));
        }
        let shown = further_up(parent)?;
        self.shown = Some((Arc::clone(parent), Arc::clone(&shown)));
        Some(shown)
    }

    fn put(&mut self, pid: u32, mut known: Known) {
        self.generation += 1;
        known.generation = self.generation;
        self.entries.insert(pid, known);
        self.order.push_back((pid, self.generation));
        while self.entries.len() > self.capacity {
            let Some(oldest) = self.ended.pop_front().or_else(|| self.order.pop_front()) else { break };
            self.evicted += u64::from(self.forget(oldest));
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

    /// The process of this id, if it has not ended.
    pub(crate) fn alive(&self, pid: u32) -> Option<Actor> {
        self.get(pid).filter(|known| !known.exited).map(|known| known.actor(pid))
    }

    /// Notes that a process was reported on the strength of `/proc` alone.
    pub(crate) fn mark_found(&mut self, pid: u32) {
        if let Some(known) = self.entries.get_mut(&pid) {
            known.found = true;
        }
    }

    /// The process runs a program that was started with root's rights, its own or those of a set-user-ID program: it may lay them down for
    /// a while and take them up again.
    #[cfg(ebpf)]
    pub(crate) fn started_as_root(&self, pid: u32) -> bool {
        self.get(pid).is_some_and(|known| !known.exited && known.certain && known.euid == Some(0))
    }

    /// Notes that a process is root now.
    pub(crate) fn is_root(&mut self, pid: u32) {
        if let Some(known) = self.entries.get_mut(&pid) {
            (known.uid, known.euid) = (Some(0), Some(0));
        }
    }

    /// The user a process had been that becomes this program as root, where it is certain that it was not root: told from inside the
    /// calls. A set-user-ID program leaves the real user id as it was, so one that is 0 was set by a call, which needs a privilege that
    /// the process did not get from such a program. What `/proc` shows afterwards may be of a later time: sudo sets its own before
    /// long.
    ///
    /// Puts the program in.
    pub(crate) fn insert_exec(
        &mut self,
        process: &Process,
        ppid: u32,
        time: Timestamp,
        source: Source,
    ) -> Option<(u32, Actor)> {
        let certain = matches!(source, Source::Audit | Source::Ebpf);
        let asked = certain && process.uid == Some(0);
        let from = if asked { self.unprivileged(process.pid, ppid, source == Source::Audit) } else { None };
        self.insert(process, ppid, Some(time), true);
        let known = self.entries.get_mut(&process.pid)?;
        known.certain = certain;
        Some((from?, known.actor(process.pid)))
    }

    /// The real user id that the process had before this exec, where it is certain that it was not privileged: that of its own last
    /// program, or where forks are not told (`by_parent`) that of the parent's.
    ///
    /// A parent that adopted the process says nothing of it: of those that are not root it is the user's service manager that does.
    fn unprivileged(&self, pid: u32, ppid: u32, by_parent: bool) -> Option<u32> {
        match self.entries.get(&pid).filter(|known| !known.exited) {
            // Another parent than before, and not the one that orphans get: another process may have the id since.
            Some(known) if known.ppid == ppid || ppid == 1 => known.unprivileged(),
            Some(_) => None,
            None => {
                let parent = self.entries.get(&ppid).filter(|_| by_parent)?;
                if parent.image.executable.ends_with("/systemd") {
                    return None;
                }
                parent.unprivileged()
            }
        }
    }

    /// True, once, when this exec was reported already because `/proc` showed it before its record came.
    pub(crate) fn was_found(&mut self, process: &Process, source: Source) -> bool {
        let Some(known) = self.entries.get_mut(&process.pid).filter(|known| known.found) else {
            return false;
        };
        known.found = false;
        // Of one that is gone since, the file is not known, or by the name that was asked for.
        let names = [&known.image.executable, &process.executable];
        let unnamed = names.iter().any(|name| name.is_empty()) || source == Source::EbpfEntry;
        (unnamed || known.image.executable == process.executable) && known.runs(process)
    }

    /// True when it was there.
    fn forget(&mut self, (pid, generation): (u32, u64)) -> bool {
        let there = self.entries.get(&pid).is_some_and(|known| known.generation == generation);
        there && self.entries.remove(&pid).is_some()
    }

    /// Marks a process as ended and returns it, unless that was known already.
    pub(crate) fn exit(&mut self, pid: u32) -> Option<&Known> {
        if self.ended.len() >= ENDED {
            if let Some(oldest) = self.ended.pop_front() {
                self.forget(oldest);
            }
        }
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
    pub(crate) fn ancestor(&self, pid: u32) -> Option<Arc<Ancestor>> {
        self.entries.get(&pid).map(|known| Arc::clone(&known.image))
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

/// A parent as its grandchildren see it. Mostly the very same object: only a long command line or a long chain is copied.
fn further_up(parent: &Arc<Ancestor>) -> Option<Arc<Ancestor>> {
    let line = truncate(&parent.command_line, FURTHER_UP);
    if line.len() == parent.command_line.len() {
        return bounded(parent, Ancestor::LEVELS - 1);
    }
    Some(Arc::new(Ancestor {
        pid: parent.pid,
        executable: Arc::clone(&parent.executable),
        command_line: line.into(),
        parent: parent.parent.as_ref().and_then(|above| bounded(above, Ancestor::LEVELS - 2)),
    }))
}

/// The chain cut to that many levels.
fn bounded(ancestor: &Arc<Ancestor>, levels: usize) -> Option<Arc<Ancestor>> {
    if levels == 0 || ancestor.chain().count() <= levels {
        return (levels > 0).then(|| Arc::clone(ancestor));
    }
    let parent = ancestor.parent.as_ref().and_then(|above| bounded(above, levels - 1));
    Some(Arc::new(Ancestor { parent, ..(**ancestor).clone() }))
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
        assert!(!child.reported && *child.image.executable == *"/sh" && child.ppid == 1);
        let pids: Vec<_> = child.image.chain().map(|ancestor| ancestor.pid).collect();
        assert_eq!(pids, [2, 1]);
    }

    /// Each process is started by the one before; all but the last are forgotten.
    #[test]
    fn a_chain_of_ancestors_has_its_bound() {
        let mut table = ProcessTable::new(2);
        let long = "x".repeat(2 * COMMAND_LINE);
        for pid in 1..=20 {
            let argv = vec![if pid == 18 { long.clone() } else { pid.to_string() }];
            let parent = table.ancestor(pid - 1);
            table.insert(&Process { argv, parent, ..process(pid, "/sh") }, pid - 1, None, true);
            table.exit(pid);
        }
        let nearest = table.ancestor(20).unwrap();
        let chain: Vec<_> = core::iter::successors(Some(&*nearest), |one| one.parent.as_deref()).collect();
        let pids: Vec<_> = chain.iter().map(|ancestor| ancestor.pid).collect();
        assert_eq!(pids, [20, 19, 18, 17, 16, 15, 14, 13]);
        assert_eq!(chain[2].command_line.len(), FURTHER_UP);
    }

    #[test]
    fn siblings_share_their_chain() {
        let mut table = ProcessTable::new(8);
        table.insert(&process(1, "/init"), 0, None, false);
        for pid in 2..4 {
            table.insert(&Process { parent: table.ancestor(1), ..process(pid, "/sh") }, 1, None, true);
        }
        let parent = |pid| table.ancestor(pid).unwrap().parent.clone().unwrap();
        assert!(Arc::ptr_eq(&parent(2), &parent(3)));
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
