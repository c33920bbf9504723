//! Ends the process a finding rests on, and no other.
//!
//! Between the event and the signal the process may have ended and its number may be another's. A pidfd (pidfd_open(2), Linux
//! 5.3) holds on to whoever has the number now, and only then it is asked whether that one was there when the event happened.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use defender_model::process::Process;
use defender_model::remediation::Outcome;
use defender_model::time::Timestamp;

/// `/proc/stat` tells the boot time in whole seconds, and the start of a process in hundredths.
const SLACK_MS: i64 = 1500;
/// Ticks a second of `/proc/PID/stat` (proc_pid_stat(5)): `USER_HZ` is 100 on every architecture of ours.
const TICKS: i64 = 100;
/// How long the end is waited for, in milliseconds. SIGKILL takes effect at once, but for a process within an uninterruptible call.
const WAIT_MS: i32 = 20;

/// Who is asked about processes, and who may not be killed.
#[derive(Debug, Clone)]
pub struct Guard {
    /// `/proc`.
    pub proc: PathBuf,
    /// Executables that are never killed.
    pub never: Vec<PathBuf>,
}

/// Kills the process of an event that happened at `seen`.
#[must_use]
pub fn kill(process: &Process, seen: Timestamp, guard: &Guard) -> Outcome {
    match attempt(process, seen, guard) {
        Ok(outcome) => outcome,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            Outcome::Refused("the process has ended by itself".to_owned())
        }
        Err(error) => Outcome::Failed(format!("the process cannot be killed: {error}")),
    }
}

fn attempt(process: &Process, seen: Timestamp, guard: &Guard) -> io::Result<Outcome> {
    let refused = |why: String| Ok(Outcome::Refused(why));
    if process.pid <= 1 || process.pid == std::process::id() {
        return refused(format!("process {} is never killed", process.pid));
    }
    if guard.never.iter().any(|path| path.as_os_str() == &*process.executable) {
        return refused(format!("{} stands in `response.never_kill`", process.executable));
    }
    let Ok(pid) = libc::pid_t::try_from(process.pid) else {
        return refused(format!("{} is no process id", process.pid));
    };
    let target = open(pid)?;
    let stat = fs::read(guard.proc.join(pid.to_string()).join("stat"))?;
    let boot = boot_time(&fs::read(guard.proc.join("stat"))?);
    let (Some(ticks), Some(boot)) = (start_ticks(&stat), boot) else {
        return refused("/proc does not tell when the process was started".to_owned());
    };
    if boot * 1000 + ticks * 1000 / TICKS > seen.millis() + SLACK_MS {
        return refused("its number belongs to a process that was started later".to_owned());
    }
    if let Ok(now) = fs::read_link(guard.proc.join(pid.to_string()).join("exe")) {
        // The kernel marks an executable that was removed.
        let now = now.to_string_lossy();
        let now = now.strip_suffix(" (deleted)").unwrap_or(&now);
        if !process.executable.is_empty() && now != &*process.executable {
            return refused(format!("the process runs {now} by now"));
        }
    }
    signal(&target, pid)?;
    Ok(if ended(&target) {
        Outcome::Verified
    } else {
        Outcome::Failed("the signal was sent and the process has not ended yet".to_owned())
    })
}

/// Field 22 of `/proc/PID/stat`: start in ticks after boot. The name in field 2 may hold anything, so it is found from the end.
fn start_ticks(stat: &[u8]) -> Option<i64> {
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The line `btime` of `/proc/stat`: seconds since 1970.
fn boot_time(stat: &[u8]) -> Option<i64> {
    let line = stat.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"btime "))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

fn open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor < 0 {
        let error = io::Error::last_os_error();
        // What the kernel says of the number of a process that has ended while its group or session lives on.
        return Err(match error.raw_os_error() {
            Some(libc::EINVAL) => io::Error::from_raw_os_error(libc::ESRCH),
            _ => error,
        });
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns; descriptors fit an int.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

fn signal(target: &OwnedFd, pid: libc::pid_t) -> io::Result<()> {
    debug_assert!(pid > 1);
    let nothing: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: pidfd_send_signal(2) takes numbers and a pointer that may be null.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, target.as_raw_fd(), libc::SIGKILL, nothing, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The process has ended: its pidfd is readable.
fn ended(target: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: target.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd, and its number.
    unsafe { libc::poll(&mut poll, 1, WAIT_MS) > 0 }
}

/// Where a guard looks on a device.
#[must_use]
pub fn guard(never: &[PathBuf]) -> Guard {
    Guard { proc: Path::new("/proc").to_path_buf(), never: never.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use std::time::{SystemTime, UNIX_EPOCH};

    fn now() -> Timestamp {
        Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
    }

    fn victim() -> (Child, Process) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        // Until exec is done the executable is this test's.
        let exe = loop {
            let exe = fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
            if exe.to_string_lossy().contains("sleep") || exe.to_string_lossy().contains("coreutils") {
                break exe;
            }
        };
        let process = Process {
            pid: child.id(),
            executable: exe.to_string_lossy().into_owned().into(),
            ..Process::default()
        };
        (child, process)
    }

    #[test]
    fn the_process_of_the_event_is_killed() {
        let (mut child, process) = victim();
        assert_eq!(kill(&process, now(), &guard(&[])), Outcome::Verified);
        assert!(!child.wait().unwrap().success());
        let gone = kill(&process, now(), &guard(&[]));
        assert!(matches!(&gone, Outcome::Refused(why) if why.contains("ended by itself")), "{gone:?}");
    }

    #[test]
    fn a_leader_that_has_ended_is_no_failure() {
        // Its number lives on as that of its group.
        let output =
            Command::new("setsid").args(["-w", "sh", "-c", "sleep 60 >&- 2>&- & echo $$ $!"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let numbers: Vec<u32> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let outcome = kill(&Process { pid: numbers[0], ..Process::default() }, now(), &guard(&[]));
        assert!(Command::new("kill").arg(numbers[1].to_string()).status().unwrap().success());
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("ended by itself")), "{outcome:?}");
    }

    #[test]
    fn nobody_else_is() {
        let (mut child, process) = victim();
        let refused = |process: &Process, seen, guard: &Guard| match kill(process, seen, guard) {
            Outcome::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        let before = Timestamp(now().millis() - 60_000);
        assert!(refused(&process, before, &guard(&[])).contains("started later"));
        let other = Process { executable: "/usr/bin/other".into(), ..process.clone() };
        assert!(refused(&other, now(), &guard(&[])).contains("by now"));
        let spared = guard(&[PathBuf::from(&*process.executable)]);
        assert!(refused(&process, now(), &spared).contains("never_kill"));
        for pid in [0, 1, std::process::id()] {
            assert!(refused(&Process { pid, ..process.clone() }, now(), &guard(&[])).contains("never killed"));
        }
        assert!(child.try_wait().unwrap().is_none(), "it was killed all the same");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = b"4242 (a) b) 1 2) S 1 4242 4242 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3";
        assert_eq!(start_ticks(stat), Some(987_654));
        assert_eq!(start_ticks(b"4242 (a"), None);
        assert_eq!(start_ticks(b""), None);
        assert_eq!(boot_time(b"cpu 1 2\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000));
        assert_eq!(boot_time(b"cpu\n"), None);
    }
}
