//! Watches on directories.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use inotify::{WatchDescriptor, WatchMask};

use crate::inotify_queue::Queue;

/// What a directory is watched for. Writing is told as it goes on, for nobody has to close what he wrote to.
const MASK: WatchMask = WatchMask::CREATE
    .union(WatchMask::MODIFY)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::DELETE)
    .union(WatchMask::MOVE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::DONT_FOLLOW)
    .union(WatchMask::EXCL_UNLINK);

/// Watched directories by descriptor.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) queue: Queue,
    paths: HashMap<WatchDescriptor, Box<Path>>,
    max: usize,
}

/// What came of the wish to watch a directory.
#[derive(Debug)]
pub(super) enum Watching {
    /// It is watched.
    Yes,
    /// It is watched under another name, which leads to the same directory.
    Elsewhere,
    /// There are as many watches as there may be: why.
    Full(String),
    /// It cannot be watched.
    No(io::Error),
}

impl Tree {
    pub(super) fn new(max: usize) -> io::Result<Self> {
        Ok(Self { queue: Queue::new()?, paths: HashMap::new(), max })
    }

    /// Watches a directory; again, if it is watched already.
    pub(super) fn watch(&mut self, path: &Path) -> Watching {
        if self.paths.len() >= self.max && !self.paths.values().any(|known| **known == *path) {
            return Watching::Full(format!("files.max_watches is {}", self.max));
        }
        match self.queue.watches().add(path, MASK) {
            Ok(watch) => {
                if let Some(known) = self.paths.get(&watch) {
                    if **known != *path && known.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                        return Watching::Elsewhere;
                    }
                }
                self.paths.insert(watch, path.into());
                Watching::Yes
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                Watching::Full("fs.inotify.max_user_watches is reached".to_owned())
            }
            Err(error) => Watching::No(error),
        }
    }

    /// The directory that a descriptor stands for.
    pub(super) fn path(&self, watch: &WatchDescriptor) -> Option<&Path> {
        self.paths.get(watch).map(|path| &**path)
    }

    /// The kernel ended a watch.
    pub(super) fn ended(&mut self, watch: &WatchDescriptor) {
        self.paths.remove(watch);
    }

    /// A directory is out of reach with everything below it.
    pub(super) fn forget(&mut self, directory: &Path) {
        let mut watches = self.queue.watches();
        self.paths.retain(|watch, path| {
            let gone = path.starts_with(directory);
            if gone {
                // It may have ended by itself.
                let _ = watches.remove(watch.clone());
            }
            !gone
        });
    }

    /// A directory has a new path, with everything below it.
    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        for path in self.paths.values_mut() {
            if let Ok(rest) = path.strip_prefix(from) {
                let new: PathBuf = if rest.as_os_str().is_empty() { to.into() } else { to.join(rest) };
                *path = new.into();
            }
        }
    }

    /// How many directories are watched.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }
}
