//! Compilers for an image of another architecture: Debian's Rust for browsers, of which there is a standard library for every
//! architecture, and its cross compiler for C. The former is unpacked in the work directory, never installed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::architecture::Architecture;
use crate::command;
use crate::error::{Error, Result};
use crate::packages;
use crate::progress;
use crate::workspace::Workspace;

use super::PACK;

/// The agent with link-time optimisation, and all it depends on, on a slow machine.
const BUILD: Duration = Duration::from_secs(1800);

/// How programs for an architecture are made.
pub(super) struct Toolchain {
    architecture: Architecture,
    rustc: PathBuf,
    /// Libraries and headers that programs of the architecture link to; nothing for the build machine's own.
    libraries: Option<PathBuf>,
}

impl Toolchain {
    /// The build machine's own, or one that is downloaded and unpacked.
    pub(super) fn prepare(workspace: &Workspace, architecture: Architecture) -> Result<Self> {
        if architecture.is_native() {
            return Ok(Self { architecture, rustc: "rustc".into(), libraries: None });
        }
        let compiler = packages::unpacked(workspace, Architecture::X86_64, &["compiler"])?;
        let libraries = packages::unpacked(workspace, architecture, &["compiled"])?;
        // One compiler looks for all its standard libraries in one place.
        let place = Path::new("usr/lib/rustlib").join(architecture.target());
        if !compiler.join(&place).exists() {
            symlink(libraries.join(&place), compiler.join(&place))
                .map_err(Error::io("cannot link the standard library"))?;
        }
        let rustc = compiler.join("rustc");
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{0}/usr/lib/{1}' exec '{0}/usr/bin/rustc' \"$@\"\n",
            compiler.display(),
            Architecture::X86_64.gnu()
        );
        fs::write(&rustc, script)
            .and_then(|()| fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)))
            .map_err(Error::io(format!("cannot write {}", rustc.display())))?;
        Ok(Self { architecture, rustc, libraries: Some(libraries) })
    }

    /// A tool of the cross compiler's family, such as `gcc` or `strip`.
    pub(super) fn tool(architecture: Architecture, name: &str) -> Command {
        if architecture.is_native() {
            Command::new(name)
        } else {
            Command::new(format!("{}-{name}", architecture.gnu()))
        }
    }

    /// `rustc`, told for what.
    pub(super) fn rustc(&self) -> Command {
        let mut rustc = Command::new(&self.rustc);
        if !self.architecture.is_native() {
            rustc.args(["--target", self.architecture.target(), "-C"]);
            rustc.arg(format!("linker={}-gcc", self.architecture.gnu()));
        }
        rustc
    }

    /// What cargo must find in its environment to build for the architecture.
    pub(super) fn environment(&self) -> Vec<(String, OsString)> {
        let Some(libraries) = &self.libraries else { return Vec::new() };
        let (target, gnu) = (self.architecture.target(), self.architecture.gnu());
        let (lower, gcc) = (target.replace('-', "_"), OsString::from(format!("{gnu}-gcc")));
        let include = libraries.join("usr/include");
        let headers = format!("-I{} -I{}", include.join(gnu).display(), include.display());
        vec![
            ("RUSTC".into(), self.rustc.clone().into()),
            (format!("CARGO_TARGET_{}_LINKER", lower.to_uppercase()), gcc.clone()),
            (format!("CC_{lower}"), gcc),
            (format!("CFLAGS_{lower}"), headers.into()),
            ("PKG_CONFIG_ALLOW_CROSS".into(), "1".into()),
            ("PKG_CONFIG_SYSROOT_DIR".into(), libraries.into()),
            ("PKG_CONFIG_LIBDIR".into(), libraries.join("usr/lib").join(gnu).join("pkgconfig").into()),
        ]
    }

    /// Builds the agent and returns the binary. Cargo knows what is up to date.
    pub(super) fn agent(&self, workspace: &Workspace) -> Result<PathBuf> {
        if self.libraries.is_none() {
            return Ok(workspace.agent());
        }
        let target = self.architecture.target();
        let directory = workspace.target().join("cross");
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--locked", "-p", "defender", "--target", target]);
        cargo.arg("--manifest-path").arg(workspace.tests("../Cargo.toml"));
        cargo.arg("--target-dir").arg(&directory).envs(self.environment());
        progress::step(&format!("building the agent for {}", self.architecture.name()), || {
            command::run(&mut cargo, BUILD)
        })?;
        Ok(directory.join(target).join("release/defender"))
    }
}

/// Fails if `program` asks for a shared library that `root` has not: what of another architecture cannot be copied from the
/// build machine.
pub(super) fn libraries_are_there(architecture: Architecture, program: &Path, root: &Path) -> Result<()> {
    let text = command::run(Toolchain::tool(architecture, "objdump").arg("-p").arg(program), PACK)?;
    for name in needed(&String::from_utf8_lossy(&text)) {
        let there = ["usr/lib".to_owned(), format!("usr/lib/{}", architecture.gnu())];
        if !there.iter().any(|at| root.join(at).join(name).exists()) {
            return Err(Error::Missing {
                what: format!("shared library {name} for {}", architecture.name()),
                next: "name the package that holds it under [libraries] in tests/packages.txt".into(),
            });
        }
    }
    Ok(())
}

/// Lines like `  NEEDED               libssl.so.3`.
fn needed(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_libraries_are_found_in_the_output_of_objdump() {
        let text = "Dynamic Section:\n  NEEDED               libssl.so.3\n  NEEDED    libc.so.6\n  RELRO x\n";
        assert_eq!(needed(text).collect::<Vec<_>>(), ["libssl.so.3", "libc.so.6"]);
    }
}
