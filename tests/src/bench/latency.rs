//! From exec to the alert's line in the event file: alone, and in the middle of many other program starts.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::progress;

use super::audit::Audit;
use super::monitor::Monitor;
use super::spawn::{self, Arguments};
use super::table::{self, budget, median, percentile};
use super::{tail, Bench};

const ALERTS: u64 = 600;
const RATE: u64 = 50;
const STORM: u64 = 500;

/// How long to wait for the next alert before it counts as missing.
const SILENCE: Duration = Duration::from_secs(5);

/// Measures with a moderate rate alone, then during a storm, each with and without waiting for the disk after alerts.
///
/// # Errors
/// When audit is in use or an alert does not come.
pub fn run(bench: &Bench) -> Result<()> {
    let _audit = Audit::claim()?;
    let count = bench.options.count.unwrap_or(ALERTS);
    progress::say(format_args!("latency: {count} alerts per part, {RATE} a second"));
    let mut rows =
        vec![["other execs per second", "sync_alerts", "p50 ms", "p90 ms", "p99 ms", "largest ms"]
            .map(String::from)
            .to_vec()];
    let mut verdicts = Vec::new();
    for (storm, sync) in [(0, true), (STORM, true), (0, false), (STORM, false)] {
        let values = part(bench, count, storm, sync)?;
        rows.push(vec![
            storm.to_string(),
            sync.to_string(),
            format!("{:.2}", median(&values)),
            format!("{:.2}", percentile(&values, 90.0)),
            format!("{:.2}", percentile(&values, 99.0)),
            format!("{:.2}", percentile(&values, 100.0)),
        ]);
        verdicts.push((storm, sync, percentile(&values, 99.0)));
    }
    table::print(&rows);
    for (storm, sync, p99) in verdicts {
        if sync {
            budget(&format!("exec to alert written, p99, {storm} other execs per second"), p99, 10.0, "ms");
        }
    }
    Ok(())
}

/// Milliseconds of each alert.
fn part(bench: &Bench, count: u64, storm: u64, sync: bool) -> Result<Vec<f64>> {
    let monitor = Monitor::agent(bench, Netns::new()?, &format!("[sink.file]\nsync_alerts = {sync}\n"))?;
    let mut log = monitor.tail()?;
    log.lines(|_| ())?;
    let seconds = count / RATE + 2;
    let background = match storm {
        0 => None,
        rate => Some(spawn::start(&bench.noop, Arguments::Serial, 1, rate * seconds, rate)?),
    };
    let mut alerts = spawn::start(&bench.noop, Arguments::Alert, 0, count, RATE)?;
    let mut values = Vec::new();
    let mut quiet = Instant::now();
    while (values.len() as u64) < count && quiet.elapsed() < SILENCE {
        log.wait(Duration::from_millis(200));
        let had = values.len();
        log.lines(|line| {
            if tail::find(line, b"\"class_uid\":2004").is_some() {
                let now = spawn::monotonic();
                if let Some(then) = tail::number_after(line, b" t=") {
                    values.push(now.saturating_sub(then) as f64 / 1e6);
                }
            }
        })?;
        let running = alerts.try_wait().map_err(Error::io("cannot wait"))?.is_none();
        if values.len() > had || running {
            quiet = Instant::now();
        }
    }
    spawn::finish(alerts)?;
    if let Some(background) = background {
        spawn::finish(background)?;
    }
    if (values.len() as u64) != count {
        return Err(Error::Unexpected(format!("{} of {count} alerts were written", values.len())));
    }
    Ok(values)
}
