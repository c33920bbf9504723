//! Runs of programs that the kernel left out, as it counts them.
//!
//! A program can be preempted: at a tracepoint since Linux 7.0 (include/linux/tracepoint.h), at a system call since 7.2. Until it goes
//! on, it is not run on that processor for anybody else. One at a tracepoint with an event is left out, too, while somebody is
//! preempted in the midst of bpf(2).

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// More than the kernel says of a program.
const DESCRIPTION: usize = 1024;

/// Programs whose runs each have something to tell.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    /// With what the kernel says of it. That needs no right by which bpf(2) could be called.
    programs: Vec<(OwnedFd, File)>,
    count: u64,
    asked: Option<Instant>,
    /// Something ran since.
    due: bool,
}

impl Skipped {
    /// Counts those of this one, where the kernel tells: since Linux 5.12, at tracepoints with an event since 6.7.
    pub(crate) fn watch(&mut self, proc: &Path, program: OwnedFd) {
        let description = File::open(proc.join("self/fdinfo").join(program.as_raw_fd().to_string()));
        self.programs.extend(description.ok().map(|description| (program, description)));
    }

    /// Asks, from time to time, once something has run.
    pub(crate) fn ask(&mut self, ran: bool) {
        self.due |= ran;
        if self.due && self.asked.is_none_or(|asked| asked.elapsed() >= INTERVAL) {
            self.asked = Some(Instant::now());
            self.due = false;
            self.count = self.programs.iter().map(|(_, description)| skipped(description)).sum();
        }
    }

    /// As many as it were when it was asked.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }
}

fn skipped(description: &File) -> u64 {
    let mut text = [0; DESCRIPTION];
    let length = description.read_at(&mut text, 0).unwrap_or_default();
    number(&text[..length]).unwrap_or_default()
}

fn number(description: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(description).ok()?;
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_count_is_read() {
        let description = b"pos:\t0\nflags:\t02000002\nprog_type:\t5\nrun_cnt:\t0\nrecursion_misses:\t17\nverified_insns:\t9\n";
        assert_eq!(number(description), Some(17));
        assert_eq!(number(b"prog_type:\t5\nprog_id:\t3\n"), None);
        assert_eq!(number(b""), None);
    }
}
