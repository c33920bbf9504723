//! Records of the programs to events. The layouts are those of `shared.h`, `programs.c` and `entry.c`.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use defender_model::network::Protocol;
use defender_model::process::{ExitReason, Process, ProcessActivity, Source};
use defender_model::text;

use crate::process::connector::wait_status;

const EXECUTABLE: u32 = 1;
const DIRECTORY: u32 = 2;
const ARGUMENTS: u32 = 3;
const EXEC: u32 = 4;
const EXIT: u32 = 5;
const ENTERED: u32 = 6;
const CONFIRMED: u32 = 7;
const FAILED: u32 = 8;
const MODULE: u32 = 9;
const CONNECTION: u32 = 10;
const TRACED: u32 = 11;
const PROGRAM: u32 = 12;
const CREDENTIALS: u32 = 13;

const DELETED: u32 = 1;
const PSEUDO: u32 = 2;
const CUT: u32 = 4;

/// Bytes in front of a part's content.
const PART: usize = 16;
/// Offset of the terminal's name in the head of an exec, after which nothing comes.
const TERMINAL: usize = 56;
/// Offset of the file's name in the confirmation of an exec, after which nothing comes.
const FILE: usize = 32;
/// Offset of the short name of the process in the record of a deed, and of the name of the module or the program, after which nothing
/// comes.
const COMMAND: usize = 24;
const NAME: usize = 40;
/// Offset of the device's address in the record of a connection. The other one comes next, then the ports.
const LOCAL: usize = 40;
/// "Unset" of `auid` and `ses`, and of both where the kernel has no audit.
const UNSET: u32 = u32::MAX;
/// Processes whose head has not come. There are as many as processors, but for those whose head found no room.
const PENDING: usize = 32;
/// Arguments kept of one exec, as for audit.
const ARGUMENT_COUNT: usize = 1 << 16;
/// Argument bytes kept of one exec: more than the programs send.
const ARGUMENT_BYTES: usize = 256 << 10;

/// What a record completes. Times are nanoseconds since boot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Exec {
        time: u64,
        activity: Box<ProcessActivity>,
        ppid: u32,
    },
    /// An exec of which only the system call is known, and not even its arguments unless `called`.
    Entered {
        time: u64,
        activity: Box<ProcessActivity>,
        ppid: u32,
        called: bool,
    },
    Exit {
        time: u64,
        pid: u32,
        reason: ExitReason,
    },
    /// A kernel module was loaded or removed by the process that goes by the short name `command`.
    Module {
        time: u64,
        pid: u32,
        loaded: bool,
        command: Vec<u8>,
        name: String,
    },
    /// The process traces another, of that id; without BTF of one of its threads, as the process knows it.
    Traced {
        time: u64,
        pid: u32,
        command: Vec<u8>,
        target: u32,
    },
    /// It loaded an eBPF program of that name and type (`BPF_PROG_TYPE_` in linux/bpf.h).
    Program {
        time: u64,
        pid: u32,
        command: Vec<u8>,
        name: String,
        kind: u32,
    },
    /// It became root without an exec, and was this user before.
    Credentials {
        time: u64,
        pid: u32,
        command: Vec<u8>,
        uid: u32,
    },
    Connection(Box<Connection>),
}

/// A process connects, accepts, listens or sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) time: u64,
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// Its short name.
    pub(crate) command: Vec<u8>,
    pub(crate) listens: bool,
    pub(crate) protocol: Protocol,
    pub(crate) local: (IpAddr, u16),
    /// Address and port are 0 where there is none, the address also where it is not known.
    pub(crate) remote: (IpAddr, u16),
}

#[derive(Debug, Default)]
struct Pending {
    pid: u32,
    executable: Arc<str>,
    cwd: Arc<str>,
    arguments: Vec<u8>,
    cut: bool,
}

/// Puts records together.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    pending: VecDeque<Pending>,
    /// The latest: mostly the next is the same.
    executable: Named,
    directory: Named,
    /// Room for the arguments of the next.
    room: Vec<u8>,
}

/// Bytes of such room that are kept.
const ROOM: usize = 4096;

/// A path as it came, and as it is said.
#[derive(Debug, Default)]
struct Named {
    names: Vec<u8>,
    flags: u32,
    path: Arc<str>,
}

impl Named {
    fn path(&mut self, names: &[u8], flags: u32) -> Arc<str> {
        if self.names != names || self.flags != flags || names.is_empty() {
            self.names.clear();
            self.names.extend_from_slice(names);
            self.flags = flags;
            self.path = path(names, flags).into();
        }
        Arc::clone(&self.path)
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]))
}

impl Assembler {
    /// Takes one record; returns the event it completes.
    pub(crate) fn push(&mut self, record: &[u8]) -> Option<Told> {
        let (kind, pid) = (half(record, 0)?, half(record, 4)?);
        match kind {
            EXECUTABLE | DIRECTORY | ARGUMENTS | ENTERED => {
                self.part(kind, pid, half(record, 8)?, record.get(PART..)?);
                None
            }
            EXEC => self.exec(pid, record),
            CONFIRMED => self.confirmed(pid, record),
            MODULE | TRACED | PROGRAM | CREDENTIALS => deed(kind, pid, record),
            CONNECTION => connection(pid, record).map(|told| Told::Connection(Box::new(told))),
            FAILED => {
                self.take(pid);
                None
            }
            EXIT => {
                let reason = wait_status(half(record, 16)?);
                Some(Told::Exit { time: long(record, 8)?, pid, reason })
            }
            _ => None,
        }
    }

    fn part(&mut self, kind: u32, pid: u32, flags: u32, content: &[u8]) {
        let known = self.pending.iter().position(|pending| pending.pid == pid);
        let at = match known {
            // The first part of another exec: the head of the last one found no room, or it failed.
            Some(at) if kind == EXECUTABLE || kind == ENTERED => {
                self.pending[at] = Pending { pid, ..Pending::default() };
                at
            }
            Some(at) => at,
            None => {
                if self.pending.len() == PENDING {
                    self.pending.pop_front();
                }
                let arguments = std::mem::take(&mut self.room);
                self.pending.push_back(Pending { pid, arguments, ..Pending::default() });
                self.pending.len() - 1
            }
        };
        let pending = &mut self.pending[at];
        pending.cut |= kind != EXECUTABLE && kind != DIRECTORY && flags & CUT != 0;
        match kind {
            EXECUTABLE => pending.executable = self.executable.path(content, flags),
            DIRECTORY => pending.cwd = self.directory.path(content, flags),
            _ if pending.arguments.len() + content.len() <= ARGUMENT_BYTES => {
                pending.arguments.extend_from_slice(content);
            }
            _ => pending.cut = true,
        }
    }

    fn take(&mut self, pid: u32) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.pid == pid)?;
        self.pending.remove(at)
    }

    fn reuse(&mut self, mut room: Vec<u8>) {
        if room.capacity() <= ROOM {
            room.clear();
            self.room = room;
        }
    }

    /// The kernel says that the exec which this thread called for has succeeded.
    fn confirmed(&mut self, pid: u32, record: &[u8]) -> Option<Told> {
        let entered = self.take(half(record, 8)?);
        let called = entered.is_some();
        let entered = entered.unwrap_or_default();
        let (argv, more) = arguments(&entered.arguments);
        self.reuse(entered.arguments);
        let file = until_nul(record.get(FILE..)?);
        let process = Process {
            pid,
            executable: text::from_bytes(file).into(),
            argv,
            uid: Some(half(record, 24)?),
            gid: Some(half(record, 28)?),
            ..Process::default()
        };
        Some(Told::Entered {
            time: long(record, 16)?,
            activity: ProcessActivity::exec(process, Source::EbpfEntry, entered.cut || more),
            ppid: half(record, 12)?,
            called,
        })
    }

    fn exec(&mut self, pid: u32, record: &[u8]) -> Option<Told> {
        let pending = self.take(pid).unwrap_or_default();
        let id = |at: usize| half(record, at).filter(|id| *id != UNSET);
        let terminal = until_nul(record.get(TERMINAL..)?);
        let (argv, more) = arguments(&pending.arguments);
        let sent = long(record, 24)?;
        let process = Process {
            pid,
            executable: pending.executable,
            argv,
            cwd: (*pending.cwd).into(),
            uid: id(32),
            euid: id(36),
            gid: id(40),
            auid: id(44),
            session: id(48),
            tty: (!terminal.is_empty()).then(|| text::from_bytes(terminal)),
            ..Process::default()
        };
        let truncated =
            half(record, 12)? & CUT != 0 || pending.cut || more || sent != pending.arguments.len() as u64;
        self.reuse(pending.arguments);
        Some(Told::Exec {
            time: long(record, 16)?,
            activity: ProcessActivity::exec(process, Source::Ebpf, truncated),
            ppid: half(record, 8)?,
        })
    }
}

fn deed(kind: u32, pid: u32, record: &[u8]) -> Option<Told> {
    let (what, time) = (half(record, 8)?, long(record, 16)?);
    let command = until_nul(record.get(COMMAND..NAME)?).to_vec();
    let name = || text::from_bytes(until_nul(&record[NAME..]));
    Some(match kind {
        MODULE => Told::Module { time, pid, loaded: what != 0, command, name: name() },
        TRACED => Told::Traced { time, pid, command, target: what },
        PROGRAM => Told::Program { time, pid, command, name: name(), kind: what },
        _ => Told::Credentials { time, pid, command, uid: what },
    })
}

fn connection(pid: u32, record: &[u8]) -> Option<Connection> {
    let address = |at: usize| {
        let bytes: [u8; 16] = record.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).to_canonical())
    };
    let ports = half(record, LOCAL + 32)?;
    Some(Connection {
        time: long(record, 16)?,
        pid,
        parent: half(record, 8)?,
        command: until_nul(record.get(24..LOCAL)?).to_vec(),
        listens: record[13] != 0,
        protocol: Protocol(record[12]),
        local: (address(LOCAL)?, ports as u16),
        // As it is on the wire.
        remote: (address(LOCAL + 16)?, ((ports >> 16) as u16).to_be()),
    })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

/// The names from the file up to the root, each with its NUL, as a path. One whose beginning is not known begins with `.../`.
fn path(names: &[u8], flags: u32) -> String {
    let mut bytes = Vec::with_capacity(names.len() + 16);
    if flags & CUT != 0 {
        bytes.extend_from_slice(b"...");
    }
    for name in names.strip_suffix(&[0]).unwrap_or(names).rsplit(|byte| *byte == 0) {
        bytes.push(b'/');
        bytes.extend_from_slice(name);
    }
    // As the kernel writes it (fs/d_path.c).
    if flags & (DELETED | PSEUDO) != 0 && !names.is_empty() {
        bytes.extend_from_slice(b" (deleted)");
    }
    text::from_vec(bytes)
}

/// The arguments, and whether there are more than are kept.
fn arguments(bytes: &[u8]) -> (Vec<String>, bool) {
    if bytes.is_empty() {
        return (Vec::new(), false);
    }
    let content = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let mut all = content.split(|byte| *byte == 0);
    let kept = all.by_ref().take(ARGUMENT_COUNT).map(text::from_bytes).collect();
    (kept, all.next().is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use defender_model::process::Change;

    use super::*;

    fn part(kind: u32, pid: u32, flags: u32, content: &[u8]) -> Vec<u8> {
        let mut record: Vec<u8> = [kind, pid, flags, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        record.extend_from_slice(content);
        record
    }

    fn head(pid: u32, flags: u32, sent: u64) -> Vec<u8> {
        let mut record = part(EXEC, pid, 7, &[]);
        record[12..16].copy_from_slice(&flags.to_ne_bytes());
        record.extend_from_slice(&99u64.to_ne_bytes());
        record.extend_from_slice(&sent.to_ne_bytes());
        record.extend([1u32, 2, 3, UNSET, 5, 0].iter().flat_map(|word| word.to_ne_bytes()));
        record.extend_from_slice(b"pts0\0");
        record.resize(88, 0);
        record
    }

    #[test]
    fn parts_and_head_are_an_exec() {
        let mut assembler = Assembler::default();
        for record in [
            part(EXECUTABLE, 40, 0, b"true\0bin\0usr\0"),
            part(EXECUTABLE, 41, 0, b"other\0"),
            part(DIRECTORY, 40, 0, b""),
            part(ARGUMENTS, 40, 0, b"true\0\0a"),
            part(ARGUMENTS, 40, 0, b" b\0"),
        ] {
            assert_eq!(assembler.push(&record), None);
        }
        let Some(Told::Exec { time: 99, activity, ppid: 7 }) = assembler.push(&head(40, 0, 10)) else {
            panic!("not an exec");
        };
        assert_eq!(activity.change, Change::Exec { truncated: false });
        let process = activity.process;
        assert_eq!(*process.executable, *"/usr/bin/true");
        assert_eq!((process.argv.join("|"), process.cwd.as_str()), ("true||a b".into(), "/"));
        assert_eq!((process.uid, process.euid, process.gid), (Some(1), Some(2), Some(3)));
        assert_eq!((process.auid, process.session, process.tty.as_deref()), (None, Some(5), Some("pts0")));
        assert_eq!(assembler.pending.len(), 1);
    }

    #[test]
    fn what_is_missing_is_said() {
        let truncated = |assembler: &mut Assembler, flags, sent| match assembler.push(&head(40, flags, sent))
        {
            Some(Told::Exec { activity, .. }) => activity.change == Change::Exec { truncated: true },
            other => panic!("{other:?}"),
        };
        let mut assembler = Assembler::default();
        assert!(truncated(&mut assembler, CUT, 0));
        assert!(truncated(&mut assembler, 0, 8));
        // The head of this one was lost; its arguments are not the next one's.
        assembler.push(&part(ARGUMENTS, 40, 0, b"rm\0"));
        assembler.push(&part(EXECUTABLE, 40, 0, b"ls\0"));
        assert!(!truncated(&mut assembler, 0, 0));
    }

    #[test]
    fn a_call_counts_once_it_is_confirmed() {
        let mut confirmed = part(CONFIRMED, 40, 41, &[]);
        confirmed[12..16].copy_from_slice(&7u32.to_ne_bytes());
        confirmed.extend_from_slice(&99u64.to_ne_bytes());
        confirmed.extend([1000u32, 100].iter().flat_map(|word| word.to_ne_bytes()));
        confirmed.extend_from_slice(b"./run\0");
        let mut assembler = Assembler::default();
        // The first one failed; the second was cut in its last part. Both were called by thread 41 of process 40.
        for record in [
            part(ENTERED, 41, 0, b"old\0"),
            part(ENTERED, 41, 0, b"run\0"),
            part(ARGUMENTS, 41, CUT, b"a b\0"),
        ] {
            assert_eq!(assembler.push(&record), None);
        }
        let Some(Told::Entered { time: 99, activity, ppid: 7, called: true }) = assembler.push(&confirmed)
        else {
            panic!("not an exec");
        };
        assert_eq!(activity.change, Change::Exec { truncated: true });
        let process = activity.process;
        assert_eq!(
            (process.pid, &*process.executable, process.argv.join("|")),
            (40, "./run", "run|a b".into())
        );
        assert_eq!((process.uid, process.gid, process.euid), (Some(1000), Some(100), None));
        // A 32-bit system call has no first part, and does not get that of a call that failed.
        for record in [part(ENTERED, 41, 0, b"mask\0"), part(FAILED, 41, 0, b"")] {
            assert_eq!(assembler.push(&record), None);
        }
        let told = assembler.push(&confirmed);
        let Some(Told::Entered { activity, called: false, .. }) = told else { panic!("{told:?}") };
        assert_eq!(activity.change, Change::Exec { truncated: false });
    }

    #[test]
    fn paths_are_written_as_the_kernel_does() {
        assert_eq!(path(b"x\0tmp\0", DELETED), "/tmp/x (deleted)");
        assert_eq!(path(b"memfd:x\0", PSEUDO | DELETED), "/memfd:x (deleted)");
        assert_eq!(path(b"x\0y\0", CUT), ".../y/x");
        assert_eq!(path(b"", DELETED), "/");
    }

    #[test]
    fn a_module_has_its_process() {
        let mut record = part(MODULE, 40, 1, &99u64.to_ne_bytes());
        record.extend_from_slice(b"kmod\0\0\0\0\0\0\0\0\0\0\0\0dummy\0\0");
        let told = Assembler::default().push(&record);
        let Some(Told::Module { time: 99, pid: 40, loaded: true, command, name }) = told else {
            panic!("{told:?}");
        };
        assert_eq!((&command[..], name.as_str()), (&b"kmod"[..], "dummy"));
    }

    #[test]
    fn deeds_have_their_process() {
        let mut assembler = Assembler::default();
        let mut told = |kind, what, name: &[u8]| {
            let mut record = part(kind, 40, what, &99u64.to_ne_bytes());
            record.extend_from_slice(b"strace\0\0\0\0\0\0\0\0\0\0");
            record.extend_from_slice(name);
            assert_eq!(assembler.push(&record[..39]), None);
            assembler.push(&record).unwrap()
        };
        let (time, pid, command) = (99, 40, b"strace".to_vec());
        let traced = Told::Traced { time, pid, command: command.clone(), target: 7 };
        assert_eq!(told(TRACED, 7, b""), traced);
        let name = "count_calls".into();
        let program = Told::Program { time, pid, command: command.clone(), name, kind: 5 };
        assert_eq!(told(PROGRAM, 5, b"count_calls\0\0\0\0\0"), program);
        let credentials = Told::Credentials { time, pid, command, uid: 1000 };
        assert_eq!(told(CREDENTIALS, 1000, b""), credentials);
    }

    #[test]
    fn a_connection_has_its_ends() {
        let mut record = part(CONNECTION, 40, 7, &99u64.to_ne_bytes());
        (record[12], record[13]) = (6, 0);
        record.extend_from_slice(b"curl\0\0\0\0\0\0\0\0\0\0\0\0");
        record.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        record.extend_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        record.extend_from_slice(&40_000u16.to_ne_bytes());
        record.extend_from_slice(&443u16.to_be_bytes());
        assert_eq!(Assembler::default().push(&record[..72]), None);
        let told = Assembler::default().push(&record);
        let expected = Connection {
            time: 99,
            pid: 40,
            parent: 7,
            command: b"curl".to_vec(),
            listens: false,
            protocol: Protocol::TCP,
            local: ("192.0.2.1".parse().unwrap(), 40_000),
            remote: ("2001:db8::1".parse().unwrap(), 443),
        };
        assert_eq!(told, Some(Told::Connection(Box::new(expected))));
    }

    #[test]
    fn an_end_has_its_status() {
        let mut record = part(EXIT, 40, 5, &[]);
        record.extend_from_slice(&(7u32 << 8).to_ne_bytes());
        record.extend_from_slice(&[0; 4]);
        let told = Assembler::default().push(&record);
        assert!(
            matches!(told, Some(Told::Exit { time: 5, pid: 40, reason: ExitReason::Code(7) })),
            "{told:?}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic(records in prop::collection::vec((0u32..15, 0u32..64, prop::collection::vec(any::<u8>(), 0..120)), 0..80)) {
            let mut assembler = Assembler::default();
            for (kind, pid, content) in records {
                let mut record = part(kind, pid, 0, &[]);
                record.truncate(8);
                record.extend_from_slice(&content);
                let _ = assembler.push(&record);
                prop_assert!(assembler.pending.len() <= PENDING);
            }
        }
    }
}
