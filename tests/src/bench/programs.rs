//! What eBPF programs cost those who run into them, by the kernel's own clock. Source: linux/bpf.h, Documentation/admin-guide/sysctl/kernel.rst
//! (`bpf_stats_enabled`).
//!
//! The time a program start takes is noisy on a busy machine; this is not.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PROG_GET_NEXT_ID: libc::c_long = 11;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const ENABLE_STATS: libc::c_long = 32;

/// While this lives, the kernel measures all programs.
#[derive(Debug)]
pub struct Clock(Option<OwnedFd>);

impl Clock {
    /// Starts to measure, where the kernel can: Linux 5.8.
    #[must_use]
    pub fn start() -> Self {
        // BPF_STATS_RUN_TIME is 0.
        Self(call(ENABLE_STATS, &mut [0; 4]).and_then(open))
    }

    /// Nanoseconds that the programs loaded now have run since they are measured; `None` where nothing is.
    #[must_use]
    pub fn nanoseconds(&self) -> Option<u64> {
        self.0.as_ref()?;
        let mut total = 0;
        // Start id and next id.
        let mut attributes = [0u32; 4];
        while call(PROG_GET_NEXT_ID, &mut attributes).is_some() {
            attributes[0] = attributes[1];
            let Some(program) = call(PROG_GET_FD_BY_ID, &mut [attributes[0], 0, 0, 0]).and_then(open) else {
                continue;
            };
            let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()));
            let about = about.unwrap_or_default();
            let time = about.lines().find_map(|line| line.strip_prefix("run_time_ns:")?.trim().parse().ok());
            total += time.unwrap_or(0u64);
        }
        Some(total)
    }
}

fn call(command: libc::c_long, attributes: &mut [u32; 4]) -> Option<i32> {
    let size = size_of_val(attributes);
    // SAFETY: the attributes live through the call, are as long as said, and hold no pointers with these commands.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size) };
    i32::try_from(result).ok().filter(|result| *result >= 0)
}

fn open(descriptor: i32) -> Option<OwnedFd> {
    // SAFETY: the kernel just made it, and nobody else knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
