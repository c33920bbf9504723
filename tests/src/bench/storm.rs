//! A storm of everything at once on an emulated machine with one processor, with the agent's balance sheet.

use crate::architecture::Architecture;
use crate::error::Result;
use crate::image::{self, Flavour};
use crate::lab::Lab;
use crate::progress;
use crate::qemu::{Machine, Setup};
use crate::storm::{self, Scale};
use crate::workspace::Workspace;

use super::Options;

/// Of both flavours; where journald reads audit as well, a start of a program takes four times as long.
const SCALE: Scale = Scale {
    execs: 10_000,
    alerts: 20,
    connections: 10_000,
    files: 100_000,
    names: 10_000,
    failures: 10_000,
    devices: 1000,
};
/// The configuration's copy that can be changed, on a root that cannot.
const COPY: &str = "/run/storm";

/// Boots each image and lets the storm loose.
///
/// # Errors
/// When a sheet does not add up, memory goes beyond its budget, or something planted is missing and not counted.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let flavours = if options.flavours.is_empty() { &Flavour::ALL[..] } else { &options.flavours };
    let scale = Scale { execs: options.count.unwrap_or(SCALE.execs), ..SCALE };
    for flavour in flavours {
        let image = image::assemble(workspace, Architecture::X86_64, *flavour, Some(&options.agent))?;
        let lab = Lab::new()?;
        let setup = Setup::new(workspace, &image, "storm")?;
        let mut machine = Machine::boot(setup, &lab)?;
        machine.wait_armed()?;
        machine.ok(&format!(
            "cp -a /etc/defender {COPY} && mkdir -p {COPY}/conf.d && mount --bind {COPY} /etc/defender"
        ))?;
        machine.write_file(
            &format!("{COPY}/conf.d/99-storm.toml"),
            0o644,
            storm::CONFIGURATION.as_bytes(),
        )?;
        machine.agent_service("restart")?;
        machine.wait_armed()?;
        progress::say(format_args!("{}: {scale:?}", flavour.name()));
        storm::run(&mut machine, &scale)?;
        machine.shut_down()?;
    }
    Ok(())
}
