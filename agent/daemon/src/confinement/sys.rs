//! The system calls of confinement that the standard library does not have, each behind a safe function.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use libc::{c_int, c_ulong, gid_t, mode_t, uid_t};

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn prctl(option: c_int, argument: c_ulong) -> io::Result<()> {
    const UNUSED: c_ulong = 0;
    // SAFETY: the options used in this file take numbers only, no pointer.
    check(unsafe { libc::prctl(option, argument, UNUSED, UNUSED, UNUSED) })
}

/// The effective user number of the process.
pub(super) fn effective_uid() -> uid_t {
    // SAFETY: takes nothing and cannot fail (geteuid(2)).
    unsafe { libc::geteuid() }
}

/// Replaces the supplementary groups.
pub(super) fn set_groups(groups: &[gid_t]) -> io::Result<()> {
    // SAFETY: pointer and length are those of one slice, which the call only reads. The length's type differs between
    // C libraries, hence the inferred cast.
    check(unsafe { libc::setgroups(groups.len() as _, groups.as_ptr()) })
}

/// Sets the real, effective and saved group.
pub(super) fn set_gid(gid: gid_t) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresgid(gid, gid, gid) })
}

/// Sets the real, effective and saved user.
pub(super) fn set_uid(uid: uid_t) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresuid(uid, uid, uid) })
}

/// Takes one capability out of the bounding set, by number; `EINVAL` if the kernel has none of that number.
pub(super) fn drop_from_bounding_set(capability: u8) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, c_ulong::from(capability))
}

/// Sets the secure bits (capabilities(7)).
pub(super) fn set_securebits(bits: c_int) -> io::Result<()> {
    prctl(libc::PR_SET_SECUREBITS, c_ulong::from(bits.unsigned_abs()))
}

/// No exec may gain privileges from now on.
pub(super) fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// No process without `CAP_SYS_PTRACE` may attach to this one or read its memory.
pub(super) fn set_undumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// Soft and hard limit of core files to nothing.
pub(super) fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local that outlives the call, which only reads it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) })
}

/// Sets the file mode creation mask.
pub(super) fn set_umask(mask: mode_t) {
    // SAFETY: takes a number and cannot fail (umask(2)).
    let _previous = unsafe { libc::umask(mask) };
}

/// Locks a whole file for this open file description alone; `WouldBlock` if another one has it.
pub(super) fn try_lock(file: &File) -> io::Result<()> {
    // SAFETY: takes numbers only; the descriptor is open as long as `file` lives.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
}

/// One instruction of classic BPF (`struct sock_filter`, linux/filter.h).
pub(super) type Instruction = libc::sock_filter;

/// Installs a seccomp filter on every thread of the process. The caller has set `no_new_privs` or holds `CAP_SYS_ADMIN`.
pub(super) fn install_filter(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // The kernel only reads the program, although its structure has no const.
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the third argument points to a local whose pointer and length are those of one slice; both outlive the
    // call, which copies the program before it returns (seccomp(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::SECCOMP_FILTER_FLAG_TSYNC as c_ulong,
            &program,
        )
    };
    match result {
        0 => Ok(()),
        // With TSYNC: the thread that could not follow.
        1.. => Err(io::Error::other(format!("thread {result} already has another filter"))),
        _ => Err(io::Error::last_os_error()),
    }
}
