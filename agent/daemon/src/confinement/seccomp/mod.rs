//! Which system calls fail (seccomp(2)).
//!
//! A deny-list, on purpose. An allow-list would be tighter, but what one needs changes with the C library, its version, the
//! architecture and the kernel (`clone3`, `rseq`, `statx`, `time64` variants, whatever `nft` comes to use), and a guard that
//! fails on somebody's odd kernel, on a device nobody can reach, protects less than one whose compromise can still open a
//! file that Landlock and its user number let it open. So what is denied is what neither the agent nor `nft` can have a use
//! for and what turns a compromised guard into a compromised kernel or into other processes: the list is in `policy.rs`.
//! Denied calls fail with `EPERM`, as they would without the capability, and are reported by whoever made them.
//!
//! Beyond that list:
//!
//! - `socket` and `socketpair` make only local, IPv4, IPv6 and netlink sockets; others fail with `EAFNOSUPPORT`, on which
//!   libraries fall back.
//! - `clone` makes no namespaces. `clone3`, whose flags a filter cannot see, fails with `ENOSYS`, on which C libraries fall
//!   back to `clone`.
//! - Memory is never writable and executable at once, nor made executable later.
//! - `ioctl` types nothing into a terminal (`TIOCSTI`, `TIOCLINUX`).
//! - A call by another architecture's convention kills the process: no compiled code of ours makes one, so it is code that
//!   was injected. On x86_64 calls by x32 numbers fail with `ENOSYS`, as on the many kernels that have none.

mod bpf;
mod policy;

use std::io;

use super::report::{Entry, Measure, State};
use super::sys;

/// Installs the filter; the caller has set `no_new_privs`.
pub(super) fn restrict() -> Entry {
    let Some(target) = policy::TARGET else {
        return Entry::new(Measure::Seccomp, State::Missing, "no filter for this architecture yet".into());
    };
    let result = bpf::assemble(&target, &policy::rules())
        .ok_or_else(|| io::Error::other("the filter's program is too long"))
        .and_then(|program| sys::install_filter(&program));
    match result {
        Ok(()) => Entry::new(
            Measure::Seccomp,
            if target.multiplexed_sockets { State::Partial } else { State::InForce },
            if target.multiplexed_sockets {
                "system calls as wanted; socket families not, as socketcall(2) hides them".into()
            } else {
                format!("{} system calls denied or filtered", policy::rules().len())
            },
        ),
        Err(error) => {
            let reason = match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EINVAL) => {
                    format!("kernel without seccomp filters (CONFIG_SECCOMP_FILTER): {error}")
                }
                _ => error.to_string(),
            };
            Entry::new(Measure::Seccomp, State::Missing, reason)
        }
    }
}
