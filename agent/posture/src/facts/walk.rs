//! The files that stand out, found by one walk of the tree for all checks: bounded in memory, no link followed, no recursion.
//!
//! In an image the walk stays on the root's file system. On a running device it goes on into other local file systems, each once.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::io::Read as _;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use defender_model::text;

use super::bytes::find;
use crate::root::{Kind, Metadata, Unreadable};
use crate::scan::Scan;

/// What a file stands out by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trait {
    Setuid,
    Setgid,
    Capability,
    WorldWritable,
    DirectoryWithoutSticky,
    Unowned,
    Ungrouped,
    DeviceNode,
    PrivateKey,
    SuspiciousSuffix,
}

impl Trait {
    pub(crate) const ALL: [(&'static str, Self); 10] = [
        ("setuid", Self::Setuid),
        ("setgid", Self::Setgid),
        ("capability", Self::Capability),
        ("world_writable", Self::WorldWritable),
        ("world_writable_dir_without_sticky", Self::DirectoryWithoutSticky),
        ("unowned", Self::Unowned),
        ("ungrouped", Self::Ungrouped),
        ("device_node", Self::DeviceNode),
        ("private_key", Self::PrivateKey),
        ("suspicious_suffix", Self::SuspiciousSuffix),
    ];
}

/// Most files kept of one trait.
const MAX_HITS: usize = 2000;
/// Most directories waiting to be listed.
const MAX_PENDING: usize = 32_768;
/// Most entries of a walk.
const MAX_ENTRIES: u64 = 8_000_000;
/// Longest file looked into for a private key.
const MAX_KEY: u64 = 64 * 1024;

/// One file that stands out.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    /// More words for the evidence.
    pub(crate) note: String,
}

/// What the walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    hits: [Vec<Hit>; Trait::ALL.len()],
    /// Files of that trait beyond the bound.
    more: [u64; Trait::ALL.len()],
    /// Why a part of the tree was not seen.
    pub(crate) incomplete: Option<String>,
    buffer: Vec<u8>,
}

/// File systems a running device's walk goes on into.
const LOCAL: &[&str] = &[
    "ext2", "ext3", "ext4", "f2fs", "ubifs", "jffs2", "yaffs2", "btrfs", "xfs", "squashfs", "erofs",
    "cramfs", "romfs", "vfat", "exfat", "ntfs3", "tmpfs", "zfs", "bcachefs", "iso9660",
];
/// Directories whose small files are all looked into for private keys; elsewhere only those that are named like one.
const KEY_DIRECTORIES: &[&str] =
    &["etc", "root", "home", "var", "opt", "srv", "data", "mnt", "persistent", "config"];

impl Walk {
    pub(crate) fn make(scan: &Scan<'_>) -> Result<Self, Unreadable> {
        let accounts = scan.accounts()?;
        let known = Known {
            uids: accounts.accounts.iter().filter_map(|account| account.uid).chain([0]).collect(),
            gids: accounts.groups.iter().filter_map(|group| group.gid).chain([0]).collect(),
        };
        let mut walk = Self::default();
        let mut starts = vec![PathBuf::from("/")];
        if scan.inputs.live {
            let local = scan.mounts()?.mounts.iter().filter(|mount| LOCAL.contains(&mount.fstype.as_str()));
            starts.extend(
                local.map(|mount| PathBuf::from(&mount.point)).filter(|point| point != Path::new("/")),
            );
        }
        let (mut seen, mut entries) = (HashSet::new(), 0);
        for start in starts {
            let Some(found) = scan.root.link_metadata(&start)? else { continue };
            // The same directory may be mounted in several places.
            if found.kind == Kind::Directory && seen.insert(found.inode) {
                walk.tree(scan, &known, &start, found.inode.0, &mut entries);
            }
        }
        for (path, metadata, device) in scan.root.added() {
            if device.is_some() && !path.starts_with("/dev") {
                walk.add(Trait::DeviceNode, path, metadata, String::new());
            }
        }
        if let Some(path) = scan.root.hidden_from_a_walk() {
            let words = format!("{} is hidden from this process by who started it", path.display());
            walk.incomplete.get_or_insert(words);
        }
        walk.buffer = Vec::new();
        Ok(walk)
    }

    /// Files of a trait, and how many more there are than were kept.
    pub(crate) fn of(&self, stands_out: Trait) -> (&[Hit], u64) {
        (&self.hits[stands_out as usize], self.more[stands_out as usize])
    }

    fn tree(&mut self, scan: &Scan<'_>, known: &Known, start: &Path, device: u64, entries: &mut u64) {
        let mut pending = vec![start.to_owned()];
        while let Some(directory) = pending.pop() {
            let visited = scan.root.each_entry(&directory, |fd, name, found| {
                *entries += 1;
                let path = || directory.join(OsStr::from_bytes(name.to_bytes()));
                self.look(scan, known, &directory, fd, name, &found);
                if found.kind == Kind::Directory && found.inode.0 == device {
                    if pending.len() < MAX_PENDING {
                        pending.push(path());
                    } else {
                        self.incomplete.get_or_insert_with(|| {
                            format!("more than {MAX_PENDING} directories wait to be searched")
                        });
                    }
                }
                *entries < MAX_ENTRIES
            });
            match visited {
                Ok(false) => {}
                Ok(true) => {
                    self.incomplete.get_or_insert_with(|| format!("more than {MAX_ENTRIES} files"));
                    return;
                }
                // A process often has a /dev of its own; nothing the walk looks for lives there.
                Err(_) if directory.starts_with("/dev") => {}
                Err(unreadable) => {
                    self.incomplete.get_or_insert_with(|| unreadable.to_string());
                }
            }
        }
    }

    fn look(
        &mut self,
        scan: &Scan<'_>,
        known: &Known,
        directory: &Path,
        fd: RawFd,
        name: &CStr,
        found: &Metadata,
    ) {
        let path = || directory.join(OsStr::from_bytes(name.to_bytes()));
        if found.kind == Kind::Link {
            return;
        }
        if !known.uids.contains(&found.uid) {
            self.add(Trait::Unowned, &path(), found, format!("user id {}", found.uid));
        }
        if !known.gids.contains(&found.gid) {
            self.add(Trait::Ungrouped, &path(), found, format!("group id {}", found.gid));
        }
        match found.kind {
            Kind::File => {
                if found.mode & 0o4000 != 0 {
                    self.add(Trait::Setuid, &path(), found, format!("owner {}", found.uid));
                }
                if found.mode & 0o2000 != 0 {
                    self.add(Trait::Setgid, &path(), found, format!("group {}", found.gid));
                }
                if found.mode & 0o002 != 0 {
                    self.add(Trait::WorldWritable, &path(), found, String::new());
                }
                if found.mode & 0o111 != 0 {
                    if let Some(names) = capabilities(scan, fd, name, found) {
                        self.add(Trait::Capability, &path(), found, names);
                    }
                }
                if is_left_over(name.to_bytes()) {
                    self.add(Trait::SuspiciousSuffix, &path(), found, String::new());
                }
                if may_hold_key(directory, name.to_bytes(), found.size) {
                    let path = path();
                    if let Some(kind) = private_key(scan, &path, found.size, &mut self.buffer) {
                        self.add(Trait::PrivateKey, &path, found, kind.to_owned());
                    }
                }
            }
            Kind::Directory if found.mode & 0o1002 == 0o002 => {
                self.add(Trait::DirectoryWithoutSticky, &path(), found, String::new());
            }
            Kind::Character | Kind::Block if !directory.starts_with("/dev") => {
                // A whiteout of overlayfs is character device 0:0; it marks what is not there.
                self.add(Trait::DeviceNode, &path(), found, found.kind.name().to_owned());
            }
            _ => {}
        }
    }

    fn add(&mut self, stands_out: Trait, path: &Path, found: &Metadata, note: String) {
        let hits = &mut self.hits[stands_out as usize];
        if hits.len() < MAX_HITS {
            hits.push(Hit { path: path.to_owned(), mode: found.mode, note });
        } else {
            self.more[stands_out as usize] += 1;
        }
    }
}

/// Owners and groups that have a name.
struct Known {
    uids: HashSet<u32>,
    gids: HashSet<u32>,
}

/// Capabilities of a file as text.
fn capabilities(scan: &Scan<'_>, directory: RawFd, name: &CStr, found: &Metadata) -> Option<String> {
    if let Some(told) = scan.root.told_capability(found.inode) {
        return Some(told);
    }
    let mut path = format!("/proc/self/fd/{directory}/").into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = CString::new(path).ok()?;
    let mut value = [0_u8; 64];
    // SAFETY: both names end in NUL, and the buffer has the length that is stated.
    let length = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    let length = usize::try_from(length).ok()?;
    Some(capability_names(value.get(..length)?))
}

/// Names of the capabilities in a `security.capability` attribute (`vfs_cap_data` of linux/capability.h).
fn capability_names(value: &[u8]) -> String {
    const NAMES: [&str; 41] = [
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ];
    let word = |at: usize| {
        value.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let permitted = u64::from(word(4)) | u64::from(word(12)) << 32;
    let names: Vec<String> = (0..64_usize)
        .filter(|bit| permitted >> bit & 1 == 1)
        .map(|bit| NAMES.get(bit).map_or_else(|| format!("{bit}"), |name| format!("cap_{name}")))
        .collect();
    names.join(",")
}

/// Names of what development leaves behind.
fn is_left_over(name: &[u8]) -> bool {
    const SUFFIXES: [&[u8]; 16] = [
        b".orig",
        b".rej",
        b"~",
        b".bak",
        b".old",
        b".swp",
        b".swo",
        b".core",
        b".pcap",
        b".pcapng",
        b".gdbinit",
        b".gcda",
        b".gcno",
        b".dwo",
        b".patch",
        b".save",
    ];
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        || name == b"core"
        || name == b".bash_history"
        || name == b".ash_history"
}

fn may_hold_key(directory: &Path, name: &[u8], size: u64) -> bool {
    const ENDINGS: [&[u8]; 8] = [b".pem", b".key", b"_key", b".p8", b"_rsa", b"_ecdsa", b"_ed25519", b".ppk"];
    if !(32..=MAX_KEY).contains(&size) {
        return false;
    }
    let top = directory.components().nth(1).map(Component::as_os_str);
    ENDINGS.iter().any(|ending| name.ends_with(ending))
        || top.and_then(OsStr::to_str).is_some_and(|top| KEY_DIRECTORIES.contains(&top))
}

/// What kind of private key a file holds.
fn private_key(scan: &Scan<'_>, path: &Path, size: u64, buffer: &mut Vec<u8>) -> Option<&'static str> {
    let (mut file, _) = scan.root.open_regular(path).ok()??;
    // Its length was looked at before: one read is enough for nearly every file.
    buffer.resize(buffer.len().max(usize::try_from(MAX_KEY).ok()?), 0);
    let buffer = &mut buffer[..usize::try_from(size.min(MAX_KEY)).ok()?];
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    key_kind(&buffer[..length])
}

/// What kind of private key some bytes hold: PEM of any kind, or a host key of dropbear.
pub(crate) fn key_kind(bytes: &[u8]) -> Option<&'static str> {
    if let Some(name) = bytes.get(4..).filter(|_| bytes.starts_with(&[0, 0, 0])) {
        if [&b"ssh-rsa\0"[..], b"ssh-dss\0", b"ssh-ed25519\0", b"ecdsa-sha2-nistp"]
            .iter()
            .any(|kind| name.starts_with(kind))
        {
            return Some("dropbear key");
        }
    }
    if bytes.starts_with(b"PuTTY-User-Key-File") {
        return Some("PuTTY key");
    }
    let mut rest = bytes;
    while let Some(at) = find(rest, b"-----BEGIN ") {
        let label = &rest[at + 11..];
        let label = &label[..label.len().min(40)];
        let end = find(label, b"-----").unwrap_or(0);
        if label[..end].ends_with(b"PRIVATE KEY") {
            return Some(match &label[..end] {
                b"ENCRYPTED PRIVATE KEY" => "encrypted private key",
                b"OPENSSH PRIVATE KEY" => "OpenSSH private key",
                _ => "private key",
            });
        }
        rest = &rest[at + 11..];
    }
    None
}

impl Hit {
    /// One line of evidence.
    pub(crate) fn shown(&self) -> String {
        let path = text::from_bytes(self.path.as_os_str().as_bytes());
        match self.note.is_empty() {
            true => format!("{path}: mode {:04o}", self.mode),
            false => format!("{path}: mode {:04o}, {}", self.mode, self.note),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_keys_by_their_content() {
        assert_eq!(
            key_kind(b"x\n-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----\n"),
            Some("private key")
        );
        assert_eq!(key_kind(b"-----BEGIN OPENSSH PRIVATE KEY-----"), Some("OpenSSH private key"));
        assert_eq!(key_kind(b"\0\0\0\x0bssh-ed25519\0\0\0\x40"), Some("dropbear key"));
        assert_eq!(key_kind(b"-----BEGIN PUBLIC KEY-----"), None);
        assert_eq!(key_kind(b"-----BEGIN "), None);
    }

    #[test]
    fn names_capabilities() {
        let net_raw = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(capability_names(&net_raw), "cap_net_raw,cap_bpf");
        assert_eq!(capability_names(&[]), "");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100), tail in "-----BEGIN .{0,50}") {
            let _ = (key_kind(&bytes), key_kind(tail.as_bytes()), capability_names(&bytes), is_left_over(&bytes));
        }
    }
}
