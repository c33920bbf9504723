//! The eBPF source against the kernel it runs on, and against the audit source under the same workload.
//!
//! Needs root in the initial namespaces, a kernel with BTF and bpf(2), and for the comparison nobody else using audit; otherwise
//! each test says why it did nothing.

#![cfg(ebpf)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod process;
mod workload;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use defender_model::event::EventKind;
use defender_model::process::{Change, Deed, ExitReason, Process, ProcessDeed, Source};
use defender_sensors::process::Preference;
use process::*;

/// One test at a time: audit is one per machine, and a storm of processes is everybody's.
static KERNEL: Mutex<()> = Mutex::new(());

/// The source running, or nothing and why. The one for kernels without BTF runs when none can be read.
fn running(source: Source) -> Option<Running> {
    let mut settings = settings(Preference::Ebpf);
    if source == Source::EbpfEntry {
        settings.btf = "/nonexistent/btf".into();
    }
    let running = Running::with(settings);
    if running.source() == Some(source) {
        return Some(running);
    }
    let declined = running.status.lock().unwrap().declined.clone();
    let (_, reason) = declined.into_iter().find(|(other, _)| *other == source).unwrap();
    assert!(!reason.contains("loading"), "{reason}");
    println!("skipped {source}: {reason}");
    running.finish();
    None
}

/// Each source that runs here.
fn each(test: impl Fn(Running)) {
    for source in [Source::Ebpf, Source::EbpfEntry] {
        if let Some(running) = running(source) {
            println!("{source}");
            test(running);
        }
    }
}

/// What the source told. After a loss, of others' records too, audit's sensor also tells of what it finds in `/proc`, which may be a
/// process before its exec.
fn exec_of(seen: &Seen, pid: u32) -> Vec<(Process, bool)> {
    let execs = seen.events.iter().filter_map(|event| match &event.kind {
        EventKind::Process(activity)
            if activity.process.pid == pid && activity.source != Source::Snapshot =>
        {
            match activity.change {
                Change::Exec { truncated } => Some((activity.process.clone(), truncated)),
                Change::Exit(_) => None,
            }
        }
        _ => None,
    });
    execs.collect()
}

#[test]
fn ends_are_told_with_their_cause() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    each(|running| {
        let pid = finished(Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap());
        running.until("exit code", |seen| exits(seen, pid) == Some(ExitReason::Code(7)));
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        running.exec("sleep", |p| p.pid == pid && p.argv == ["/bin/sleep", "1000"]);
        child.kill().unwrap();
        child.wait().unwrap();
        // Without BTF a process that is killed is found missing.
        let reason =
            if running.source() == Some(Source::Ebpf) { ExitReason::Signal(9) } else { ExitReason::Unknown };
        running.until("death by SIGKILL", |seen| exits(seen, pid) == Some(reason));
        running.finish();
    });
}

#[test]
fn more_arguments_than_are_read_are_said_to_be_cut() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    each(|running| {
        let long = "y".repeat(100_000);
        let pid = finished(Command::new("/bin/true").args([&long, &long, &long]).spawn().unwrap());
        running.until("its exec", |seen| !exec_of(seen, pid).is_empty());
        let execs = exec_of(&running.seen.lock().unwrap(), pid);
        let [(process, truncated)] = &execs[..] else { panic!("{} execs", execs.len()) };
        assert!(truncated);
        assert_eq!(process.argv[0], "/bin/true");
        assert!(process.argv[1] == long, "{}", process.argv[1].len());
        assert!(long.starts_with(process.argv.last().unwrap()));
        running.finish();
    });
}

#[test]
fn a_storm_is_seen_whole_or_its_losses_are_counted() {
    const COUNT: usize = 500;
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    each(|running| {
        let mut pids = std::collections::HashSet::new();
        for _ in 0..COUNT {
            pids.insert(finished(Command::new("/bin/true").arg("storm").spawn().unwrap()));
        }
        let end = finished(Command::new("/bin/true").arg("storm-end").spawn().unwrap());
        running.until("the end of the storm", |seen| exits(seen, end).is_some());
        let seen = running.seen.lock().unwrap();
        let found =
            execs(&seen).filter(|p| pids.contains(&p.pid) && p.argv.last().unwrap() == "storm").count();
        drop(seen);
        // The kernel is asked from time to time how often it left a program out.
        running
            .until("that some are lost", |_| found + running.status.lock().unwrap().lost as usize >= COUNT);
        println!("{found} of {COUNT} seen, {} lost", running.status.lock().unwrap().lost);
        running.finish();
    });
}

/// For use in a child, which goes on.
fn fails_to_start() -> std::io::Result<()> {
    let never = [c"never".as_ptr(), std::ptr::null()];
    // SAFETY: path and vectors live through the call, and the vectors end with a null pointer.
    unsafe { libc::execve(c"/nonexistent".as_ptr(), never.as_ptr(), never[1..].as_ptr()) };
    Ok(())
}

/// Nobody gets the arguments of another one on the same processor, of whom the kernel ran the program at the same time; what is missing is
/// said, or counted.
#[test]
fn starts_at_the_same_time_are_told_apart() {
    const EACH: usize = 40;
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    each(|running| {
        let start = |thread: usize| {
            let mut started = Vec::new();
            for turn in 0..EACH {
                // Long enough to be read in more than one go, and its own in each part.
                let argument = format!("{thread}-{turn} ").repeat(1 << (turn % 13));
                let mut command = Command::new("/bin/true");
                // Every other one fails at first, and nobody wants its arguments.
                if turn % 2 == 0 {
                    // SAFETY: it calls the kernel, and has no lock or memory of others.
                    unsafe { command.pre_exec(fails_to_start) };
                }
                started.push((finished(command.arg(&argument).spawn().unwrap()), argument));
            }
            started
        };
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || start(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let end = finished(Command::new("/bin/true").arg("at-the-end").spawn().unwrap());
        running.until("the end", |seen| exits(seen, end).is_some() || !exec_of(seen, end).is_empty());
        let (mut whole, mut cut, mut found, mut missing) = (0, 0, 0, 0);
        for (pid, argument) in &started {
            let told = exec_of(&running.seen.lock().unwrap(), *pid);
            match &told[..] {
                // Found in /proc, since others were missing, before it was told.
                [] if execs(&running.seen.lock().unwrap()).any(|process| process.pid == *pid) => found += 1,
                [] => missing += 1,
                [(process, truncated)] => {
                    let argv = &process.argv;
                    let known = argv.len() == 2 && argv[1] == *argument;
                    let begins = argv.is_empty()
                        || argv[0] == "/bin/true" && argv.iter().skip(1).all(|a| argument.starts_with(a));
                    assert!(known || *truncated && begins, "{truncated} {argv:?} of {argument:?}");
                    if known {
                        whole += 1;
                    } else {
                        cut += 1;
                    }
                }
                more => panic!("{} execs of {argument}", more.len()),
            }
        }
        // The kernel is asked from time to time how often it left a program out.
        running.until("that some are lost", |_| running.status.lock().unwrap().lost >= missing);
        let lost = running.status.lock().unwrap().lost;
        println!("{whole} whole, {cut} cut, {found} found, {missing} missing, {lost} lost");
        running.finish();
    });
}

/// An exec that fails was called all the same.
#[test]
fn what_failed_to_start_is_no_event() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    each(|running| {
        let script = "/nonexistent/program never; exec /bin/true was-started";
        let pid =
            finished(Command::new("/bin/sh").args(["-c", script]).stderr(Stdio::null()).spawn().unwrap());
        running.until("the end", |seen| exits(seen, pid).is_some());
        let execs = exec_of(&running.seen.lock().unwrap(), pid);
        let argv: Vec<String> = execs.iter().map(|(process, _)| process.argv.join(" ")).collect();
        assert_eq!(argv, [format!("/bin/sh -c {script}"), "/bin/true was-started".into()]);
        running.finish();
    });
}

fn deed_of(seen: &Seen, pid: u32) -> Option<&ProcessDeed> {
    seen.events.iter().find_map(|event| match &event.kind {
        EventKind::Deed(deed) if deed.process.pid == pid => Some(&**deed),
        _ => None,
    })
}

/// Whether the source says that it does not tell of this.
fn is_missing(running: &Running, what: &str) -> bool {
    let detail = running.detail();
    let missing = detail.split_once("not told: ").is_some_and(|(_, missing)| missing.contains(what));
    if missing {
        println!("skipped: {detail}");
    }
    missing
}

/// Another thread than the first one is traced: it is the process that the event names.
#[test]
fn who_traces_is_told() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    each(|running| {
        if is_missing(&running, "ptrace") {
            return;
        }
        let mut child = again("waits").stdin(Stdio::piped()).spawn().unwrap();
        let tasks = format!("/proc/{}/task", child.id());
        let mut thread = 0;
        running.until("its other thread", |_| {
            let names = fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().file_name());
            let mut ids = names.map(|name| name.to_str().unwrap().parse::<libc::pid_t>().unwrap());
            thread = ids.find(|id| *id as u32 != child.id()).unwrap_or_default();
            thread != 0
        });
        // SAFETY: takes no addresses.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, 0usize, 0usize) }, 0);
        running.until("who traces", |seen| deed_of(seen, std::process::id()).is_some());
        let seen = running.seen.lock().unwrap();
        let Some(ProcessDeed { deed: Deed::Traced(target), source, .. }) = deed_of(&seen, std::process::id())
        else {
            panic!("{:?}", deed_of(&seen, std::process::id()));
        };
        assert_eq!((target.pid, Some(*source)), (child.id(), running.source()));
        assert!(target.command_line.contains("child_roles"), "{target:?}");
        drop(seen);
        child.kill().unwrap();
        // A thread that is traced ends when its tracer knows.
        // SAFETY: takes no address.
        assert_eq!(unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) }, thread);
        child.wait().unwrap();
        running.finish();
    });
}

/// By a call that its file has given it the right for: an exec tells of the rest.
#[test]
fn who_becomes_root_is_told() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(running) = running(Source::Ebpf) else { return };
    if is_missing(&running, "credentials") {
        return;
    }
    let mut command = Command::new("/bin/true");
    let twice = || {
        for (user, saved) in [(12345, 0), (0, 0)] {
            // SAFETY: takes numbers.
            unsafe { libc::setresuid(user, user, saved) };
        }
        Ok(())
    };
    // SAFETY: it calls the kernel, and has no lock or memory of others.
    unsafe { command.pre_exec(twice) };
    let pid = finished(command.spawn().unwrap());
    running.until("who became root", |seen| deed_of(seen, pid).is_some());
    let seen = running.seen.lock().unwrap();
    assert_eq!(deed_of(&seen, pid).unwrap().deed, Deed::BecameRoot { from: 12345 });
    drop(seen);
    running.finish();
}

/// The processes and those they started, by what audit saw.
fn with_children(seen: &Seen, mut pids: Vec<u32>) -> Vec<u32> {
    for process in execs(seen) {
        let parent = process.parent.as_ref().map(|parent| parent.pid);
        if parent.is_some_and(|parent| pids.contains(&parent)) && !pids.contains(&process.pid) {
            pids.push(process.pid);
        }
    }
    pids
}

/// Does the work under audit and under this source, and looks whether it was done; `compare` gets each exec as both have it.
fn differential(source: Source, (work, done): Work, compare: impl Fn(&(Process, bool), &(Process, bool))) {
    let audit = Running::start(Preference::Audit);
    if audit.source() != Some(Source::Audit) {
        println!("skipped: no audit here: {:?}", audit.status.lock().unwrap().declined);
        audit.finish();
        return;
    }
    let Some(ebpf) = running(source) else {
        audit.finish();
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut pids = work(directory.path());
    // One that is still there when its record is read.
    let mut sleeping = Command::new("/bin/sleep").arg("1000").current_dir(directory.path()).spawn().unwrap();
    pids.push(sleeping.id());
    let end = finished(Command::new("/bin/true").arg("end").spawn().unwrap());
    for running in [&audit, &ebpf] {
        running.until("the end of the workload", |seen| exits(seen, end).is_some());
    }
    sleeping.kill().unwrap();
    sleeping.wait().unwrap();

    let (of_audit, of_ebpf) = (audit.seen.lock().unwrap(), ebpf.seen.lock().unwrap());
    let pids = with_children(&of_audit, pids);
    done(&of_audit);
    for pid in pids {
        let (a, b) = (exec_of(&of_audit, pid), exec_of(&of_ebpf, pid));
        assert!(!a.is_empty(), "audit saw no exec of {pid}");
        assert_eq!(a.len(), b.len(), "{:?}\n{:?}", a.last(), b.last());
        a.iter().zip(&b).for_each(|(a, b)| compare(a, b));
        if pid != sleeping.id() {
            assert_eq!(exits(&of_audit, pid), exits(&of_ebpf, pid), "{:?}", b.last());
        }
    }
    drop((of_audit, of_ebpf));
    audit.finish();
    ebpf.finish();
}

/// On a kernel without bpf(2) the reason is named, and the next source there is taken, which tells of starts.
#[test]
fn without_the_system_call_another_source_is_taken() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: command 0 with no attributes is refused before anything is read.
    let refused = unsafe { libc::syscall(libc::SYS_bpf, 0, std::ptr::null::<u8>(), 0) };
    if refused != -1 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) {
        println!("skipped: this kernel has bpf(2)");
        return;
    }
    // SAFETY: no pointers. NETLINK_AUDIT is 9.
    let audit = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 9) };
    let expected = if audit >= 0 { Source::Audit } else { Source::Connector };
    // SAFETY: it was just made, and is nobody else's; an error is not looked at.
    unsafe { libc::close(audit) };

    let running = Running::start(Preference::Ebpf);
    let declined = running.status.lock().unwrap().declined.clone();
    for source in [Source::Ebpf, Source::EbpfEntry] {
        let (_, reason) = declined.iter().find(|(other, _)| *other == source).unwrap();
        assert!(reason.ends_with("the kernel lacks CONFIG_BPF_SYSCALL"), "{reason}");
    }
    assert_eq!(running.source(), Some(expected), "{declined:?}");
    println!("{expected} instead: {declined:?}");
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = child.id();
    running.exec("sleep", |p| p.pid == pid && p.argv == ["/bin/sleep", "1000"]);
    child.kill().unwrap();
    child.wait().unwrap();
    running.finish();
}

/// What is done, in that directory and by these processes, and the look whether it was.
type Work = (fn(&Path) -> Vec<u32>, fn(&Seen));
const WORK: [Work; 2] =
    [(workload::odd, workload::odd_was_done), (workload::everyday, workload::everyday_was_done)];

/// What audit says and eBPF does not, or differently, is named here and nowhere else.
#[test]
fn the_same_workload_gives_the_same_events_as_under_audit() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    for work in WORK {
        differential(Source::Ebpf, work, |audit, ebpf| assert_eq!(audit, ebpf));
    }
}

/// The same for a kernel without BTF.
#[test]
fn without_btf_the_same_workload_gives_the_same_arguments_as_under_audit() {
    let _guard = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    let compare = |(audit, _): &(Process, bool), (ebpf, cut): &(Process, bool)| {
        let parent = |process: &Process| process.parent.as_ref().map(|parent| parent.pid);
        assert_eq!(
            (audit.pid, audit.uid, audit.gid, parent(audit)),
            (ebpf.pid, ebpf.uid, ebpf.gid, parent(ebpf)),
            "{ebpf:?}"
        );
        // A script's arguments are those the script was called with; too many, and those of a 32-bit call, are missing and said to be.
        let script = audit.argv.len() > ebpf.argv.len() && audit.argv.ends_with(&ebpf.argv);
        let known = audit.argv == ebpf.argv || script;
        assert!(known || *cut && audit.argv.starts_with(&ebpf.argv), "{:?} {:?}", audit.argv, ebpf.argv);
        // That of the longest argument has an empty one at its end.
        assert!(known || audit.argv.last().unwrap() != "", "{:?}", ebpf.argv.len());
        // What only /proc knows is that of audit, or nothing; the file is then as the call named it.
        if audit.argv == ["/bin/sleep", "1000"] {
            assert_eq!(audit, ebpf);
        }
        assert!(ebpf.cwd.is_empty() || ebpf.cwd == audit.cwd, "{:?} {:?}", audit.cwd, ebpf.cwd);
        for (audit, ebpf) in [(audit.euid, ebpf.euid), (audit.auid, ebpf.auid), (audit.session, ebpf.session)]
        {
            assert!(ebpf.is_none() || audit == ebpf, "{audit:?} {ebpf:?}");
        }
        assert!(!ebpf.executable.is_empty());
    };
    for work in WORK {
        differential(Source::EbpfEntry, work, compare);
    }
}
