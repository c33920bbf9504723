//! From a path to an open file below a directory, without ever leaving it.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Most links followed on the way, as the kernel has it.
const MAX_LINKS: usize = 40;
/// Most steps on the way, those of links included.
const MAX_STEPS: usize = 4096;

/// What happens to a link at the end of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// It is followed.
    Followed,
    /// It is opened itself.
    AsItIs,
}

/// Opens `path` below `root`. Absolute links start at `root`, `..` stops there; links of `/proc` that are not paths are refused.
pub(super) fn open(
    root: RawFd,
    path: &Path,
    flags: libc::c_int,
    last: Last,
    openat2: &Cell<bool>,
) -> io::Result<OwnedFd> {
    let bytes = path.as_os_str().as_bytes();
    if openat2.get() {
        match by_kernel(root, bytes, flags, last) {
            // A rename on the way: the kernel could not prove that it stayed below.
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::E2BIG)) => {
                openat2.set(false);
            }
            done => return done,
        }
    }
    step_by_step(root, bytes, flags, last)
}

fn by_kernel(root: RawFd, path: &[u8], flags: libc::c_int, last: Last) -> io::Result<OwnedFd> {
    let path = CString::new(if path.is_empty() { b"/" } else { path })?;
    // SAFETY: all bits zero is a valid `open_how`.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    let nofollow = if last == Last::AsItIs { libc::O_NOFOLLOW } else { 0 };
    how.flags = u64::try_from(flags | nofollow).unwrap_or_default();
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: path and structure live through the call, and the length is the structure's.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, root, path.as_ptr(), &raw const how, size_of::<libc::open_how>())
    };
    owned(libc::c_int::try_from(fd).unwrap_or(-1))
}

/// For kernels before 5.6, and for build environments that stand between us and the kernel (pseudo refuses openat2).
fn step_by_step(root: RawFd, path: &[u8], flags: libc::c_int, last: Last) -> io::Result<OwnedFd> {
    // Directories from the root to where we are; `..` goes back along them, so it cannot leave.
    let mut way = vec![open_at(root, c".", libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)?];
    let mut steps: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut wants_directory = path.ends_with(b"/");
    let (mut links, mut taken) = (0, 0);
    while let Some(step) = steps.pop() {
        taken += 1;
        if taken > MAX_STEPS {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        // Invariant: `way` never becomes empty, `..` leaves the first one.
        let Some(here) = way.last().map(OwnedFd::as_raw_fd) else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        if step == b".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let name = CString::new(step)?;
        let found = open_at(here, &name, libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)?;
        let target = match link_target(found.as_raw_fd(), c"") {
            Ok(target) => Some(target),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => None,
            Err(e) => return Err(e),
        };
        let at_the_end = steps.is_empty();
        match target {
            Some(target) if !at_the_end || last == Last::Followed || wants_directory => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                if target.starts_with(b"/") {
                    way.truncate(1);
                }
                wants_directory |= at_the_end && target.ends_with(b"/");
                steps.extend(components(&target).rev().map(<[u8]>::to_vec));
            }
            _ if at_the_end && !wants_directory => {
                if flags & libc::O_PATH != 0 && flags & libc::O_DIRECTORY == 0 {
                    return Ok(found);
                }
                return open_at(here, &name, flags | libc::O_NOFOLLOW);
            }
            _ => way.push(found),
        }
        if way.len() > MAX_STEPS / 16 {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
    }
    // It ended in a directory: the root itself, `..` or a trailing slash.
    match way.last() {
        Some(here) => open_at(here.as_raw_fd(), c".", flags),
        None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// `openat`.
pub(super) fn open_at(directory: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the name ends in NUL; no mode is needed since nothing is created.
    owned(unsafe { libc::openat(directory, name.as_ptr(), flags) })
}

/// `readlinkat`: where a link points. An empty name means the descriptor itself.
pub(super) fn link_target(directory: RawFd, name: &CStr) -> io::Result<Vec<u8>> {
    let mut target = vec![0_u8; 4096];
    // SAFETY: the buffer has the length that is stated.
    let length =
        unsafe { libc::readlinkat(directory, name.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    target.truncate(length);
    Ok(target)
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
