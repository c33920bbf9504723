//! `systemd`, `busybox`, `has`, `root_fs`, `writable_root`, `live`: what the image is, mainly for `when`.

use super::Primitive;
use crate::expression::Outcome;
use crate::facts::image;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

/// File systems that nothing can be written to.
const READ_ONLY: &[&str] = &["squashfs", "erofs", "cramfs", "romfs", "iso9660"];

#[derive(Debug)]
enum Fact {
    Systemd(bool),
    Busybox(bool),
    Live(bool),
    Has(Vec<String>),
    RootFs(Vec<String>),
    WritableRoot(bool),
    Verity(bool),
}

fn flag(keys: &mut Keys<'_>, key: &'static str, fact: fn(bool) -> Fact) -> Result<Box<dyn Primitive>, Fault> {
    Ok(Box::new(fact(keys.flag(key)?.unwrap_or(true))))
}

pub(super) fn systemd(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    flag(keys, "systemd", Fact::Systemd)
}

pub(super) fn busybox(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    flag(keys, "busybox", Fact::Busybox)
}

pub(super) fn live(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    flag(keys, "live", Fact::Live)
}

pub(super) fn writable_root(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    flag(keys, "writable_root", Fact::WritableRoot)
}

pub(super) fn verity(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    flag(keys, "verity", Fact::Verity)
}

pub(super) fn has(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let things = keys.list("has")?.unwrap_or_default();
    let fits = |thing: &String| {
        !thing.is_empty()
            && thing.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'))
    };
    if things.is_empty() || !things.iter().all(fits) {
        return Err(keys.fault("has", "`has` names things or programs, such as \"sshd\""));
    }
    Ok(Box::new(Fact::Has(things)))
}

pub(super) fn root_fs(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    Ok(Box::new(Fact::RootFs(keys.list("root_fs")?.unwrap_or_default())))
}

impl Fact {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let evidence = |is: bool, what: &str| vec![format!("{what}: {}", if is { "yes" } else { "no" })];
        Ok(match self {
            Self::Systemd(wanted) => {
                let is = image::systemd(scan.root)?;
                Outcome::of(is == *wanted, evidence(is, "has systemd"))
            }
            Self::Busybox(wanted) => {
                let is = image::has(scan.root, "busybox")?.is_some();
                Outcome::of(is == *wanted, evidence(is, "has BusyBox"))
            }
            Self::Live(wanted) => {
                Outcome::of(scan.inputs.live == *wanted, evidence(scan.inputs.live, "live"))
            }
            Self::Has(things) => {
                for thing in things {
                    if let Some(path) = image::has(scan.root, thing)? {
                        return Ok(Outcome::yes(vec![format!("{path}: is there")]));
                    }
                }
                Outcome::no(vec![format!("no {} in the image", things.join(", "))])
            }
            Self::RootFs(wanted) => match root_type(scan)? {
                Some(fstype) => {
                    Outcome::of(wanted.contains(&fstype), vec![format!("/: a {fstype} file system")])
                }
                None => Outcome::no(vec![
                    "/: the type of its file system is not in fstab or the command line".to_owned(),
                ]),
            },
            Self::Verity(wanted) => match verity_of(scan)? {
                Some(by) => Outcome::of(*wanted, vec![format!("dm-verity: {by}")]),
                None => match scan.command_line() {
                    Ok(line) => {
                        Outcome::of(!wanted, vec![format!("{}: nothing sets up dm-verity", line.from)])
                    }
                    Err(reason) => Outcome::unknown(reason),
                },
            },
            Self::WritableRoot(wanted) => {
                let (writable, why) = writable(scan)?;
                Outcome::of(
                    writable == *wanted,
                    vec![format!("/: {} ({why})", if writable { "writable" } else { "read-only" })],
                )
            }
        })
    }
}

/// What sets up dm-verity: the command line, veritytab, or a device of that kind on a running system.
fn verity_of(scan: &Scan<'_>) -> Result<Option<String>, Unreadable> {
    if let Ok(line) = scan.command_line() {
        for name in
            ["roothash", "systemd.verity_root_hash", "dm-mod.create", "verity.rootfs_hash", "rootfs.verity"]
        {
            if line.last(name).is_some_and(|value| !name.starts_with("dm-mod") || value.contains("verity")) {
                return Ok(Some(format!("{}: {name}", line.from)));
            }
        }
    }
    if let Some(text) = scan.root.text("/etc/veritytab")? {
        if text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            return Ok(Some("/etc/veritytab".to_owned()));
        }
    }
    if scan.inputs.live {
        for path in scan.root.glob("/sys/block/dm-*/dm/uuid")? {
            if scan.root.text(&path)?.is_some_and(|uuid| uuid.starts_with("CRYPT-VERITY")) {
                return Ok(Some(path.display().to_string()));
            }
        }
    }
    Ok(None)
}

/// Type of the root's file system.
fn root_type(scan: &Scan<'_>) -> Result<Option<String>, Unreadable> {
    let told = scan.mounts()?.on("/").map(|mount| mount.fstype.clone());
    if let Some(fstype) = told.filter(|fstype| !matches!(fstype.as_str(), "auto" | "rootfs" | "none")) {
        return Ok(Some(fstype));
    }
    Ok(scan.command_line().ok().and_then(|line| line.last("rootfstype").map(str::to_owned)))
}

/// Whether the root is mounted for writing, and by what that is known. The kernel mounts it read-only when the command line says `ro`,
/// and init remounts it as fstab says; without either it is writable.
fn writable(scan: &Scan<'_>) -> Result<(bool, String), Unreadable> {
    if let Some(fstype) = root_type(scan)?.filter(|fstype| READ_ONLY.contains(&fstype.as_str())) {
        return Ok((false, fstype));
    }
    if let Some(mount) = scan.mounts()?.on("/") {
        let read_only = mount.options.iter().any(|option| option == "ro");
        return Ok((!read_only, format!("{}: {}", mount.from, mount.options.join(","))));
    }
    match scan.command_line() {
        Ok(line) if line.last("ro").is_some() => Ok((false, format!("{}: ro", line.from))),
        _ => Ok((true, "nothing says otherwise".to_owned())),
    }
}

impl Primitive for Fact {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
