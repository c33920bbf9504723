//! The names in a directory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{IntoRawFd as _, OwnedFd, RawFd};

/// Calls `take` with the directory and every name in it but `.` and `..` until it returns false. Says whether it stopped there.
pub(super) fn each_name(directory: OwnedFd, mut take: impl FnMut(RawFd, &CStr) -> bool) -> io::Result<bool> {
    let fd = directory.into_raw_fd();
    // SAFETY: the descriptor is open, ours, and belongs to the stream from here on.
    let stream = unsafe { libc::fdopendir(fd) };
    if stream.is_null() {
        let error = io::Error::last_os_error();
        // SAFETY: the call failed, so the descriptor is still ours.
        unsafe { libc::close(fd) };
        return Err(error);
    }
    let stopped = loop {
        // SAFETY: the C library's own variable of this thread.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: it lives as long as the thread. Only by it does readdir tell an error from the end.
        unsafe { *errno = 0 };
        // SAFETY: the stream is open.
        let entry = unsafe { libc::readdir64(stream) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            break if error.raw_os_error() == Some(0) { Ok(false) } else { Err(error) };
        }
        // SAFETY: the entry is valid until the next call.
        let name = unsafe { &raw const (*entry).d_name };
        // SAFETY: the name is inside the entry and ends in NUL.
        let name = unsafe { CStr::from_ptr(name.cast()) };
        if name != c"." && name != c".." && !take(fd, name) {
            break Ok(true);
        }
    };
    // SAFETY: the stream is open and not used any more.
    unsafe { libc::closedir(stream) };
    stopped
}
