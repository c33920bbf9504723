//! The process sensor against the kernel it runs on: audit as daemon, beside auditd, and through every change between the two.
//!
//! Needs root in the initial namespaces and nobody else using audit; otherwise each test says why it did nothing. Only rules with
//! the agent's own key are added, and they are gone afterwards.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod process;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use defender_model::event::{Event, EventKind};
use defender_model::file::FileChange;
use defender_model::kernel::ProgramType;
use defender_model::process::{Actor, Deed, ExitReason, Source};
use defender_sensors::file::{self, FileSensor};
use defender_sensors::process::{Preference, ProcessSensor};
use defender_sensors::Outlet;
use process::*;

/// Audit is one per machine: one test at a time.
static AUDIT: Mutex<()> = Mutex::new(());

fn auditctl(arguments: &[&str]) -> String {
    let output = Command::new("/sbin/auditctl").args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Why the tests cannot run here; `None` when they can.
fn obstacle() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    // CAP_AUDIT_CONTROL is 30, CAP_AUDIT_READ 37 (linux/capability.h).
    let wanted = 1u64 << 30 | 1 << 37;
    if u64::from_str_radix(effective, 16).unwrap() & wanted != wanted {
        return Some("CAP_AUDIT_CONTROL and CAP_AUDIT_READ are needed".into());
    }
    let probe = ProcessSensor::open(settings(Preference::Audit));
    if probe.reads_foreign_proc() {
        return Some(format!("no audit here: {:?}", probe.status().lock().unwrap().declined));
    }
    let detail = probe.status().lock().unwrap().detail.clone();
    // Dropped without a run it leaves its rules behind; a run that ends at once takes them out.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (outlet, observations) = Outlet::channel(64);
    runtime.block_on(probe.run(outlet, async {}));
    drop(observations);
    detail.contains("reading along").then(|| "an audit daemon runs on this machine".into())
}

macro_rules! audit_or_return {
    () => {{
        let guard = AUDIT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = obstacle() {
            println!("skipped: {reason}");
            return;
        }
        guard
    }};
}

#[test]
fn arguments_parents_and_ends_arrive_as_they_were() {
    let _guard = audit_or_return!();
    let running = Running::start(Preference::Auto);
    assert_eq!(running.source(), Some(Source::Audit));
    assert!(running.detail().contains("registered"), "{}", running.detail());

    let long = "x".repeat(100_000);
    let child = Command::new("/bin/true").args(["long", &long, "a b"]).spawn().unwrap();
    finished(child);
    let process = running.exec("long argument", |p| p.argv.get(1).is_some_and(|a| a == "long"));
    assert_eq!(process.argv, ["/bin/true", "long", &long, "a b"]);
    let parent = process.parent.unwrap();
    assert_eq!(parent.pid, std::process::id());
    assert_eq!(*parent.executable, *std::env::current_exe().unwrap().to_str().unwrap());
    assert_eq!(process.cwd, std::env::current_dir().unwrap().to_str().unwrap());
    assert_eq!((process.uid, process.user.as_deref()), (Some(0), Some("root")));

    let odd: Vec<OsString> = vec!["odd".into(), OsStr::from_bytes(b"\xff\"\n").to_owned(), "".into()];
    finished(Command::new("/bin/true").args(&odd).spawn().unwrap());
    let process = running.exec("odd arguments", |p| p.argv.get(1).is_some_and(|a| a == "odd"));
    assert_eq!(process.argv[2..], ["\\xff\"\n", ""]);

    let many: Vec<String> = (0..5000).map(|i| format!("many-{i}")).collect();
    finished(Command::new("/bin/true").args(&many).spawn().unwrap());
    let process = running.exec("5000 arguments", |p| p.argv.get(1).is_some_and(|a| a == "many-0"));
    assert_eq!(process.argv[1..], many[..]);

    let child = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
    let pid = finished(child);
    running.until("exit code", |seen| exits(seen, pid) == Some(ExitReason::Code(7)));

    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = child.id();
    running.exec("sleep", |p| p.pid == pid && p.argv == ["/bin/sleep", "1000"]);
    child.kill().unwrap();
    child.wait().unwrap();
    running.until("death by SIGKILL", |seen| exits(seen, pid) == Some(ExitReason::Unknown));

    running.finish();
    assert!(!auditctl(&["-l"]).contains("defender"), "rules are left behind");
}

#[test]
fn execs_by_threads_and_by_32_bit_programs_are_the_process_s() {
    let _guard = audit_or_return!();
    let running = Running::start(Preference::Auto);
    let pid = finished(again("thread").spawn().unwrap());
    let process = running.exec("exec by a thread", |p| p.argv.get(1).is_some_and(|a| a == "from-a-thread"));
    assert_eq!(process.pid, pid);
    if cfg!(target_arch = "x86_64") {
        let mut child = again("compat").stderr(Stdio::null()).spawn().unwrap();
        if child.wait().unwrap().success() {
            let process = running.exec("32-bit exec", |p| p.argv.get(1).is_some_and(|a| a == "from-32-bit"));
            assert_eq!(process.pid, child.id());
        } else {
            println!("skipped: this kernel has no 32-bit system calls");
        }
    }
    running.finish();
}

#[test]
fn what_is_done_to_other_processes_and_to_the_kernel_is_told() {
    let _guard = audit_or_return!();
    let running = Running::start(Preference::Auto);
    // The kernel audits nothing of the audit daemon itself, which this process is.
    for (request, argument) in [(libc::PTRACE_ATTACH, "1001"), (libc::PTRACE_SEIZE, "1002")] {
        let mut target = Command::new("/bin/sleep").arg(argument).spawn().unwrap();
        running.exec("sleep", |p| p.pid == target.id());
        let numbers = [request.to_string(), target.id().to_string()].join(" ");
        let tracer = finished(again("trace").env("DEFENDER_TEST_TRACE", numbers).spawn().unwrap());
        running.until("who traced", |seen| {
            seen.events.iter().any(|event| match &event.kind {
                EventKind::Deed(done) => {
                    let line = format!("/bin/sleep {argument}");
                    matches!(&done.deed, Deed::Traced(to) if to.pid == target.id() && *to.command_line == *line)
                        && done.process.pid == tracer
                        && *done.process.executable == *std::env::current_exe().unwrap().to_str().unwrap()
                        && done.source == Source::Audit
                }
                _ => false,
            })
        });
        target.kill().unwrap();
        target.wait().unwrap();
    }
    let mut child = again("bpf").stderr(Stdio::null()).spawn().unwrap();
    if child.wait().unwrap().success() {
        running.until("who loaded a program", |seen| {
            seen.events.iter().any(|event| match &event.kind {
                EventKind::Module(module) => {
                    let by = module.process.as_ref();
                    module.program == Some(ProgramType(0)) && by.is_some_and(|by| by.pid == child.id())
                }
                _ => false,
            })
        });
    } else {
        println!("skipped: this kernel takes no eBPF programs");
    }
    // A user who has the capability to become root, and does.
    let nobody = ["--reuid=65534", "--clear-groups", "--inh-caps=+setuid", "--ambient-caps=+setuid"];
    let started =
        Command::new("setpriv").args(nobody).args(["setpriv", "--reuid=0", "/bin/true", "again"]).status();
    if started.is_ok_and(|status| status.success()) {
        running.until("who became root", |seen| {
            seen.events.iter().any(|event| match &event.kind {
                EventKind::Deed(done) => {
                    done.deed == Deed::BecameRoot { from: 65534 }
                        && *done.process.command_line == *"/bin/true again"
                }
                _ => false,
            })
        });
    } else {
        println!("skipped: no setpriv here");
    }
    running.finish();
    assert!(!auditctl(&["-l"]).contains("defender"), "rules are left behind");
}

/// How often each serial number was seen as an argument.
fn serials(seen: &Seen, prefix: &str) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for process in execs(seen) {
        if let Some(serial) = process.argv.get(1).filter(|argument| argument.starts_with(prefix)) {
            *counts.entry(serial.clone()).or_default() += 1;
        }
    }
    counts
}

fn storm(prefix: &str, count: u32) {
    for serial in 0..count {
        finished(Command::new("/bin/true").arg(format!("{prefix}{serial}")).spawn().unwrap());
    }
}

#[test]
fn twenty_thousand_execs_at_full_speed_arrive_exactly_once() {
    let _guard = audit_or_return!();
    let running = Running::start(Preference::Auto);
    storm("storm-", 20_000);
    running.until("the last exec", |seen| serials(seen, "storm-").len() == 20_000);
    let seen = running.seen.lock().unwrap();
    assert!(serials(&seen, "storm-").values().all(|count| *count == 1));
    drop(seen);
    assert_eq!(running.status.lock().unwrap().lost, 0);
    running.finish();
}

/// An auditd with everything in a directory of its own.
struct Auditd {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Auditd {
    fn start() -> Option<Self> {
        let program = ["/sbin/auditd", "/usr/sbin/auditd"].iter().map(Path::new).find(|path| path.exists());
        let Some(program) = program else {
            println!("skipped: auditd is not installed");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let plugins = directory.path().join("plugins");
        fs::create_dir(&plugins).unwrap();
        let log: PathBuf = directory.path().join("audit.log");
        let conf = format!(
            "local_events = yes\nwrite_logs = yes\nlog_file = {}\nlog_format = RAW\nflush = NONE\nmax_log_file = 100\n\
             max_log_file_action = IGNORE\nspace_left = 2\nspace_left_action = IGNORE\nadmin_space_left = 1\n\
             admin_space_left_action = IGNORE\ndisk_full_action = IGNORE\ndisk_error_action = IGNORE\nplugin_dir = {}\n",
            log.display(),
            plugins.display()
        );
        fs::write(directory.path().join("auditd.conf"), conf).unwrap();
        let child = Command::new(program)
            .args(["-n", "-c"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { child, _directory: directory })
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts auditd until it holds the place of the audit daemon, as an init that restarts it would.
fn started_auditd(attempts: u32) -> Option<Auditd> {
    for attempt in 1..=attempts {
        let mut auditd = Auditd::start()?;
        let registered = format!("pid {}", auditd.child.id());
        let deadline = Instant::now() + PATIENCE;
        while auditd.child.try_wait().unwrap().is_none() {
            if auditctl(&["-s"]).contains(&registered) {
                println!("auditd has its place at attempt {attempt}");
                return Some(auditd);
            }
            assert!(
                Instant::now() < deadline,
                "auditd neither registers nor gives up: {}",
                auditctl(&["-s"])
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("auditd did not get its place in {attempts} attempts: {}", auditctl(&["-s"]));
}

#[test]
fn auditd_comes_and_is_killed_and_nothing_is_lost_in_silence() {
    let _guard = audit_or_return!();
    let running = Running::start(Preference::Auto);
    let spawner = thread::spawn(|| {
        let began = Instant::now();
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(16) {
            finished(Command::new("/bin/true").arg(format!("change-{count}")).spawn().unwrap());
            count += 1;
        }
        count
    });
    thread::sleep(Duration::from_secs(1));
    let Some(mut auditd) = started_auditd(3) else { return };
    running.until("reading along", |_| running.detail().contains("reading along"));
    thread::sleep(Duration::from_secs(3));
    assert!(auditctl(&["-l"]).contains("defender"), "the rules hold beside auditd");
    assert!(!auditctl(&["-l"]).contains("exclude"), "auditd misses nothing because of us");
    auditd.child.kill().unwrap();
    auditd.child.wait().unwrap();
    running.until("registered again", |_| running.detail().contains("registered"));
    let spawned = spawner.join().unwrap();
    thread::sleep(Duration::from_secs(3));
    let counts = serials(&running.seen.lock().unwrap(), "change-");
    let missing = spawned - counts.len() as u32;
    let lost = running.status.lock().unwrap().lost;
    println!("{spawned} spawned, {missing} missing, {lost} counted as lost");
    let seen = running.seen.lock().unwrap();
    let twice: Vec<_> =
        counts.iter().filter(|(_, count)| **count != 1).map(|(serial, _)| serial.clone()).collect();
    let told = |event: &&Event| match &event.kind {
        EventKind::Process(activity) => activity.process.argv.get(1).is_some_and(|a| twice.contains(a)),
        _ => false,
    };
    let repeated: Vec<_> = seen.events.iter().filter(told).collect();
    assert!(repeated.is_empty(), "told twice: {repeated:#?}; notes {:#?}", seen.notes);
    drop(seen);
    assert!(u64::from(missing) <= lost, "{missing} missing but only {lost} counted");
    running.finish();
}

#[test]
fn rules_that_are_removed_are_added_again_and_it_is_said() {
    let _guard = audit_or_return!();
    let running = Running::start(Preference::Auto);
    running.until("the start", |seen| !seen.notes.is_empty());
    let listed = || auditctl(&["-l"]).lines().filter(|line| line.contains("defender")).count();
    let before = listed();
    if before == 0 {
        println!("skipped: auditctl is not installed");
        return;
    }
    auditctl(&["-D", "-k", "defender"]);
    running.until("the note", |seen| seen.notes.iter().any(|note| note.message.contains("had been removed")));
    let deadline = Instant::now() + PATIENCE;
    while listed() < before {
        assert!(Instant::now() < deadline, "not restored: {}", auditctl(&["-l"]));
        thread::sleep(Duration::from_millis(50));
    }
    finished(Command::new("/bin/true").arg("after-removal").spawn().unwrap());
    running.exec("exec after the removal", |p| p.argv.get(1).is_some_and(|a| a == "after-removal"));
    running.finish();
}

/// The latest change of a file that was told, with who made it.
fn changed(seen: &Seen, name: &str) -> Option<(FileChange, Option<Actor>)> {
    seen.events.iter().rev().find_map(|event| match &event.kind {
        EventKind::File(file) if file.path.ends_with(name) => Some((file.change, file.process.clone())),
        _ => None,
    })
}

#[test]
fn who_changes_a_file_is_told_with_the_change() {
    let _guard = audit_or_return!();
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    for directory in ["cron.d/deep", "home/a/.ssh", "state"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("passwd"), "a\n").unwrap();
    fs::write(root.join("cron.d/deep/job"), "a\n").unwrap();
    let paths: Vec<PathBuf> =
        ["passwd", "shadow", "cron.d", "home/*/.ssh"].iter().map(|name| root.join(name)).collect();
    let mut process = settings(Preference::Audit);
    process.watched = paths.clone();
    let process = ProcessSensor::open(process);
    let writers = process.writers();
    assert!(writers.rules() >= 4, "{writers:?}");
    let (files, _orders) = FileSensor::new(file::Settings {
        paths,
        exclude: Vec::new(),
        max_watches: 64,
        max_files: 64,
        hash_limit: 1 << 20,
        hash_rate: 1 << 30,
        events_per_second: 0,
        state_dir: root.join("state"),
        writers,
        idle: || {},
        clock,
    });
    let running = Running::beside(process, Some(files));
    running.until("the baseline", |seen| seen.notes.iter().any(|note| note.message.contains("baseline")));

    let shell = |script: &str| {
        let child = Command::new("/bin/sh").args(["-c", script]).current_dir(&root).spawn().unwrap();
        finished(child)
    };
    let wait = |name: &str, change: FileChange| {
        running.until(name, |seen| changed(seen, name).is_some_and(|(told, _)| told == change));
        let (_, by) = changed(&running.seen.lock().unwrap(), name).unwrap();
        by.unwrap_or_else(|| panic!("{name}: nobody; {:?}", running.seen.lock().unwrap().notes))
    };
    let pid = shell("echo b >> passwd; :");
    let by = wait("passwd", FileChange::Modified);
    assert_eq!((by.pid, by.uid, by.user.as_deref()), (pid, Some(0), Some("root")));
    assert_eq!(*by.command_line, *"/bin/sh -c echo b >> passwd; :");
    assert_eq!(by.parent.unwrap().pid, std::process::id());

    shell("echo x > new && mv new shadow");
    assert!(wait("shadow", FileChange::Renamed).executable.ends_with("mv"));
    shell("chmod 4755 cron.d/deep/job; :");
    assert!(wait("deep/job", FileChange::Attributes).executable.ends_with("chmod"));
    shell("rm cron.d/deep/job; :");
    assert!(wait("deep/job", FileChange::Deleted).executable.ends_with("rm"));
    let pid = shell("mkdir home/a/.ssh/x; echo key > home/a/.ssh/authorized_keys; :");
    assert_eq!(wait(".ssh/authorized_keys", FileChange::Created).pid, pid);

    running.finish();
    assert!(!auditctl(&["-l"]).contains("defender"), "rules are left behind");
}

#[test]
fn connector_and_polling_see_processes_too() {
    let _guard = AUDIT.lock().unwrap_or_else(PoisonError::into_inner);
    for (preference, source) in [(Preference::Connector, Source::Connector), (Preference::Poll, Source::Poll)]
    {
        let running = Running::start(preference);
        if running.source() != Some(source) {
            println!("skipped: {source}: {:?}", running.status.lock().unwrap().declined);
            continue;
        }
        let mut child =
            Command::new("/bin/sleep").arg(format!("100{}", source.name().len())).spawn().unwrap();
        let pid = child.id();
        let process =
            running.exec("sleep", |p| p.pid == pid && p.argv.first().is_some_and(|a| a == "/bin/sleep"));
        assert_eq!(process.parent.unwrap().pid, std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        let expected = if source == Source::Connector { ExitReason::Signal(9) } else { ExitReason::Unknown };
        running.until("its end", |seen| exits(seen, pid) == Some(expected));
        running.finish();
    }
}
