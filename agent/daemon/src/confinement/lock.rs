//! One agent per device: a lock on its pid file.
//!
//! The lock is the kernel's (flock(2)) and goes with the process, however it ends; the pid in the file is for people and
//! init scripts. The file is never removed: whoever had opened it before would hold a lock that nobody else sees.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::{sys, Error};

/// How often, and how far apart, the file is read for the pid of an agent that holds the lock but has not written yet.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// The lock. Released when dropped or when the process ends; the pid is then gone from the file or names a process that no
/// longer holds the lock.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Takes the lock at `path` and writes this process's pid into it, readable by everybody.
///
/// As root, the file is given to the owner of its directory, so that the next agent can be started as that user. Its
/// directory may belong to the unprivileged agent, which could have put something else there: only a regular file with one
/// name is touched, and no symbolic link is followed.
///
/// # Errors
///
/// [`Error::Running`] if another agent holds it, [`Error::NotALockFile`] if the path is taken by something else, [`Error::File`]
/// if it cannot be opened or written.
pub fn acquire(path: &Path) -> Result<Lock, Error> {
    let failed = |source| Error::File { path: path.into(), source };
    let refuse = |reason| Err(Error::NotALockFile { path: path.into(), reason });
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        // Without O_NONBLOCK a device or FIFO in its place could hold us up.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let mut file = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return refuse("is a symbolic link"),
        other => other.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return refuse("is not a regular file");
    }
    if metadata.nlink() != 1 {
        return refuse("has more than one name or was just removed");
    }
    match sys::try_lock(&file) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(Error::Running { path: path.into(), pid: holder(&mut file) })
        }
        other => other.map_err(failed)?,
    }
    // The umask may have taken bits from the mode.
    if metadata.permissions().mode() & 0o777 != 0o644 {
        file.set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
    }
    if let Some(directory) = path.parent().and_then(|parent| fs::metadata(parent).ok()) {
        if sys::effective_uid() == 0 && directory.uid() != metadata.uid() {
            fchown(&file, Some(directory.uid()), Some(directory.gid())).map_err(failed)?;
        }
    }
    file.set_len(0).map_err(failed)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(Lock { file })
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A clean end leaves no pid for an init script to signal. Not being able to changes nothing about the lock.
        let _emptied = self.file.set_len(0);
    }
}

/// The pid in the file of an agent that is starting or running.
fn holder(file: &mut File) -> Option<u32> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        let mut text = String::new();
        file.rewind().ok()?;
        if Read::by_ref(file).take(16).read_to_string(&mut text).is_ok() {
            if let Ok(pid) = text.trim().parse() {
                return Some(pid);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("defender-lock-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("defender.pid")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_second_is_told_who_the_first_is_and_may_have_it_afterwards() {
        let directory = Directory::new("second");
        let first = acquire(&directory.file()).unwrap();
        assert_eq!(fs::read_to_string(directory.file()).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(fs::metadata(directory.file()).unwrap().permissions().mode() & 0o7777, 0o644);
        let error = acquire(&directory.file()).unwrap_err();
        assert!(
            matches!(error, Error::Running { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        drop(first);
        assert_eq!(fs::read_to_string(directory.file()).unwrap(), "");
        drop(acquire(&directory.file()).unwrap());
    }

    #[test]
    fn a_pid_left_behind_is_no_obstacle() {
        let directory = Directory::new("stale");
        fs::write(directory.file(), "1\nsome longer content left behind\n").unwrap();
        let lock = acquire(&directory.file()).unwrap();
        assert_eq!(fs::read_to_string(directory.file()).unwrap(), format!("{}\n", std::process::id()));
        drop(lock);
    }

    #[test]
    fn a_holder_that_wrote_nothing_is_still_a_holder() {
        let directory = Directory::new("silent");
        let file = File::create(directory.file()).unwrap();
        sys::try_lock(&file).unwrap();
        assert!(matches!(acquire(&directory.file()), Err(Error::Running { pid: None, .. })));
    }

    #[test]
    fn nothing_but_a_lock_file_is_touched() {
        let directory = Directory::new("other");
        let victim = directory.0.join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, directory.file()).unwrap();
        assert!(matches!(acquire(&directory.file()), Err(Error::NotALockFile { .. })));
        fs::remove_file(directory.file()).unwrap();
        fs::hard_link(&victim, directory.file()).unwrap();
        assert!(matches!(acquire(&directory.file()), Err(Error::NotALockFile { .. })));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_file(directory.file()).unwrap();
        fs::create_dir(directory.file()).unwrap();
        assert!(matches!(acquire(&directory.file()), Err(Error::File { .. })));
    }
}
