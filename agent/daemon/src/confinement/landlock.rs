//! Which files the agent and its children may read, write and execute (landlock(7)), as far as the kernel's Landlock goes.
//!
//! A domain also limits what has no path, and the agent has to know:
//!
//! - A process in a domain may not look into processes outside of it in the ways that need ptrace access, whatever
//!   capabilities it holds: `/proc/PID/exe`, `cwd`, `root`, `fd`, `environ` and `maps` of others are closed; `stat`,
//!   `status`, `cmdline`, `comm` and `loginuid` stay open. A process source that needs the former has to do without
//!   Landlock.
//! - Since ABI 6, signals reach only the own children, and abstract sockets outside cannot be connected to unless
//!   [`Paths::abstract_sockets`] is set. Sockets with a path (D-Bus, syslog, `sd_notify`) are not limited.
//! - Mounting is impossible.
//!
//! Network access is left alone: where events are sent is the product's choice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ::landlock::{
    Access, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, ABI,
};

use super::interpreter;
use super::report::{Entry, Measure, State};

/// The rights asked for, each as far as the kernel knows it. 2 adds linking and renaming between directories, 3 truncation,
/// 5 `ioctl` on devices, 6 signals and abstract sockets. 9, connecting to sockets with a path, is left out: the agent talks
/// to the buses and syslog daemons it finds.
const WANTED: ABI = ABI::V6;

/// What may be reached. A directory stands for everything below it, also what appears there later. A path that does not exist
/// is left out and reported, and stays closed when it appears: name its directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Files and directories to read.
    pub read: Vec<PathBuf>,
    /// Files to write, and directories to create, write, rename and remove files and sockets in. Readable as well. No
    /// device can be made in them and nothing in them be executed.
    pub write: Vec<PathBuf>,
    /// Programs to execute. The loader that a program names is added; its libraries only have to be readable. Whoever may
    /// execute the loader may run any program it may read through it, so this holds off accidents and plain exec, not
    /// code that knows of it.
    pub execute: Vec<PathBuf>,
    /// Leave connecting to abstract sockets outside alone: needed where the system bus or `NOTIFY_SOCKET` has no path.
    pub abstract_sockets: bool,
    /// Signals may be sent to processes outside the domain.
    pub signals: bool,
}

/// Enters a Landlock domain; the caller has set `no_new_privs`.
pub(super) fn restrict(paths: &Paths) -> Entry {
    let mut absent = Vec::new();
    let mut failed = Vec::new();
    let outcome = enter(paths, &mut absent, &mut failed);
    let (state, mut reason) = match outcome {
        Ok(status) => describe(&status),
        Err(error) => (State::Missing, error.to_string()),
    };
    if !absent.is_empty() {
        reason = format!("{reason}; left out, not there: {}", absent.join(" "));
    }
    let mut entry = Entry::new(Measure::Landlock, state, reason);
    if !failed.is_empty() {
        entry.reason = format!("{}; left out: {}", entry.reason, failed.join(", "));
        if entry.state == State::InForce {
            entry.state = State::Partial;
        }
    }
    entry
}

fn enter(
    paths: &Paths,
    absent: &mut Vec<String>,
    failed: &mut Vec<String>,
) -> Result<RestrictionStatus, RulesetError> {
    let mut scopes = BitFlags::EMPTY;
    if !paths.signals {
        scopes |= Scope::Signal;
    }
    if !paths.abstract_sockets {
        scopes |= Scope::AbstractUnixSocket;
    }
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let execute = AccessFs::Execute | AccessFs::ReadFile;
    let programs: Vec<PathBuf> = paths
        .execute
        .iter()
        .flat_map(|program| std::iter::once(program.clone()).chain(interpreter::of(program)))
        .collect();

    let mut wanted = Ruleset::default().handle_access(AccessFs::from_all(WANTED))?;
    // No scope at all, as with the right to kill, is an error for the crate.
    if !scopes.is_empty() {
        wanted = wanted.scope(scopes)?;
    }
    let mut ruleset = wanted.create()?;
    for (paths, access) in [(&paths.read, read), (&paths.write, write), (&programs, execute)] {
        for path in paths {
            match open(path, access) {
                Ok(rule) => ruleset = ruleset.add_rule(rule)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    absent.push(path.display().to_string());
                }
                Err(error) => failed.push(format!("{}: {error}", path.display())),
            }
        }
    }
    ruleset.restrict_self()
}

/// A rule for what is at the path now; rights that only a directory has are dropped for a file.
fn open(path: &Path, access: BitFlags<AccessFs>) -> io::Result<PathBeneath<PathFd>> {
    let is_directory = fs::metadata(path)?.is_dir();
    let fd = PathFd::new(path).map_err(io::Error::other)?;
    let access = if is_directory { access } else { access & AccessFs::from_file(WANTED) };
    Ok(PathBeneath::new(fd, access))
}

fn describe(status: &RestrictionStatus) -> (State, String) {
    let abi = match status.landlock {
        LandlockStatus::NotImplemented => {
            return (State::Missing, "kernel without Landlock (CONFIG_SECURITY_LANDLOCK)".into())
        }
        LandlockStatus::NotEnabled => {
            return (
                State::Missing,
                "Landlock not enabled at boot (kernel parameter lsm=landlock,...)".into(),
            )
        }
        LandlockStatus::Available { effective_abi, kernel_abi } => kernel_abi.unwrap_or(effective_abi as i32),
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => (State::InForce, format!("ABI {abi}")),
        RulesetStatus::NotEnforced => (State::Missing, format!("the kernel's ABI {abi} enforces nothing")),
        RulesetStatus::PartiallyEnforced => {
            let lacks: Vec<&str> = [
                (2, "linking and renaming between directories"),
                (3, "truncation"),
                (5, "ioctl on devices"),
                (6, "signals and abstract sockets"),
            ]
            .into_iter()
            .filter(|(since, _)| abi < *since)
            .map(|(_, right)| right)
            .collect();
            (State::Partial, format!("ABI {abi}, which does not limit {}", lacks.join(", ")))
        }
    }
}
