//! `/proc/self/status` as far as confinement shows in it (proc_pid_status(5)).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Larger than any such file: groups and CPU lists are what makes it long.
const LIMIT: usize = 64 * 1024;

/// `/proc/self/status`, held open so that it can be read when its path no longer can.
pub(super) struct StatusFile(io::Result<File>);

impl StatusFile {
    pub(super) fn open() -> Self {
        Self(File::open("/proc/self/status"))
    }

    /// What it says now.
    pub(super) fn read(&self) -> io::Result<Status> {
        let file = self.0.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let mut text = vec![0; LIMIT];
        let mut length = 0;
        while length < LIMIT {
            match file.read_at(&mut text[length..], length as u64)? {
                0 => break,
                n => length += n,
            }
        }
        text.truncate(length);
        Ok(Status::parse(&text))
    }
}

/// The lines that matter; each is missing where the kernel does not write it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) threads: Option<u32>,
    /// Real, effective, saved, file system.
    pub(super) uids: Option<[u32; 4]>,
    /// Real, effective, saved, file system.
    pub(super) gids: Option<[u32; 4]>,
    pub(super) inheritable: Option<u64>,
    pub(super) permitted: Option<u64>,
    pub(super) effective: Option<u64>,
    pub(super) ambient: Option<u64>,
    pub(super) no_new_privileges: Option<bool>,
    /// 0 none, 1 strict, 2 filter.
    pub(super) seccomp: Option<u8>,
}

impl Status {
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut status = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key {
                "Threads" => status.threads = value.parse().ok(),
                "Uid" => status.uids = four(value),
                "Gid" => status.gids = four(value),
                "CapInh" => status.inheritable = mask(value),
                "CapPrm" => status.permitted = mask(value),
                "CapEff" => status.effective = mask(value),
                "CapAmb" => status.ambient = mask(value),
                "NoNewPrivs" => status.no_new_privileges = value.parse().ok().map(|n: u8| n == 1),
                "Seccomp" => status.seccomp = value.parse().ok(),
                _ => {}
            }
        }
        status
    }
}

fn four(value: &str) -> Option<[u32; 4]> {
    let mut numbers = value.split_ascii_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?, next()?])
}

fn mask(value: &str) -> Option<u64> {
    u64::from_str_radix(value, 16).ok()
}

/// Whether `/proc/self/limits` shows a hard limit of 0 for core files.
pub(super) fn core_limit_is_zero(limits: &[u8]) -> bool {
    const NAME: &[u8] = b"Max core file size";
    limits
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(NAME))
        .and_then(|rest| std::str::from_utf8(rest).ok())
        .is_some_and(|rest| rest.split_ascii_whitespace().take(2).eq(["0", "0"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] = include_bytes!("testdata/status");

    #[test]
    fn reads_what_a_confined_process_shows() {
        assert_eq!(
            Status::parse(STATUS),
            Status {
                threads: Some(1),
                uids: Some([101; 4]),
                gids: Some([102, 103, 104, 105]),
                inheritable: Some(0x1000),
                permitted: Some(0x20_4008_1004),
                effective: Some(0x20_4008_1004),
                ambient: Some(0x1000),
                no_new_privileges: Some(true),
                seccomp: Some(2),
            }
        );
    }

    #[test]
    fn an_older_kernel_leaves_lines_out() {
        assert_eq!(Status::parse(b"Name:\tx\nUid:\t0\t0\t0\nThreads:\t2\n").uids, None);
        assert_eq!(Status::parse(b"Threads:\t2").threads, Some(2));
        assert_eq!(Status::parse(b""), Status::default());
    }

    #[test]
    fn no_cut_and_no_flipped_byte_makes_it_panic() {
        for end in 0..STATUS.len() {
            Status::parse(&STATUS[..end]);
            let mut flipped = STATUS.to_vec();
            flipped[end] ^= 0x90;
            Status::parse(&flipped);
        }
    }

    #[test]
    fn the_own_status_is_readable_and_complete() {
        let status = StatusFile::open().read().unwrap();
        assert!(status.threads.unwrap() >= 1);
        assert_eq!(status.uids.unwrap()[1], crate::confinement::sys::effective_uid());
    }

    #[test]
    fn a_core_limit_counts_only_if_both_are_zero() {
        let line = |soft, hard| {
            format!("Limit  Soft\nMax core file size        {soft}   {hard}   bytes\n").into_bytes()
        };
        assert!(core_limit_is_zero(&line("0", "0")));
        assert!(!core_limit_is_zero(&line("0", "unlimited")));
        assert!(!core_limit_is_zero(b""));
        assert!(!core_limit_is_zero(b"Max core file size 0"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse(text: Vec<u8>) {
            Status::parse(&text);
            core_limit_is_zero(&text);
        }

        #[test]
        fn what_the_kernel_writes_is_read(set: u64, uids: [u32; 4], threads: u32) {
            let [a, b, c, d] = uids;
            let text = format!("Uid:\t{a}\t{b}\t{c}\t{d}\nThreads:\t{threads}\nCapAmb:\t{set:016x}\n");
            let expected =
                Status { ambient: Some(set), uids: Some(uids), threads: Some(threads), ..Status::default() };
            proptest::prop_assert_eq!(Status::parse(text.as_bytes()), expected);
        }
    }
}
