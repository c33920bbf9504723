//! What an image is made of, condensed to one number, so that it is rebuilt only when that changed.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// A hash under construction. It guards against forgetting, not against forgery.
pub(super) struct Digest(DefaultHasher);

impl Digest {
    pub(super) fn new() -> Self {
        Self(DefaultHasher::new())
    }

    /// A path that changes its name when its content does.
    pub(super) fn path(&mut self, path: &Path) {
        path.hash(&mut self.0);
    }

    /// The content of a file.
    pub(super) fn file(&mut self, path: &Path) -> Result<()> {
        fs::read(path).map_err(Error::io(format!("cannot read {}", path.display())))?.hash(&mut self.0);
        Ok(())
    }

    /// Names, modes and contents of everything below a directory.
    pub(super) fn tree(&mut self, directory: &Path) -> Result<()> {
        let failed = || format!("cannot read {}", directory.display());
        let mut paths: Vec<_> = fs::read_dir(directory)
            .map_err(Error::io(failed()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()
            .map_err(Error::io(failed()))?;
        paths.sort();
        for path in paths {
            let metadata =
                path.symlink_metadata().map_err(Error::io(format!("cannot look at {}", path.display())))?;
            path.hash(&mut self.0);
            metadata.permissions().mode().hash(&mut self.0);
            if metadata.is_dir() {
                self.tree(&path)?;
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .map_err(Error::io(format!("cannot read {}", path.display())))?
                    .hash(&mut self.0);
            } else {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> String {
        format!("{:016x}", self.0.finish())
    }
}
