//! Many events.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress;
use crate::qemu::{Machine, PROGRAMS as DIRECTORY};
use crate::storm::{self, Scale};

use super::{configuration, expect, World};

/// Executions that tell how fast this machine is; they count as well.
const SAMPLE: usize = 250;
/// Of all. Under systemd on an emulated processor journald reads audit as well, and there are some 25 a second: a storm of
/// 20,000 would last a quarter of an hour and prove nothing more.
const FEWEST: usize = 2_000;
const MOST: usize = 20_000;
/// Between the two, as many as take so long.
const STORM: Duration = Duration::from_secs(40);
/// A machine that others use too may become slower than its sample was, so many times.
const SLOWER: u32 = 5;

/// All executions, from the time that [`SAMPLE`] of them took, and how long the others may take.
fn storm_of(sample: Duration) -> (usize, Duration) {
    let each = sample.max(Duration::from_millis(1)) / SAMPLE as u32;
    let executions = (STORM.as_micros() / each.as_micros().max(1)) as usize;
    let executions = executions.clamp(FEWEST, MOST);
    (executions, Duration::from_secs(30) + each * executions as u32 * SLOWER)
}

/// The shipped limit of the event file is for a device's flash; here every event of the storm has to be found afterwards.
const LARGE_FILE: &str = "[sink.file]\nmax_kib = 98304\nkeep = 1\n";

pub(super) fn every_exec_is_reported_once(world: &mut World<'_>) -> Result<()> {
    let result = configuration::with(world, "conf.d/99-validation.toml", LARGE_FILE, executions_are_counted);
    // What follows need not search through all of this.
    let machine = world.machine()?;
    machine.agent_service("stop")?;
    machine.ok("rm -f /var/log/defender/events.jsonl*")?;
    machine.agent_service("start")?;
    machine.wait_armed()?;
    result
}

/// `tests/bench storm --qemu` has one of full size.
const SCALE: Scale =
    Scale { execs: 300, alerts: 5, connections: 300, files: 1000, names: 300, failures: 300, devices: 50 };

pub(super) fn a_storm_adds_up(world: &mut World<'_>) -> Result<()> {
    configuration::with(world, "conf.d/99-validation.toml", storm::CONFIGURATION, |world| {
        let machine = world.machine()?;
        let result = storm::run(machine, &SCALE);
        // Other files are watched than usual: the next start takes over what it finds.
        // What follows need not search through all of this; the agent begins a new file.
        machine.ok("touch /var/lib/defender/file-baseline.accept; rm -f /var/log/defender/events.jsonl*")?;
        result
    })
}

/// What the agent has said of losses since the boot.
fn losses(machine: &mut Machine) -> Result<Vec<String>> {
    let lost = machine.events("\"lost\"")?.into_iter().filter(|event| event.is_health("", &["lost"]));
    Ok(lost.map(|event| event.0.to_string()).collect())
}

/// Starts so many programs, one after the other, and says how long that took.
fn spawn(machine: &mut Machine, first: usize, count: usize, bound: Duration) -> Result<Duration> {
    let spawned =
        machine.run_within(&format!("{DIRECTORY}/spawner {DIRECTORY}/noop {first} {count}"), bound)?;
    let microseconds = spawned.output.trim().parse();
    microseconds.map(Duration::from_micros).map_err(|_| {
        Error::Unexpected(format!("spawner of {count}, after at most {} s: {spawned:?}", bound.as_secs()))
    })
}

fn executions_are_counted(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    machine.install_programs()?;
    let pid = machine.agent_pid()?;
    // An earlier scenario may have killed somebody in the midst of an exec, which leaves an event without its end.
    let before = losses(machine)?.len();
    let sample = spawn(machine, 1, SAMPLE, Duration::from_secs(300))?;
    let (executions, bound) = storm_of(sample);
    let took = sample + spawn(machine, SAMPLE + 1, executions - SAMPLE, bound)?;
    progress::say(format_args!("     {:.0} executions per second", executions as f64 / took.as_secs_f64()));
    // Counted in the guest: how many serial numbers were started exactly once, and how many more than once.
    let count = format!(
        "cat /var/log/defender/events.jsonl* | grep -F '\"class_uid\":1007' | grep -F '\"activity_id\":1,' | \
         grep -o 'cmd_line\":\"{DIRECTORY}/noop serial=[0-9]*\"' | sort | uniq -c | \
         awk '$1 == 1 {{ once++ }} $1 > 1 {{ more++ }} END {{ print once + 0, more + 0 }}'"
    );
    let all = format!("{executions} 0");
    machine.wait("every serial number is reported exactly once", bound, |machine| {
        let counted = machine.run_within(&count, bound)?.output.trim().to_owned();
        Ok(if counted == all { Ok(()) } else { Err(format!("once, more than once: {counted}")) })
    })?;
    let lost = losses(machine)?;
    expect(lost.len() <= before, || format!("nothing is missing, and yet: {:?}", lost.get(before..)))?;
    expect(machine.agent_pid()? == pid, || "the agent was restarted".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_gets_fewer_executions_and_more_time() {
        let (fast, bound) = storm_of(Duration::from_millis(100));
        assert_eq!(fast, MOST);
        assert!(bound < Duration::from_secs(120), "{bound:?}");
        let (middle, _) = storm_of(Duration::from_secs(3));
        assert_eq!(middle, 3_333);
        let (slow, bound) = storm_of(Duration::from_secs(25));
        assert_eq!(slow, FEWEST);
        assert!(bound > Duration::from_secs(200) * SLOWER, "{bound:?}");
        assert_eq!(storm_of(Duration::ZERO).0, MOST);
    }
}
