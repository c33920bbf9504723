//! A forked child to confine.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What a child left behind.
pub(crate) struct Ended {
    pub(crate) text: String,
    /// As from `wait(2)`.
    pub(crate) status: i32,
}

/// Runs `case` in a forked child, which has this thread alone, and returns what it returned.
pub(crate) fn in_child(case: impl FnOnce() -> String) -> Ended {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    // SAFETY: the child runs ordinary code after fork, which glibc and musl make work by holding the allocator's locks
    // over it; it touches no lock of another test's thread and leaves by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        drop(ours);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case));
        let (text, code) = match result {
            Ok(text) => (text, 0),
            Err(payload) => {
                let text = payload
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
                (text.unwrap_or_default(), 101)
            }
        };
        let _written = theirs.write_all(text.as_bytes());
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(code) };
    }
    drop(theirs);
    ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = String::new();
    let read = ours.read_to_string(&mut text);
    if read.is_err() {
        // SAFETY: the process is our own child, not yet waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    let mut status = 0;
    // SAFETY: the pointer is to a local.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    read.expect("the child ends within a minute");
    Ended { text, status }
}

/// The same for a case that is to end well.
pub(crate) fn confined(case: impl FnOnce() -> String) -> String {
    let ended = in_child(case);
    assert_eq!(ended.status, 0, "{}", ended.text);
    ended.text
}
