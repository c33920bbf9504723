//! The static programs the harness puts into a guest, compiled on the build machine without cargo: they depend on nothing,
//! and a static link needs flags that the rest of the workspace must not have.

use std::fs;
use std::path::PathBuf;

use crate::architecture::Architecture;
use crate::command;
use crate::error::{Error, Result};
use crate::workspace::Workspace;

use super::inputs::Digest;
use super::toolchain::Toolchain;
use super::PACK;

/// Where they are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Executes what the host asks for; see `src/bin/control-agent.rs`.
    pub control_agent: PathBuf,
    /// Starts a program many times; see `src/bin/spawner.rs`.
    pub spawner: PathBuf,
    /// Everything at once; see `src/bin/storm.rs`.
    pub storm: PathBuf,
    /// Traces, becomes root, loads a program; see `src/bin/deeds.rs`.
    pub deeds: PathBuf,
    /// Does nothing; see `guest/noop.S`.
    pub noop: PathBuf,
}

/// Compiles them unless that was done for the same sources.
pub(super) fn build(workspace: &Workspace, architecture: Architecture) -> Result<Programs> {
    let sources = [
        "src/bin/control-agent.rs",
        "src/control/wire.rs",
        "src/bin/spawner.rs",
        "guest/noop.S",
        "src/bin/storm.rs",
        "src/bin/deeds.rs",
    ];
    let mut digest = Digest::new();
    for source in sources {
        digest.file(&workspace.tests(source))?;
    }
    let prefix = format!("guest-{}-", architecture.name());
    let directory = workspace.work(&format!("{prefix}{}", digest.finish()));
    let programs = Programs {
        control_agent: directory.join("control-agent"),
        spawner: directory.join("spawner"),
        storm: directory.join("storm"),
        deeds: directory.join("deeds"),
        noop: directory.join("noop"),
    };
    if programs.noop.exists() {
        return Ok(programs);
    }
    for entry in fs::read_dir(workspace.work(".")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // Of earlier sources.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    fs::create_dir_all(&directory).map_err(Error::io(format!("cannot create {}", directory.display())))?;
    let toolchain = Toolchain::prepare(workspace, architecture)?;
    let rust = [
        (sources[0], &programs.control_agent),
        (sources[2], &programs.spawner),
        (sources[4], &programs.storm),
        (sources[5], &programs.deeds),
    ];
    for (source, program) in rust {
        let mut rustc = toolchain.rustc();
        rustc.args(["--edition", "2021", "-O", "-C", "target-feature=+crt-static", "-C", "panic=abort"]);
        rustc.args(["-C", "strip=symbols", "-o"]).arg(program).arg(workspace.tests(source));
        command::run(&mut rustc, PACK)?;
    }
    let mut cc = Toolchain::tool(architecture, "gcc");
    cc.args(["-static", "-nostdlib", "-s", "-o"]).arg(&programs.noop).arg(workspace.tests(sources[3]));
    command::run(&mut cc, PACK)?;
    Ok(programs)
}
