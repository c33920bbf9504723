//! Who is at the other end of a socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Most supplementary groups looked at. The kernel allows 65536 (`NGROUPS_MAX`); somebody in more than this many is not an
/// operator by their groups.
const MAX_GROUPS: usize = 1024;

/// Who may ask everything: root, the agent's own user, and members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operators {
    /// User the agent runs as.
    pub uid: u32,
    /// Group whose members are operators; `None` where the system has no such group.
    pub gid: Option<u32>,
}

impl Operators {
    /// Whether somebody with this user id and these groups, the primary one among them, is an operator.
    #[must_use]
    pub fn include(&self, uid: u32, groups: &[u32]) -> bool {
        uid == 0 || uid == self.uid || self.gid.is_some_and(|gid| groups.contains(&gid))
    }
}

/// Supplementary groups of the peer at the time it connected. Source: `SO_PEERGROUPS`, `net/core/sock.c`, Linux 4.13.
///
/// Not read from `/proc/PID/status`: the process may have ended and its id may be another's by now.
pub(super) fn supplementary_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; MAX_GROUPS];
    // 4 KiB fit any socklen_t.
    let mut length = (MAX_GROUPS * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed; the buffer is valid for `length` bytes, of which the kernel
    // writes at most that many, and any bits are a valid u32.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn root_the_agent_and_the_group_are_operators() {
        let operators = Operators { uid: 990, gid: Some(991) };
        assert!(operators.include(0, &[]));
        assert!(operators.include(990, &[]));
        assert!(operators.include(1000, &[1000, 991]));
        assert!(!operators.include(1000, &[1000]));
        assert!(!operators.include(991, &[990]));
        assert!(!Operators { uid: 990, gid: None }.include(1000, &[0, 991]));
    }

    #[test]
    fn the_kernel_tells_our_own_groups() {
        let (a, _b) = UnixStream::pair().unwrap();
        let mut told = supplementary_groups(a.as_fd()).unwrap();
        told.sort_unstable();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let mut own: Vec<u32> = line.split_whitespace().map(|gid| gid.parse().unwrap()).collect();
        own.sort_unstable();
        assert_eq!(told, own);
    }
}
