//! The root file system of an assembled image.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::architecture::Architecture;
use crate::command;
use crate::error::{Error, Result};
use crate::workspace::Workspace;

use super::modules::Kernel;
use super::toolchain::{self, Toolchain};
use super::{accounts, libraries, Flavour, BUSYBOX, PACK};

/// Units that Debian's installation scripts would have enabled, and ours.
const ENABLED_UNITS: &[&str] = &[
    "defender-firewall.service",
    "defender.service",
    "rsyslog.service",
    "ssh.service",
    "systemd-networkd.service",
];

/// Applets that live in `/usr/sbin` where something looks for them by their whole path.
const SBIN_APPLETS: &[&str] = &[
    "getty", "halt", "ifconfig", "init", "klogd", "modprobe", "nologin", "poweroff", "reboot", "sulogin",
    "syslogd",
];

/// Applets that a product configures out of its BusyBox: servers without encryption, and what writes registers.
const OMITTED_APPLETS: &[&str] = &[
    "devmem",
    "fakeidentd",
    "ftpd",
    "httpd",
    "i2cset",
    "i2ctransfer",
    "inetd",
    "telnet",
    "telnetd",
    "tftpd",
];

/// `image/modules.txt`.
pub(super) fn module_list(workspace: &Workspace) -> Result<String> {
    let path = workspace.tests("image/modules.txt");
    fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))
}

/// Builds the whole tree in `stage`, which must not exist.
pub(super) fn lay_out(
    workspace: &Workspace,
    (architecture, flavour): (Architecture, Flavour),
    base: &Path,
    kernel: &Kernel,
    agent: &Path,
    stage: &Path,
) -> Result<()> {
    command::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(base).arg(stage), PACK)?;
    for directory in ["dev", "proc", "sys", "run", "tmp", "var", "mnt", "home", "etc"] {
        make_directory(&stage.join(directory))?;
    }
    // The packages' own /var is installation state: the product's is a disk of its own, empty at first boot.
    for entry in fs::read_dir(stage.join("var")).map_err(Error::io("cannot list /var"))?.flatten() {
        fs::remove_dir_all(entry.path())
            .map_err(Error::io(format!("cannot empty {}", entry.path().display())))?;
    }
    // A run-time package should not have brought any.
    let _ = fs::remove_dir_all(stage.join("usr/include"));
    copy_tree(&workspace.tests("image/common"), stage)?;
    copy_tree(&workspace.tests(&format!("image/{}", flavour.name())), stage)?;
    applets(architecture, stage)?;
    kernel.install_tree(&kernel.select(&module_list(workspace)?, "root"), stage)?;
    accounts::write(stage, flavour)?;
    copy_tree(&workspace.overlay(), stage)?;
    product_layout(flavour, stage)?;

    let binary = stage.join("usr/bin/defender");
    // An image builder strips; a debug build would not fit the disk's cache.
    command::run(Toolchain::tool(architecture, "strip").arg("-o").arg(&binary).arg(agent), PACK)?;
    set_mode(&binary, 0o755)?;
    if architecture.is_native() {
        libraries::copy(&binary, stage)?;
    } else {
        toolchain::libraries_are_there(architecture, &binary, stage)?;
    }

    match flavour {
        Flavour::Busybox => {
            // Host keys are made at first boot, on the disk that may be written.
            replace_by_link(&stage.join("etc/dropbear"), "/var/lib/dropbear")
        }
        Flavour::Systemd => {
            for unit in ENABLED_UNITS {
                enable(stage, unit)?;
            }
            for file in ["sshd_config", "sshd_config.d/60-defender.conf"] {
                set_mode(&stage.join("etc/ssh").join(file), 0o600)?;
            }
            // Empty: systemd makes one up for this boot and mounts it over the read-only file.
            fs::write(stage.join("etc/machine-id"), "").map_err(Error::io("cannot write /etc/machine-id"))
        }
    }
}

/// What a recipe does beyond copying `rootfs-overlay/`: the files of the other init system are not installed, and the
/// configuration is readable for the agent alone.
fn product_layout(flavour: Flavour, stage: &Path) -> Result<()> {
    match flavour {
        Flavour::Busybox => {
            for directory in ["usr/lib/systemd", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d"] {
                let _ = fs::remove_dir_all(stage.join(directory));
            }
        }
        Flavour::Systemd => {
            let _ = fs::remove_dir_all(stage.join("etc/init.d"));
            let _ = fs::remove_file(stage.join("usr/libexec/defender/supervise"));
            // Installed by choice only: with it the agent cannot kill, nor see homes and modules.
            let _ = fs::remove_dir_all(stage.join("usr/lib/systemd/system/defender.service.d"));
        }
    }
    Ok(())
}

/// Copies files as a package would install them: owned by root, 0755 if executable and 0644 if not.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(Error::io(format!("cannot list {}", from.display())))? {
        let entry = entry.map_err(Error::io(format!("cannot list {}", from.display())))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata =
            source.symlink_metadata().map_err(Error::io(format!("cannot look at {}", source.display())))?;
        if metadata.is_dir() {
            make_directory(&target)?;
            copy_tree(&source, &target)?;
        } else if metadata.is_symlink() {
            let points_to =
                fs::read_link(&source).map_err(Error::io(format!("cannot read {}", source.display())))?;
            replace_by_link(&target, &points_to.to_string_lossy())?;
        } else if !left_out(&entry.file_name().to_string_lossy()) {
            // What the package had there may be a link to somewhere else.
            let _ = fs::remove_file(&target);
            fs::copy(&source, &target).map_err(Error::io(format!("cannot copy {}", source.display())))?;
            let executable = metadata.permissions().mode() & 0o111 != 0;
            set_mode(&target, if executable { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

/// Files that are for who writes them, as both installers leave them out.
pub(crate) fn left_out(name: &str) -> bool {
    name == ".gitkeep" || name.ends_with(".tests.yaml") || name.ends_with(".tests.toml")
}

/// A link for every BusyBox applet whose name no package has taken.
fn applets(architecture: Architecture, stage: &Path) -> Result<()> {
    // The build machine's is of the same source package.
    let busybox =
        if architecture.is_native() { stage.join("usr/bin/busybox") } else { PathBuf::from(BUSYBOX) };
    let list = command::run(Command::new(&busybox).arg("--list"), PACK)?;
    for applet in String::from_utf8_lossy(&list).lines() {
        let taken =
            ["usr/bin", "usr/sbin"].iter().any(|at| stage.join(at).join(applet).symlink_metadata().is_ok());
        if !taken && !OMITTED_APPLETS.contains(&applet) {
            let at = if SBIN_APPLETS.contains(&applet) { "usr/sbin" } else { "usr/bin" };
            let path = stage.join(at).join(applet);
            symlink("/usr/bin/busybox", &path)
                .map_err(Error::io(format!("cannot link {}", path.display())))?;
        }
    }
    Ok(())
}

/// What `systemctl enable` does: the links that the unit's `[Install]` section asks for.
fn enable(stage: &Path, unit: &str) -> Result<()> {
    let path = stage.join("usr/lib/systemd/system").join(unit);
    let text = fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let target = format!("/usr/lib/systemd/system/{unit}");
    let mut linked = false;
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let suffix = match key.trim() {
            "WantedBy" => "wants",
            "RequiredBy" => "requires",
            "Alias" => {
                for alias in value.split_whitespace() {
                    replace_by_link(&stage.join("etc/systemd/system").join(alias), &target)?;
                }
                continue;
            }
            _ => continue,
        };
        for by in value.split_whitespace() {
            let directory = stage.join("etc/systemd/system").join(format!("{by}.{suffix}"));
            make_directory(&directory)?;
            replace_by_link(&directory.join(unit), &target)?;
            linked = true;
        }
    }
    if linked {
        return Ok(());
    }
    Err(Error::Missing {
        what: format!("WantedBy= in {}", path.display()),
        next: "a unit that cannot be enabled is never started".into(),
    })
}

fn replace_by_link(path: &Path, points_to: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    symlink(points_to, path).map_err(Error::io(format!("cannot link {}", path.display())))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io(format!("cannot create {}", path.display())))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io(format!("cannot set the mode of {}", path.display())))
}
