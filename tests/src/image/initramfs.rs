//! The harness's own first root: BusyBox, the modules that find the disks, the control agent.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::workspace::Workspace;

use super::guest::Programs;
use super::modules::{plain, Kernel};

/// Writes the initramfs to `to`: `busybox` is a static one of the image's architecture; with the modules of `kernel` that `sections` of
/// `image/modules.txt` ask for, if that has any to load.
pub(super) fn build(
    workspace: &Workspace,
    programs: &Programs,
    busybox: &Path,
    kernel: Option<&Kernel>,
    sections: &[&str],
    to: &Path,
) -> Result<()> {
    let stage = to.with_extension("stage");
    let _ = fs::remove_dir_all(&stage);
    for directory in ["bin", "modules", "dev", "proc", "sys", "root"] {
        let path = stage.join(directory);
        fs::create_dir_all(&path).map_err(Error::io(format!("cannot create {}", path.display())))?;
    }
    let copy = |from: &Path, name: &str| {
        fs::copy(from, stage.join(name))
            .map(drop)
            .map_err(Error::io(format!("cannot copy {}", from.display())))
    };
    copy(&workspace.tests("image/initramfs/init"), "init")?;
    copy(busybox, "bin/busybox")?;
    copy(&programs.control_agent, "control-agent")?;
    let mut order = String::new();
    if let Some(kernel) = kernel {
        let list = super::root::module_list(workspace)?;
        for path in sections.iter().flat_map(|section| kernel.select(&list, section)) {
            let file = plain(&path).rsplit('/').next().unwrap_or_default().to_owned();
            let to = stage.join("modules").join(&file);
            if to.exists() {
                continue;
            }
            kernel.install(&path, &to)?;
            order.push_str(&file);
            order.push('\n');
        }
    }
    fs::write(stage.join("modules/order"), order).map_err(Error::io("cannot write the order of modules"))?;

    let mut find = Command::new("find")
        .args([".", "-print0"])
        .current_dir(&stage)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::io("cannot start find"))?;
    let Some(names) = find.stdout.take() else {
        return Err(Error::Missing { what: "the output of find".into(), next: "try again".into() });
    };
    let archive = File::create(to).map_err(Error::io(format!("cannot write {}", to.display())))?;
    let cpio = Command::new("cpio")
        .args(["--null", "--create", "--format=newc", "--owner=0:0", "--quiet"])
        .current_dir(&stage)
        .stdin(names)
        .stdout(archive)
        .status();
    let listed = find.wait();
    if !(cpio.as_ref().is_ok_and(std::process::ExitStatus::success) && listed.is_ok()) {
        return Err(Error::Command {
            command: "find | cpio".into(),
            status: format!("{cpio:?}"),
            said: String::new(),
        });
    }
    fs::remove_dir_all(&stage).map_err(Error::io(format!("cannot remove {}", stage.display())))
}
