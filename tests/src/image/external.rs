//! Images that Yocto or Buildroot built.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::architecture::Architecture;
use crate::command;
use crate::error::{Error, Result};
use crate::workspace::Workspace;

use super::modules::Kernel;
use super::{base, guest, initramfs, Flavour, Image, BUSYBOX, PACK};

/// An image built elsewhere. The root file system is copied, so that the tests may write to it; drivers that are modules of it are
/// taken from there, since the kernel needs them to see the disk.
///
/// # Errors
/// When a file cannot be read or copied.
pub fn external(
    workspace: &Workspace,
    architecture: Architecture,
    flavour: Flavour,
    kernel: &Path,
    rootfs: &Path,
) -> Result<Image> {
    for file in [kernel, rootfs] {
        if !file.is_file() {
            return Err(Error::Missing { what: file.display().to_string(), next: "check --image".into() });
        }
    }
    let programs = guest::build(workspace, architecture)?;
    let directory = workspace.work("images/external");
    // Modules of another image would be loaded.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).map_err(Error::io(format!("cannot create {}", directory.display())))?;
    let image = Image {
        architecture,
        flavour,
        kernel: kernel.to_path_buf(),
        initramfs: directory.join("initramfs.cpio"),
        kernel_config: None,
        cmdline: "",
        rootfs: directory.join("rootfs.img"),
        read_only: false,
        configures_network: false,
        programs,
    };
    fs::copy(rootfs, &image.rootfs).map_err(Error::io(format!("cannot copy {}", rootfs.display())))?;
    let busybox = if architecture.is_native() {
        PathBuf::from(BUSYBOX)
    } else {
        base(workspace, architecture, Flavour::Busybox)?.join("usr/bin/busybox")
    };
    let modules = modules(&image.rootfs, &directory.join("root"))?;
    initramfs::build(workspace, &image.programs, &busybox, modules.as_ref(), &["boot"], &image.initramfs)?;
    Ok(image)
}

/// The modules in a root file system, unpacked below `to`; `None` where it has none, or cannot be looked into.
fn modules(rootfs: &Path, to: &Path) -> Result<Option<Kernel>> {
    let usr = to.join("usr/lib");
    fs::create_dir_all(&usr).map_err(Error::io(format!("cannot create {}", usr.display())))?;
    match format(rootfs)? {
        Some(Format::Ext) => {
            for at in ["/usr/lib/modules", "/lib/modules"] {
                // Says so and succeeds where there is no such directory.
                let mut debugfs = Command::new("debugfs");
                debugfs.arg("-R").arg(format!("rdump {at} {}", usr.display())).arg(rootfs);
                command::run(&mut debugfs, PACK)?;
            }
        }
        Some(Format::Squashfs) => {
            let mut unsquashfs = Command::new("unsquashfs");
            unsquashfs.args(["-force", "-no-xattrs", "-quiet", "-no-progress", "-dest"]).arg(to).arg(rootfs);
            command::run(unsquashfs.args(["usr/lib/modules", "lib/modules"]), PACK)?;
            let lib = to.join("lib/modules");
            if lib.is_dir() {
                fs::rename(&lib, usr.join("modules")).map_err(Error::io("cannot move modules"))?;
            }
        }
        None => {}
    }
    Kernel::with_modules_of(&to.join("usr"))
}

/// File systems that can be read without mounting them.
#[derive(Debug, PartialEq, Eq)]
enum Format {
    Ext,
    Squashfs,
}

/// By the magic numbers of linux/magic.h: at the start, or in the superblock 1024 bytes on.
fn format(rootfs: &Path) -> Result<Option<Format>> {
    let failed = || format!("cannot read {}", rootfs.display());
    let mut start = Vec::new();
    File::open(rootfs)
        .and_then(|file| file.take(0x43a).read_to_end(&mut start))
        .map_err(Error::io(failed()))?;
    Ok(if start.starts_with(b"hsqs") {
        Some(Format::Squashfs)
    } else if start.get(0x438..) == Some(&[0x53, 0xef]) {
        Some(Format::Ext)
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_told_by_their_magic_numbers() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("image");
        let of = |bytes: &[u8]| {
            fs::write(&file, bytes).expect("image");
            format(&file).expect("read")
        };
        let mut ext = vec![0; 4096];
        ext[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(of(&ext), Some(Format::Ext));
        assert_eq!(of(b"hsqs and so on"), Some(Format::Squashfs));
        assert_eq!((of(b""), of(&[0; 4096])), (None, None));
    }
}
