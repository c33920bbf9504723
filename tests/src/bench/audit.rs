//! The kernel's audit state: looked at before, set for each arm, put back afterwards.

use std::fs;
use std::io;
use std::process::{self, Command};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use crate::command;
use crate::error::{Error, Result};

use super::monitor;

const TOOL: Duration = Duration::from_secs(10);

/// The rules the agent adds for program starts, as auditctl spells them.
pub const EXEC: [&str; 2] = [
    "always,exit -F arch=b64 -S execve,execveat -F success=1",
    "always,exit -F arch=b32 -S execve,execveat -F success=1",
];

/// The rules it adds for their ends.
pub const EXIT: [&str; 2] =
    ["always,exit -F arch=b64 -S exit_group", "always,exit -F arch=b32 -S exit_group"];

/// Record types it tells the kernel to leave out while it is the audit daemon.
pub const EXCLUDE: [&str; 4] = [
    "always,exclude -F msgtype=PATH",
    "always,exclude -F msgtype=EOE",
    "always,exclude -F msgtype=BPRM_FCAPS",
    "always,exclude -F msgtype=PROCTITLE",
];

/// Gives no new task an audit context.
pub const NEVER: &str = "task,never";

/// The key of all rules the agent adds.
const AGENT_KEY: &str = "defender";

/// The end of a pipe that signals are written to.
static SIGNALS: AtomicI32 = AtomicI32::new(-1);

/// Audit as it was found, all ours until this is dropped.
#[derive(Debug)]
pub struct Audit {
    backlog_limit: String,
    backlog_wait_time: String,
}

impl Audit {
    /// Takes audit over and switches it off.
    ///
    /// # Errors
    /// When there are rules or a daemon already: measuring would disturb them, and they the figures.
    pub fn claim() -> Result<Self> {
        let status = auditctl(&["-s"])?;
        let rules = auditctl(&["-l"])?;
        let field = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            found.unwrap_or("0").trim().to_owned()
        };
        if field("pid") != "0" || rules.trim() != "No rules" {
            return Err(Error::Missing {
                what: "an idle audit subsystem".into(),
                next: format!(
                    "stop the audit daemon (pid {}) and remove the rules `auditctl -l` shows",
                    field("pid")
                ),
            });
        }
        let audit =
            Self { backlog_limit: field("backlog_limit"), backlog_wait_time: field("backlog_wait_time") };
        audit.off()?;
        tidy_up_when_interrupted()?;
        Ok(audit)
    }

    /// Off: `enabled 0`.
    ///
    /// # Errors
    /// When auditctl fails.
    pub fn off(&self) -> Result<()> {
        auditctl(&["-e", "0"]).map(drop)
    }

    /// Debian's own settings for a system with auditd (its `audit.rules`).
    ///
    /// # Errors
    /// When auditctl fails.
    pub fn like_debian(&self) -> Result<()> {
        auditctl(&["-b", "8192"])?;
        auditctl(&["--backlog_wait_time", "60000"]).map(drop)
    }

    /// Adds rules until the result is dropped.
    ///
    /// # Errors
    /// When auditctl fails.
    pub fn rules(&self, rules: &[&'static str]) -> Result<Rules> {
        let mut added = Rules(Vec::new());
        for rule in rules {
            change("-a", rule)?;
            added.0.push(rule);
        }
        Ok(added)
    }

    /// The rules in force, one a line.
    ///
    /// # Errors
    /// When auditctl fails.
    pub fn list(&self) -> Result<String> {
        auditctl(&["-l"])
    }

    /// Records the kernel dropped since it was last asked; asking resets the count.
    ///
    /// # Errors
    /// When auditctl fails.
    pub fn lost(&self) -> Result<u64> {
        let text = auditctl(&["--reset-lost"])?;
        let number = text.split_whitespace().last().and_then(|word| word.parse::<i64>().ok());
        Ok(number.map_or(0, i64::unsigned_abs))
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // Nothing more can be done if the kernel refuses.
        let _ = auditctl(&["-b", &self.backlog_limit]);
        let _ = auditctl(&["--backlog_wait_time", &self.backlog_wait_time]);
        let _ = self.off();
    }
}

/// Rules in force while this lives.
#[derive(Debug)]
pub struct Rules(Vec<&'static str>);

impl Drop for Rules {
    fn drop(&mut self) {
        for rule in &self.0 {
            let _ = change("-d", rule);
        }
    }
}

/// On SIGINT, SIGTERM and SIGHUP: takes every rule a benchmark can have added out of the kernel, the agent's own too, and
/// exits. What is dropped in an orderly end is not dropped then, and rules outlive their makers.
fn tidy_up_when_interrupted() -> Result<()> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(Error::io("cannot make a pipe")(io::Error::last_os_error()));
    }
    SIGNALS.store(ends[1], Ordering::SeqCst);
    // A handler and not a blocked signal: programs started from here would inherit the block.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler does nothing but what signal-safety(7) allows.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
    thread::spawn(move || {
        let mut signal = 0u8;
        // SAFETY: one live byte; the descriptor stays open until this program ends.
        while unsafe { libc::read(ends[0], (&raw mut signal).cast(), 1) } != 1 {}
        monitor::stop_all();
        let _ = auditctl(&["-D", "-k", AGENT_KEY]);
        for rule in EXEC.iter().chain(&EXIT).chain(&EXCLUDE).chain(&[NEVER]) {
            let _ = change("-d", rule);
        }
        let _ = auditctl(&["-e", "0"]);
        let _ = fs::remove_dir_all(super::directory());
        process::exit(128 + i32::from(signal));
    });
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    let signal = signal as u8;
    // SAFETY: one live byte; write is allowed in a handler.
    unsafe { libc::write(SIGNALS.load(Ordering::SeqCst), (&raw const signal).cast(), 1) };
}

fn change(verb: &str, rule: &str) -> Result<String> {
    let mut arguments = vec![verb];
    arguments.extend(rule.split(' '));
    auditctl(&arguments)
}

fn auditctl(arguments: &[&str]) -> Result<String> {
    let output = command::run(Command::new("auditctl").args(arguments), TOOL)?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}
