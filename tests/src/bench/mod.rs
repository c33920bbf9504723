//! Benchmarks: what watching costs, beside what peers cost on the same machine in the same run.
//!
//! | Room | Holds |
//! |---|---|
//! | [`exec`] | the cost of each program start, unmonitored, under the agent (by audit, by eBPF), under auditd |
//! | [`connect`] | a storm of connections, unmonitored, under the agent by audit and by eBPF |
//! | [`start`], [`size`] | start to armed, memory at rest; bytes of flash |
//! | [`footprint`] | bytes by component, memory and boot time in an image, for variants of the agent |
//! | [`storm`] | everything at once on one emulated processor, with the agent's balance sheet |
//! | [`latency`] | from exec to the alert's line in the event file |
//! | [`block`] | from the last failed login's log line to the first dropped packet, beside fail2ban |
//! | [`scan`] | a scan of the posture, beside Lynis |
//! | [`spawn`] | the program that starts programs |
//! | [`monitor`], [`audit`] | the agent and auditd as measured processes; the kernel's audit state |
//! | [`programs`] | what eBPF programs cost those who run into them |
//! | [`drain`] | the least an audit daemon can do, for the kernel's own part |
//! | [`tail`] | a log file as it grows |
//! | [`machine`], [`table`] | what the figures were measured on; medians, budgets, rows |
//!
//! All of it runs on the build machine itself and needs root. Audit is one per machine: `exec`, `start` and `latency`
//! refuse to run while somebody else uses it, and put it back as they found it.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command};
use std::time::Duration;

use crate::command;
use crate::error::{Error, Result};
use crate::faults;
use crate::fleet;
use crate::image::Flavour;
use crate::progress;
use crate::workspace::Workspace;

pub mod audit;
pub mod block;
pub mod connect;
pub mod drain;
pub mod exec;
pub mod footprint;
pub mod latency;
pub mod machine;
pub mod monitor;
pub mod programs;
pub mod scan;
pub mod size;
pub mod spawn;
pub mod start;
pub mod storm;
pub mod table;
pub mod tail;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The agent's release binary.
    pub agent: PathBuf,
    /// Rounds of `exec`, starts of `start`, repetitions of `block`, devices of `fleet`; `None` for each one's default.
    pub rounds: Option<u32>,
    /// Executions per arm and round of `exec`, alerts of each part of `latency`; `None` for each one's default.
    pub count: Option<u64>,
    /// How often `faults` kills servers and the agent; `None` for its default.
    pub kills: Option<u32>,
    /// Arms of `exec`, runs of `faults` with one of these words in their name; empty for all.
    pub only: Vec<String>,
    /// `storm` boots these; none for all.
    pub flavours: Vec<Flavour>,
    /// `size` builds one binary per cargo feature as well.
    pub features_matrix: bool,
}

/// Where a benchmark works: a directory that goes away with it, the agent's inputs, the program that is started.
#[derive(Debug)]
pub struct Bench {
    /// Options of the command line.
    pub options: Options,
    /// The rules that ship with the product.
    pub rules: PathBuf,
    /// What is built for the benchmarks; kept between runs.
    pub programs: PathBuf,
    /// A static program that does nothing.
    pub noop: PathBuf,
    /// The root of the source tree.
    pub source: PathBuf,
    /// Everything written while measuring. Unlike the work directory, the agent's unprivileged user can reach it.
    pub directory: PathBuf,
}

/// Runs the benchmark `what`: `exec`, `connect`, `size`, `start`, `latency`, `block`, `posture`, `all` of them, or `footprint`, `storm`, `faults`, `fleet`, `idle`.
///
/// # Errors
/// When the benchmark is unknown, cannot run, or finds events missing.
pub fn run(workspace: &Workspace, what: &str, options: Options) -> Result<()> {
    let known = [
        "exec",
        "connect",
        "size",
        "start",
        "latency",
        "block",
        "posture",
        "all",
        "footprint",
        "storm",
        "faults",
        "fleet",
        "idle",
    ];
    if !known.contains(&what) {
        return Err(Error::Usage(format!("no benchmark `{what}`")));
    }
    if !options.agent.is_file() {
        return Err(Error::Missing {
            what: options.agent.display().to_string(),
            next: "build it with `cargo build --release -p defender`, or name one with --agent".into(),
        });
    }
    if what == "fleet" {
        machine::print(&options.agent);
        return fleet::run(&fleet::Plan {
            agent: options.agent,
            devices_program: workspace.target().join("release/examples/fleet"),
            files: workspace.tests("fleet"),
            directory: directory(),
            devices: options.rounds.unwrap_or(200),
            count: options.count.unwrap_or(100),
        });
    }
    if what == "faults" || what == "idle" {
        machine::print(&options.agent);
        let plan = faults::Plan {
            agent: options.agent,
            directory: directory(),
            count: options.count.unwrap_or(100_000),
            kills: options.kills.unwrap_or(50),
            outage: Duration::from_secs(45),
            only: options.only,
        };
        return if what == "idle" { faults::idle::run(&plan) } else { faults::run(&plan) };
    }
    if what == "storm" {
        return storm::run(workspace, &options);
    }
    let bench = Bench::new(workspace, options)?;
    machine::print(&bench.options.agent);
    let chosen = |name: &str| what == name || what == "all";
    if chosen("size") {
        size::run(&bench)?;
    }
    if chosen("start") {
        start::run(&bench)?;
    }
    if chosen("exec") {
        exec::run(&bench)?;
    }
    if what == "connect" {
        connect::run(&bench)?;
    }
    if chosen("latency") {
        latency::run(&bench)?;
    }
    if chosen("block") {
        block::run(&bench)?;
    }
    if what == "footprint" {
        footprint::run(workspace, &bench)?;
    }
    if chosen("posture") {
        scan::run(&bench)?;
    }
    progress::say(format_args!("load average now {}", machine::load()));
    Ok(())
}

impl Bench {
    fn new(workspace: &Workspace, options: Options) -> Result<Self> {
        // Not below /tmp: what is started from there is an alert of its own.
        let programs = workspace.work("bench");
        fs::create_dir_all(&programs).map_err(Error::io(format!("cannot create {}", programs.display())))?;
        let noop = programs.join("noop");
        let mut cc = Command::new("cc");
        cc.args(["-static", "-nostdlib", "-s", "-o"]).arg(&noop).arg(workspace.tests("guest/noop.S"));
        command::run(&mut cc, Duration::from_secs(60))?;
        let directory = directory();
        fs::create_dir(&directory).map_err(Error::io(format!("cannot create {}", directory.display())))?;
        Ok(Self {
            options,
            rules: workspace.overlay().join("usr/share/defender/rules"),
            programs,
            noop,
            source: workspace.tests("..").canonicalize().unwrap_or_else(|_| workspace.tests("..")),
            directory,
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where this run writes.
fn directory() -> PathBuf {
    PathBuf::from(format!("/var/tmp/defender-bench-{}", process::id()))
}
