//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::progress;

/// Prints processor, cores, kernel, distribution, load and the binary's size: figures mean nothing without them.
pub fn print(agent: &Path) {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    progress::say(format_args!(
        "processor: {}, {} cores{}",
        model.trim_start_matches([' ', '\t', ':']),
        cores(),
        if cpuinfo.contains(" hypervisor") { ", virtual machine" } else { "" }
    ));
    progress::say(format_args!("system: {}, Linux {}", system.trim_matches('"'), kernel.trim()));
    progress::say(format_args!("agent: {}; load average {}", agent.display(), load()));
}

/// The load averages of the last 1, 5 and 15 minutes.
#[must_use]
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Processors this program may use.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Waits until the machine is nearly idle, at most `limit`: whoever else works here would be measured too. How busy it
/// was when it gave up waiting, in processors; it looks for a third of a second at a time.
#[must_use]
pub fn wait_for_quiet(limit: Duration) -> f64 {
    const QUIET: f64 = 0.1;
    let start = Instant::now();
    loop {
        let (begin, before) = (Instant::now(), busy());
        thread::sleep(Duration::from_millis(330));
        // A tick, USER_HZ, is a hundredth of a second on every architecture Linux has but one.
        let busy = (busy() - before) as f64 / 100.0 / begin.elapsed().as_secs_f64();
        if busy <= QUIET || start.elapsed() >= limit {
            return busy;
        }
    }
}

/// Ticks all processors together have worked: fields of the first line of `/proc/stat` without idle and iowait.
fn busy() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or("");
    let fields = line.split_whitespace().skip(1).take(8).enumerate();
    fields.filter(|(index, _)| !matches!(index, 3 | 4)).filter_map(|(_, text)| text.parse::<u64>().ok()).sum()
}
