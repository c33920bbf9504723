//! Many events.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::image::Flavour;
use crate::progress;
use crate::qemu::{Machine, PROGRAMS as DIRECTORY};

use super::{configuration, expect, World};

/// Under systemd a quarter: there journald reads audit as well, which takes most of an emulated processor, so that 20,000
/// executions last five minutes and prove nothing more.
const fn executions(flavour: Flavour) -> usize {
    match flavour {
        Flavour::Busybox => 20_000,
        Flavour::Systemd => 5_000,
    }
}

/// The shipped limit of the event file is for a device's flash; here every event of the storm has to be found afterwards.
const LARGE_FILE: &str = "[sink.file]\nmax_kib = 98304\nkeep = 1\n";

pub(super) fn every_exec_is_reported_once(world: &mut World<'_>) -> Result<()> {
    let result = configuration::with(world, "conf.d/99-validation.toml", LARGE_FILE, storm);
    // What follows need not search through all of this.
    let machine = world.machine()?;
    machine.agent_service("stop")?;
    machine.ok("rm -f /var/log/defender/events.jsonl*")?;
    machine.agent_service("start")?;
    machine.wait_armed()?;
    result
}

/// What the agent has said of losses since the boot.
fn losses(machine: &mut Machine) -> Result<Vec<String>> {
    let lost = machine.events("\"lost\"")?.into_iter().filter(|event| event.is_health("", &["lost"]));
    Ok(lost.map(|event| event.0.to_string()).collect())
}

fn storm(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let executions = executions(machine.flavour());
    machine.install_programs()?;
    let pid = machine.agent_pid()?;
    // An earlier scenario may have killed somebody in the midst of an exec, which leaves an event without its end.
    let before = losses(machine)?.len();
    let spawned = machine.run_within(
        &format!("{DIRECTORY}/spawner {DIRECTORY}/noop 1 {executions}"),
        Duration::from_secs(300),
    )?;
    let microseconds: f64 =
        spawned.output.trim().parse().map_err(|_| Error::Unexpected(format!("spawner: {spawned:?}")))?;
    progress::say(format_args!("     {:.0} executions per second", executions as f64 * 1e6 / microseconds));
    // Counted in the guest: how many serial numbers were started exactly once, and how many more than once.
    let count = format!(
        "cat /var/log/defender/events.jsonl* | grep -F '\"class_uid\":1007' | grep -F '\"activity_id\":1,' | \
         grep -o 'cmd_line\":\"{DIRECTORY}/noop serial=[0-9]*\"' | sort | uniq -c | \
         awk '$1 == 1 {{ once++ }} $1 > 1 {{ more++ }} END {{ print once + 0, more + 0 }}'"
    );
    let all = format!("{executions} 0");
    machine.wait("every serial number is reported exactly once", Duration::from_secs(120), |machine| {
        let counted = machine.run_within(&count, Duration::from_secs(120))?.output.trim().to_owned();
        Ok(if counted == all { Ok(()) } else { Err(format!("once, more than once: {counted}")) })
    })?;
    let lost = losses(machine)?;
    expect(lost.len() <= before, || format!("nothing is missing, and yet: {:?}", lost.get(before..)))?;
    expect(machine.agent_pid()? == pid, || "the agent was restarted".into())
}
