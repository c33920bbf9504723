//! What the figures were measured on.

use std::fs;
use std::path::Path;

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
    std::thread::available_parallelism().map_or(1, usize::from)
}
