//! Polling `/proc`: the last resort. What lives shorter than the interval is not seen.

use std::collections::HashMap;
use std::path::Path;

use super::procfs::{self, Entry};

/// A process that was just forked often execs a moment later: its command line is compared for this many rounds.
const YOUNG: u8 = 3;

/// What a round found.
#[derive(Debug)]
pub(crate) enum Found {
    /// A process that was not there, or became another program.
    Exec(Box<Entry>),
    /// A new process that runs its parent's program so far.
    Fork { pid: u32, parent: u32 },
    /// A process that is gone.
    Exit { pid: u32 },
}

#[derive(Debug)]
struct Seen {
    start: u64,
    argv: Vec<String>,
    age: u8,
    round: u64,
}

/// What the last round saw.
#[derive(Debug, Default)]
pub(crate) struct Poller {
    seen: HashMap<u32, Seen>,
    round: u64,
}

impl Poller {
    /// A poller that takes what runs now for known.
    pub(crate) fn new(proc: &Path) -> Self {
        let mut this = Self::default();
        this.round(proc, &mut Vec::new());
        for seen in this.seen.values_mut() {
            seen.age = YOUNG;
        }
        this
    }

    /// Compares `/proc` with the last round.
    pub(crate) fn round(&mut self, proc: &Path, found: &mut Vec<Found>) {
        self.round += 1;
        for pid in procfs::pids(proc) {
            let Some(stat) = procfs::read_stat(proc, pid) else { continue };
            match self.seen.get_mut(&pid).filter(|seen| seen.start == stat.start) {
                Some(seen) => {
                    seen.round = self.round;
                    if seen.age >= YOUNG {
                        continue;
                    }
                    seen.age += 1;
                    let Some(entry) = procfs::read(proc, pid) else { continue };
                    if entry.process.argv != seen.argv {
                        seen.argv.clone_from(&entry.process.argv);
                        found.push(Found::Exec(Box::new(entry)));
                    }
                }
                None => {
                    let Some(entry) = procfs::read(proc, pid) else { continue };
                    let argv = entry.process.argv.clone();
                    let forked = self.seen.get(&entry.ppid).is_some_and(|parent| parent.argv == argv);
                    self.seen.insert(pid, Seen { start: stat.start, argv, age: 0, round: self.round });
                    found.push(if forked {
                        Found::Fork { pid, parent: entry.ppid }
                    } else {
                        Found::Exec(Box::new(entry))
                    });
                }
            }
        }
        let round = self.round;
        self.seen.retain(|pid, seen| {
            if seen.round != round {
                found.push(Found::Exit { pid: *pid });
            }
            seen.round == round
        });
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn sees_a_process_come_and_go() {
        let proc = Path::new("/proc");
        let mut poller = Poller::new(proc);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut found = Vec::new();
        // The child may be seen between its fork and its exec; then the exec is found in the next round.
        for _ in 0..50 {
            poller.round(proc, &mut found);
            if found.iter().any(|f| matches!(f, Found::Exec(e) if e.process.argv == ["sleep", "60"])) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(found.iter().any(|f| matches!(f, Found::Exec(e) if e.process.pid == child.id())));
        child.kill().unwrap();
        child.wait().unwrap();
        found.clear();
        poller.round(proc, &mut found);
        assert!(found.iter().any(|f| matches!(f, Found::Exit { pid } if *pid == child.id())));
    }
}
