//! What the programs tell, against the kernel the tests run on. Needs root in the initial namespaces; otherwise each test says why it did
//! nothing.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use defender_model::network::Protocol;
use defender_model::process::Change;

use super::*;

/// What runs here, and whether it is the one with BTF.
fn opened() -> Vec<(bool, Stream)> {
    let proc = Path::new("/proc");
    let all = Wanted { exits: true, connections: true };
    let with_btf = Stream::open(proc, all, Path::new("/sys/kernel/btf/vmlinux"));
    let both = [(true, with_btf), (false, Stream::open_entry(proc, all))];
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

/// With BTF, where the kernel has the function.
fn tells(stream: &Stream, what: &str) -> bool {
    let missing = stream.detail.split_once("not told: ").map(|(_, missing)| missing);
    let is_missing = missing.is_some_and(|missing| missing.split(", ").any(|other| other == what));
    if is_missing {
        println!("skipped: {}", stream.detail);
    }
    stream.detail.starts_with("from a ring buffer") && !is_missing
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
            if stream.accepts() {
                let (accepted, from) = listener.accept().unwrap();
                expected.push((false, Protocol::TCP, server, end(from)));
                drop(accepted);
            }
            let (a, b) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
            let (here, there) = (end(a.local_addr().unwrap()), end(b.local_addr().unwrap()));
            a.connect(there).unwrap();
            for _ in 0..3 {
                a.send(b"x").unwrap();
            }
            b.send_to(b"x", here).unwrap();
            if tells_of_datagrams() {
                // Where sockets have addresses of IPv6, only BTF tells.
                let known = |end: (IpAddr, u16)| if btf || here.0.is_ipv4() { end } else { (none, end.1) };
                expected.push((false, Protocol::UDP, known(here), known(there)));
                expected.push((false, Protocol::UDP, known(there), (none, 0)));
            }
            drop(a);
            if tells(&stream, function::BIND) {
                let again = UdpSocket::bind(here).unwrap();
                expected.push((true, Protocol::UDP, here, (none, 0)));
                drop(again);
            }
            open.push((listener, client, b));
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
    let maps = Maps::new(Path::new("/proc"), events, &[0; btf::MEMBERS.len() + VALUES], WALK).unwrap();
    let mut programs = vec![("exec", 0), ("exit", 0), ("state", 0), ("socket", 0), ("deed", 0), ("deed", 1)];
    programs.extend(FUNCTIONS.iter().map(|function| (function.section, function.variant)));
    for (section, variant) in programs {
        let loaded = maps.load(object::OBJECT, section, variant, Program::RawTracepoint);
        assert!(loaded.is_ok(), "{section} {variant}: {:?}", loaded.map_err(|error| error.to_string()));
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
                Told::Exec { activity, .. } | Told::Entered { activity, .. }
                    if started.contains(&activity.process.pid) =>
                {
                    starts += 1;
                    cut += usize::from(activity.change == Change::Exec { truncated: true });
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

const USER: u32 = 12345;

/// A program that does nothing but return, and is called `nothing`; for use in a child before it becomes another program.
fn load_nothing() -> io::Result<()> {
    let code = [0xb7u64, 0x95];
    let license = c"GPL";
    let mut attributes = [0u8; 112];
    attributes[..8].copy_from_slice(&(17u64 | 2 << 32).to_ne_bytes());
    attributes[8..16].copy_from_slice(&(code.as_ptr() as u64).to_ne_bytes());
    attributes[16..24].copy_from_slice(&(license.as_ptr() as u64).to_ne_bytes());
    attributes[48..55].copy_from_slice(b"nothing");
    // SAFETY: code and license live through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 5, attributes.as_ptr(), attributes.len()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// To root from a user who has that right left.
fn become_root() -> io::Result<()> {
    for (user, saved) in [(USER, 0), (0, 0)] {
        // SAFETY: takes numbers.
        if unsafe { libc::setresuid(user, user, saved) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A child that does this before it becomes a program that ends at once.
fn child_that(does: fn() -> io::Result<()>) -> u32 {
    let mut command = Command::new("/bin/true");
    // SAFETY: it calls the kernel, and has no lock or memory of others.
    unsafe { command.pre_exec(does) };
    let mut child = command.spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

fn trace(request: libc::c_uint, pid: u32) -> bool {
    // SAFETY: these requests take no addresses.
    unsafe { libc::ptrace(request as _, pid as libc::pid_t, 0usize, 0usize) == 0 }
}

#[test]
fn deeds_have_their_process() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    for (btf, mut stream) in opened() {
        // What the other one's turn made.
        stream.drain(&mut Vec::new());
        let mut sleeping = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let traced = sleeping.id();
        assert!(trace(libc::PTRACE_ATTACH, traced));
        // SAFETY: takes no address.
        assert!(unsafe { libc::waitpid(traced as libc::pid_t, std::ptr::null_mut(), libc::__WALL) } > 0);
        assert!(trace(libc::PTRACE_DETACH, traced));
        assert!(trace(libc::PTRACE_SEIZE, traced));
        // Twice is one time too many, and what a child lets be done to it is its own business.
        assert!(!trace(libc::PTRACE_SEIZE, traced));
        let mut refused = Command::new("/bin/true");
        // SAFETY: as above.
        unsafe {
            refused.pre_exec(|| match trace(libc::PTRACE_TRACEME, 0) {
                true => Err(io::ErrorKind::Other.into()),
                false => Ok(()),
            });
        }
        refused.spawn().unwrap_err();
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();

        load_nothing().unwrap();
        let loader = child_that(load_nothing);
        let root = child_that(become_root);
        // One that has the right by its file, as its start tells already.
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("true");
        std::fs::copy("/bin/true", &file).unwrap();
        for (path, mode) in [(directory.path(), 0o755), (&file, 0o4755)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        let mut by_file = Command::new(&file).uid(USER).spawn().unwrap();
        by_file.wait().unwrap();

        let mut told = Vec::new();
        stream.drain(&mut told);
        let me = std::process::id();
        let (mut traces, mut programs, mut roots) = (Vec::new(), Vec::new(), Vec::new());
        for told in &told {
            match told {
                Told::Traced { pid, command, target, .. } if *pid == me => {
                    assert!(!command.is_empty());
                    traces.push(*target);
                }
                Told::Program { pid, name, kind, .. } if [me, loader].contains(pid) => {
                    programs.push((*pid, name.as_str(), *kind));
                }
                Told::Credentials { pid, uid, .. } if [root, by_file.id()].contains(pid) => {
                    roots.push((*pid, *uid));
                }
                Told::Exec { activity, .. } if activity.process.pid == by_file.id() => {
                    let process = &activity.process;
                    // Unless the file system is mounted nosuid.
                    println!("by its file: {:?} {:?}", process.uid, process.euid);
                }
                _ => {}
            }
        }
        if !btf || tells(&stream, "ptrace") {
            assert_eq!(traces, [traced; 2], "{btf} {told:?}");
        }
        if !btf || tells(&stream, "bpf") {
            assert_eq!(programs, [(loader, "nothing", 17)], "{btf} {told:?}");
        }
        if tells(&stream, "credentials") {
            assert_eq!(roots, [(root, USER)], "{told:?}");
        }
    }
}
