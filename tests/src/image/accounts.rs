//! Users and groups of the assembled images: what the packages' installation scripts and the product's user table would
//! have made.

use std::fs;
use std::os::unix::fs::{chown, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};

use super::{Flavour, PACK};

/// The product's ordinary user, with whom one may log in over ssh.
pub const DEVICE_USER: &str = "device";

/// Its password.
pub const DEVICE_PASSWORD: &str = "only-for-validation";

/// `name:id:home:shell`; the group has the same name and id.
const USERS: &[(&str, u32, &str, &str)] = &[
    ("root", 0, "/root", "/bin/sh"),
    ("messagebus", 101, "/nonexistent", "/usr/sbin/nologin"),
    ("sshd", 102, "/run/sshd", "/usr/sbin/nologin"),
    ("defender", 990, "/var/lib/defender", "/usr/sbin/nologin"),
    ("systemd-network", 998, "/", "/usr/sbin/nologin"),
    (DEVICE_USER, 1000, "/home/device", "/bin/sh"),
    ("nobody", 65534, "/nonexistent", "/usr/sbin/nologin"),
];

/// Groups without a user of their name, with Debian's numbers; udev and journald want most of them.
const GROUPS: &[(&str, u32)] = &[
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("kmem", 15),
    ("dialout", 20),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("audio", 29),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("plugdev", 46),
    ("users", 100),
    ("input", 104),
    ("sgx", 105),
    ("kvm", 106),
    ("render", 107),
    ("systemd-journal", 999),
];

/// Number of user and group `name`.
pub(super) fn id(name: &str) -> Option<u32> {
    USERS
        .iter()
        .map(|(user, id, ..)| (*user, *id))
        .chain(GROUPS.iter().copied())
        .find_map(|(known, id)| (known == name).then_some(id))
}

/// Writes the account files and makes the home directories.
pub(super) fn write(root: &Path, flavour: Flavour) -> Result<()> {
    let hash = command::run(
        Command::new("openssl").args(["passwd", "-6", "-salt", "validation", DEVICE_PASSWORD]),
        PACK,
    )?;
    let hash = String::from_utf8_lossy(&hash).trim().to_owned();
    let (mut passwd, mut group, mut shadow) = (String::new(), String::new(), String::new());
    for (name, id, home, shell) in USERS {
        if flavour == Flavour::Busybox && name.starts_with("systemd-") {
            continue;
        }
        let password = if *name == DEVICE_USER { hash.as_str() } else { "*" };
        passwd.push_str(&format!("{name}:x:{id}:{id}::{home}:{shell}\n"));
        shadow.push_str(&format!("{name}:{password}:19000:0:99999:7:::\n"));
        let group_name = if *name == "nobody" { "nogroup" } else { name };
        group.push_str(&format!("{group_name}:x:{id}:\n"));
    }
    for (name, id) in GROUPS {
        group.push_str(&format!("{name}:x:{id}:\n"));
    }
    for (file, content, mode) in [
        ("passwd", passwd, 0o644),
        ("group", group, 0o644),
        ("shadow", shadow, 0o640),
        ("gshadow", String::new(), 0o640),
    ] {
        let path = root.join("etc").join(file);
        let failed = format!("cannot write {}", path.display());
        fs::write(&path, content).map_err(Error::io(failed.clone()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(Error::io(failed.clone()))?;
        if mode == 0o640 {
            chown(&path, Some(0), id("shadow")).map_err(Error::io(failed))?;
        }
    }
    for (home, mode, user) in [("root", 0o700, "root"), ("home/device", 0o750, DEVICE_USER)] {
        let path = root.join(home);
        let failed = format!("cannot make {}", path.display());
        fs::create_dir_all(&path).map_err(Error::io(failed.clone()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(Error::io(failed.clone()))?;
        chown(&path, id(user), id(user)).map_err(Error::io(failed))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_twice() {
        let mut ids: Vec<u32> = USERS.iter().map(|u| u.1).chain(GROUPS.iter().map(|g| g.1)).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert_eq!(id("defender"), Some(990));
    }
}
