//! What processes do beyond starting and ending: they trace others, load eBPF programs, become root.

use std::time::Instant;

use defender_model::event::{Event, EventKind};
use defender_model::kernel::{ModuleActivity, ProgramType};
use defender_model::process::{Actor, Deed, ProcessDeed, Source};
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

/// What tells one deed from another: who did it, and two numbers of what it was.
type Key = [u32; 3];

/// What was told last, and how much may be.
pub(super) struct Deeds {
    budget: Budget,
    last: Option<(Timestamp, Key)>,
}

impl Default for Deeds {
    fn default() -> Self {
        Self { budget: Budget::new(EVENTS_PER_SECOND, Instant::now()), last: None }
    }
}

impl ProcessSensor {
    /// The process attached itself to `target`, a process or one of its threads.
    pub(super) fn told_traced(
        &mut self,
        time: Timestamp,
        process: Actor,
        target: u32,
        source: Source,
        out: &mut Vec<Observation>,
    ) {
        let target = self.target(target).unwrap_or_else(|| Actor { pid: target, ..Actor::default() });
        let same = [process.pid, target.pid, 1];
        let deed = Deed::Traced(target);
        self.did(time, same, ProcessDeed { deed, process, source }.into(), out);
    }

    /// The process of this id, or that of the thread.
    fn target(&mut self, pid: u32) -> Option<Actor> {
        if let Some(known) = self.table().alive(pid) {
            return Some(known);
        }
        let pid = procfs::leader(&self.settings.proc, pid)?;
        self.adopt(pid, ANCESTORS);
        if let Some(known) = self.table().alive(pid) {
            return Some(known);
        }
        // It forked, and has the id of one that ended.
        let process = procfs::read(&self.settings.proc, pid)?.process;
        Some(Actor { pid, executable: process.executable, uid: process.uid, ..Actor::default() })
    }

    /// The process loaded an eBPF program: its name and its `BPF_PROG_TYPE`, 0 where that is not known. What the agent itself loads is not
    /// told.
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
        // Names are short, and told again after a while: a number that mostly differs will do.
        let named = name.bytes().fold(2u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let same = [process.pid, kind, named];
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
        if self.table().started_as_root(pid) {
            return;
        }
        let process = self.directory().of_stream(pid, command);
        self.told_root(time, process, from_uid, source, out);
    }

    pub(super) fn told_root(
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
        let same = [process.pid, from, 0];
        let deed = Deed::BecameRoot { from };
        self.did(time, same, ProcessDeed { deed, process, source }.into(), out);
    }

    /// Tells it, unless it was told just now or too much is.
    fn did(&mut self, time: Timestamp, same: Key, kind: EventKind, out: &mut Vec<Observation>) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use defender_model::process::{Process, ProcessActivity};

    use crate::process::{Preference, Settings};

    fn sensor() -> ProcessSensor {
        ProcessSensor::open(Settings {
            connections: true,
            preference: Preference::Poll,
            exits: true,
            poll_interval: Duration::from_secs(1),
            table_capacity: 64,
            receive_buffer: 4096,
            audit_backlog_limit: 64,
            audit_backlog_wait: 1,
            proc: "/nowhere".into(),
            btf: "/nowhere".into(),
            upgrade_interval: super::super::UPGRADE,
            passwd: "/nowhere".into(),
            machine: "x86_64".into(),
            watched: Vec::new(),
            clock: || Timestamp(1),
        })
    }

    /// A process id, its parent's, its real and effective user ids, and its program.
    type Start = (u32, u32, u32, u32, &'static str);

    /// Who became root from which user, as these starts are told one after the other.
    fn roots(source: Source, starts: &[Start]) -> Vec<(u32, u32)> {
        let mut sensor = sensor();
        let mut out = Vec::new();
        for (number, (pid, ppid, uid, euid, executable)) in starts.iter().enumerate() {
            let process = Process {
                pid: *pid,
                uid: Some(*uid),
                euid: Some(*euid),
                executable: (*executable).into(),
                argv: vec![(*executable).to_owned()],
                ..Process::default()
            };
            let activity = ProcessActivity::exec(process, source, false);
            sensor.exec(activity, *ppid, Timestamp(number as i64), &mut out);
        }
        let root = |observation| match observation {
            Observation::Event(Event { kind: EventKind::Deed(done), .. }) => match done.deed {
                Deed::BecameRoot { from } => {
                    assert_eq!((done.process.uid, done.source), (Some(0), source));
                    Some((done.process.pid, from))
                }
                Deed::Traced(_) => None,
            },
            _ => None,
        };
        out.into_iter().filter_map(root).collect()
    }

    const SHELL: Start = (70, 60, 1000, 1000, "/bin/sh");

    #[test]
    fn a_program_as_root_after_one_as_a_user_is_told_once() {
        let starts = [SHELL, (70, 60, 0, 0, "/bin/sh"), (70, 60, 0, 0, "/bin/id"), (71, 70, 0, 0, "/bin/id")];
        assert_eq!(roots(Source::Audit, &starts), [(70, 1000)]);
        assert_eq!(roots(Source::Ebpf, &starts), [(70, 1000)]);
        // What comes from /proc may be older or newer than the start.
        for source in [Source::EbpfEntry, Source::Connector, Source::Poll, Source::Snapshot] {
            assert_eq!(roots(source, &starts), [], "{source}");
        }
        // It forked, became root and started a program: audit tells of the last only.
        assert_eq!(roots(Source::Audit, &[SHELL, (71, 70, 0, 0, "/bin/id")]), [(71, 1000)]);
        // A file with the capability to set user ids is no set-user-ID program, and is told.
        let capable = [SHELL, (71, 70, 1000, 1000, "/usr/bin/python3"), (71, 70, 0, 0, "/bin/sh")];
        assert_eq!(roots(Source::Audit, &capable), [(71, 1000)]);
        // Its parent ended meanwhile.
        assert_eq!(roots(Source::Audit, &[SHELL, (70, 1, 0, 0, "/bin/id")]), [(70, 1000)]);
    }

    #[test]
    fn who_becomes_root_as_one_should_is_not_told() {
        let ways: [&[Start]; 8] = [
            // sudo and su: set-user-ID, then a program in the same process, or in a child.
            &[SHELL, (70, 60, 1000, 0, "/usr/bin/sudo"), (70, 60, 0, 0, "/bin/id")],
            &[SHELL, (71, 70, 1000, 0, "/bin/su"), (72, 71, 0, 0, "/bin/sh"), (73, 72, 0, 0, "/bin/id")],
            // D-Bus starts a service for root: its helper is set-user-ID.
            &[
                (50, 1, 101, 101, "/usr/bin/dbus-daemon"),
                (51, 50, 101, 0, "/usr/libexec/helper"),
                (51, 50, 0, 0, "/usr/sbin/d"),
            ],
            // sshd, login, cron: root that becomes a user.
            &[
                (50, 1, 0, 0, "/usr/sbin/sshd"),
                (60, 50, 0, 0, "/usr/sbin/sshd-session"),
                (70, 60, 1000, 1000, "/bin/sh"),
            ],
            // systemd starts the services of users and of root.
            &[
                (1, 0, 0, 0, "/lib/systemd/systemd"),
                (50, 1, 1000, 1000, "/usr/bin/a"),
                (51, 1, 0, 0, "/usr/bin/b"),
            ],
            // A daemon of root's whose parent ended is given to a user's service manager.
            &[(50, 1, 1000, 1000, "/usr/lib/systemd/systemd"), (71, 50, 0, 0, "/usr/sbin/daemon")],
            // In a user namespace the user is root in name only: the kernel tells of the one outside.
            &[SHELL, (71, 70, 1000, 1000, "/usr/bin/unshare"), (71, 70, 1000, 1000, "/bin/sh")],
            // Another process has the id since.
            &[SHELL, (70, 50, 0, 0, "/bin/id")],
        ];
        for starts in ways {
            for source in [Source::Audit, Source::Ebpf] {
                assert_eq!(roots(source, starts), [], "{starts:?}");
            }
        }
        // Where forks are told, the parent has nothing to say.
        assert_eq!(roots(Source::Ebpf, &[SHELL, (71, 70, 0, 0, "/bin/id")]), []);
    }

    #[cfg(ebpf)]
    #[test]
    fn a_set_user_id_program_may_lay_its_rights_down_and_take_them_up() {
        let mut sensor = sensor();
        let mut out = Vec::new();
        let start = |pid, euid| {
            let process = Process { pid, uid: Some(1000), euid: Some(euid), ..Process::default() };
            ProcessActivity::exec(process, Source::Ebpf, false)
        };
        sensor.exec(start(70, 0), 60, Timestamp(1), &mut out);
        sensor.exec(start(71, 1000), 60, Timestamp(1), &mut out);
        out.clear();
        for (pid, told) in [(70, 0), (71, 1), (71, 1), (72, 2)] {
            sensor.became_root(Timestamp(2), pid, b"x", 1000, Source::Ebpf, &mut out);
            assert_eq!(out.len(), told, "{pid}");
        }
    }

    #[test]
    fn what_has_ended_says_nothing_of_who_has_its_id() {
        let mut sensor = sensor();
        let mut out = Vec::new();
        let start = |pid, uid| {
            let process = Process { pid, uid: Some(uid), euid: Some(uid), ..Process::default() };
            ProcessActivity::exec(process, Source::Audit, false)
        };
        sensor.exec(start(70, 1000), 60, Timestamp(1), &mut out);
        sensor.table().exit(70);
        sensor.exec(start(70, 0), 60, Timestamp(2), &mut out);
        assert!(out
            .iter()
            .all(|told| !matches!(told, Observation::Event(Event { kind: EventKind::Deed(_), .. }))));
    }

    #[test]
    fn the_same_again_and_too_much_are_counted_and_not_told() {
        let mut sensor = sensor();
        let mut out = Vec::new();
        let by = |pid| Actor { pid, ..Actor::default() };
        for time in [0, 1000, 9999, 10_000] {
            sensor.told_traced(Timestamp(time), by(7), 8, Source::Audit, &mut out);
        }
        assert_eq!(out.len(), 2);
        sensor.told_program(Timestamp(0), by(std::process::id()), "own".into(), 2, &mut out);
        assert_eq!(out.len(), 2);
        for pid in 1000..1200 {
            sensor.told_program(Timestamp(0), by(pid), "probe".into(), 2, &mut out);
        }
        let told = out.len() as u64;
        assert!((100..200).contains(&told), "{told}");
        let balance = sensor.status.lock().unwrap().balance;
        assert_eq!((balance.produced, balance.aggregated), (204, 2));
        assert_eq!((balance.delivered, balance.over_bound), (told, 202 - told));
    }
}
