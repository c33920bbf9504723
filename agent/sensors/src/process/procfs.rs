//! One process as `/proc` shows it. Source: proc(5).
//!
//! The root of the file system is an argument, so that the parsers can be tested on a recorded tree.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use defender_model::process::Process;
use defender_model::text;

use super::audit::record::decimal;

/// Longest command line read, in bytes. A process may show megabytes here, of its own making and at no cost to itself.
const COMMAND_LINE: u64 = 64 << 10;
/// Most arguments kept: one of no length costs us more than it costs the process.
const ARGUMENTS: usize = 4096;
/// Longest status file read; a real one has under 2 KiB.
const STATUS: u64 = 64 << 10;

/// A process and what tells it from a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) process: Process,
    pub(crate) ppid: u32,
    /// Start time in clock ticks since boot, field 22 of `stat`.
    pub(crate) start: u64,
    /// Short name: the executable's, cut to 15 bytes, unless the process changed it.
    pub(crate) name: Vec<u8>,
}

/// Ids of all processes, in the order of the directory; empty when `/proc` cannot be read.
pub(crate) fn pids(proc: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Reads a process; `None` when it is gone. What may not be read (the executable of another user's process, say) stays empty.
pub(crate) fn read(proc: &Path, pid: u32) -> Option<Entry> {
    let directory = proc.join(pid.to_string());
    let line = bounded(&directory.join("stat"), STATUS)?;
    let stat = parse_stat(&line)?;
    let status = parse_status(&bounded(&directory.join("status"), STATUS).unwrap_or_default());
    let command_line = bounded(&directory.join("cmdline"), COMMAND_LINE).unwrap_or_default();
    let id = |name: &str| -> Option<u32> {
        let digits = bounded(&directory.join(name), 32)?;
        std::str::from_utf8(&digits).ok()?.trim().parse().ok().filter(|id| *id != u32::MAX)
    };
    let process = Process {
        pid,
        executable: executable(proc, pid).unwrap_or_default().into(),
        argv: arguments(&command_line),
        cwd: link(&directory.join("cwd")).unwrap_or_default(),
        uid: status.uid,
        euid: status.euid,
        gid: status.gid,
        auid: id("loginuid"),
        session: id("sessionid"),
        tty: terminal(stat.tty),
        ..Process::default()
    };
    Some(Entry { process, ppid: stat.ppid, start: stat.start, name: short_name(&line).to_vec() })
}

/// The executable alone; `None` when it may not be read, there is none, or the process is gone.
pub(crate) fn executable(proc: &Path, pid: u32) -> Option<String> {
    link(&proc.join(pid.to_string()).join("exe"))
}

fn link(path: &Path) -> Option<String> {
    Some(text::from_bytes(fs::read_link(path).ok()?.as_os_str().as_bytes()))
}

/// Start time and parent alone: cheap enough for polling.
pub(crate) fn read_stat(proc: &Path, pid: u32) -> Option<Stat> {
    parse_stat(&bounded(&proc.join(pid.to_string()).join("stat"), STATUS)?)
}

/// The process that a thread belongs to.
pub(crate) fn leader(proc: &Path, thread: u32) -> Option<u32> {
    let status = bounded(&proc.join(thread.to_string()).join("status"), STATUS)?;
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"))?;
    u32::try_from(decimal(line.trim_ascii())?).ok()
}

fn bounded(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The fields of `stat` that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) ppid: u32,
    pub(crate) tty: u32,
    pub(crate) start: u64,
}

/// `PID (NAME) STATE PPID PGRP SESSION TTY ...`: the name may hold anything, parentheses too, so fields count from its last one.
fn parse_stat(content: &[u8]) -> Option<Stat> {
    let close = content.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> =
        std::str::from_utf8(&content[close + 1..]).ok()?.split_ascii_whitespace().collect();
    // The state is field 3 of the file and field 0 here.
    Some(Stat {
        ppid: fields.get(1)?.parse().ok()?,
        tty: fields.get(4)?.parse::<i64>().ok()?.try_into().unwrap_or_default(),
        start: fields.get(19)?.parse().ok()?,
    })
}

/// What stands between the first and the last parenthesis of `stat`.
fn short_name(content: &[u8]) -> &[u8] {
    let open = content.iter().position(|byte| *byte == b'(');
    let close = content.iter().rposition(|byte| *byte == b')');
    match (open, close) {
        (Some(open), Some(close)) if open < close => &content[open + 1..close],
        _ => &[],
    }
}

#[derive(Default)]
struct Ids {
    uid: Option<u32>,
    euid: Option<u32>,
    gid: Option<u32>,
}

fn parse_status(content: &[u8]) -> Ids {
    let mut ids = Ids::default();
    for line in content.split(|byte| *byte == b'\n') {
        let numbers = |rest: &[u8]| -> Vec<u32> {
            let text = std::str::from_utf8(rest).unwrap_or_default();
            text.split_ascii_whitespace().take(4).filter_map(|n| n.parse().ok()).collect()
        };
        if let Some(rest) = line.strip_prefix(b"Uid:") {
            let uids = numbers(rest);
            ids.uid = uids.first().copied();
            ids.euid = uids.get(1).copied();
        } else if let Some(rest) = line.strip_prefix(b"Gid:") {
            ids.gid = numbers(rest).first().copied();
            break;
        }
    }
    ids
}

fn arguments(command_line: &[u8]) -> Vec<String> {
    let content = command_line.strip_suffix(&[0]).unwrap_or(command_line);
    if content.is_empty() {
        return Vec::new();
    }
    content.split(|byte| *byte == 0).take(ARGUMENTS).map(text::from_bytes).collect()
}

/// Whether these are all the arguments there were: fewer and shorter than the most that is read.
#[cfg(ebpf)]
pub(crate) fn is_whole(argv: &[String]) -> bool {
    argv.len() < ARGUMENTS
        && argv.iter().map(|argument| argument.len() as u64 + 1).sum::<u64>() < COMMAND_LINE
}

/// Names of terminals by device number (linux/major.h): 4 consoles and serial ports, 136 to 143 pseudo terminals, 204 further
/// serial ports (`ttyAMA`, `ttySC`, ... share it, so the number is all that is said).
fn terminal(device: u32) -> Option<String> {
    let major = device >> 8 & 0xfff;
    let minor = device & 0xff | device >> 12 & 0xf_ff00;
    match major {
        0 => None,
        4 if minor < 64 => Some(format!("tty{minor}")),
        4 => Some(format!("ttyS{}", minor - 64)),
        136..=143 => Some(format!("pts{}", (major - 136) * 256 + minor)),
        _ => Some(format!("{major}:{minor}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_itself() {
        let entry = read(Path::new("/proc"), std::process::id()).unwrap();
        let own = std::env::args().collect::<Vec<_>>();
        assert_eq!(entry.process.argv, own);
        assert_eq!(*entry.process.executable, *std::env::current_exe().unwrap().to_str().unwrap());
        assert_eq!(entry.ppid, std::os::unix::process::parent_id());
        assert!(pids(Path::new("/proc")).contains(&std::process::id()));
    }

    #[test]
    fn names_cannot_shift_the_fields() {
        let line = b"42 (a) R 1 2) S 7 42 42 34816 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(parse_stat(line), Some(Stat { ppid: 7, tty: 34816, start: 12345 }));
        assert_eq!(short_name(line), b"a) R 1 2");
        assert_eq!(parse_stat(b"42 (x"), None);
    }

    #[test]
    fn terminals_have_their_names() {
        assert_eq!(terminal(34816), Some("pts0".into()));
        assert_eq!(terminal(4 << 8 | 1), Some("tty1".into()));
        assert_eq!(terminal(4 << 8 | 64), Some("ttyS0".into()));
        assert_eq!(terminal(0), None);
    }

    #[test]
    fn arguments_keep_empty_ones() {
        assert_eq!(arguments(b"sh\0-c\0\0"), ["sh", "-c", ""]);
        assert!(arguments(b"").is_empty());
        assert_eq!(arguments(&[0; 1 << 16]).len(), ARGUMENTS);
    }

    proptest! {
        #[test]
        fn arbitrary_content_never_panics(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_stat(&content);
            let _ = short_name(&content);
            let _ = parse_status(&content);
            let _ = arguments(&content);
        }
    }
}
