//! What is known of one file.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use defender_model::file::{FileChange, FileType, Sha256};

use super::digest;

/// Longest value of `security.capability`, in bytes: `struct vfs_ns_cap_data` (linux/capability.h) has 24.
const CAPABILITIES: usize = 64;

/// A file as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) file_type: FileType,
    /// Permission bits.
    pub(super) mode: u16,
    pub(super) owner: u32,
    pub(super) group: u32,
    /// Bytes; 0 of what is no regular file.
    pub(super) size: u64,
    /// `st_ctim`, in nanoseconds.
    pub(super) changed: i64,
    /// Of the content, of a link of where it leads; `None` where it was not computed.
    pub(super) sha256: Option<Sha256>,
    /// Value of `security.capability`; empty for none.
    pub(super) capabilities: Box<[u8]>,
}

impl Entry {
    /// Looks at a file. Content is read up to `limit` bytes; a file with more has no digest. `paced` hears how much was read.
    ///
    /// # Errors
    /// When there is no such file, or it cannot be looked at. That its content cannot be read is none.
    pub(super) fn look(path: &Path, limit: u64, mut paced: impl FnMut(usize)) -> io::Result<Self> {
        let meta = path.symlink_metadata()?;
        let mut entry = Self::of(&meta);
        match entry.file_type {
            FileType::Regular if limit > 0 && meta.len() <= limit => {
                // What cannot be read, or became another file meanwhile, has no digest.
                entry.sha256 = open(path)
                    .and_then(|mut file| {
                        entry = Self { capabilities: Box::default(), ..Self::of(&file.metadata()?) };
                        digest::sha256(&mut file, limit, &mut paced)
                    })
                    .unwrap_or_default();
                entry.capabilities = capabilities(path);
            }
            FileType::Regular => entry.capabilities = capabilities(path),
            FileType::Link if limit > 0 => {
                let target = path.read_link()?;
                entry.sha256 = digest::sha256(&mut target.as_os_str().as_bytes(), limit, |_| {})?;
            }
            _ => {}
        }
        Ok(entry)
    }

    fn of(meta: &Metadata) -> Self {
        let file_type = file_type(meta);
        Self {
            file_type,
            mode: (meta.mode() & 0o7777) as u16,
            owner: meta.uid(),
            group: meta.gid(),
            size: if file_type == FileType::Regular { meta.len() } else { 0 },
            changed: meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec()),
            sha256: None,
            capabilities: Box::default(),
        }
    }

    /// How a file that was `before` came to be this; `None` where it is the same.
    pub(super) fn change_since(&self, before: &Self) -> Option<FileChange> {
        let content = match (&self.sha256, &before.sha256) {
            (Some(now), Some(then)) => now != then,
            // Without a digest, the kernel's word that something changed.
            _ => {
                !matches!(self.file_type, FileType::Directory)
                    && (self.size, self.changed) != (before.size, before.changed)
            }
        };
        if self.file_type != before.file_type || content {
            return Some(FileChange::Modified);
        }
        self.attributes_differ(before).then_some(FileChange::Attributes)
    }

    /// Mode, owner or capabilities are others.
    pub(super) fn attributes_differ(&self, before: &Self) -> bool {
        let attributes = |entry: &Self| (entry.mode, entry.owner, entry.group);
        attributes(self) != attributes(before) || self.capabilities != before.capabilities
    }
}

fn open(path: &Path) -> io::Result<File> {
    // It may have become a pipe or a terminal since it was looked at.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// The kind of file.
fn file_type(meta: &Metadata) -> FileType {
    let kind = meta.file_type();
    if kind.is_file() {
        FileType::Regular
    } else if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Link
    } else if kind.is_char_device() {
        FileType::CharacterDevice
    } else if kind.is_block_device() {
        FileType::BlockDevice
    } else if kind.is_fifo() {
        FileType::Pipe
    } else if kind.is_socket() {
        FileType::Socket
    } else {
        FileType::Unknown
    }
}

fn capabilities(path: &Path) -> Box<[u8]> {
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return Box::default() };
    let name = c"security.capability";
    let mut value = [0_u8; CAPABILITIES];
    // SAFETY: both strings end with a zero, and the buffer has the length that is stated; all live through the call.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    // None set, or a file system without them.
    usize::try_from(length).map(|length| value[..length.min(CAPABILITIES)].into()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{symlink, PermissionsExt};

    use super::*;

    #[test]
    fn a_change_is_called_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let look = || Entry::look(&path, 1 << 20, |_| {}).unwrap();
        fs::write(&path, "one").unwrap();
        let before = look();
        assert_eq!((before.file_type, before.size), (FileType::Regular, 3));
        // Written anew with the same content: nothing that counts.
        fs::write(&path, "one").unwrap();
        #[cfg(feature = "sha256")]
        assert_eq!(look().change_since(&before), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        let changed = look();
        assert_eq!(changed.mode, 0o4755);
        #[cfg(feature = "sha256")]
        assert_eq!(changed.change_since(&before), Some(FileChange::Attributes));
        fs::write(&path, "two").unwrap();
        assert_eq!(look().change_since(&before), Some(FileChange::Modified));
        fs::remove_file(&path).unwrap();
        symlink("one", &path).unwrap();
        assert_eq!(look().change_since(&before), Some(FileChange::Modified));
    }

    #[test]
    fn what_is_too_large_is_known_by_its_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "long").unwrap();
        let before = Entry::look(&path, 3, |_| {}).unwrap();
        assert_eq!(before.sha256, None);
        assert_eq!(before.change_since(&before), None);
        let later = Entry { changed: before.changed + 1, ..before.clone() };
        assert_eq!(later.change_since(&before), Some(FileChange::Modified));
    }
}
