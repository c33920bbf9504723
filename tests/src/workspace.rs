//! Where things are on the build machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The source tree and the directory everything is built in.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    work: PathBuf,
}

impl Workspace {
    /// The tree this program was compiled from. `DEFENDER_VALIDATION_WORK` moves the work directory, which is
    /// `tests/.work` by default.
    ///
    /// # Errors
    /// When the tree is gone or the work directory cannot be made.
    pub fn locate() -> Result<Self> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = tests.parent().unwrap_or(tests).to_path_buf();
        if !root.join("rootfs-overlay").is_dir() {
            return Err(Error::Missing {
                what: root.join("rootfs-overlay").display().to_string(),
                next: "run this from the source tree it was compiled in".into(),
            });
        }
        let work = env::var_os("DEFENDER_VALIDATION_WORK").map_or_else(|| tests.join(".work"), PathBuf::from);
        fs::create_dir_all(&work).map_err(Error::io(format!("cannot create {}", work.display())))?;
        Ok(Self { root, work })
    }

    /// `tests/PATH`.
    #[must_use]
    pub fn tests(&self, path: &str) -> PathBuf {
        self.root.join("tests").join(path)
    }

    /// What lands on the device besides the binary.
    #[must_use]
    pub fn overlay(&self) -> PathBuf {
        self.root.join("rootfs-overlay")
    }

    /// A path in the work directory. Everything below it can be deleted at any time between runs.
    #[must_use]
    pub fn work(&self, path: &str) -> PathBuf {
        self.work.join(path)
    }

    /// The release binary cargo builds, unless the command line names another.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.target().join("release/defender")
    }

    /// Where cargo builds.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from)
    }
}
