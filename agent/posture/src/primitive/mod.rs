//! Primitives: the questions a check can ask. Each module reads the keys of its table and answers.
//!
//! | Module | Asks about |
//! |---|---|
//! | [`account`] | accounts and passwords |
//! | [`boot`] | kernel configuration, command line, modules |
//! | [`certificate`] | X.509 certificates and private keys |
//! | [`dropbear`] | options of the small ssh server |
//! | [`elf`] | hardening of programs |
//! | [`file`] | existence, kind, mode and owner of files |
//! | [`find`] | files that stand out anywhere in the tree |
//! | [`image`] | what the image is and has, mainly for `when` |
//! | [`listen`] | what a running device listens on |
//! | [`mount`] | file systems and their options |
//! | [`nftables`] | what the packet filter lets through |
//! | [`package`] | installed packages |
//! | [`pam`] | lines of a PAM stack |
//! | [`service`] | what is started at boot, who may log in on a console |
//! | [`setting`] | keys and values of configuration files |
//! | [`sshd`] | effective options of OpenSSH |
//! | [`sysctl`] | kernel parameters |
//! | [`text`] | lines of files |

mod account;
mod boot;
mod certificate;
mod dropbear;
mod elf;
mod file;
mod find;
mod image;
mod listen;
mod mount;
mod nftables;
mod package;
mod pam;
mod service;
mod setting;
mod sshd;
mod sysctl;
mod text;

use std::path::PathBuf;

use crate::expression::Outcome;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

/// One question about an image.
pub(crate) trait Primitive: core::fmt::Debug + Send + Sync {
    /// Answers it.
    fn judge(&self, scan: &Scan<'_>) -> Outcome;
}

/// Reads a primitive's keys.
pub(crate) type Parse = fn(&mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault>;

/// Every primitive by the key that names it.
pub(crate) const PRIMITIVES: &[(&str, Parse)] = &[
    ("account", account::parse),
    ("busybox", image::busybox),
    ("certificate", certificate::certificate),
    ("cmdline", boot::cmdline),
    ("dropbear", dropbear::parse),
    ("elf", elf::parse),
    ("file", file::parse),
    ("find", find::parse),
    ("has", image::has),
    ("inittab", service::inittab),
    ("kconfig", boot::kconfig),
    ("listen", listen::parse),
    ("live", image::live),
    ("module", boot::module),
    ("mount", mount::parse),
    ("nftables", nftables::parse),
    ("package", package::parse),
    ("pam", pam::parse),
    ("private_key", certificate::private_key),
    ("root_fs", image::root_fs),
    ("service", service::parse),
    ("setting", setting::parse),
    ("sshd", sshd::parse),
    ("sysctl", sysctl::parse),
    ("systemd", image::systemd),
    ("text", text::parse),
    ("verity", image::verity),
    ("writable_root", image::writable_root),
];

/// The paths some patterns stand for, in the order of the patterns.
fn expand(scan: &Scan<'_>, patterns: &[String]) -> Result<Vec<PathBuf>, Unreadable> {
    let mut paths = Vec::new();
    for pattern in patterns {
        for path in scan.root.glob(pattern)? {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

/// Paths or patterns of a key; each starts at the root.
fn paths(keys: &mut Keys<'_>, key: &'static str) -> Result<Vec<String>, Fault> {
    let paths = keys.list(key)?.unwrap_or_default();
    match paths.iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(keys.fault(key, format!("`{path}` does not start with `/`"))),
        None if paths.is_empty() => Err(keys.fault(key, format!("`{key}` names no path"))),
        None => Ok(paths),
    }
}
