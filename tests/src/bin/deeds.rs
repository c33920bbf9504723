//! `deeds trace PID`, `deeds root UID`, `deeds load`: what a process does to others and to the kernel without starting anything: it attaches
//! itself to one, becomes root by a capability, loads an eBPF program.
//!
//! Compiled by `rustc` alone as a static program; see `image::guest`.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

extern "C" {
    fn ptrace(request: c_int, ...) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
    fn setresuid(real: u32, effective: u32, saved: u32) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

const PTRACE_SEIZE: c_int = 0x4206;
const PR_SET_KEEPCAPS: c_int = 8;
const PR_CAP_AMBIENT: c_int = 47;
const PR_CAP_AMBIENT_RAISE: c_long = 2;
const CAP_SETUID: u8 = 7;
#[cfg(target_arch = "x86_64")]
const CALLS: (c_long, c_long) = (126, 321);
/// capset(2) and bpf(2).
#[cfg(not(target_arch = "x86_64"))]
const CALLS: (c_long, c_long) = (91, 280);

fn check(result: c_long) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn trace(target: c_long) -> io::Result<()> {
    // SAFETY: the request takes numbers only. Whoever ends detaches.
    check(unsafe { ptrace(PTRACE_SEIZE, target, 0 as c_long, 0 as c_long) })
}

fn control(option: c_int, first: c_long, second: c_long) -> io::Result<()> {
    // SAFETY: the options used take numbers only.
    check(unsafe { prctl(option, first, second, 0 as c_long, 0 as c_long) }.into())
}

fn set_user(user: u32) -> io::Result<()> {
    // SAFETY: it takes numbers only.
    check(unsafe { setresuid(user, user, user) }.into())
}

/// Starts this program anew as that user with one capability left, which it uses.
fn lay_down(user: u32) -> io::Result<()> {
    // `struct __user_cap_header_struct` of version 3, and two of `__user_cap_data_struct`: effective, permitted, inheritable.
    let header = [0x2008_0522_u32, 0];
    let capabilities = [1 << CAP_SETUID, 1 << CAP_SETUID, 1 << CAP_SETUID, 0, 0, 0_u32];
    control(PR_SET_KEEPCAPS, 1, 0)?;
    set_user(user)?;
    // SAFETY: header and capabilities live through the call, which reads them.
    check(unsafe { syscall(CALLS.0, header.as_ptr(), capabilities.as_ptr()) })?;
    control(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETUID.into())?;
    Err(Command::new("/proc/self/exe").arg("become").exec())
}

/// The smallest eBPF program there is: a socket filter that lets nothing through.
fn load() -> io::Result<()> {
    /// `union bpf_attr` for `BPF_PROG_LOAD`: type, number of instructions, where they are, where the licence is.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        licence: u64,
        log: [u64; 2],
        version_and_flags: [u32; 2],
        name: [u8; 16],
    }
    // r0 = 0; exit
    let instructions = [0xb7_u64, 0x95];
    let attributes = Attributes {
        kind: 1,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log: [0; 2],
        version_and_flags: [0; 2],
        name: *b"probe\0\0\0\0\0\0\0\0\0\0\0",
    };
    // SAFETY: attributes, instructions and licence live through the call.
    check(unsafe { syscall(CALLS.1, 5 as c_long, &raw const attributes, size_of::<Attributes>()) })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["trace", pid] => pid.parse().map_err(io::Error::other).and_then(trace),
        ["root", user] => user.parse().map_err(io::Error::other).and_then(lay_down),
        ["become"] => set_user(0),
        ["load"] => load(),
        _ => Err(io::Error::other("usage: deeds trace PID | root UID | load")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{words:?}: {error}");
            ExitCode::FAILURE
        }
    }
}
