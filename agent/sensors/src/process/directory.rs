//! Who a process id was, for sensors that are told no more than the number.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use defender_model::process::{Actor, Ancestor};
use defender_model::text;

use super::procfs;
use super::table::ProcessTable;

/// The process sensor's table, and `/proc` for what is not in it.
#[derive(Debug, Clone)]
pub struct Directory {
    table: Option<Arc<Mutex<ProcessTable>>>,
    proc: PathBuf,
}

impl Directory {
    pub(super) fn new(table: Arc<Mutex<ProcessTable>>, proc: PathBuf) -> Self {
        Self { table: Some(table), proc }
    }

    /// Where no process sensor runs: what `/proc` (mounted at `proc`) shows is all there is.
    #[must_use]
    pub fn of_proc(proc: PathBuf) -> Self {
        Self { table: None, proc }
    }

    /// The process that the sensor knows by this id, if it goes by this short name. The sensor may hear of the program only after
    /// somebody else heard of its deed, and then knows what had the id before: worth asking again a little later.
    #[must_use]
    pub fn certain(&self, pid: u32, name: &[u8]) -> Option<Actor> {
        let table = self.table.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let known = table.get(pid)?;
        known.is_called(name).then(|| known.actor(pid))
    }

    /// The process of this id, from who tells of its programs in the same order: what the sensor knows is right, unless another has
    /// the id since, which forked.
    #[cfg(ebpf)]
    pub(super) fn of_stream(&self, pid: u32, name: &[u8]) -> Actor {
        let table = self.table.as_ref().map(|table| table.lock().unwrap_or_else(PoisonError::into_inner));
        let known = table.as_ref().and_then(|table| table.get(pid));
        if let Some(known) = known.filter(|known| !known.has_ended() || known.is_called(name)) {
            return known.actor(pid);
        }
        drop(table);
        self.likely(pid, name)
    }

    /// The same, and where nothing certain is known what `/proc` shows, and at last the short name alone.
    #[must_use]
    pub fn likely(&self, pid: u32, name: &[u8]) -> Actor {
        if let Some(actor) = self.certain(pid, name) {
            return actor;
        }
        let mut actor = Actor { pid, executable: text::from_bytes(name).into(), ..Actor::default() };
        let Some(entry) = procfs::read(&self.proc, pid).filter(|entry| entry.name == name) else {
            return actor;
        };
        let process = entry.process;
        if !process.executable.is_empty() {
            actor.executable = Arc::clone(&process.executable);
        }
        let parent = procfs::read(&self.proc, entry.ppid).map(|entry| entry.process);
        Actor {
            command_line: text::truncate(&process.command_line(), 1024).into(),
            uid: process.uid,
            auid: process.auid,
            parent: parent.map(|parent| {
                Arc::new(Ancestor {
                    pid: parent.pid,
                    command_line: text::truncate(&parent.command_line(), 1024).into(),
                    executable: parent.executable,
                    parent: None,
                })
            }),
            ..actor
        }
    }
}

#[cfg(test)]
mod tests {
    use defender_model::process::Process;

    use super::*;

    #[test]
    fn a_process_that_ended_is_known_by_its_program() {
        let mut table = ProcessTable::new(8);
        let process = Process {
            pid: 7,
            executable: "/usr/sbin/a-rather-long-name".into(),
            argv: vec!["a-rather-long-name".into(), "-f".into()],
            ..Process::default()
        };
        table.insert(&process, 1, None, true);
        table.exit(7);
        let directory = Directory::new(Arc::new(Mutex::new(table)), "/nowhere".into());
        let actor = directory.certain(7, b"a-rather-long-n").unwrap();
        assert_eq!(
            (&*actor.executable, &*actor.command_line),
            ("/usr/sbin/a-rather-long-name", "a-rather-long-name -f")
        );
        assert_eq!(directory.certain(7, b"nft"), None, "the id had another program before");
        let unknown = Actor { pid: 7, executable: "nft".into(), ..Actor::default() };
        assert_eq!(directory.likely(7, b"nft"), unknown);
    }

    #[test]
    fn without_a_table_proc_tells() {
        let directory = Directory::of_proc("/proc".into());
        let own = std::process::id();
        let name = std::fs::read_to_string(format!("/proc/{own}/comm")).unwrap();
        let actor = directory.likely(own, name.trim_end().as_bytes());
        assert!(actor.executable.starts_with('/') && !actor.command_line.is_empty(), "{actor:?}");
        assert!(actor.parent.is_some());
    }
}
