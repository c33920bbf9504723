//! bpf(2) and perf_event_open(2), as far as the loader needs them. Source: linux/bpf.h, linux/perf_event.h.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const PROG_TYPE_TRACEPOINT: u32 = 5;
const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const PROG_TYPE_TRACING: u32 = 26;
const TRACE_FENTRY: u32 = 24;
const TRACE_FEXIT: u32 = 25;
const PERF_TYPE_TRACEPOINT: u32 = 2;
/// Bytes of the first version of `struct perf_event_attr`.
const PERF_ATTRIBUTES: u32 = 64;
const PERF_FLAG_FD_CLOEXEC: libc::c_long = 8;
/// `_IOW('$', 8, __u32)` and `_IO('$', 0)`: asm/ioctl.h of PowerPC and MIPS has other numbers for the direction.
const OTHER_DIRECTIONS: bool = cfg!(any(
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "mips",
    target_arch = "mips64"
));
const PERF_EVENT_IOC_SET_BPF: u32 = if OTHER_DIRECTIONS { 0x8004_2408 } else { 0x4004_2408 };
const PERF_EVENT_IOC_ENABLE: u32 = if OTHER_DIRECTIONS { 0x2000_2400 } else { 0x2400 };
/// More than there are.
const PROCESSORS: u32 = 8192;
/// How often a program is loaded, when a signal interrupts.
const ATTEMPTS: u32 = 5;
/// What the verifier may say, in bytes.
const LOG: usize = 64 << 10;

/// The kinds of map used.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Array,
    /// An array that can be read through a mapping, without the system call.
    MappedArray,
    PerCpuArray,
    /// Programs that others go on in.
    Programs,
    /// A hash table in which the oldest entries make room.
    Recent,
    /// Its entries are bytes.
    Ring,
}

/// `union bpf_attr` up to the end of what any call here uses.
#[repr(C, align(8))]
struct Attributes([u8; 112]);

impl Attributes {
    const fn new() -> Self {
        Self([0; 112])
    }

    fn long(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn half(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    /// Pointers are 64 bits wide here on every architecture.
    fn pointer<T: ?Sized>(self, at: usize, to: *const T) -> Self {
        self.long(at, to.cast::<u8>() as u64)
    }

    /// # Safety
    /// Pointers in the attributes must be to what the command reads or writes there.
    unsafe fn call(&self, command: libc::c_long) -> io::Result<RawFd> {
        // SAFETY: the attributes live through the call and their size is given; the pointers in them are the caller's word.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_ptr(), self.0.len()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // Descriptors are small.
        Ok(result as RawFd)
    }

    /// # Safety
    /// As for `call`, and the command must be one that returns a new descriptor.
    unsafe fn open(&self, command: libc::c_long) -> io::Result<OwnedFd> {
        // SAFETY: passed on.
        let descriptor = unsafe { self.call(command) }?;
        // SAFETY: the kernel just made it (with O_CLOEXEC), and nobody else knows of it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

/// Makes a map with keys and values of so many bytes. A ring has neither.
pub(crate) fn create(kind: Kind, key: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    let (number, flags) = match kind {
        Kind::Array => (2, 0),
        // BPF_F_MMAPABLE.
        Kind::MappedArray => (2, 1 << 10),
        Kind::PerCpuArray => (6, 0),
        Kind::Programs => (3, 0),
        Kind::Recent => (9, 0),
        Kind::Ring => (27, 0),
    };
    let attributes =
        Attributes::new().half(0, number).half(4, key).half(8, value).half(12, entries).half(16, flags);
    // SAFETY: there are no pointers in the attributes.
    match unsafe { attributes.open(MAP_CREATE) } {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && make_room() => {
            // SAFETY: as before.
            unsafe { attributes.open(MAP_CREATE) }
        }
        result => result,
    }
}

/// Before Linux 5.11 maps count as locked memory, of which 64 KiB are usual, even for root. Lifts that limit, which is the process's own
/// afterwards, as nothing else here locks memory. False where `CAP_SYS_RESOURCE` is missing and the limit is as high as it may be.
fn make_room() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one limit is written.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return false;
    }
    [libc::RLIM_INFINITY, limit.rlim_max].into_iter().any(|highest| {
        let lifted = libc::rlimit { rlim_cur: highest, rlim_max: highest };
        // SAFETY: one limit is read.
        highest > limit.rlim_cur && unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const lifted) } == 0
    })
}

/// Sets the only entry of an array. The value must be as long as the map's.
pub(crate) fn set(map: &OwnedFd, value: &[u32]) -> io::Result<()> {
    let key = 0u32;
    let attributes = Attributes::new()
        .half(0, map.as_raw_fd() as u32)
        .pointer(8, &raw const key)
        .pointer(16, value.as_ptr());
    // SAFETY: key and value live through the call and are as long as the map says.
    unsafe { attributes.call(MAP_UPDATE_ELEM) }.map(|_| ())
}

/// What a program is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program {
    /// A tracepoint, with the data its format describes.
    Tracepoint,
    /// One with what the kernel hands to it.
    RawTracepoint,
    /// The beginning or the end of the function that has this id in the kernel's BTF.
    Function { id: u32, ends: bool },
}

/// Loads a program.
///
/// # Errors
/// The system call's error, and the verifier's last words if it had any.
pub(crate) fn load(program: Program, code: &[u8]) -> Result<OwnedFd, (io::Error, String)> {
    let (kind, attach, id) = match program {
        Program::Tracepoint => (PROG_TYPE_TRACEPOINT, 0, 0),
        Program::RawTracepoint => (PROG_TYPE_RAW_TRACEPOINT, 0, 0),
        Program::Function { id, ends: false } => (PROG_TYPE_TRACING, TRACE_FENTRY, id),
        Program::Function { id, ends: true } => (PROG_TYPE_TRACING, TRACE_FEXIT, id),
    };
    let attributes = Attributes::new()
        .half(0, kind)
        .half(68, attach)
        .half(108, id)
        .half(4, (code.len() / 8) as u32)
        .pointer(8, code.as_ptr())
        .pointer(16, c"GPL".as_ptr());
    let mut attempts = 0;
    let error = loop {
        attempts += 1;
        // SAFETY: code and licence live through the call.
        match unsafe { attributes.open(PROG_LOAD) } {
            Ok(program) => return Ok(program),
            // A signal came, and the verifier gave up.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempts < ATTEMPTS => {}
            Err(error) => break error,
        }
    };
    // Once more, for the reason only.
    let mut log = vec![0u8; LOG];
    let attributes = attributes.half(24, 1).half(28, LOG as u32).pointer(32, log.as_mut_ptr());
    // SAFETY: besides the above, the log is as long as it says, and is not looked at during the call.
    match unsafe { attributes.open(PROG_LOAD) } {
        Ok(program) => Ok(program),
        Err(_) => Err((error, last_words(&log))),
    }
}

/// The last line of the log that is not a statistic.
fn last_words(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(&log[..end]);
    let mut lines = log.lines().rev().filter(|line| !line.is_empty() && !line.starts_with("processed "));
    lines.next().unwrap_or_default().chars().take(120).collect()
}

/// The event of a tracepoint on one processor, for any process; told of each time where `every`.
fn event(tracepoint: u64, processor: u32, every: bool) -> io::Result<OwnedFd> {
    let event = Attributes::new()
        .half(0, PERF_TYPE_TRACEPOINT)
        .half(4, PERF_ATTRIBUTES)
        .long(8, tracepoint)
        .half(16, u32::from(every));
    // SAFETY: the attributes live through the call, and are as long as they say.
    let event = unsafe {
        libc::syscall(libc::SYS_perf_event_open, event.0.as_ptr(), -1, processor, -1, PERF_FLAG_FD_CLOEXEC)
    };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it, and nobody else knows of it. Descriptors are small.
    Ok(unsafe { OwnedFd::from_raw_fd(event as RawFd) })
}

/// Runs a program at the tracepoint of this number for as long as the descriptor is open: on every processor, wherever the event is.
pub(crate) fn attach_to(program: &OwnedFd, tracepoint: u64) -> io::Result<OwnedFd> {
    let event = event(tracepoint, 0, true)?;
    for (request, argument) in [(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()), (PERF_EVENT_IOC_ENABLE, 0)] {
        // SAFETY: both take a number.
        if unsafe { libc::ioctl(event.as_raw_fd(), request as _, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(event)
}

/// Events that do nothing but be there, on the other processors: Linux 7.1 runs a program at a system call that takes a path only where
/// there is one, once it has read the path (`perf_syscall_enter` of kernel/trace/trace_syscalls.c).
pub(crate) fn elsewhere(tracepoint: u64) -> Vec<OwnedFd> {
    // Behind the last processor there is none; one that is switched off is left out.
    let beyond =
        |event: &io::Result<_>| matches!(event, Err(error) if error.raw_os_error() == Some(libc::EINVAL));
    let events = (1..PROCESSORS).map(|processor| event(tracepoint, processor, false));
    events.take_while(|event| !beyond(event)).flatten().collect()
}

/// Runs a program at a raw tracepoint, or without a name at the function that it was loaded for, for as long as the descriptor is open.
pub(crate) fn attach(program: &OwnedFd, tracepoint: Option<&CStr>) -> io::Result<OwnedFd> {
    let name = tracepoint.map_or(std::ptr::null(), CStr::as_ptr);
    let attributes = Attributes::new().pointer(0, name).half(8, program.as_raw_fd() as u32);
    // SAFETY: the name lives through the call.
    unsafe { attributes.open(RAW_TRACEPOINT_OPEN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_s_reason_is_its_last_line() {
        let log = b"0: (b7) r0 = 0\nR1 invalid mem access 'scalar'\nprocessed 1 insns (limit 1000000)\n\0\0";
        assert_eq!(last_words(log), "R1 invalid mem access 'scalar'");
        assert_eq!(last_words(&[0; 4]), "");
    }
}
