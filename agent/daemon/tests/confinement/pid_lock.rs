//! One agent per device.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use defender_daemon::confinement::lock;

use crate::device::*;

#[test]
fn a_killed_agent_leaves_its_file_but_not_its_lock() {
    let device = Device::new("lock");
    let path = device.path("state/defender.pid");
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    // SAFETY: as in in_child.
    let first = unsafe { libc::fork() };
    assert!(first >= 0);
    if first == 0 {
        let lock = lock::acquire(&path);
        let _told = theirs.write_all(if lock.is_ok() { b"1" } else { b"0" });
        // Until it is killed, or this test is gone.
        ours.set_nonblocking(false).ok();
        drop(ours);
        let _waited = theirs.read(&mut [0]);
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(0) };
    }
    drop(theirs);
    ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut told = [0];
    ours.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"1");

    let error = lock::acquire(&path).unwrap_err();
    assert!(
        error.to_string().starts_with(&format!("another agent is running as process {first} ")),
        "{error}"
    );

    // SAFETY: our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(first, libc::SIGKILL) }, 0);
    let mut status = 0;
    // SAFETY: the pointer is to a local.
    assert_eq!(unsafe { libc::waitpid(first, &mut status, 0) }, first);
    assert_eq!(
        fs::read_to_string(&path).unwrap().trim(),
        first.to_string(),
        "the killed one could not clean up"
    );
    let lock = lock::acquire(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), std::process::id().to_string());
    if is_root() {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (UID, GID), "given to the owner of the directory");
    }
    drop(lock);
}
