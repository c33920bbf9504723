//! The least an audit daemon can do: take every record from the kernel, many with one call, and throw it away. What that
//! costs is the kernel's own part, which no daemon can go below with the same rules.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process;

use crate::error::{Error, Result};

/// The hidden command of this program that [`run`] is.
pub const COMMAND: &str = "drain";

/// `AUDIT_SET`, linux/audit.h.
const AUDIT_SET: u16 = 1001;
/// `AUDIT_STATUS_ENABLED | AUDIT_STATUS_PID`.
const ENABLED_AND_PID: u32 = 1 | 4;
/// `MAX_AUDIT_MESSAGE_LENGTH` and the netlink header.
const RECORD: usize = 8970 + 16;
const BATCH: usize = 64;

/// Becomes the audit daemon and reads until it is killed; the kernel notices by itself that it is gone.
///
/// # Errors
/// When the kernel refuses.
pub fn run() -> Result<()> {
    // SAFETY: takes numbers only.
    let descriptor =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_AUDIT) };
    if descriptor < 0 {
        return Err(last("cannot open an audit socket"));
    }
    // SAFETY: just made, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let bytes: libc::c_int = 2 << 20;
    // SAFETY: the option's value is a live int, as long as said.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    // struct nlmsghdr, then struct audit_status: mask, enabled, failure, pid, and seven more words.
    let mut message = Vec::with_capacity(60);
    message.extend_from_slice(&60u32.to_ne_bytes());
    message.extend_from_slice(&AUDIT_SET.to_ne_bytes());
    message.extend_from_slice(&1u16.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    for word in [ENABLED_AND_PID, 1, 0, process::id()] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message.resize(60, 0);
    // SAFETY: the message is live and as long as said.
    if unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) } < 0 {
        return Err(last("cannot become the audit daemon"));
    }
    let mut space = vec![0u8; RECORD * BATCH];
    let mut parts: Vec<libc::iovec> = space
        .chunks_mut(RECORD)
        .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() })
        .collect();
    // SAFETY: a message header of zeros is one without address, parts and control data.
    let mut headers: Vec<libc::mmsghdr> = (0..BATCH).map(|_| unsafe { mem::zeroed() }).collect();
    for (header, part) in headers.iter_mut().zip(&mut parts) {
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    loop {
        // SAFETY: every header has one part, which points into `space`; all of them outlive the loop.
        let read = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        if read < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::ENOBUFS) {
            return Err(last("cannot read audit records"));
        }
    }
}

fn last(what: &str) -> Error {
    Error::io(what)(io::Error::last_os_error())
}
