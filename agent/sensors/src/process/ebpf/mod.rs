//! The eBPF sources: programs in the kernel write each exec and exit into a ring buffer.
//!
//! With BTF they read the new program and its place in the file system; without, the arguments of the system call.
//!
//! | Module | Holds |
//! |---|---|
//! | `programs.c`, `programs.o` | the programs for kernels with BTF, and what clang makes of them |
//! | `entry.c`, `entry.o` | those for kernels without |
//! | `programs32.o`, `entry32.o` | both for 32-bit kernels |
//! | `shared.h` | what both have in common |
//! | `compile` | how the objects are made |
//! | [`entry`] | what those cannot tell, from `/proc` |
//! | [`object`] | the compiled programs, cut out and joined with their maps |
//! | [`btf`] | where the members of the kernel's structures lie |
//! | [`function`] | functions of the kernel that tell what no tracepoint does |
//! | [`tracefs`] | tracepoints by name, and where their fields lie |
//! | [`system`] | bpf(2), perf_event_open(2) |
//! | [`ring`] | the ring buffer |
//! | [`skipped`] | what the programs were not run for |
//! | [`record`] | records to events |
//! | here | loading, reading |
//!
//! bpf(2) is called while loading only. Nothing is pinned: all is gone when the agent ends.

mod btf;
#[cfg(test)]
mod compile;
pub(crate) mod entry;
mod function;
mod object;
mod record;
mod ring;
mod skipped;
mod system;
#[cfg(test)]
mod tests;
mod tracefs;

use std::cell::RefCell;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

pub(crate) use record::{Connection, Told};

use self::function::{When, FUNCTIONS};
use self::record::Assembler;
use self::ring::{Mapping, Ring};
use self::skipped::Skipped;
use self::system::{create, Kind, Program};
use self::tracefs::Tracefs;
use crate::process::Unavailable;

/// Bytes of the ring buffer: a power of two.
const RING: usize = 256 << 10;
/// How long records are left to gather after the first. The programs wake the reader early when half the ring is full.
const PAUSE: Duration = Duration::from_millis(10);
/// So many events in a pause, and there will be some in the next: it is slept through without waiting for the first of them, which would
/// be one more wake-up.
const STEADY: usize = 4;
/// Events taken in one go. What they are made of is given back before the next are made, and is found again at once by who looks for
/// memory.
const BATCH: usize = 16;
/// So many of them are many.
const CALLS_IN_A_ROW: u32 = 32;
/// Bytes of `struct part` in `shared.h`, of `struct walk` in `programs.c` and of `struct place` in `entry.c`.
const PART: u32 = 16 + 16384 + 1024;
const WALK: u32 = PART + 40;
const PLACE: u32 = 32 + 4096 + 8 + PART + 32;
/// Sections whose programs have something to tell each time: one that the kernel leaves out is a loss.
const TELLING: [&str; 6] = ["exec", "exit", "deed", "confirm", "called", "returned"];
/// Since when a program at a raw tracepoint can be preempted, and is not run for others until it goes on (`skipped`). At the same
/// tracepoint's event it runs through, which costs a little more and takes tracefs.
const PREEMPTED: (u32, u32) = (7, 0);
/// Threads whose parents are remembered where there is no BTF.
const PARENTS: u32 = 2048;
/// Sockets remembered while they are being connected, and ways that datagrams went lately. Bytes of key and value are those of
/// `struct who` and `struct datagram`.
const SOCKETS: (u32, u32, u32) = (8, 40, 1024);
const SENT: (u32, u32, u32) = (24, 8, 1024);
/// Threads in a system call that counts once it succeeds, by those of `struct program` in `shared.h`.
const CALLS: (u32, u32, u32) = (4, 56, 256);
/// What tells of those calls: its name, the number of `shared.h`, and the tracepoints, of which that of the end comes first.
const SUCCEEDED: [(&str, i32, [&str; 2]); 2] = [
    ("ptrace", 11, ["syscalls/sys_exit_ptrace", "syscalls/sys_enter_ptrace"]),
    ("bpf", 12, ["syscalls/sys_exit_bpf", "syscalls/sys_enter_bpf"]),
];
/// Sections of `entry.o` and the tracepoints they are for. The order matters: an exec is confirmed only when its call was seen.
/// Process ends come last.
const ENTRY: [(&str, &str); 7] = [
    ("fork", "sched/sched_process_fork"),
    ("confirm", "sched/sched_process_exec"),
    ("failed", "syscalls/sys_exit_execve"),
    ("failed", "syscalls/sys_exit_execveat"),
    ("execve", "syscalls/sys_enter_execve"),
    ("execveat", "syscalls/sys_enter_execveat"),
    ("exit_group", "syscalls/sys_enter_exit_group"),
];
/// The system call whose tracepoint says whether arguments lie where `entry.c` expects them: the second one behind eight bytes, the
/// number of the call and the first one.
const CALL: &str = "syscalls/sys_enter_execve";
const SECOND_ARGUMENT: u32 = 8 + 2 * size_of::<usize>() as u32;
/// A 32-bit agent on a 64-bit kernel, most likely.
const OTHER_KERNEL: &str = "the kernel's word size is not the agent's";
/// Parts of the map of counters: one for each processor where programs cannot count together (`shared.h`).
const COUNTERS: usize = if cfg!(target_pointer_width = "32") { 64 } else { 1 };
/// `PROC_PID_INIT_INO` (linux/proc_ns.h): the inode of the initial PID namespace.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// The programs, loaded and attached, and what they write.
pub(crate) struct Stream {
    ring: Ring,
    counters: Mapping,
    /// Kept open: the programs run for as long as these are.
    _links: Vec<OwnedFd>,
    assembler: Assembler,
    /// Losses told of.
    told: u64,
    skipped: Skipped,
    /// There was more than one call takes.
    more: bool,
    /// Many came lately.
    steady: bool,
    /// Calls in a row that left something.
    calls: u32,
    /// How it is read, in words.
    detail: String,
    /// Whose connections are is told.
    connections: bool,
    /// And who accepts one.
    accepts: bool,
}

impl Stream {
    /// Loads and attaches the programs for a kernel with BTF, which is read from `btf`. Needs `CAP_BPF` and `CAP_PERFMON`
    /// (`CAP_SYS_ADMIN` before Linux 5.8), which nothing later does.
    ///
    /// # Errors
    /// Why they cannot be used here.
    pub(crate) fn open(proc: &Path, wanted: Wanted, btf: &Path) -> Result<Self, Unavailable> {
        // First what costs nothing where it is refused.
        let events = ring(proc)?;
        let (offsets, functions) = offsets(btf)?;
        let maps = Maps::new(proc, events, &offsets, WALK)?;
        let attach = |section, variant, point| maps.attach(object::OBJECT, section, variant, point);
        let kernel = function::kernel(proc);
        let events = (kernel >= PREEMPTED).then(|| Tracefs::open(proc).ok()).flatten();
        let scheduler = |section, name: &'static CStr| {
            let number = |tracefs: &Tracefs| tracefs.number(&format!("sched/{}", name.to_str().ok()?)).ok();
            let whole =
                events.as_ref().and_then(number).map(|number| attach(section, 0, Point::Number(number)));
            whole.and_then(Result::ok).map_or_else(|| attach(section, 0, Point::Raw(name)), Ok)
        };
        let mut links = vec![scheduler("exec", c"sched_process_exec")?];
        if wanted.exits {
            links.push(scheduler("exit", c"sched_process_exit")?);
        }
        // Where it has sockets. Without, /proc tells whose they are.
        let sockets = wanted.connections && !offsets[btf::SOCKET].contains(&btf::ABSENT);
        let mut connections = false;
        if sockets {
            let points =
                [("state", Point::Raw(c"inet_sock_set_state")), ("socket", Point::Raw(c"sock_send_length"))];
            connections = maps.attach_sockets(object::OBJECT, points, &mut links);
        }
        // Where it loads modules. Without, /proc/modules tells.
        if offsets[btf::MODULE] != btf::ABSENT {
            for (loaded, point) in [(1, c"module_load"), (0, c"module_free")] {
                links.extend(attach("deed", loaded, Point::Raw(point)).ok());
            }
        }
        let (sleep, mut told, mut missing) = (kernel >= function::MAY_SLEEP, "", Vec::new());
        for (function, (id, _)) in FUNCTIONS.iter().zip(functions) {
            let socket = function.tells == function::ACCEPT || function.tells == function::BIND;
            if function.tells == told || socket && !wanted.connections {
                continue;
            }
            let point = Point::Function { id, ends: function.when != When::Begins };
            let may = id != 0 && (sleep || function.when != When::EndsAfterSleep) && (sockets || !socket);
            let done = may.then(|| attach(function.section, function.variant, point));
            match done {
                Some(Ok(link)) => {
                    links.push(link);
                    told = function.tells;
                    missing.retain(|other| *other != told);
                }
                not => {
                    tracing::debug!(name = function.name, ?not, "not told of");
                    if missing.last() != Some(&function.tells) {
                        missing.push(function.tells);
                    }
                }
            }
        }
        let mut detail = String::from("from a ring buffer that programs in the kernel write");
        if connections {
            detail.push_str("; so is whose connections are");
        }
        let mut this = Self::new(maps, links, detail, &missing)?;
        this.connections = connections;
        this.accepts = connections && !missing.contains(&function::ACCEPT);
        Ok(this)
    }

    /// The same for a kernel without BTF.
    ///
    /// # Errors
    /// Why they cannot be used here.
    pub(crate) fn open_entry(proc: &Path, wanted: Wanted) -> Result<Self, Unavailable> {
        let events = ring(proc)?;
        let tracefs = Tracefs::open(proc).map_err(|error| {
            Unavailable::new(format!(
                "tracefs is not mounted at /sys/kernel/tracing and cannot be: {error}: it needs CONFIG_FTRACE"
            ))
        })?;
        let described = |error| explain("reading the description of a tracepoint", &error);
        let field = |tracepoint, name| tracefs.field(tracepoint, name, 4).map_err(described);
        let number = |tracepoint| {
            tracefs.number(tracepoint).map_err(|error| {
                Unavailable::new(format!("tracepoint {tracepoint}: {error}: it needs CONFIG_FTRACE_SYSCALLS"))
            })
        };
        number(CALL)?;
        if tracefs.field(CALL, "argv", size_of::<usize>()).ok() != Some(SECOND_ARGUMENT) {
            return Err(Unavailable::new(OTHER_KERNEL));
        }
        // Where it is not there, nothing is attached that looks at it.
        let socket =
            tracefs.field("sock/inet_sock_set_state", "skaddr", size_of::<usize>()).unwrap_or_default();
        let layout = [
            field("sched/sched_process_exec", "filename")?,
            field("sched/sched_process_exec", "old_pid")?,
            field("sched/sched_process_fork", "child_pid")?,
            socket,
            RING as u32,
            std::process::id(),
        ];
        let mut maps = Maps::new(proc, events, &layout, PLACE)?;
        maps.maps.push((c"parents", map(Kind::Recent, 4, 4, PARENTS)?));
        maps.maps.push((c"calls", map(Kind::Recent, CALLS.0, CALLS.1, CALLS.2)?));
        // The program that others go on in. The kernel empties the map when nobody has it open, so it lives as long as they.
        let called = map(Kind::Programs, 4, 4, 1)?;
        let mut links = vec![called.try_clone().map_err(|error| explain("keeping a map", &error))?];
        maps.maps.push((c"programs", called));
        let arguments = maps.load(object::ENTRY, "arguments", 0, Program::Tracepoint)?;
        system::set(&links[0], &[arguments.as_raw_fd() as u32])
            .map_err(|error| explain("filling a map", &error))?;
        for (section, tracepoint) in ENTRY.iter().take(ENTRY.len() - usize::from(!wanted.exits)) {
            let number = number(tracepoint)?;
            links.push(maps.attach(object::ENTRY, section, 0, Point::Number(number))?);
            if section.starts_with("execve") {
                links.extend(system::elsewhere(number));
            }
        }
        // One that is not there, or looks otherwise, has no number here.
        let numbered = |tracepoint, field, offset| {
            let expected = socket + size_of::<usize>() as u32 + offset;
            let found = tracefs.field(tracepoint, field, 4).is_ok_and(|found| found == expected);
            Point::Number(found.then(|| tracefs.number(tracepoint).ok()).flatten().unwrap_or(u64::MAX))
        };
        let points = [
            ("state", numbered("sock/inet_sock_set_state", "daddr[4]", 20)),
            ("send", numbered("sock/sock_send_length", "ret", 4)),
        ];
        let connections = wanted.connections && maps.attach_sockets(object::ENTRY, points, &mut links);
        let mut missing = Vec::new();
        for (name, variant, tracepoints) in SUCCEEDED {
            let mut attached = 0;
            for (section, tracepoint) in ["returned", "called"].into_iter().zip(tracepoints) {
                let link = number(tracepoint)
                    .and_then(|number| maps.attach(object::ENTRY, section, variant, Point::Number(number)));
                attached += usize::from(link.is_ok());
                links.extend(link);
            }
            if attached < tracepoints.len() {
                missing.push(name);
            }
        }
        let detail = "arguments as the system call was made, other details from /proc afterwards".into();
        let mut this = Self::new(maps, links, detail, &missing)?;
        this.connections = connections;
        Ok(this)
    }

    fn new(
        maps: Maps,
        links: Vec<OwnedFd>,
        mut detail: String,
        missing: &[&str],
    ) -> Result<Self, Unavailable> {
        if !missing.is_empty() {
            detail.push_str("; not told: ");
            detail.push_str(&missing.join(", "));
        }
        let mapped = |error| explain("mapping the ring buffer", &error);
        let counters = Mapping::new(&maps.maps[2].1, false, 0, ring::page()).map_err(mapped)?;
        let Maps { mut maps, skipped, .. } = maps;
        Ok(Self {
            counters,
            ring: Ring::new(maps.swap_remove(0).1, RING).map_err(mapped)?,
            _links: links,
            assembler: Assembler::default(),
            told: 0,
            skipped: skipped.into_inner(),
            more: false,
            steady: false,
            calls: 0,
            detail,
            connections: false,
            accepts: false,
        })
    }

    /// Waits for records, at most about a second, and appends what they say: no more than [`BATCH`], the next call has the rest. Returns
    /// how many the programs had to drop, or were not run for, since the last call.
    ///
    /// # Errors
    /// When the ring cannot be waited for.
    pub(crate) async fn read(&mut self, out: &mut Vec<Told>) -> Result<u64, Unavailable> {
        if !self.more && !self.steady {
            let waited = |error| explain("waiting for the ring buffer", &error);
            self.ring.readable(Duration::from_secs(1)).await.map_err(waited)?;
        }
        if self.more || self.ring.half_full() {
            others_first().await;
        } else {
            tokio::time::sleep(PAUSE).await;
        }
        let before = self.more;
        self.more = self.take(out, BATCH);
        self.steady = before || out.len() >= STEADY;
        self.skipped.ask(!out.is_empty());
        self.calls = if self.more { self.calls % CALLS_IN_A_ROW + 1 } else { 0 };
        let lost = self.lost();
        Ok(lost.saturating_sub(std::mem::replace(&mut self.told, lost)))
    }

    /// It is time for what is to be done once for many events: nothing is left for now, or there have been many.
    pub(crate) const fn pauses(&self) -> bool {
        !self.more || self.calls == CALLS_IN_A_ROW
    }

    /// Appends what the records say that are there by now.
    pub(crate) fn drain(&mut self, out: &mut Vec<Told>) {
        self.take(out, usize::MAX);
    }

    /// The same until so many are there; false when nothing is left.
    fn take(&mut self, out: &mut Vec<Told>, most: usize) -> bool {
        let assembler = &mut self.assembler;
        self.ring.drain(|record| {
            out.extend(assembler.push(record));
            out.len() < most
        });
        out.len() >= most
    }

    /// Records of processes dropped since the programs were loaded, or not written.
    pub(crate) fn lost(&self) -> u64 {
        self.count(0) + self.skipped.count()
    }

    /// Records of connections dropped likewise; `None` where there are none at all.
    pub(crate) fn connections_lost(&self) -> Option<u64> {
        self.connections.then(|| self.count(1))
    }

    /// How it is read, and what is not told of, in words.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Connections come with who accepts them.
    pub(crate) const fn accepts(&self) -> bool {
        self.accepts
    }

    fn count(&self, what: usize) -> u64 {
        (0..COUNTERS).map(|part| self.counters.number(2 * part + what) as u64).sum()
    }
}

fn map(kind: Kind, key: u32, value: u32, entries: u32) -> Result<OwnedFd, Unavailable> {
    create(kind, key, value, entries).map_err(|error| explain("making a map", &error))
}

/// The ring buffer, where the programs can be used at all.
fn ring(proc: &Path) -> Result<OwnedFd, Unavailable> {
    let namespace = std::fs::metadata(proc.join("self/ns/pid")).map(|metadata| metadata.ino());
    if namespace.is_ok_and(|inode| inode != INITIAL_PID_NAMESPACE) {
        return Err(Unavailable::new("not in the initial PID namespace: process ids would be others"));
    }
    map(Kind::Ring, 0, 0, RING as u32)
}

/// Values of the loader behind the offsets of members.
const VALUES: usize = 6;

/// The value of the map `offsets` for a kernel with BTF, and the functions it has.
fn offsets(btf: &Path) -> Result<([u32; btf::MEMBERS.len() + VALUES], function::Found), Unavailable> {
    let mut data = Vec::new();
    let read = File::open(btf).and_then(|file| file.take(btf::LIMIT).read_to_end(&mut data));
    if let Err(error) = read {
        let words = format!("{}: {error}: the kernel needs CONFIG_DEBUG_INFO_BTF", btf.display());
        return Err(Unavailable::new(words));
    }
    let (found, functions) =
        btf::read(&data).map_err(|words| Unavailable::new(format!("this kernel is not known: {words}")))?;
    let [mount, dentry] = btf::PATH.map(|index| found[index]);
    if mount.abs_diff(dentry) as usize != size_of::<usize>() {
        return Err(Unavailable::new(OTHER_KERNEL));
    }
    let mut offsets = [RING as u32; btf::MEMBERS.len() + VALUES];
    offsets[..found.len()].copy_from_slice(&found);
    offsets[found.len() + 1] = std::process::id();
    offsets[found.len() + 2..].copy_from_slice(&function::layout(&functions));
    Ok((offsets, functions))
}

/// What a program runs at.
#[derive(Clone, Copy)]
enum Point {
    /// The tracepoint of that name, with what the kernel hands to it.
    Raw(&'static CStr),
    /// The tracepoint of that number, with what its format describes.
    Number(u64),
    /// The beginning or the end of the function of that id, with its arguments.
    Function { id: u32, ends: bool },
}

/// What somebody asks for besides execs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The ends of processes.
    pub(crate) exits: bool,
    /// Whose connections are.
    pub(crate) connections: bool,
}

/// The maps by the names the programs have for them. The ring is the first, the counters are the third.
struct Maps<'a> {
    maps: Vec<(&'static CStr, OwnedFd)>,
    proc: &'a Path,
    skipped: RefCell<Skipped>,
}

impl<'a> Maps<'a> {
    /// With so many bytes of `scratch` for each processor.
    fn new(proc: &'a Path, events: OwnedFd, offsets: &[u32], scratch: u32) -> Result<Self, Unavailable> {
        let maps = [
            (c"events", events),
            (c"scratch", map(Kind::PerCpuArray, 4, scratch, 1)?),
            (c"counters", map(Kind::MappedArray, 4, 8, 2 * COUNTERS as u32)?),
            (c"offsets", map(Kind::Array, 4, (offsets.len() * 4) as u32, 1)?),
            (c"sockets", map(Kind::Recent, SOCKETS.0, SOCKETS.1, SOCKETS.2)?),
            (c"sent", map(Kind::Recent, SENT.0, SENT.1, SENT.2)?),
        ];
        system::set(&maps[3].1, offsets).map_err(|error| explain("filling a map", &error))?;
        Ok(Self { maps: maps.into(), proc, skipped: RefCell::default() })
    }

    fn load(
        &self,
        object: &[u8],
        section: &str,
        variant: i32,
        program: Program,
    ) -> Result<OwnedFd, Unavailable> {
        let descriptor = |name: &[u8]| {
            let map = self.maps.iter().find(|(known, _)| known.to_bytes() == name);
            map.map(|(_, descriptor)| descriptor.as_raw_fd())
        };
        let code = object::program(object, section, variant, descriptor)
            .ok_or_else(|| Unavailable::new("the agent's own eBPF object is damaged"))?;
        system::load(program, &code).map_err(|(error, words)| {
            let what = if words.is_empty() { "loading".into() } else { format!("loading ({words})") };
            explain(&format!("{what} the program for {section}"), &error)
        })
    }

    /// Attaches what tells whose connections are, as far as the kernel has it; true when TCP is told of. The second one, for datagrams,
    /// came with Linux 6.3.
    fn attach_sockets(&self, object: &[u8], points: [(&str, Point); 2], links: &mut Vec<OwnedFd>) -> bool {
        let before = links.len();
        for (section, point) in points {
            match self.attach(object, section, 0, point) {
                Ok(link) => links.push(link),
                Err(error) => tracing::debug!(%error, "whose connections are is asked of /proc"),
            }
            if links.len() == before {
                break;
            }
        }
        links.len() > before
    }

    fn attach(
        &self,
        object: &[u8],
        section: &str,
        variant: i32,
        point: Point,
    ) -> Result<OwnedFd, Unavailable> {
        let kind = match point {
            Point::Raw(_) => Program::RawTracepoint,
            Point::Number(_) => Program::Tracepoint,
            Point::Function { id, ends } => Program::Function { id, ends },
        };
        let program = self.load(object, section, variant, kind)?;
        let attached = match point {
            Point::Raw(name) => system::attach(&program, Some(name)),
            Point::Function { .. } => system::attach(&program, None),
            Point::Number(number) => system::attach_to(&program, number),
        };
        if attached.is_ok() && TELLING.contains(&section) {
            self.skipped.borrow_mut().watch(self.proc, program);
        }
        attached.map_err(|error| {
            let what = format!("attaching the program for {section}");
            if matches!((&point, error.raw_os_error()), (Point::Number(_), Some(libc::EACCES))) {
                // Debian's kernel and Android's have a third level of perf_event_paranoid.
                let reason = "kernel.perf_event_paranoid above 2 allows it to CAP_SYS_ADMIN alone";
                return Unavailable::new(format!("{what}: {error}: {reason}"));
            }
            explain(&what, &error)
        })
    }
}

/// Decodes records as the programs write them, oldest first; returns how many events they come to.
pub fn decode_ring<'a>(records: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut assembler = Assembler::default();
    records.filter_map(|record| assembler.push(record)).count()
}

/// Lets every other task that is ready go first. Unlike tokio's own `yield_now` it does not have the runtime ask the kernel for news
/// each time, which costs a system call for every few events.
async fn others_first() {
    let mut gone = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
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
