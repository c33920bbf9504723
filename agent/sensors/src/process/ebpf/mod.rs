//! The eBPF source: programs in the kernel write each exec and exit into a ring buffer. Opt-in, by `process.source = "ebpf"`.
//!
//! | Module | Holds |
//! |---|---|
//! | `programs.c`, `programs.o` | the programs, and what clang makes of them |
//! | [`object`] | the compiled programs, cut out and joined with their maps |
//! | [`btf`] | where the members of the kernel's structures lie |
//! | [`system`] | bpf(2) |
//! | [`ring`] | the ring buffer |
//! | [`record`] | records to events |
//! | here | loading, reading |
//!
//! bpf(2) is called while loading only. Nothing is pinned: all is gone when the agent ends.

mod btf;
mod object;
mod record;
mod ring;
mod system;

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

pub(crate) use record::Told;

use self::record::Assembler;
use self::ring::{Mapping, Ring};
use self::system::{create, Kind};
use crate::process::Unavailable;

/// Bytes of the ring buffer: a power of two.
const RING: usize = 256 << 10;
/// How long records are left to gather after the first. The programs wake the reader early when half the ring is full.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes of `struct part` in `programs.c`.
const SCRATCH: u32 = 16 + 16384 + 256;
/// `PROC_PID_INIT_INO` (linux/proc_ns.h): the inode of the initial PID namespace.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The programs, loaded and attached, and what they write.
pub(crate) struct Stream {
    ring: Ring,
    counters: Mapping,
    /// Kept open: the programs run for as long as these are.
    _links: Vec<OwnedFd>,
    assembler: Assembler,
    /// Losses told of.
    told: u64,
}

impl Stream {
    /// Loads and attaches the programs. Needs `CAP_BPF` and `CAP_PERFMON` (`CAP_SYS_ADMIN` before Linux 5.8), which nothing later does.
    ///
    /// # Errors
    /// Why they cannot be used here.
    pub(crate) fn open(proc: &Path, exits: bool) -> Result<Self, Unavailable> {
        if cfg!(not(all(target_pointer_width = "64", target_endian = "little"))) {
            return Err(Unavailable::new("the programs are for 64-bit little-endian kernels"));
        }
        let namespace = std::fs::metadata(proc.join("self/ns/pid")).map(|metadata| metadata.ino());
        if namespace.is_ok_and(|inode| inode != INITIAL_PID_NAMESPACE) {
            return Err(Unavailable::new("not in the initial PID namespace: process ids would be others"));
        }
        // First what costs nothing where it is refused.
        let events = map(Kind::Ring, 0, RING as u32)?;
        let offsets = offsets()?;
        let maps = [
            (c"events", events),
            (c"scratch", map(Kind::PerCpuArray, SCRATCH, 1)?),
            (c"counters", map(Kind::MappedArray, 8, 1)?),
            (c"offsets", map(Kind::Array, (offsets.len() * 4) as u32, 1)?),
        ];
        system::set(&maps[3].1, &offsets).map_err(|error| explain("filling a map", &error))?;
        let mut links = vec![attach("exec", c"sched_process_exec", &maps)?];
        if exits {
            links.push(attach("exit", c"sched_process_exit", &maps)?);
        }
        let [(_, events), _, (_, counters), _] = maps;
        let mapped = |error| explain("mapping the ring buffer", &error);
        Ok(Self {
            counters: Mapping::new(&counters, false, 0, ring::page()).map_err(mapped)?,
            ring: Ring::new(events, RING).map_err(mapped)?,
            _links: links,
            assembler: Assembler::default(),
            told: 0,
        })
    }

    /// Waits for records, at most about a second, and appends what they say. Returns how many the programs had to drop since the
    /// last call.
    ///
    /// # Errors
    /// When the ring cannot be waited for.
    pub(crate) async fn read(&mut self, out: &mut Vec<Told>) -> Result<u64, Unavailable> {
        let waited = |error| explain("waiting for the ring buffer", &error);
        self.ring.readable(Duration::from_secs(1)).await.map_err(waited)?;
        if !self.ring.half_full() {
            tokio::time::sleep(PAUSE).await;
        }
        let assembler = &mut self.assembler;
        self.ring.drain(|record| out.extend(assembler.push(record)));
        let lost = self.lost();
        Ok(lost - std::mem::replace(&mut self.told, lost))
    }

    /// Records dropped since the programs were loaded.
    pub(crate) fn lost(&self) -> u64 {
        self.counters.number()
    }
}

fn map(kind: Kind, value: u32, entries: u32) -> Result<OwnedFd, Unavailable> {
    create(kind, value, entries).map_err(|error| explain("making a map", &error))
}

/// The value of the map `offsets`.
fn offsets() -> Result<[u32; btf::MEMBERS.len() + 1], Unavailable> {
    let mut data = Vec::new();
    let read = File::open(BTF).and_then(|file| file.take(btf::LIMIT).read_to_end(&mut data));
    if let Err(error) = read {
        let words = format!("{BTF}: {error}: the kernel needs CONFIG_DEBUG_INFO_BTF");
        return Err(Unavailable::new(words));
    }
    let found = btf::offsets(&data)
        .map_err(|words| Unavailable::new(format!("this kernel is not known: {words}")))?;
    let mut offsets = [RING as u32; btf::MEMBERS.len() + 1];
    offsets[..found.len()].copy_from_slice(&found);
    Ok(offsets)
}

fn attach(section: &str, tracepoint: &CStr, maps: &[(&CStr, OwnedFd)]) -> Result<OwnedFd, Unavailable> {
    let descriptor = |name: &[u8]| {
        let map = maps.iter().find(|(known, _)| known.to_bytes() == name);
        map.map(|(_, descriptor)| descriptor.as_raw_fd())
    };
    let code = object::program(object::OBJECT, section, descriptor)
        .ok_or_else(|| Unavailable::new("the agent's own eBPF object is damaged"))?;
    let program = system::load(&code).map_err(|(error, words)| {
        let what = if words.is_empty() { "loading".into() } else { format!("loading ({words})") };
        explain(&format!("{what} the program for {section}"), &error)
    })?;
    system::attach(&program, tracepoint)
        .map_err(|error| explain(&format!("attaching the program for {section}"), &error))
}

/// Nanoseconds since boot, time asleep included: the clock of the programs.
pub(crate) fn since_boot() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one timespec is written. The clock exists since Linux 2.6.39, so the call does not fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The cause in words, from what the system call says.
fn explain(what: &str, error: &io::Error) -> Unavailable {
    let reason = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel lacks CONFIG_BPF_SYSCALL",
        Some(libc::EPERM) => {
            "not permitted: CAP_BPF and CAP_PERFMON are needed, an unlocked kernel (lockdown), and before Linux 5.11 room under RLIMIT_MEMLOCK"
        }
        Some(libc::EINVAL) => "the kernel does not know this: Linux 5.8 or later is needed, with CONFIG_BPF_EVENTS",
        Some(libc::EACCES) => "the kernel's verifier refuses it",
        _ => return Unavailable::new(format!("{what}: {error}")),
    };
    Unavailable::new(format!("{what}: {error}: {reason}"))
}
