//! A process sensor that runs in a thread, and the children that are run under it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use defender_model::event::{Event, EventKind};
use defender_model::health::Health;
use defender_model::process::{Change, ExitReason, Process, Source};
use defender_model::time::Timestamp;
use defender_sensors::file::FileSensor;
use defender_sensors::process::{Preference, ProcessSensor, Settings, Status, UPGRADE};
use defender_sensors::{Observation, Outlet};
use tokio::sync::oneshot;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) events: Vec<Event>,
    pub(crate) notes: Vec<Health>,
}

/// A sensor that runs in a thread of its own, and what it has said so far.
pub(crate) struct Running {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) status: Arc<Mutex<Status>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis() as i64)
}

/// The machine as the kernel calls it. Before Linux 6.1, where 32-bit x86 has another name here, as Rust does.
fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/arch")
        .map_or_else(|_| std::env::consts::ARCH.into(), |machine| machine.trim().into())
}

pub(crate) fn settings(preference: Preference) -> Settings {
    Settings {
        preference,
        exits: true,
        connections: true,
        poll_interval: Duration::from_millis(20),
        table_capacity: 4096,
        receive_buffer: 4 << 20,
        audit_backlog_limit: 8192,
        audit_backlog_wait: 250,
        watched: Vec::new(),
        proc: "/proc".into(),
        btf: "/sys/kernel/btf/vmlinux".into(),
        upgrade_interval: UPGRADE,
        passwd: "/etc/passwd".into(),
        machine: machine(),
        clock,
    }
}

impl Running {
    pub(crate) fn start(preference: Preference) -> Self {
        Self::with(settings(preference))
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::beside(ProcessSensor::open(settings), None)
    }

    /// Runs the sensor, and one for files that is told who writes.
    pub(crate) fn beside(sensor: ProcessSensor, files: Option<FileSensor>) -> Self {
        let status = sensor.status();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let into = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (outlet, mut observations) = Outlet::channel(4096);
                let files =
                    files.map(|files| tokio::spawn(files.run(outlet.clone(), std::future::pending())));
                let task = tokio::spawn(sensor.run(outlet, async move {
                    let _ = stopped.await;
                    if let Some(files) = files {
                        files.abort();
                    }
                }));
                while let Some(observation) = observations.recv().await {
                    let mut seen = into.lock().unwrap();
                    match observation {
                        Observation::Event(event) => seen.events.push(event),
                        Observation::Health(health) => seen.notes.push(health),
                    }
                }
                task.await.unwrap();
            });
        });
        Self { seen, status, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn source(&self) -> Option<Source> {
        self.status.lock().unwrap().source
    }

    pub(crate) fn detail(&self) -> String {
        self.status.lock().unwrap().detail.clone()
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Seen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.seen.lock().unwrap()) {
            let seen = self.seen.lock().unwrap();
            assert!(
                Instant::now() < deadline,
                "not seen: {what}; notes {:?}, {} events",
                seen.notes,
                seen.events.len()
            );
            drop(seen);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The exec of a process whose argument vector satisfies the test.
    pub(crate) fn exec(&self, what: &str, is: impl Fn(&Process) -> bool) -> Process {
        let mut found = None;
        self.until(what, |seen| {
            found = execs(seen).find(|process| is(process)).cloned();
            found.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn execs(seen: &Seen) -> impl Iterator<Item = &Process> {
    seen.events.iter().filter_map(|event| match &event.kind {
        EventKind::Process(activity) if matches!(activity.change, Change::Exec { .. }) => {
            Some(&activity.process)
        }
        _ => None,
    })
}

pub(crate) fn exits(seen: &Seen, pid: u32) -> Option<ExitReason> {
    seen.events.iter().find_map(|event| match &event.kind {
        EventKind::Process(activity) if activity.process.pid == pid => match activity.change {
            Change::Exit(reason) => Some(reason),
            Change::Exec { .. } => None,
        },
        _ => None,
    })
}

/// The running kernel's version, as far as two numbers tell it.
pub(crate) fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Waits for a child and returns its id.
pub(crate) fn finished(mut child: Child) -> u32 {
    child.wait().unwrap();
    child.id()
}

/// Runs this test binary again as the child that does something a library cannot.
pub(crate) fn again(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "process::child_roles", "--nocapture"])
        .env("DEFENDER_TEST_ROLE", role)
        .stdout(Stdio::null());
    command
}

#[test]
fn child_roles() {
    match std::env::var("DEFENDER_TEST_ROLE").as_deref() {
        Ok("waits") => drop(std::io::stdin().read_line(&mut String::new())),
        Ok("thread") => {
            let exec = || panic!("{}", Command::new("/bin/true").arg("from-a-thread").exec());
            thread::spawn(exec).join().unwrap();
        }
        Ok("memfd") => {
            use std::io::Write;
            use std::os::fd::FromRawFd;
            // SAFETY: the name lives through the call.
            let descriptor = unsafe { libc::memfd_create(c"hidden".as_ptr(), 0) };
            // SAFETY: the descriptor was just made and is nobody else's.
            let mut file = unsafe { std::fs::File::from_raw_fd(descriptor) };
            file.write_all(&std::fs::read("/bin/true").unwrap()).unwrap();
            panic!("{}", Command::new(format!("/proc/self/fd/{descriptor}")).arg("from-memory").exec());
        }
        Ok("execveat") => {
            let file = std::fs::File::open("/bin/true").unwrap();
            let argv = [c"true".as_ptr(), c"by-descriptor".as_ptr(), std::ptr::null()];
            // SAFETY: path and argument vector live through the call; both vectors end with a null pointer.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    std::os::fd::AsRawFd::as_raw_fd(&file),
                    c"".as_ptr(),
                    argv.as_ptr(),
                    argv[2..].as_ptr(),
                    libc::AT_EMPTY_PATH,
                )
            };
            panic!("the exec failed");
        }
        Ok("bpf") => load_program(),
        Ok("trace") => {
            let numbers = std::env::var("DEFENDER_TEST_TRACE").unwrap();
            let (request, pid) = numbers.split_once(' ').unwrap();
            let (request, pid) = (request.parse::<u32>().unwrap(), pid.parse::<libc::pid_t>().unwrap());
            // SAFETY: the requests that attach take numbers only.
            let answer = unsafe { libc::ptrace(request as _, pid, 0, 0) };
            assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
        }
        #[cfg(target_arch = "x86_64")]
        Ok("compat") => compat::exec(),
        Ok("audit daemon") => audit_daemon(),
        // Not a child: nothing to do, and nothing to claim.
        _ => println!("skipped: only does something as the child of another test"),
    }
}

/// Loads the smallest eBPF program there is: a socket filter that lets nothing through. Whoever waits sees by the exit status whether
/// this kernel takes it.
fn load_program() {
    // `union bpf_attr` of linux/bpf.h: type, number of instructions, where they are, where the licence is.
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
    let instructions = [0xb7u64, 0x95];
    let mut attributes = Attributes {
        kind: 1,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log: [0; 2],
        version_and_flags: [0; 2],
        name: [0; 16],
    };
    attributes.name[..5].copy_from_slice(b"probe");
    // SAFETY: instructions, licence and attributes live through the call.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, 5, &attributes, size_of::<Attributes>()) };
    assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
}

/// Registers as the audit daemon and reads what comes, until its input ends. Each line of that is `AUDIT_SET`'s new `enabled`.
fn audit_daemon() {
    use std::io::BufRead;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 9) };
    assert!(socket >= 0);
    // SAFETY: it was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let set = |mask: u32, enabled: u32, pid: u32| {
        // Length, AUDIT_SET and NLM_F_REQUEST, sequence, port; then `struct audit_status` up to `backlog`.
        let words = [48, 1001 | 1 << 16, 1, 0, mask, enabled, 0, pid, 0, 0, 0, 0];
        // SAFETY: the words live through the call.
        let sent = unsafe { libc::send(socket.as_raw_fd(), words.as_ptr().cast(), 48, 0) };
        assert_eq!(sent, 48);
        // The call returned once it was so.
        println!("done");
    };
    let reading = socket.try_clone().unwrap();
    thread::spawn(move || {
        let mut buffer = [0u8; 16384];
        // SAFETY: the buffer is as long as it says.
        while unsafe { libc::recv(reading.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) } != 0 {}
    });
    set(4, 0, std::process::id());
    for line in std::io::stdin().lock().lines() {
        set(1, line.unwrap().parse().unwrap(), 0);
    }
    set(4, 0, 0);
}

/// A 32-bit system call of a 64-bit process: what a 32-bit program's exec looks like to audit.
#[cfg(target_arch = "x86_64")]
mod compat {
    /// execve("/bin/true", {"/bin/true", "from-32-bit"}, {}) by `int 0x80`, whose pointers are 32 bits wide.
    pub(crate) fn exec() {
        // SAFETY: a private anonymous mapping at an address of the kernel's choice below 2 GiB.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        let base = u32::try_from(page as usize).expect("MAP_32BIT");
        let mut image = [0u8; 96];
        image[..9].copy_from_slice(b"/bin/true");
        image[16..27].copy_from_slice(b"from-32-bit");
        image[32..36].copy_from_slice(&base.to_le_bytes());
        image[36..40].copy_from_slice(&(base + 16).to_le_bytes());
        // SAFETY: the mapping is 4096 bytes long and nobody else knows of it.
        unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), page.cast(), image.len()) };
        // SAFETY: execve replaces the process or returns an error; it reads the mapping only. rbx is saved around its use.
        unsafe {
            core::arch::asm!(
                "push rbx", "mov ebx, {path:e}", "int 0x80", "pop rbx",
                path = in(reg) base, inout("eax") 11 => _, in("ecx") base + 32, in("edx") base + 64,
            );
        }
        panic!("the exec failed");
    }
}
