//! Bootable images: assembled from distribution packages as a product would lay them out, or brought along from a
//! Buildroot or Yocto build.
//!
//! An image is three files: kernel, initramfs and root file system. The root file system is the product (read-only, with
//! the agent and `rootfs-overlay/`); the initramfs belongs to the harness and carries its control agent.

mod accounts;
mod external;
mod guest;
mod initramfs;
mod inputs;
mod libraries;
mod modules;
mod root;
mod toolchain;

pub use accounts::{DEVICE_PASSWORD, DEVICE_USER};
pub use external::external;
pub use guest::Programs;
pub(crate) use libraries::of as libraries;
pub(crate) use modules::unpack as unpack_module;
pub(crate) use root::left_out;
use toolchain::Toolchain;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::architecture::Architecture;
use crate::command;
use crate::error::{Error, Result};
use crate::packages;
use crate::progress;
use crate::qemu;
use crate::workspace::Workspace;

/// Bound for each tool that packs a file system.
pub(crate) const PACK: Duration = Duration::from_secs(300);

/// The build machine's own, statically linked.
const BUSYBOX: &str = "/bin/busybox";

/// What a product adds to the kernel's command line where it cannot build the kernel itself: only signed modules, root does not
/// change the kernel, no debugfs, and caches of different objects are kept apart.
const CMDLINE: &str = "module.sig_enforce=1 lockdown=integrity debugfs=off slab_nomerge nohibernate";

/// The two kinds of product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// BusyBox init, BusyBox syslogd, dropbear.
    Busybox,
    /// systemd, rsyslog, OpenSSH, udev, auditd installed but not started.
    Systemd,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Busybox, Self::Systemd];

    /// As on the command line and in file names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busybox => "busybox",
            Self::Systemd => "systemd",
        }
    }

    /// The reverse of [`Flavour::name`].
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|flavour| flavour.name() == name).ok_or_else(|| {
            Error::Usage(format!(
                "no flavour `{name}`: there are {}",
                Self::ALL.map(Self::name).join(" and ")
            ))
        })
    }
}

/// Something QEMU can boot.
#[derive(Debug, Clone)]
pub struct Image {
    /// Of its programs.
    pub architecture: Architecture,
    /// How services are controlled in it.
    pub flavour: Flavour,
    /// Kernel, as QEMU's `-kernel` takes it.
    pub kernel: PathBuf,
    /// Our initramfs.
    pub initramfs: PathBuf,
    /// What the kernel was built with, where that is known.
    pub kernel_config: Option<PathBuf>,
    /// Words of the kernel's command line that belong to the product.
    pub cmdline: &'static str,
    /// Root file system, the first virtio disk.
    pub rootfs: PathBuf,
    /// The root file system is never written; state lives on a second disk, mounted at `/var`.
    pub read_only: bool,
    /// The image configures the addresses of the laboratory by itself.
    pub configures_network: bool,
    /// Programs for the tests to put into the guest.
    pub programs: Programs,
}

/// Assembles the image of `flavour` with the agent binary `agent`, or the one that cargo builds; reuses an earlier image if
/// nothing it is made of changed.
///
/// # Errors
/// When packages cannot be had, the agent is not built, or a tool fails. Must run as root, for the owners of files.
pub fn assemble(
    workspace: &Workspace,
    architecture: Architecture,
    flavour: Flavour,
    agent: Option<&Path>,
) -> Result<Image> {
    let agent = &match agent {
        Some(agent) => agent.to_path_buf(),
        None => Toolchain::prepare(workspace, architecture)?.agent(workspace)?,
    };
    if !agent.is_file() {
        return Err(Error::Missing {
            what: agent.display().to_string(),
            next: "build it with `cargo build --release --locked -p defender`".into(),
        });
    }
    let base = base(workspace, architecture, flavour)?;
    let kernel = modules::kernel(&packages::kernel(workspace, architecture, "kernel")?)?;
    let programs = guest::build(workspace, architecture)?;

    let mut digest = inputs::Digest::new();
    digest.path(&base);
    digest.path(&kernel.image);
    digest.file(&std::env::current_exe().map_err(Error::io("cannot find this program"))?)?;
    digest.file(agent)?;
    digest.file(&programs.control_agent)?;
    digest.tree(&workspace.overlay())?;
    digest.tree(&workspace.tests("image"))?;
    let name = format!("{}-{}", flavour.name(), architecture.name());
    let directory = workspace.work(&format!("images/{name}-{}", digest.finish()));
    let image = Image {
        architecture,
        flavour,
        kernel: kernel.image.clone(),
        initramfs: directory.join("initramfs.cpio"),
        kernel_config: Some(kernel.config.clone()),
        cmdline: CMDLINE,
        rootfs: directory.join("rootfs.squashfs"),
        read_only: true,
        configures_network: true,
        programs,
    };
    if image.rootfs.exists() {
        return Ok(image);
    }
    remove_earlier(workspace, &name)?;
    progress::step(&format!("assembling the {name} image"), || -> Result<()> {
        let stage = directory.join("stage");
        fs::create_dir_all(&directory)
            .map_err(Error::io(format!("cannot create {}", directory.display())))?;
        root::lay_out(workspace, (architecture, flavour), &base, &kernel, agent, &stage)?;
        let busybox = base.join("usr/bin/busybox");
        initramfs::build(workspace, &image.programs, &busybox, Some(&kernel), &["boot"], &image.initramfs)?;
        // Last, and renamed into place: its presence says that the image is complete. Not compressed: an emulated
        // processor unpacks slower than the disk delivers.
        let partial = directory.join("rootfs.partial");
        let mut pack = Command::new("mksquashfs");
        pack.arg(&stage).arg(&partial).args(["-noappend", "-quiet", "-no-progress", "-no-xattrs"]);
        pack.args(["-noI", "-noD", "-noF", "-noX"]);
        command::run(&mut pack, PACK)?;
        fs::remove_dir_all(&stage).map_err(Error::io(format!("cannot remove {}", stage.display())))?;
        fs::rename(&partial, &image.rootfs).map_err(Error::io(format!("cannot rename {}", partial.display())))
    })?;
    Ok(image)
}

/// What cargo must find in its environment to build programs for `architecture` as an image's agent is built, whose compilers are
/// downloaded and unpacked first.
///
/// # Errors
/// When packages cannot be had.
pub fn compilers(workspace: &Workspace, architecture: Architecture) -> Result<Vec<(String, OsString)>> {
    Ok(Toolchain::prepare(workspace, architecture)?.environment())
}

/// `image` on the distribution's kernel for any hardware, which has USB; the initramfs loads what that needs, since the root file system has
/// the modules of its own kernel alone. `None` for an image from elsewhere, and where no such kernel is named.
///
/// # Errors
/// As [`assemble`].
pub fn with_usb(workspace: &Workspace, image: &Image) -> Result<Option<Image>> {
    /// Machines of both flavours may ask at once for the same packages.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if image.kernel_config.is_none() || !image.architecture.is_native() {
        return Ok(None);
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = modules::kernel(&packages::kernel(workspace, image.architecture, "kernel-usb")?)?;
    let initramfs = image.initramfs.with_file_name("initramfs-usb.cpio");
    if !initramfs.exists() {
        let busybox = base(workspace, image.architecture, image.flavour)?.join("usr/bin/busybox");
        let sections = ["boot", "root", "usb"];
        let partial = initramfs.with_extension("partial");
        initramfs::build(workspace, &image.programs, &busybox, Some(&kernel), &sections, &partial)?;
        fs::rename(&partial, &initramfs)
            .map_err(Error::io(format!("cannot rename {}", partial.display())))?;
    }
    Ok(Some(Image {
        kernel: kernel.image.clone(),
        kernel_config: Some(kernel.config.clone()),
        initramfs,
        ..image.clone()
    }))
}

/// The root file system of a flavour as a directory, before anything packs it: what a build system's posture gate looks at.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The directory.
    pub root: PathBuf,
    /// What the kernel was built with.
    pub kernel_config: PathBuf,
    /// How the kernel is started.
    pub command_line: String,
}

/// Lays the root file system of `flavour` out in `root`, which must not exist.
///
/// # Errors
/// As [`assemble`].
pub fn tree(workspace: &Workspace, flavour: Flavour, agent: &Path, root: &Path) -> Result<Tree> {
    let native = Architecture::X86_64;
    let base = base(workspace, native, flavour)?;
    let kernel = modules::kernel(&packages::kernel(workspace, native, "kernel")?)?;
    root::lay_out(workspace, (native, flavour), &base, &kernel, agent, root)?;
    Ok(Tree {
        root: root.to_path_buf(),
        kernel_config: kernel.config.clone(),
        command_line: qemu::command_line(native, true, CMDLINE),
    })
}

/// The packages of a flavour. What the agent itself needs cannot be copied from the build machine for another architecture.
fn base(workspace: &Workspace, architecture: Architecture, flavour: Flavour) -> Result<PathBuf> {
    let mut sections = vec![flavour.name()];
    if !architecture.is_native() {
        sections.push("libraries");
    }
    packages::unpacked(workspace, architecture, &sections)
}

/// Only the newest image of a kind is kept.
fn remove_earlier(workspace: &Workspace, name: &str) -> Result<()> {
    let directory = workspace.work("images");
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(name) {
            fs::remove_dir_all(entry.path())
                .map_err(Error::io(format!("cannot remove {}", entry.path().display())))?;
        }
    }
    Ok(())
}
