//! A log file as it grows.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// Reads a file line by line, from its beginning, and waits for more.
#[derive(Debug)]
pub struct Tail {
    file: File,
    inotify: OwnedFd,
    /// What was read, from the first byte not yet given out.
    pending: Vec<u8>,
}

impl Tail {
    /// Of the file at `path`, which has to exist.
    ///
    /// # Errors
    /// When it cannot be opened or watched.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("cannot watch {}", path.display());
        let file = File::open(path).map_err(Error::io(what()))?;
        // SAFETY: takes flags only.
        let descriptor = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if descriptor < 0 {
            return Err(Error::io(what())(io::Error::last_os_error()));
        }
        // SAFETY: just made, and owned by nobody else.
        let inotify = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let name = format!("/proc/self/fd/{}\0", file.as_raw_fd());
        // SAFETY: `name` ends with NUL and lives until this returns.
        let watch =
            unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), name.as_ptr().cast(), libc::IN_MODIFY) };
        if watch < 0 {
            return Err(Error::io(what())(io::Error::last_os_error()));
        }
        Ok(Self { file, inotify, pending: Vec::new() })
    }

    /// Gives every complete line that is there now to `each`; how many bytes were read.
    ///
    /// # Errors
    /// When reading fails.
    pub fn lines(&mut self, mut each: impl FnMut(&[u8])) -> Result<usize> {
        let mut total = 0;
        let mut block = vec![0; 1 << 16];
        loop {
            let read = self.file.read(&mut block).map_err(Error::io("cannot read a log file"))?;
            if read == 0 {
                return Ok(total);
            }
            total += read;
            self.pending.extend_from_slice(&block[..read]);
            let mut start = 0;
            while let Some(length) = find(&self.pending[start..], b"\n") {
                each(&self.pending[start..start + length]);
                start += length + 1;
            }
            self.pending.drain(..start);
        }
    }

    /// Waits, at most `limit`, until the file is written to.
    pub fn wait(&self, limit: Duration) {
        let mut poll = libc::pollfd { fd: self.inotify.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one live pollfd, as the count says.
        if unsafe { libc::poll(&mut poll, 1, limit) } > 0 {
            let mut events = [0u8; 4096];
            // SAFETY: the buffer is live and as long as said. What the events are does not matter.
            unsafe { libc::read(self.inotify.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) };
        }
    }
}

/// The decimal number after the first `key` in `line`.
#[must_use]
pub fn number_after(line: &[u8], key: &[u8]) -> Option<u64> {
    let at = find(line, key)? + key.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&line[at..at + digits]).ok()?.parse().ok()
}

/// Where `needle` first stands in `line`. The C library's search: logs here have tens of megabytes.
#[must_use]
pub fn find(line: &[u8], needle: &[u8]) -> Option<usize> {
    // SAFETY: both slices are live and as long as said.
    let at = unsafe { libc::memmem(line.as_ptr().cast(), line.len(), needle.as_ptr().cast(), needle.len()) };
    (!at.is_null()).then(|| at as usize - line.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_their_key() {
        assert_eq!(number_after(b"a serial=42\"", b"serial="), Some(42));
        assert_eq!(number_after(b"a serial=x", b"serial="), None);
        assert_eq!(number_after(b"a", b"serial="), None);
    }
}
