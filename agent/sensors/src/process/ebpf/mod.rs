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
//! | [`tracefs`] | tracepoints by name, and where their fields lie |
//! | [`system`] | bpf(2), perf_event_open(2) |
//! | [`ring`] | the ring buffer |
//! | [`record`] | records to events |
//! | here | loading, reading |
//!
//! bpf(2) is called while loading only. Nothing is pinned: all is gone when the agent ends.

mod btf;
#[cfg(test)]
mod compile;
pub(crate) mod entry;
mod object;
mod record;
mod ring;
mod system;
mod tracefs;

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

pub(crate) use record::{Connection, Told};

use self::record::Assembler;
use self::ring::{Mapping, Ring};
use self::system::{create, Kind};
use self::tracefs::Tracefs;
use crate::process::Unavailable;

/// Bytes of the ring buffer: a power of two.
const RING: usize = 256 << 10;
/// How long records are left to gather after the first. The programs wake the reader early when half the ring is full.
const PAUSE: Duration = Duration::from_millis(10);
/// Events taken in one go. What they are made of is given back before the next are made, and is found again at once by who looks for
/// memory.
const BATCH: usize = 16;
/// Bytes of `struct part` in `shared.h`, and of the larger of what `programs.c` and `entry.c` keep behind it.
const SCRATCH: u32 = 16 + 16384 + 1024 + 40;
/// Threads whose parents are remembered where there is no BTF.
const PARENTS: u32 = 2048;
/// Sockets remembered while they are being connected, and ways that datagrams went lately. Bytes of key and value are those of
/// `struct who` and `struct datagram`.
const SOCKETS: (u32, u32, u32) = (8, 40, 1024);
const SENT: (u32, u32, u32) = (24, 8, 1024);
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
    /// There was more than one call takes.
    more: bool,
    /// Whose connections are is told.
    connections: bool,
}

impl Stream {
    /// Loads and attaches the programs for a kernel with BTF, which is read from `btf`. Needs `CAP_BPF` and `CAP_PERFMON`
    /// (`CAP_SYS_ADMIN` before Linux 5.8), which nothing later does.
    ///
    /// # Errors
    /// Why they cannot be used here.
    pub(crate) fn open(proc: &Path, exits: bool, btf: &Path) -> Result<Self, Unavailable> {
        // First what costs nothing where it is refused.
        let events = ring(proc)?;
        let offsets = offsets(btf)?;
        let maps = Maps::new(events, &offsets)?;
        let mut links = vec![maps.attach(object::OBJECT, "exec", Point::Raw(c"sched_process_exec"))?];
        if exits {
            links.push(maps.attach(object::OBJECT, "exit", Point::Raw(c"sched_process_exit"))?);
        }
        // Where it has sockets. Without, /proc tells whose they are.
        let mut connections = false;
        if !offsets[btf::SOCKET].contains(&btf::ABSENT) {
            let points =
                [("state", Point::Raw(c"inet_sock_set_state")), ("send", Point::Raw(c"sock_send_length"))];
            connections = maps.attach_sockets(object::OBJECT, points, &mut links);
        }
        // Where it loads modules. Without, /proc/modules tells.
        if offsets[btf::MODULE] != btf::ABSENT {
            for (section, point) in [("module_load", c"module_load"), ("module_free", c"module_free")] {
                links.extend(maps.attach(object::OBJECT, section, Point::Raw(point)).ok());
            }
        }
        Self::new(maps, links, connections)
    }

    /// The same for a kernel without BTF.
    ///
    /// # Errors
    /// Why they cannot be used here.
    pub(crate) fn open_entry(proc: &Path, exits: bool) -> Result<Self, Unavailable> {
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
        let layout = [
            field("sched/sched_process_exec", "filename")?,
            field("sched/sched_process_exec", "old_pid")?,
            field("sched/sched_process_fork", "child_pid")?,
            RING as u32,
        ];
        let mut maps = Maps::new(events, &layout)?;
        maps.0.push((c"parents", map(Kind::Recent, 4, 4, PARENTS)?));
        // The program that others go on in. The kernel empties the map when nobody has it open, so it lives as long as they.
        let called = map(Kind::Programs, 4, 4, 1)?;
        let mut links = vec![called.try_clone().map_err(|error| explain("keeping a map", &error))?];
        maps.0.push((c"programs", called));
        let arguments = maps.load(object::ENTRY, "arguments", false)?;
        system::set(&links[0], &[arguments.as_raw_fd() as u32])
            .map_err(|error| explain("filling a map", &error))?;
        for (section, tracepoint) in ENTRY.iter().take(ENTRY.len() - usize::from(!exits)) {
            links.push(maps.attach(object::ENTRY, section, Point::Number(number(tracepoint)?))?);
        }
        // One that is not there, or looks otherwise, has no number here.
        let numbered = |tracepoint, field, offset| {
            let found = tracefs.field(tracepoint, field, 4).is_ok_and(|found| found == offset);
            Point::Number(found.then(|| tracefs.number(tracepoint).ok()).flatten().unwrap_or(u64::MAX))
        };
        let points = [
            ("state", numbered("sock/inet_sock_set_state", "daddr[4]", 28 + size_of::<usize>() as u32)),
            ("send", numbered("sock/sock_send_length", "ret", 12 + size_of::<usize>() as u32)),
        ];
        let connections = maps.attach_sockets(object::ENTRY, points, &mut links);
        Self::new(maps, links, connections)
    }

    fn new(maps: Maps, links: Vec<OwnedFd>, connections: bool) -> Result<Self, Unavailable> {
        let mapped = |error| explain("mapping the ring buffer", &error);
        let counters = Mapping::new(&maps.0[2].1, false, 0, ring::page()).map_err(mapped)?;
        Ok(Self {
            counters,
            ring: Ring::new(maps.into_ring(), RING).map_err(mapped)?,
            _links: links,
            assembler: Assembler::default(),
            told: 0,
            more: false,
            connections,
        })
    }

    /// Waits for records, at most about a second, and appends what they say: no more than [`BATCH`], the next call has the rest. Returns
    /// how many the programs had to drop since the last call.
    ///
    /// # Errors
    /// When the ring cannot be waited for.
    pub(crate) async fn read(&mut self, out: &mut Vec<Told>) -> Result<u64, Unavailable> {
        if self.more {
            tokio::task::yield_now().await;
        } else {
            let waited = |error| explain("waiting for the ring buffer", &error);
            self.ring.readable(Duration::from_secs(1)).await.map_err(waited)?;
            if !self.ring.half_full() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.more = self.take(out, BATCH);
        let lost = self.lost();
        Ok(lost.saturating_sub(std::mem::replace(&mut self.told, lost)))
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

    /// Records of processes dropped since the programs were loaded.
    pub(crate) fn lost(&self) -> u64 {
        self.count(0)
    }

    /// Records of connections dropped likewise; `None` where there are none at all.
    pub(crate) fn connections_lost(&self) -> Option<u64> {
        self.connections.then(|| self.count(1))
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

/// The value of the map `offsets` for a kernel with BTF.
fn offsets(btf: &Path) -> Result<[u32; btf::MEMBERS.len() + 1], Unavailable> {
    let mut data = Vec::new();
    let read = File::open(btf).and_then(|file| file.take(btf::LIMIT).read_to_end(&mut data));
    if let Err(error) = read {
        let words = format!("{}: {error}: the kernel needs CONFIG_DEBUG_INFO_BTF", btf.display());
        return Err(Unavailable::new(words));
    }
    let found = btf::offsets(&data)
        .map_err(|words| Unavailable::new(format!("this kernel is not known: {words}")))?;
    let [mount, dentry] = btf::PATH.map(|index| found[index]);
    if mount.abs_diff(dentry) as usize != size_of::<usize>() {
        return Err(Unavailable::new(OTHER_KERNEL));
    }
    let mut offsets = [RING as u32; btf::MEMBERS.len() + 1];
    offsets[..found.len()].copy_from_slice(&found);
    Ok(offsets)
}

/// What a program runs at.
#[derive(Clone, Copy)]
enum Point {
    /// The tracepoint of that name, with what the kernel hands to it.
    Raw(&'static CStr),
    /// The tracepoint of that number, with what its format describes.
    Number(u64),
}

/// The maps by the names the programs have for them. The ring is the first, the counters are the third.
struct Maps(Vec<(&'static CStr, OwnedFd)>);

impl Maps {
    fn new(events: OwnedFd, offsets: &[u32]) -> Result<Self, Unavailable> {
        let maps = [
            (c"events", events),
            (c"scratch", map(Kind::PerCpuArray, 4, SCRATCH, 1)?),
            (c"counters", map(Kind::MappedArray, 4, 8, 2 * COUNTERS as u32)?),
            (c"offsets", map(Kind::Array, 4, (offsets.len() * 4) as u32, 1)?),
            (c"sockets", map(Kind::Recent, SOCKETS.0, SOCKETS.1, SOCKETS.2)?),
            (c"sent", map(Kind::Recent, SENT.0, SENT.1, SENT.2)?),
        ];
        system::set(&maps[3].1, offsets).map_err(|error| explain("filling a map", &error))?;
        Ok(Self(maps.into()))
    }

    fn into_ring(mut self) -> OwnedFd {
        self.0.swap_remove(0).1
    }

    fn load(&self, object: &[u8], section: &str, raw: bool) -> Result<OwnedFd, Unavailable> {
        let descriptor = |name: &[u8]| {
            let map = self.0.iter().find(|(known, _)| known.to_bytes() == name);
            map.map(|(_, descriptor)| descriptor.as_raw_fd())
        };
        let code = object::program(object, section, descriptor)
            .ok_or_else(|| Unavailable::new("the agent's own eBPF object is damaged"))?;
        system::load(raw, &code).map_err(|(error, words)| {
            let what = if words.is_empty() { "loading".into() } else { format!("loading ({words})") };
            explain(&format!("{what} the program for {section}"), &error)
        })
    }

    /// Attaches what tells whose connections are, as far as the kernel has it; true when TCP is told of. The second one, for datagrams,
    /// came with Linux 6.3.
    fn attach_sockets(&self, object: &[u8], points: [(&str, Point); 2], links: &mut Vec<OwnedFd>) -> bool {
        let before = links.len();
        for (section, point) in points {
            match self.attach(object, section, point) {
                Ok(link) => links.push(link),
                Err(error) => tracing::debug!(%error, "whose connections are is asked of /proc"),
            }
            if links.len() == before {
                break;
            }
        }
        links.len() > before
    }

    fn attach(&self, object: &[u8], section: &str, point: Point) -> Result<OwnedFd, Unavailable> {
        let program = self.load(object, section, matches!(point, Point::Raw(_)))?;
        let attached = match point {
            Point::Raw(name) => system::attach(&program, name),
            Point::Number(number) => system::attach_to(&program, number),
        };
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::process::Command;
    use std::sync::{Mutex, PoisonError};

    use defender_model::network::Protocol;

    use super::*;

    /// What runs here, and whether it is the one with BTF.
    fn opened() -> Vec<(bool, Stream)> {
        let proc = Path::new("/proc");
        let with_btf = Stream::open(proc, true, Path::new("/sys/kernel/btf/vmlinux"));
        let both = [(true, with_btf), (false, Stream::open_entry(proc, true))];
        let running = both.into_iter().filter_map(|(btf, stream)| match stream {
            Ok(stream) => Some((btf, stream)),
            Err(reason) => {
                println!("skipped: {reason}");
                None
            }
        });
        running.collect()
    }

    /// The kernel has the tracepoint sock_send_length.
    fn tells_of_datagrams() -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(6), Some(3))
    }

    fn end(address: SocketAddr) -> (IpAddr, u16) {
        (address.ip(), address.port())
    }

    /// One test at a time: each sees what the other does.
    static KERNEL: Mutex<()> = Mutex::new(());

    #[test]
    fn connections_have_their_process() {
        let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
        for (btf, mut stream) in opened() {
            assert!(stream.connections_lost().is_some());
            let (mut expected, mut open, mut told) = (Vec::new(), Vec::new(), Vec::new());
            for (host, none) in [("127.0.0.1:0", IpAddr::from([0; 4])), ("[::1]:0", IpAddr::from([0; 16]))] {
                let Ok(listener) = TcpListener::bind(host) else {
                    println!("skipped {host}");
                    continue;
                };
                let server = end(listener.local_addr().unwrap());
                let client = TcpStream::connect(server).unwrap();
                expected.push((true, Protocol::TCP, server, (none, 0)));
                expected.push((false, Protocol::TCP, end(client.local_addr().unwrap()), server));
                let (a, b) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
                let (here, there) = (end(a.local_addr().unwrap()), end(b.local_addr().unwrap()));
                a.connect(there).unwrap();
                for _ in 0..3 {
                    a.send(b"x").unwrap();
                }
                b.send_to(b"x", here).unwrap();
                if tells_of_datagrams() {
                    // Where sockets have addresses of IPv6, only BTF tells.
                    let known =
                        |end: (IpAddr, u16)| if btf || here.0.is_ipv4() { end } else { (none, end.1) };
                    expected.push((false, Protocol::UDP, known(here), known(there)));
                    expected.push((false, Protocol::UDP, known(there), (none, 0)));
                }
                open.push((listener, client, a, b));
                stream.drain(&mut told);
            }
            let free = end(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
            TcpStream::connect(free).unwrap_err();

            stream.drain(&mut told);
            let told: Vec<_> = told
                .iter()
                .filter_map(|told| match told {
                    Told::Connection(told) if told.pid == std::process::id() => {
                        // Without BTF it is that of a process that was forked since.
                        let parent = if btf { std::os::unix::process::parent_id() } else { 0 };
                        assert_eq!(told.parent, parent);
                        Some((told.listens, told.protocol, told.local, told.remote))
                    }
                    _ => None,
                })
                .collect();
            for one in expected {
                assert_eq!(told.iter().filter(|other| **other == one).count(), 1, "{btf} {one:?} {told:?}");
            }
            assert!(told.iter().any(|one| !one.0 && one.2 .1 != 0 && one.3 == free), "{btf} {told:?}");
        }
    }

    /// Those for kernels with BTF, on any: where members lie makes no difference to the verifier.
    #[test]
    fn the_verifier_takes_every_program() {
        let Ok(events) = ring(Path::new("/proc")) else {
            println!("skipped: bpf(2) is not permitted");
            return;
        };
        let maps = Maps::new(events, &[0; btf::MEMBERS.len() + 1]).unwrap();
        for section in ["exec", "exit", "state", "send", "module_load", "module_free"] {
            let loaded = maps.load(object::OBJECT, section, true);
            assert!(loaded.is_ok(), "{section}: {:?}", loaded.map_err(|error| error.to_string()));
        }
    }

    /// Nobody reads while programs with long arguments start: later ones lose their arguments and process ends are dropped, but each start
    /// is there.
    #[test]
    fn a_full_ring_has_room_for_starts() {
        let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
        const COUNT: usize = 30;
        for (_, mut stream) in opened() {
            let long = "x".repeat(100_000);
            let mut started = Vec::new();
            for _ in 0..COUNT {
                let mut child = Command::new("/bin/true").arg(&long).spawn().unwrap();
                started.push(child.id());
                child.wait().unwrap();
            }
            let mut told = Vec::new();
            stream.drain(&mut told);
            let (mut starts, mut cut, mut ends) = (0, 0, 0);
            for event in &told {
                match event {
                    Told::Exec { process, truncated, .. } | Told::Entered { process, truncated, .. }
                        if started.contains(&process.pid) =>
                    {
                        starts += 1;
                        cut += usize::from(*truncated);
                    }
                    Told::Exit { pid, .. } if started.contains(pid) => ends += 1,
                    _ => {}
                }
            }
            assert_eq!(starts, COUNT, "{} records lost", stream.lost());
            assert!(cut > COUNT / 2, "{cut}");
            assert!(stream.lost() as usize >= COUNT - ends, "{ends} ends, {} lost", stream.lost());
        }
    }
}
