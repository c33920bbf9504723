//! Access to a root directory that never leaves it.
//!
//! The root is opened once. Every path is resolved below it, links included: an absolute link means the root's own `/`, and `..` stops
//! there. Only regular files are read, at most [`READ_LIMIT`] bytes of them; FIFOs and devices are never opened.
//!
//! | Module | Holds |
//! |---|---|
//! | `resolve` | from a path to an open file, by openat2 or step by step |
//! | [`table`] | ownership and device nodes of an image built without privileges |
//! | [`glob`] | patterns of paths |
//! | `directory` | the names in a directory |

mod directory;
pub mod glob;
mod resolve;
pub mod table;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use defender_model::order;
use defender_model::text;

use self::resolve::Last;
use self::table::DeviceTable;
use crate::facts::accounts;

/// Most bytes read of one file.
pub const READ_LIMIT: u64 = 4 << 20;
/// Most entries of one directory that are listed.
pub const LIST_LIMIT: usize = 65_536;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::File, Self::Directory, Self::Link, Self::Character, Self::Block, Self::Fifo, Self::Socket];

    /// The word policies use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "dir",
            Self::Link => "link",
            Self::Character => "char",
            Self::Block => "block",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
        }
    }

    const fn from_mode(mode: libc::mode_t) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Link,
            libc::S_IFCHR => Self::Character,
            libc::S_IFBLK => Self::Block,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            _ => Self::File,
        }
    }
}

/// What `stat` says of a file, with the ownership of the device table where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-user-id, set-group-id and sticky included: at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Device and inode number, equal for two names of the same file.
    pub inode: (u64, u64),
    /// Hard links.
    pub links: u64,
}

/// A path that exists and cannot be looked at: the check cannot tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The path below the root.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl core::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for Unreadable {}

/// A root directory.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    name: PathBuf,
    /// openat2 is there; found out at the first use.
    openat2: std::cell::Cell<bool>,
    /// Everything belongs to root but what the table names.
    assume_root_owned: bool,
    /// Ownership by inode.
    owned: HashMap<(u64, u64), table::Attributes>,
    /// What the table adds and the directory does not have: device nodes mostly.
    added: BTreeMap<PathBuf, (Metadata, Option<(u32, u32)>)>,
    /// Where this process sees something else than the rest of the system.
    hidden: RefCell<Vec<PathBuf>>,
    /// Extended attributes by inode: file capabilities.
    capable: RefCell<HashMap<(u64, u64), String>>,
}

impl Root {
    /// Opens a root directory.
    ///
    /// # Errors
    /// It cannot be opened or is not a directory.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let directory = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(path)?;
        Ok(Self {
            directory: directory.into(),
            name: path.to_owned(),
            openat2: std::cell::Cell::new(true),
            assume_root_owned: false,
            owned: HashMap::new(),
            added: BTreeMap::new(),
            hidden: RefCell::default(),
            capable: RefCell::default(),
        })
    }

    /// The root as it was named.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Takes everything for root's: for images that an unprivileged build has unpacked.
    pub fn assume_root_owned(&mut self) {
        self.assume_root_owned = true;
    }

    /// The id of a user by the root's own passwd.
    #[must_use]
    pub fn user_id(&self, name: &str) -> Option<u32> {
        let text = self.text("/etc/passwd").ok().flatten()?;
        let found = accounts::passwd_lines(&text).find(|account| account.name == name)?;
        found.uid
    }

    /// The id of a group by the root's own group file.
    #[must_use]
    pub fn group_id(&self, name: &str) -> Option<u32> {
        let text = self.text("/etc/group").ok().flatten()?;
        let found = accounts::group_lines(&text).find(|group| group.name == name)?;
        found.gid
    }

    /// Resolves every path step by step, as on a kernel before 5.6.
    pub fn without_openat2(&mut self) {
        self.openat2.set(false);
    }

    /// Takes ownership, modes and device nodes from a table; what it does not name is root's.
    ///
    /// # Errors
    /// A directory of a recursive entry cannot be listed.
    pub fn apply(&mut self, table: &DeviceTable) -> Result<(), Unreadable> {
        self.assume_root_owned = true;
        for entry in &table.entries {
            self.apply_entry(entry)?;
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &table::Entry) -> Result<(), Unreadable> {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let Some(found) = self.raw(path, Last::AsItIs)? else {
            if let Some(kind) = entry.kind {
                for above in path.ancestors().skip(1) {
                    if self.metadata(above)?.is_none() {
                        let directory =
                            told(Kind::Directory, table::Attributes { mode: Some(0o755), uid: 0, gid: 0 });
                        self.added.insert(above.to_owned(), (directory, None));
                    }
                }
                self.added.insert(path.to_owned(), (told(kind, entry.attributes), entry.device));
            }
            return Ok(());
        };
        self.owned.insert(found.inode, entry.attributes);
        if let Some(capability) = &entry.capability {
            self.capable.borrow_mut().insert(found.inode, capability.clone());
        }
        if entry.recursive && found.kind == Kind::Directory {
            let mut pending = vec![path.to_owned()];
            while let Some(directory) = pending.pop() {
                for name in self.list(&directory)? {
                    let path = directory.join(name);
                    let Some(found) = self.raw(&path, Last::AsItIs)? else { continue };
                    // The mode of a recursive entry is for what is not a directory, as makedevs has it.
                    self.owned.insert(found.inode, entry.attributes);
                    if found.kind == Kind::Directory {
                        pending.push(path);
                    }
                }
            }
        }
        Ok(())
    }

    /// What is at that path, links followed; `None` when there is nothing.
    ///
    /// # Errors
    /// There may be something, and it cannot be looked at.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, Unreadable> {
        let path = path.as_ref();
        match self.raw(path, Last::Followed)? {
            Some(metadata) => Ok(Some(self.owned_as_told(metadata))),
            None => Ok(self.added.get(path).map(|(metadata, _)| *metadata)),
        }
    }

    /// Like [`Self::metadata`], of the link itself where the path is one.
    ///
    /// # Errors
    /// There may be something, and it cannot be looked at.
    pub fn link_metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, Unreadable> {
        let path = path.as_ref();
        match self.raw(path, Last::AsItIs)? {
            Some(metadata) => Ok(Some(self.owned_as_told(metadata))),
            None => Ok(self.added.get(path).map(|(metadata, _)| *metadata)),
        }
    }

    /// Whether there is something at that path, links followed.
    ///
    /// # Errors
    /// There may be something, and it cannot be looked at.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool, Unreadable> {
        self.metadata(path).map(|found| found.is_some())
    }

    /// Where a symbolic link points; `None` when the path is missing or not a link.
    ///
    /// # Errors
    /// There may be one, and it cannot be read.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>, Unreadable> {
        let path = path.as_ref();
        let Some(fd) = self.locate(path, Last::AsItIs)? else { return Ok(None) };
        match resolve::link_target(fd.as_raw_fd(), c"") {
            Ok(target) => Ok(Some(PathBuf::from(OsString::from_vec(target)))),
            Err(_) => Ok(None),
        }
    }

    /// A link to /dev/null: by it systemd, sysctl.d(5) and their kin say that a file of that name elsewhere does not count.
    ///
    /// # Errors
    /// The link cannot be read.
    pub fn is_mask(&self, path: impl AsRef<Path>) -> Result<bool, Unreadable> {
        Ok(self.read_link(path)?.is_some_and(|target| target == Path::new("/dev/null")))
    }

    /// The bytes of a regular file; `None` when there is nothing at that path. A mask is an empty file.
    ///
    /// # Errors
    /// It is not a regular file, longer than [`READ_LIMIT`] or cannot be read.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, Unreadable> {
        let path = path.as_ref();
        let opened = self.open_regular(path);
        if !matches!(opened, Ok(Some(_))) && self.is_mask(path).unwrap_or(false) {
            return Ok(Some(Vec::new()));
        }
        let Some((file, metadata)) = opened? else { return Ok(None) };
        let longer = || unreadable(path, format!("longer than {} MiB", READ_LIMIT >> 20));
        if metadata.size > READ_LIMIT {
            return Err(longer());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.size).unwrap_or_default());
        file.take(READ_LIMIT + 1).read_to_end(&mut bytes).map_err(|e| failed(path, &e))?;
        if bytes.len() as u64 > READ_LIMIT {
            return Err(longer());
        }
        Ok(Some(bytes))
    }

    /// Like [`Self::read`], as text: other bytes than UTF-8 escaped.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn text(&self, path: impl AsRef<Path>) -> Result<Option<String>, Unreadable> {
        Ok(self.read(path)?.map(text::from_vec))
    }

    /// A regular file, open for reading, for what is read in pieces.
    ///
    /// # Errors
    /// It is not a regular file or cannot be opened.
    pub fn open_regular(&self, path: impl AsRef<Path>) -> Result<Option<(File, Metadata)>, Unreadable> {
        let path = path.as_ref();
        let Some(located) = self.locate(path, Last::Followed)? else { return Ok(None) };
        let metadata = stat_fd(located.as_raw_fd()).map_err(|e| failed(path, &e))?;
        if metadata.kind != Kind::File {
            return Err(unreadable(path, not_a_file(metadata.kind)));
        }
        // The very file that was looked at, not whatever has that name by now.
        let again = format!("/proc/self/fd/{}", located.as_raw_fd());
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let opened = CString::new(again)
            .map_err(std::io::Error::from)
            .and_then(|again| resolve::open_at(libc::AT_FDCWD, &again, flags));
        let opened = match opened {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.open_by_path(path, flags),
            opened => opened,
        };
        let file = File::from(opened.map_err(|e| failed(path, &e))?);
        let metadata = stat_fd(file.as_raw_fd()).map_err(|e| failed(path, &e))?;
        if metadata.kind != Kind::File {
            return Err(unreadable(path, not_a_file(metadata.kind)));
        }
        Ok(Some((file, self.owned_as_told(metadata))))
    }

    /// The names in a directory, sorted, without `.` and `..`; none when it is missing.
    ///
    /// # Errors
    /// It is not a directory, cannot be listed, or has more than [`LIST_LIMIT`] entries.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>, Unreadable> {
        let path = path.as_ref();
        let Some(directory) = self.open_directory(path)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        let more = directory::each_name(directory, |_, name| {
            if names.len() < LIST_LIMIT {
                names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
            }
            names.len() < LIST_LIMIT
        })
        .map_err(|e| failed(path, &e))?;
        if more {
            return Err(unreadable(path, format!("more than {LIST_LIMIT} entries")));
        }
        order::sort(&mut names);
        Ok(names)
    }

    /// A directory open for listing; `None` when there is nothing at that path.
    pub(crate) fn open_directory(&self, path: &Path) -> Result<Option<OwnedFd>, Unreadable> {
        self.unless_hidden(path, Last::Followed)?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK | libc::O_CLOEXEC;
        match self.open_by_path(path, flags) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ENOTDIR) => match self.exists(path)? {
                true => Err(unreadable(path, "not a directory".to_owned())),
                false => Ok(None),
            },
            Err(e) => Err(failed(path, &e)),
        }
    }

    /// Calls `take` with every name in a directory that is not a link and what it is, until it returns false. Says whether it stopped.
    pub(crate) fn each_entry(
        &self,
        path: &Path,
        mut take: impl FnMut(RawFd, &CStr, Metadata) -> bool,
    ) -> Result<bool, Unreadable> {
        self.unless_hidden(path, Last::Followed)?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let opened = resolve::open(self.directory.as_raw_fd(), path, flags, Last::AsItIs, &self.openat2);
        let directory = match opened {
            Ok(directory) => directory,
            // Gone, or a link by now.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
                return Ok(false)
            }
            Err(e) => return Err(failed(path, &e)),
        };
        let entry = |directory, name: &CStr| match self.metadata_at(directory, name) {
            Ok(metadata) => take(directory, name, metadata),
            // Gone by now.
            Err(_) => true,
        };
        directory::each_name(directory, entry).map_err(|e| failed(path, &e))
    }

    /// `stat` of a name in an open directory, links not followed.
    fn metadata_at(&self, directory: RawFd, name: &CStr) -> std::io::Result<Metadata> {
        let mut stat = MaybeUninit::<libc::stat64>::uninit();
        // SAFETY: the name ends in NUL and `stat` has room for the kernel's answer.
        let done = unsafe {
            libc::fstatat64(directory, name.as_ptr(), stat.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW)
        };
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the call succeeded and filled it.
        Ok(self.owned_as_told(metadata_of(&unsafe { stat.assume_init() })))
    }

    /// Paths the device table adds to the directory, with what they are and their device numbers.
    pub(crate) fn added(&self) -> impl Iterator<Item = (&Path, &Metadata, Option<(u32, u32)>)> {
        self.added.iter().map(|(path, (metadata, device))| (path.as_path(), metadata, *device))
    }

    /// File capabilities the device table gives a file.
    pub(crate) fn told_capability(&self, inode: (u64, u64)) -> Option<String> {
        self.capable.borrow().get(&inode).cloned()
    }

    fn raw(&self, path: &Path, last: Last) -> Result<Option<Metadata>, Unreadable> {
        let Some(fd) = self.locate(path, last)? else { return Ok(None) };
        stat_fd(fd.as_raw_fd()).map(Some).map_err(|e| failed(path, &e))
    }

    /// Takes paths for hidden: what lies there is another thing than it is for the rest of the system, so nothing is told of it.
    pub(crate) fn hide(&self, paths: Vec<PathBuf>) {
        *self.hidden.borrow_mut() = paths;
    }

    /// A hidden path outside of the kernel's own file systems, where there is one.
    pub(crate) fn hidden_from_a_walk(&self) -> Option<PathBuf> {
        let own = |path: &Path| {
            ["/dev", "/proc", "/sys", "/run"].iter().any(|of_kernel| path.starts_with(of_kernel))
        };
        self.hidden.borrow().iter().find(|path| !own(path)).cloned()
    }

    /// An error where a path leads to what is hidden. A link itself is not hidden because of what it leads to: masks lead to /dev/null.
    fn unless_hidden(&self, path: &Path, last: Last) -> Result<(), Unreadable> {
        let hidden = self.hidden.borrow();
        if hidden.is_empty() {
            return Ok(());
        }
        // What is missing is judged by the nearest directory that is there.
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        let nearest = Path::new("/").join(path);
        let found = nearest.ancestors().enumerate().find_map(|(depth, above)| {
            let last = if depth == 0 { last } else { Last::Followed };
            resolve::open(self.directory.as_raw_fd(), above, flags, last, &self.openat2).ok()
        });
        let real = found.and_then(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok());
        let leads_in = |hidden: &&PathBuf| real.as_ref().is_some_and(|real| real.starts_with(hidden));
        match hidden.iter().find(leads_in) {
            Some(hidden) => Err(unreadable(
                path,
                format!("{} is hidden from this process by who started it", hidden.display()),
            )),
            None => Ok(()),
        }
    }

    fn locate(&self, path: &Path, last: Last) -> Result<Option<OwnedFd>, Unreadable> {
        self.unless_hidden(path, last)?;
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        match resolve::open(self.directory.as_raw_fd(), path, flags, last, &self.openat2) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
            Err(e) => Err(failed(path, &e)),
        }
    }

    fn open_by_path(&self, path: &Path, flags: libc::c_int) -> std::io::Result<OwnedFd> {
        resolve::open(self.directory.as_raw_fd(), path, flags, Last::Followed, &self.openat2)
    }

    fn owned_as_told(&self, mut metadata: Metadata) -> Metadata {
        if self.assume_root_owned {
            (metadata.uid, metadata.gid) = (0, 0);
        }
        if let Some(told) = self.owned.get(&metadata.inode) {
            (metadata.uid, metadata.gid) = (told.uid, told.gid);
            if let Some(mode) = told.mode.filter(|_| metadata.kind != Kind::Link) {
                metadata.mode = mode;
            }
        }
        metadata
    }
}

/// Metadata of what only the device table has.
fn told(kind: Kind, attributes: table::Attributes) -> Metadata {
    let table::Attributes { mode, uid, gid } = attributes;
    Metadata { kind, mode: mode.unwrap_or(0o644), uid, gid, size: 0, inode: (0, 0), links: 1 }
}

fn stat_fd(fd: RawFd) -> std::io::Result<Metadata> {
    let mut stat = MaybeUninit::<libc::stat64>::uninit();
    // Through the C library, which is where fakeroot and pseudo put the ownership of the image.
    // SAFETY: the descriptor is open and `stat` has room for the kernel's answer.
    if unsafe { libc::fstat64(fd, stat.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and filled it.
    Ok(metadata_of(&unsafe { stat.assume_init() }))
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the types differ by architecture")]
fn metadata_of(stat: &libc::stat64) -> Metadata {
    Metadata {
        kind: Kind::from_mode(stat.st_mode),
        mode: u32::from(stat.st_mode) & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        inode: (stat.st_dev as u64, stat.st_ino as u64),
        links: stat.st_nlink as u64,
    }
}

fn not_a_file(kind: Kind) -> String {
    let what = match kind {
        Kind::Directory => "a directory",
        Kind::Character => "a character device",
        Kind::Block => "a block device",
        Kind::Fifo => "a FIFO",
        Kind::Socket => "a socket",
        Kind::Link | Kind::File => "not a regular file",
    };
    format!("{what}, not a file that can be read")
}

fn unreadable(path: &Path, reason: String) -> Unreadable {
    Unreadable { path: text::from_bytes(path.as_os_str().as_bytes()), reason }
}

fn failed(path: &Path, error: &std::io::Error) -> Unreadable {
    let reason = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "permission denied".to_owned(),
        Some(libc::ELOOP) => "its symbolic links go round in a circle".to_owned(),
        _ => error.to_string(),
    };
    unreadable(path, reason)
}

#[cfg(test)]
mod tests;
