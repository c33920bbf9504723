//! Programs started and ended, and what a process did that is neither.

use std::sync::Arc;

use crate::text::file_name;
use crate::time::Timestamp;

/// A process as a sensor saw it. Text fields are empty where the source could not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Absolute path of the executable file as the kernel resolved it.
    pub executable: Arc<str>,
    /// Argument vector, `argv[0]` first.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Real user id.
    pub uid: Option<u32>,
    /// Effective user id.
    pub euid: Option<u32>,
    /// Real group id.
    pub gid: Option<u32>,
    /// Audit login user id: who logged in, kept through `su` and `sudo`. `None` when unset (4294967295).
    pub auid: Option<u32>,
    /// Name of the real user, where the account database knows it.
    pub user: Option<Arc<str>>,
    /// Audit session id. `None` when unset.
    pub session: Option<u32>,
    /// Controlling terminal, such as `pts0`; `None` without one.
    pub tty: Option<String>,
    /// The process that started this one, and through it those further up.
    pub parent: Option<Arc<Ancestor>>,
}

impl Process {
    /// The argument vector joined by single spaces: Sigma's `CommandLine`, OCSF's `cmd_line`.
    #[must_use]
    pub fn command_line(&self) -> String {
        self.argv.join(" ")
    }

    /// Last component of the executable's path.
    #[must_use]
    pub fn name(&self) -> &str {
        file_name(&self.executable)
    }
}

/// What is kept of a parent process: enough for a rule to judge the child by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Absolute path of its executable; empty when unknown.
    pub executable: Arc<str>,
    /// Its arguments joined by spaces, possibly cut to the process table's bound.
    pub command_line: Arc<str>,
    /// The process that had started it, when that is known. Shared: siblings have one chain between them.
    pub parent: Option<Arc<Ancestor>>,
}

impl Ancestor {
    /// Most levels of a chain: what is further up is left out.
    pub const LEVELS: usize = 8;

    /// This process and those above it, nearest first.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        core::iter::successors(Some(self), |ancestor| ancestor.parent.as_deref()).take(Self::LEVELS)
    }
}

/// The process behind an event that is not its start or end: opened a connection, wrote a file. Text is empty where unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Absolute path of its executable.
    pub executable: Arc<str>,
    /// Its arguments joined by spaces, possibly cut to the process table's bound.
    pub command_line: Arc<str>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Audit login user id; `None` when unset.
    pub auid: Option<u32>,
    /// Name of the real user, where the account database knows it.
    pub user: Option<Arc<str>>,
    /// The process that started it, and through it those further up.
    pub parent: Option<Arc<Ancestor>>,
}

/// What a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It became a new program: execve(2), execveat(2).
    Exec {
        /// The `argv` was cut to a bound of the agent's (never by the kernel's own records).
        truncated: bool,
    },
    /// It ended.
    Exit(ExitReason),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// exit(2), exit_group(2) or return from `main`, with the status the parent sees (0 to 255).
    Code(u8),
    /// Killed by this signal.
    Signal(u8),
    /// It is gone and the source does not tell how (a source without exit status, or a missed record).
    Unknown,
}

/// Which kernel interface supplied an event: consumers weigh evidence by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Audit netlink: complete, from inside the system call.
    Audit,
    /// eBPF programs: from inside the kernel, with the arguments as the new program has them.
    Ebpf,
    /// eBPF programs on a kernel without BTF: arguments as execve(2) was called with them, which another thread of the caller could
    /// still change, and only of an exec that succeeded; other details from `/proc` afterwards.
    EbpfEntry,
    /// Proc connector: the kernel tells of the exec, the details are read from `/proc` afterwards.
    Connector,
    /// Polling of `/proc`: short-lived processes are missed.
    Poll,
    /// `/proc` as it stood when the agent started.
    Snapshot,
    /// Read from a recording.
    Replay,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 7] =
        [Self::Audit, Self::Ebpf, Self::EbpfEntry, Self::Connector, Self::Poll, Self::Snapshot, Self::Replay];

    /// It is programs in the kernel: loading them is a privilege of the agent's start.
    #[must_use]
    pub const fn is_loaded(self) -> bool {
        matches!(self, Self::Ebpf | Self::EbpfEntry)
    }

    /// The word used in status, events and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Ebpf => "ebpf",
            Self::EbpfEntry => "ebpf_entry",
            Self::Connector => "connector",
            Self::Poll => "poll",
            Self::Snapshot => "snapshot",
            Self::Replay => "replay",
        }
    }

    /// The source of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

impl core::fmt::Display for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A process started or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessActivity {
    /// The process.
    pub process: Process,
    /// What it did.
    pub change: Change,
    /// Who says so.
    pub source: Source,
    /// When the process was seen to start, for exits.
    pub started: Option<Timestamp>,
}

impl ProcessActivity {
    /// A program that was started.
    #[must_use]
    pub fn exec(process: Process, source: Source, truncated: bool) -> Box<Self> {
        Box::new(Self { process, change: Change::Exec { truncated }, source, started: None })
    }
}

/// What a process did that needs a privilege, or gains one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It attached itself to this process as its debugger: ptrace(2) with `PTRACE_ATTACH` or `PTRACE_SEIZE`.
    Traced(Actor),
    /// Its user id became 0, and it had not started a set-user-ID program.
    BecameRoot {
        /// Real user id before.
        from: u32,
    },
}

/// A process did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessDeed {
    /// What it did.
    pub deed: Deed,
    /// Who did it; of one that became root, as it is now.
    pub process: Actor,
    /// Who says so.
    pub source: Source,
}
