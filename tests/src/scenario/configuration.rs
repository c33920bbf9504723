//! A changed configuration for the time of a scenario, on a root file system that cannot be written.

use crate::error::Result;
use crate::qemu::Machine;

use super::World;

/// A copy of `/etc/defender` that can be changed; mounted over the real one while it is in force.
const COPY: &str = "/run/validation-configuration";

/// Runs `body` with `content` in the file `name` below `/etc/defender` and the agent restarted on that; afterwards, whatever
/// came of it, the shipped configuration is back in force.
pub(super) fn with<T>(
    world: &mut World<'_>,
    name: &str,
    content: &str,
    body: impl FnOnce(&mut World<'_>) -> Result<T>,
) -> Result<T> {
    let result = put(world.machine()?, name, content).and_then(|()| body(world));
    let restored = restore(world.machine()?);
    let value = result?;
    restored.map(|()| value)
}

fn put(machine: &mut Machine, name: &str, content: &str) -> Result<()> {
    machine.ok(&format!(
        "rm -rf {COPY} && cp -a /etc/defender {COPY} && mkdir -p {COPY}/conf.d {COPY}/rules && \
         mount --bind {COPY} /etc/defender"
    ))?;
    machine.write_file(&format!("{COPY}/{name}"), 0o644, content.as_bytes())?;
    machine.agent_service("restart")?;
    machine.wait_armed()
}

fn restore(machine: &mut Machine) -> Result<()> {
    machine.agent_service("stop")?;
    machine.ok(&format!("umount /etc/defender && rm -rf {COPY}"))?;
    machine.agent_service("start")?;
    machine.wait_armed()
}
