//! A thread that takes only what nobody else wants.

use std::io;

/// linux/ioprio.h
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_CLASS_IDLE: libc::c_int = 3;
const IOPRIO_CLASS_SHIFT: libc::c_int = 13;

/// Puts the calling thread last in line for processor and disk. Where a service manager forbids that, it stays as it is: the work is the
/// same, only less polite.
pub(crate) fn yield_to_everybody() {
    let parameters = libc::sched_param {
        sched_priority: 0,
        #[cfg(target_env = "musl")]
        sched_ss_low_priority: 0,
        #[cfg(target_env = "musl")]
        sched_ss_repl_period: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        #[cfg(target_env = "musl")]
        sched_ss_init_budget: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        #[cfg(target_env = "musl")]
        sched_ss_max_repl: 0,
    };
    // By the system call: musl's function always fails. SAFETY: the structure lives through the call; 0 is the calling thread.
    let scheduled =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const parameters) };
    if scheduled != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the scan runs at ordinary priority");
    }
    let class = IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT;
    // SAFETY: takes numbers only; 0 is the calling thread.
    if unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, class) } != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the scan reads at ordinary priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_is_last_in_line() {
        let policy = std::thread::spawn(|| {
            yield_to_everybody();
            // SAFETY: 0 is the calling thread.
            unsafe { libc::sched_getscheduler(0) }
        });
        assert_eq!(policy.join().unwrap(), libc::SCHED_IDLE);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER, "only that thread");
    }
}
