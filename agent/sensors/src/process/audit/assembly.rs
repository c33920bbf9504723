//! Records to events: all records with one serial number are one event. An exec is complete at its working directory, an exit at its
//! first record; the end-of-event record is the fall-back.

use std::collections::VecDeque;

use defender_model::process::ExitReason;
use defender_model::text;

use super::arch::{self, Call, Effect, ATTACHES, LOADS};
use super::record::{decimal, hexadecimal, kind, Fields, Stamp, Value};
use crate::account::audit::concerns_accounts;
use crate::login::audit::concerns_logins;

/// Events under way at once. The kernel interleaves a few; more means that their ends were lost.
const PENDING: usize = 256;
/// Calls about modules that wait for the record with the name; it is the next of the same event.
const MODULES: usize = 16;
/// Argument bytes kept of one exec: the kernel's own bound (`fs/exec.c`: three quarters of the 8 MiB stack limit).
const ARGUMENT_BYTES: usize = 6 << 20;
/// Arguments kept of one exec. Hostile programs can pass hundreds of thousands of empty ones, each of which costs us more than
/// it costs them.
const ARGUMENTS: usize = 1 << 16;
/// "Unset" of `auid` and `ses`, (u32)-1.
const UNSET: u32 = u32::MAX;

/// What one audit event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audited {
    /// A process became a new program.
    Exec(Box<Exec>),
    /// A process ended.
    Exit { stamp: Stamp, pid: u32, reason: ExitReason },
    /// A program said something of a login or an account; the record's type and fields.
    Said { stamp: Stamp, record: u16, fields: Vec<u8> },
    /// Something under a path of the rule with this number was opened for writing, changed, renamed or removed. Of the process there is
    /// what a system call's record holds.
    Wrote { watch: usize, effect: Effect, by: Box<Exec> },
    /// A module was loaded or removed.
    Module { loaded: bool, name: String, by: Box<Exec> },
    /// A process attached itself to this thread as its debugger.
    Traced { target: u32, by: Box<Exec> },
    /// An eBPF program was loaded.
    Program { by: Box<Exec> },
    /// Settings or rules of audit were changed; the record's own words.
    ConfigChange { stamp: Stamp, words: String },
}

impl Audited {
    pub(crate) fn stamp(&self) -> Stamp {
        match self {
            Self::Exec(by)
            | Self::Wrote { by, .. }
            | Self::Module { by, .. }
            | Self::Traced { by, .. }
            | Self::Program { by } => by.stamp,
            Self::Exit { stamp, .. } | Self::Said { stamp, .. } | Self::ConfigChange { stamp, .. } => *stamp,
        }
    }
}

/// A successful exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exec {
    pub(crate) stamp: Stamp,
    pub(crate) pid: u32,
    pub(crate) ppid: u32,
    pub(crate) uid: Option<u32>,
    pub(crate) euid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) auid: Option<u32>,
    pub(crate) session: Option<u32>,
    pub(crate) tty: Option<String>,
    pub(crate) executable: String,
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: String,
    /// Arguments were cut, or a record with a part of them never came.
    pub(crate) truncated: bool,
}

/// An event whose end has not come yet.
#[derive(Debug)]
struct Pending {
    exec: Box<Exec>,
    argc: Option<usize>,
    argument: Vec<u8>,
    /// Index of the argument that `argument` holds so far.
    index: Option<usize>,
    bytes: usize,
}

/// Puts records together.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    pending: Vec<Pending>,
    /// Calls about modules whose name has not come yet.
    modules: VecDeque<(bool, Box<Exec>)>,
    incomplete: u64,
}

impl Assembler {
    /// Takes one record; returns the event it completes.
    pub(crate) fn push(&mut self, record: u16, stamp: Stamp, fields: &[u8]) -> Option<Audited> {
        match record {
            kind::SYSCALL => self.syscall(stamp, fields),
            kind::EXECVE => {
                if let Some(at) = self.position(stamp.serial) {
                    self.pending[at].arguments(fields);
                } else if fields.starts_with(b" argc=") || fields.starts_with(b"argc=") {
                    self.incomplete += 1;
                }
                None
            }
            kind::CWD => {
                let at = self.position(stamp.serial)?;
                if let Some((_, cwd)) = Fields::new(fields).find(|(name, _)| *name == b"cwd") {
                    self.pending[at].exec.cwd = cwd.text();
                }
                // The kernel writes the working directory after the last argument (kernel/auditsc.c, `audit_log_exit`); what
                // comes behind it is not read. So nothing more is to come, unless the arguments were lost.
                self.pending[at].argc.is_some().then(|| self.complete(at))
            }
            kind::EOE => {
                let at = self.position(stamp.serial)?;
                Some(self.complete(at))
            }
            kind::KERN_MODULE => {
                let at = self.modules.iter().position(|(_, by)| by.stamp.serial == stamp.serial)?;
                let (loaded, by) = self.modules.remove(at)?;
                let (_, name) = Fields::new(fields).find(|(name, _)| *name == b"name")?;
                Some(Audited::Module { loaded, name: name.text(), by })
            }
            kind::ANOM_ABEND => abend(stamp, fields),
            kind::CONFIG_CHANGE => {
                Some(Audited::ConfigChange { stamp, words: text::from_bytes(fields).trim().to_owned() })
            }
            _ if concerns_logins(record) || concerns_accounts(record) => {
                Some(Audited::Said { stamp, record, fields: fields.to_vec() })
            }
            _ => None,
        }
    }

    /// Hands out the events up to this serial number whose end never came.
    pub(crate) fn flush(&mut self, serial: u64, mut each: impl FnMut(Audited)) {
        while let Some(at) = self.pending.iter().position(|pending| pending.exec.stamp.serial <= serial) {
            each(self.complete(at));
        }
    }

    /// Events of which records were missing.
    pub(crate) const fn incomplete(&self) -> u64 {
        self.incomplete
    }

    fn position(&self, serial: u64) -> Option<usize> {
        self.pending.iter().rposition(|pending| pending.exec.stamp.serial == serial)
    }

    fn complete(&mut self, at: usize) -> Audited {
        let mut pending = self.pending.remove(at);
        pending.finish_argument();
        let bounded = pending.bytes >= ARGUMENT_BYTES || pending.exec.argv.len() >= ARGUMENTS;
        if pending.argc != Some(pending.exec.argv.len()) {
            pending.exec.truncated = true;
            self.incomplete += u64::from(!bounded);
        }
        Audited::Exec(pending.exec)
    }

    fn syscall(&mut self, stamp: Stamp, fields: &[u8]) -> Option<Audited> {
        let mut arch = None;
        let mut number = None;
        let mut success = true;
        let mut first_argument = 0;
        let mut second_argument = 0;
        let mut watch = None;
        let mut exec = Box::new(Exec {
            stamp,
            pid: 0,
            ppid: 0,
            uid: None,
            euid: None,
            gid: None,
            auid: None,
            session: None,
            tty: None,
            executable: String::new(),
            argv: Vec::new(),
            cwd: String::new(),
            truncated: false,
        });
        for (name, value) in Fields::new(fields) {
            match (name, value) {
                (b"arch", Value::Bare(hex)) => arch = hexadecimal(hex).and_then(|v| u32::try_from(v).ok()),
                (b"syscall", Value::Bare(digits)) => {
                    number = id(digits);
                    if arch::call(arch?, number?).is_none() {
                        watch = Some(watch_of(fields)?);
                    }
                }
                (b"success", Value::Bare(word)) => success = word == b"yes",
                (b"a0", Value::Bare(hex)) => first_argument = hexadecimal(hex).unwrap_or_default(),
                (b"a1", Value::Bare(hex)) => second_argument = hexadecimal(hex).unwrap_or_default(),
                (b"ppid", Value::Bare(digits)) => exec.ppid = id(digits).unwrap_or_default(),
                (b"pid", Value::Bare(digits)) => exec.pid = id(digits)?,
                (b"auid", Value::Bare(digits)) => exec.auid = id(digits).filter(|id| *id != UNSET),
                (b"uid", Value::Bare(digits)) => exec.uid = id(digits),
                (b"gid", Value::Bare(digits)) => exec.gid = id(digits),
                (b"euid", Value::Bare(digits)) => exec.euid = id(digits),
                (b"ses", Value::Bare(digits)) => exec.session = id(digits).filter(|id| *id != UNSET),
                (b"tty", Value::Bare(word)) => {
                    exec.tty = Some(text::from_bytes(word)).filter(|tty| tty != "(none)" && tty != "?");
                }
                (b"exe", value) => {
                    exec.executable = value.text();
                    break;
                }
                _ => {}
            }
        }
        if let Some(watch) = watch {
            return success.then_some(Audited::Wrote {
                watch,
                effect: arch::effect(arch?, number?),
                by: exec,
            });
        }
        match arch::call(arch?, number?)? {
            call @ (Call::LoadModule | Call::DeleteModule) => {
                if success {
                    self.modules.push_back((call == Call::LoadModule, exec));
                }
                // A name that never came leaves nothing to tell.
                if self.modules.len() > MODULES {
                    self.modules.pop_front();
                }
                None
            }
            Call::ExitGroup => {
                // exit_group(2): "the least significant byte of status" is what the parent sees.
                let reason = ExitReason::Code(first_argument.to_le_bytes()[0]);
                Some(Audited::Exit { stamp, pid: exec.pid, reason })
            }
            Call::Exec if success => {
                let oldest = (self.pending.len() >= PENDING).then(|| {
                    self.incomplete += 1;
                    self.complete(0)
                });
                self.pending.push(Pending { exec, argc: None, argument: Vec::new(), index: None, bytes: 0 });
                oldest
            }
            // What counts as a request is all of the first argument, as a command its lower half; a thread's id is a lower half too.
            Call::Ptrace if success && ATTACHES.iter().any(|attach| u64::from(*attach) == first_argument) => {
                Some(Audited::Traced { target: second_argument as u32, by: exec })
            }
            Call::Bpf if success && first_argument as u32 == LOADS => Some(Audited::Program { by: exec }),
            Call::Exec | Call::Ptrace | Call::Bpf => None,
        }
    }
}

impl Pending {
    /// Fields of one EXECVE record (kernel/auditsc.c, `audit_log_execve_info`): `argc=N`, then `aN=VALUE`, or for a long argument
    /// `aN_len=LENGTH` and its pieces `aN[0]=VALUE aN[1]=VALUE`, spread over as many records as it takes.
    fn arguments(&mut self, fields: &[u8]) {
        for (name, value) in Fields::new(fields) {
            if name == b"argc" {
                if let Value::Bare(digits) = value {
                    self.argc = decimal(digits).and_then(|argc| usize::try_from(argc).ok());
                }
                continue;
            }
            let Some(name) = name.strip_prefix(b"a") else { continue };
            let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let Some(index) = decimal(&name[..digits]).and_then(|index| usize::try_from(index).ok()) else {
                continue;
            };
            if name[digits..].starts_with(b"_len") {
                continue;
            }
            if self.index != Some(index) {
                self.finish_argument();
                if index != self.exec.argv.len() && self.exec.argv.len() < ARGUMENTS {
                    // A record with arguments before this one is missing: keep the order, mark the gap.
                    self.exec.truncated = true;
                }
                self.index = Some(index);
            }
            let before = self.argument.len();
            if self.bytes < ARGUMENT_BYTES {
                value.decode_into(&mut self.argument);
                self.bytes += self.argument.len() - before + 1;
            } else {
                self.exec.truncated = true;
            }
        }
    }

    fn finish_argument(&mut self) {
        if self.index.take().is_none() {
            return;
        }
        let argument = std::mem::take(&mut self.argument);
        if self.exec.argv.len() < ARGUMENTS {
            self.exec.argv.push(text::from_vec(argument));
        } else {
            self.exec.truncated = true;
        }
    }
}

fn id(digits: &[u8]) -> Option<u32> {
    decimal(digits).and_then(|value| u32::try_from(value).ok())
}

/// The number in the key of a rule about a path. The key stands last, and a program cannot put a quote into what stands before it.
fn watch_of(fields: &[u8]) -> Option<usize> {
    const MARK: &[u8] = b" key=\"defender-f";
    let at = fields.windows(MARK.len()).rposition(|window| window == MARK)? + MARK.len();
    let digits = fields[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    usize::try_from(decimal(&fields[at..at + digits])?).ok()
}

fn abend(stamp: Stamp, fields: &[u8]) -> Option<Audited> {
    let mut pid = None;
    let mut signal = None;
    for (name, value) in Fields::new(fields) {
        match (name, value) {
            (b"pid", Value::Bare(digits)) => pid = id(digits),
            (b"sig", Value::Bare(digits)) => {
                signal = decimal(digits).and_then(|value| u8::try_from(value).ok());
            }
            _ => {}
        }
    }
    Some(Audited::Exit { stamp, pid: pid?, reason: ExitReason::Signal(signal?) })
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
