//! Confinement: the agent gives up what it does not need before it looks at anything an attacker can write.
//!
//! [`Confinement::apply`] does the same whether systemd or a BusyBox init started the agent. It never fails as a whole: a
//! guard that does not start guards nothing, so every measure is taken as far as the kernel allows, and [`Report`] says for
//! each whether it is in force, and why not.
//!
//! | Module | Holds |
//! |---|---|
//! | [`identity`] | user, group and supplementary groups from `/etc/passwd` and `/etc/group`, and becoming them |
//! | [`capabilities`] | the capability sets of the agent and of its children |
//! | [`landlock`] | which files may be read, written and executed |
//! | [`seccomp`] | which system calls fail; the BPF program is assembled here for every architecture we build for |
//! | [`report`] | what is in force, what is not, and why |
//! | [`lock`] | one agent per device |
//!
//! Capabilities, Landlock and `no_new_privs` belong to a thread: call [`Confinement::apply`] before the first thread or
//! runtime starts. What it does cannot be undone.

pub mod capabilities;
pub mod identity;
mod interpreter;
pub mod landlock;
pub mod lock;
pub mod report;
pub mod seccomp;
mod status;
mod sys;

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use caps::Capability;
pub use report::{Entry, Measure, Report, State};

use identity::Identity;
use status::StatusFile;

/// Whether a measure is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    /// Take the measure, with these parameters.
    On(T),
    /// Do not, and report this reason.
    Off(String),
}

/// What the agent keeps. Everything else is given up by [`Confinement::apply`].
#[derive(Clone, Debug)]
pub struct Confinement {
    /// Where `etc/passwd` and `etc/group` are looked up; `/` on a device.
    pub root: PathBuf,
    /// The user to run as, by name. Only root can change to it.
    pub user: String,
    /// What the agent itself may do: its permitted and effective sets.
    pub capabilities: Vec<Capability>,
    /// What programs it starts may do: the ambient, inheritable and bounding sets. Those not in
    /// [`Confinement::capabilities`] are ignored: a child never gets more than its parent.
    pub child_capabilities: Vec<Capability>,
    /// File access.
    pub landlock: Setting<landlock::Paths>,
    /// System calls.
    pub seccomp: Setting<()>,
}

impl Confinement {
    /// Takes every measure, in the order in which one permits the next, and checks against `/proc/self/status` what came of
    /// it.
    ///
    /// Started as root, it becomes [`Confinement::user`]; where that user does not exist the agent goes on as root, with no
    /// capability beyond those wanted, and says so. Started as anybody else, it keeps of the wanted capabilities those it
    /// was given. A caller that would rather stop than go on as root asks [`identity::lookup`] first.
    ///
    /// Side effects worth knowing: the umask becomes 0027; `/proc/self` files of mode 0600 or 0400 (`environ`, `io`, `mem`)
    /// become unreadable, and `oom_score_adj` unwritable, as they belong to root from now on (proc(5), `PR_SET_DUMPABLE`),
    /// so what the agent wants of them it takes before.
    pub fn apply(&self) -> Report {
        let mut report = Report::default();
        // Opened now: Landlock may leave /proc out.
        let status = StatusFile::open();

        report.push(threads(&status));
        let identity = identity::lookup(&self.root, &self.user);
        let became = self.become_user(identity, &mut report);
        let kept = capabilities::restrict(&self.capabilities, &self.child_capabilities);
        report.push(kept.entry(&self.capabilities));
        report.push(kept.bounding_entry());

        report.push(no_new_privileges());
        report.push(core_dumps());
        // After the change of user, which sets the flag anew (prctl(2)).
        report.push(undumpable());
        report.push(file_mode());

        report.push(match &self.landlock {
            Setting::On(paths) => landlock::restrict(paths),
            Setting::Off(reason) => Entry::new(Measure::Landlock, State::Off, reason.clone()),
        });
        // Last: the other measures need system calls that it denies to nobody yet, but a later table might.
        report.push(match &self.seccomp {
            Setting::On(()) => seccomp::restrict(),
            Setting::Off(reason) => Entry::new(Measure::Seccomp, State::Off, reason.clone()),
        });

        verify(&mut report, &status, became.as_ref(), &kept);
        report
    }

    /// Becomes the user if it may; returns it if it is now that user.
    fn become_user(&self, wanted: Result<Identity, Error>, report: &mut Report) -> Option<Identity> {
        let uid = sys::effective_uid();
        let (state, reason, became) = match wanted {
            Ok(identity) if uid == 0 => match identity.assume() {
                Ok(()) => (State::InForce, identity.to_string(), Some(identity)),
                Err(error) => (State::Missing, format!("still uid {}: {error}", sys::effective_uid()), None),
            },
            Ok(identity) if uid == identity.uid => (State::InForce, identity.to_string(), None),
            Ok(identity) => (
                State::Partial,
                format!("started as uid {uid}, not as {identity}; only root can change that"),
                None,
            ),
            Err(error) if uid == 0 => (
                State::Missing,
                format!("still root, without capabilities beyond those wanted: {error}"),
                None,
            ),
            Err(error) => {
                (State::Partial, format!("started as uid {uid}, which is not root, but {error}"), None)
            }
        };
        report.push(Entry::new(Measure::User, state, reason));
        became
    }
}

fn threads(status: &StatusFile) -> Entry {
    match status.read().map(|s| s.threads) {
        Ok(Some(1)) => Entry::new(Measure::Threads, State::InForce, "one thread when confined".into()),
        Ok(Some(n)) => Entry::new(
            Measure::Threads,
            State::Partial,
            format!(
                "{n} threads were running: capabilities and Landlock hold for the calling one and those it starts; \
                 confine before any thread is started"
            ),
        ),
        Ok(None) => Entry::new(Measure::Threads, State::Partial, "/proc/self/status has no line Threads".into()),
        Err(error) => Entry::new(Measure::Threads, State::Partial, format!("/proc/self/status: {error}")),
    }
}

fn no_new_privileges() -> Entry {
    match sys::set_no_new_privileges() {
        Ok(()) => Entry::new(Measure::NoNewPrivileges, State::InForce, "inherited by every child".into()),
        Err(error) => {
            Entry::new(Measure::NoNewPrivileges, State::Missing, format!("PR_SET_NO_NEW_PRIVS: {error}"))
        }
    }
}

fn undumpable() -> Entry {
    match sys::set_undumpable() {
        Ok(()) => {
            Entry::new(Measure::Undumpable, State::InForce, "no process of the same user may trace it".into())
        }
        Err(error) => Entry::new(Measure::Undumpable, State::Missing, format!("PR_SET_DUMPABLE 0: {error}")),
    }
}

fn core_dumps() -> Entry {
    match sys::forbid_core_dumps() {
        Ok(()) => Entry::new(Measure::CoreDumps, State::InForce, "limit 0, inherited by every child".into()),
        // systemd's @resources covers prlimit64(2); the unit may have set the limit itself.
        Err(error) => match std::fs::read("/proc/self/limits") {
            Ok(limits) if status::core_limit_is_zero(&limits) => {
                Entry::new(Measure::CoreDumps, State::InForce, "limit 0, set by who started the agent".into())
            }
            _ => Entry::new(
                Measure::CoreDumps,
                State::Missing,
                format!("setrlimit RLIMIT_CORE 0: {error}; under systemd set LimitCORE=0"),
            ),
        },
    }
}

fn file_mode() -> Entry {
    sys::set_umask(0o027);
    Entry::new(Measure::Umask, State::InForce, "0027".into())
}

/// Contradicts what the calls promised where `/proc/self/status` says otherwise.
fn verify(report: &mut Report, file: &StatusFile, became: Option<&Identity>, kept: &capabilities::Kept) {
    let status = match file.read() {
        Ok(status) => status,
        Err(error) => {
            report.contradict(
                Measure::Threads,
                &format!("nothing could be verified: /proc/self/status: {error}"),
            );
            return;
        }
    };
    if let Some(identity) = became {
        if status.uids != Some([identity.uid; 4]) || status.gids != Some([identity.gid; 4]) {
            report.contradict(
                Measure::User,
                &format!("the kernel reports uids {:?} and gids {:?}", status.uids, status.gids),
            );
        }
    }
    for (set, found, wanted) in [
        ("permitted", status.permitted, kept.own),
        ("effective", status.effective, kept.own),
        ("inheritable", status.inheritable, kept.children),
        // Linux before 4.3 has no such line.
        ("ambient", status.ambient.or(Some(0)), kept.children),
    ] {
        if found != Some(wanted) {
            let found = found.map_or_else(|| "nothing".into(), capabilities::names);
            report.contradict(
                Measure::Capabilities,
                &format!("the kernel reports {found} as {set}, not {}", capabilities::names(wanted)),
            );
        }
    }
    // Linux before 4.10 has no such line.
    if status.no_new_privileges == Some(false) {
        report.contradict(Measure::NoNewPrivileges, "the kernel reports NoNewPrivs 0");
    }
    // SECCOMP_MODE_FILTER is 2 (linux/seccomp.h). The line is missing only where seccomp is.
    if report.state(Measure::Seccomp) == Some(State::InForce) && status.seccomp != Some(2) {
        report.contradict(Measure::Seccomp, &format!("the kernel reports mode {:?}", status.seccomp));
    }
}

/// What can go wrong around confinement.
#[derive(Debug)]
pub enum Error {
    /// A file could not be opened, read or written.
    File {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No such user.
    NoUser {
        /// The name looked for.
        user: String,
        /// The file it should be in.
        path: PathBuf,
    },
    /// The user's line has no usable user or group number.
    BadUser {
        /// The name looked for.
        user: String,
        /// The file it is in.
        path: PathBuf,
        /// What is wrong with the line.
        reason: &'static str,
    },
    /// A system call of the change of user failed.
    Assume {
        /// Which one.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another agent holds the pid lock.
    Running {
        /// The lock's file.
        path: PathBuf,
        /// The process that holds it, as far as the file says.
        pid: Option<u32>,
    },
    /// The pid lock's path is taken by something that is not a lock file.
    NotALockFile {
        /// The lock's file.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::NoUser { user, path } => {
                write!(
                    f,
                    "no user {user} in {}; add it to the image (system account, no login)",
                    path.display()
                )
            }
            Self::BadUser { user, path, reason } => write!(f, "user {user} in {}: {reason}", path.display()),
            Self::Assume { call, source } => write!(f, "{call}: {source}"),
            Self::Running { path, pid: Some(pid) } => {
                write!(
                    f,
                    "another agent is running as process {pid} (it holds {}); stop that one first",
                    path.display()
                )
            }
            Self::Running { path, pid: None } => {
                write!(f, "another agent is running (it holds {}); stop that one first", path.display())
            }
            Self::NotALockFile { path, reason } => {
                write!(f, "{}: {reason}; not touched, remove it", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Assume { source, .. } => Some(source),
            _ => None,
        }
    }
}
