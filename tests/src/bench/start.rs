//! From the start of the agent to armed, and what it takes while nothing happens.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::progress;

use super::audit::Audit;
use super::monitor::{self, Monitor};
use super::table::{budget, median, spread};
use super::{tail, Bench};

const ROUNDS: u32 = 15;

/// Starts the agent several times, then lets it rest once.
///
/// # Errors
/// When audit is in use or the agent does not become armed.
pub fn run(bench: &Bench) -> Result<()> {
    let _audit = Audit::claim()?;
    let rounds = bench.options.rounds.unwrap_or(ROUNDS);
    let (mut outside, mut own) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (measured, said) = once(bench)?;
        outside.push(measured);
        own.push(said);
    }
    progress::say(format_args!(
        "start to armed, ms, {rounds} starts: {} from spawn to the event's line; {} by its own account",
        spread(&outside, 1),
        spread(&own, 0)
    ));
    budget("start to armed", median(&outside), 200.0, "ms");

    let monitor = Monitor::agent(bench, Netns::new()?, "")?;
    thread::sleep(Duration::from_secs(2));
    let before = monitor::usage(monitor.pid()).cpu;
    thread::sleep(Duration::from_secs(8));
    let cpu = monitor::usage(monitor.pid()).cpu - before;
    let pss = monitor::pss(monitor.pid()) as f64 / 1024.0;
    progress::say(format_args!("at rest: {:.2} ms of processor time in 8 s", cpu as f64 / 1e6));
    budget("PSS 10 s after the start", pss, 8.0, "MiB");
    Ok(())
}

/// Milliseconds seen from outside, and those in the agent's own event.
fn once(bench: &Bench) -> Result<(f64, f64)> {
    let directory = monitor::prepare(bench)?;
    let configuration = monitor::configure(bench, &directory, "")?;
    let sink = directory.join("log/events.jsonl");
    let netns = Netns::new()?;
    netns.within(|| {
        // The clock starts before fork and exec, so dynamic linking counts.
        let start = Instant::now();
        let mut child = Command::new(&bench.options.agent)
            .arg("run")
            .arg("--config")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("cannot start the agent"))?;
        let mut result = Err(Error::TimedOut {
            what: "the agent is armed".into(),
            after: Duration::from_secs(20),
            seen: String::new(),
        });
        while start.elapsed() < Duration::from_secs(20) {
            let text = fs::read(&sink).unwrap_or_default();
            let elapsed = start.elapsed();
            if let Some(at) = tail::find(&text, b"\"kind\":\"armed\"") {
                let own = tail::number_after(&text[at..], b"\"milliseconds\":").unwrap_or(0);
                result = Ok((elapsed.as_secs_f64() * 1e3, own as f64));
                break;
            }
            thread::sleep(Duration::from_micros(500));
        }
        if let Ok(pid) = i32::try_from(child.id()) {
            // SAFETY: plain numbers; the child has not been waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        child.wait().map_err(Error::io("cannot wait for the agent"))?;
        result
    })
}
