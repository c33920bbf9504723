//! Programs start in a steady stream while the process sensor goes from one source to another: each start is told once, or counted.
//!
//! Needs root in the initial namespaces and nobody else using audit; otherwise the test says why it did nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod process;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use defender_model::event::EventKind;
use defender_model::health::Kind;
use defender_model::process::{Change, Process, ProcessActivity, Source};
use defender_model::time::Timestamp;
use defender_sensors::process::Preference;
use process::*;

/// An audit daemon that is not the agent, which can switch auditing off and on. In the end it is on, as kernels begin with `audit=1`,
/// and nobody is the daemon.
struct Daemon(Child, Option<ChildStdin>, Lines<BufReader<ChildStdout>>);

impl Daemon {
    fn start() -> Self {
        let mut child = again("audit daemon").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut this = Self(child, input, BufReader::new(output).lines());
        this.done();
        this.switch(true);
        this
    }

    fn done(&mut self) {
        self.2.find(|line| line.as_ref().unwrap().ends_with("done")).unwrap().unwrap();
    }

    fn switch(&mut self, on: bool) {
        writeln!(self.1.as_mut().unwrap(), "{}", u8::from(on)).unwrap();
        self.done();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = writeln!(self.1.take().unwrap(), "1");
        let _ = self.0.wait();
    }
}

/// Audit is one per machine, and the sensor's descriptors are found among those of the process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Why the test cannot run here, or the right to run.
macro_rules! alone_or_return {
    ($name:expr) => {{
        let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = obstacle() {
            println!("skipped {}: {reason}", $name);
            return;
        }
        guard
    }};
}

/// What became of the programs that were started while the source changed.
struct Outcome {
    name: String,
    /// When each was about to be started.
    began: Vec<Instant>,
    /// By whom, and of what.
    told: HashMap<usize, Vec<(Source, Timestamp, Process)>>,
    /// Starts that ended before the connector could look at them, and processes found while they became another program.
    nameless: usize,
    /// The connector was among the sources.
    by_proc: bool,
    /// Numbers that were counted as lost, and the time in which nobody knows how many were.
    lost: usize,
    unseen: Duration,
}

impl Outcome {
    fn missing(&self) -> Vec<usize> {
        (0..self.began.len()).filter(|serial| !self.told.contains_key(serial)).collect()
    }

    /// Each start was told once, or is among those that were counted, or fell into the time that was.
    fn check(&self) {
        let missing = self.missing();
        println!(
            "{}: {} starts, {} told, {} without a name, {} lost, {:?} unseen; missing: {missing:?}",
            self.name,
            self.began.len(),
            self.told.len(),
            self.nameless,
            self.lost,
            self.unseen
        );
        let twice: Vec<_> = self.told.iter().filter(|(_, times)| times.len() > 1).collect();
        assert!(twice.is_empty(), "{twice:#?}");
        // That one of them had begun when the span did.
        let length = |first: usize, last: usize| {
            self.began[last].saturating_duration_since(self.began[(first + 1).min(last)])
        };
        let covers = |first: usize, last: usize| !self.unseen.is_zero() && length(first, last) <= self.unseen;
        let span = missing.first().copied().zip(missing.last().copied());
        let covered = span.is_some_and(|(first, last)| covers(first, last));
        let mut known = self.lost;
        if self.by_proc {
            // Which of them were missed is not known: as many may have been as were started in so long a time.
            let starts = 0..self.began.len();
            let most = starts
                .clone()
                .map(|first| starts.clone().skip(first).filter(|last| covers(first, *last)).count());
            known += self.nameless + most.max().unwrap_or(0);
        }
        let counted = missing.len() <= known;
        assert!(counted || covered, "{missing:?} are missing, over {span:?}");
    }
}

/// Ends the starts, also when what waits for something gives up.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts programs while `cause` makes the sensor go from one source to another.
fn across(
    name: &str,
    running: &Running,
    program: &[&str],
    cause: impl FnOnce(),
    next: impl Fn(Source) -> bool,
) -> Outcome {
    let stop = AtomicBool::new(false);
    let mut began = Vec::new();
    let before = running.source().unwrap();
    thread::scope(|scope| {
        let stops = Stops(&stop);
        let starts = scope.spawn(|| {
            let (mut began, mut children) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let serial = format!("serial-{}", began.len());
                began.push(Instant::now());
                let mut command = Command::new(program[0]);
                let child = command.args(&program[1..]).arg(serial).stdin(Stdio::piped()).spawn().unwrap();
                if program.len() == 1 {
                    finished(child);
                } else {
                    // It goes on while others are started.
                    children.push(child);
                    thread::sleep(Duration::from_millis(20));
                }
            }
            children.into_iter().for_each(|child| _ = finished(child));
            began
        });
        let of_ours = |one: &String| one.starts_with("serial-");
        running.exec("the first start", |process| process.argv.last().is_some_and(of_ours));
        cause();
        let deadline = Instant::now() + PATIENCE;
        while !running.source().is_some_and(&next) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        // Some more under the other one.
        let more = running.seen.lock().unwrap().events.len() + 40;
        while running.seen.lock().unwrap().events.len() < more && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        drop(stops);
        began = starts.join().unwrap();
    });
    let after = running.source().unwrap();
    assert!(next(after), "{after} is taken: {:?}", running.status.lock().unwrap().declined);
    let mut end = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    running.exec("the end", |process| process.pid == end.id());
    end.kill().unwrap();
    end.wait().unwrap();

    let seen = running.seen.lock().unwrap();
    let mut told: HashMap<_, Vec<_>> = HashMap::new();
    let mut nameless = 0;
    for event in &seen.events {
        let EventKind::Process(activity) = &event.kind else { continue };
        let ProcessActivity { process, change: Change::Exec { .. }, source, .. } = &**activity else {
            continue;
        };
        match process.argv.last().map(|last| last.strip_prefix("serial-")) {
            Some(Some(serial)) => {
                let by = (*source, event.time, process.clone());
                told.entry(serial.parse().unwrap()).or_default().push(by);
            }
            None => nameless += 1,
            _ => {}
        }
    }
    let unseen = seen
        .notes
        .iter()
        .filter(|note| note.kind == Kind::Lost)
        .flat_map(|note| &note.counters)
        .filter(|(name, _)| name == "milliseconds")
        .map(|(_, count)| Duration::from_millis(*count))
        .sum();
    let status = running.status.lock().unwrap();
    println!("{name}: declined {:?}", status.declined);
    assert_eq!(Duration::from_millis(status.unseen_ms), unseen);
    let name = format!("{name}: {before} to {after}");
    let by_proc = [before, after].contains(&Source::Connector);
    Outcome { name, began, told, nameless, by_proc, lost: status.lost as usize, unseen }
}

/// Begins with what is taken while auditing is off, and goes to audit once it is on.
fn goes_to_audit(name: &str, btf: &str) {
    let mut daemon = Daemon::start();
    daemon.switch(false);
    let mut settings = settings(Preference::Auto);
    settings.upgrade_interval = Duration::from_millis(300);
    settings.btf = btf.into();
    let running = Running::with(settings);
    let source = running.source().unwrap();
    if source == Source::Poll {
        println!("skipped {name}: {source} is taken: {:?}", running.status.lock().unwrap().declined);
        running.finish();
        return;
    }
    let switch = || daemon.switch(true);
    let outcome = across(name, &running, &["/bin/true"], switch, |source| source == Source::Audit);
    outcome.check();
    assert_eq!(outcome.unseen, Duration::ZERO);
    running.finish();
}

/// Why there can be no such daemon here.
fn obstacle() -> Option<String> {
    let probe = Running::start(Preference::Audit);
    let (source, detail) = (probe.source(), probe.detail());
    let declined = probe.status.lock().unwrap().declined.clone();
    probe.finish();
    if source != Some(Source::Audit) {
        return Some(format!("no audit here: {declined:?}"));
    }
    detail.contains("reading along").then(|| "an audit daemon runs on this machine".into())
}

/// Descriptors of this process that `is` says are meant, by what they are and what procfs tells of them; lowest first.
fn descriptors(is: impl Fn(&str, &str) -> bool) -> Vec<i32> {
    let mut found: Vec<i32> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let what = fs::read_link(&path).ok()?;
            let number = path.file_name()?.to_str()?.parse().ok()?;
            let told = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
            is(what.to_str()?, &told).then_some(number)
        })
        .collect();
    found.sort_unstable();
    found
}

/// Sockets of this process that are of that netlink protocol.
fn sockets(protocol: &str) -> Vec<i32> {
    let table = fs::read_to_string("/proc/net/netlink").unwrap();
    let of_protocol = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inodes: Vec<String> = of_protocol
        .filter(|columns| columns.get(1) == Some(&protocol))
        .filter_map(|columns| Some(format!("socket:[{}]", columns.last()?)))
        .collect();
    descriptors(|what, _| inodes.iter().any(|inode| inode == what))
}

/// Puts a file in the descriptor's place that can be neither waited for nor read as what was there.
fn injure(descriptor: i32) {
    let null = fs::File::open("/dev/null").unwrap();
    // SAFETY: both are open; whoever has the other one finds another file there, as this test wants it.
    assert!(unsafe { libc::dup2(null.as_raw_fd(), descriptor) } >= 0);
}

/// Longer than a source takes to open, and shorter than the agent's own look at the kernel's state is apart.
const SOON: Duration = Duration::from_secs(4);
const BTF: &str = "/sys/kernel/btf/vmlinux";
const NO_BTF: &str = "/nonexistent/btf";

#[test]
fn every_start_is_told_once_while_the_source_changes() {
    let _guard = alone_or_return!("audit comes");
    goes_to_audit("best", BTF);
    // Once more where that was with BTF.
    if Path::new(BTF).exists() {
        goes_to_audit("without BTF", NO_BTF);
    }
}

#[test]
fn what_is_started_while_auditing_is_switched_off_beside_a_daemon_is_told_or_the_time_is() {
    let _guard = alone_or_return!("audit switched off");
    for btf in [BTF, NO_BTF] {
        let mut daemon = Daemon::start();
        let mut settings = settings(Preference::Auto);
        settings.btf = btf.into();
        let running = Running::with(settings);
        assert!(running.detail().contains("reading along"), "{}", running.detail());
        let switch = || daemon.switch(false);
        let outcome =
            across("switched off", &running, &["/bin/true"], switch, |source| source != Source::Audit);
        outcome.check();
        assert!(outcome.unseen > Duration::ZERO && outcome.unseen < SOON, "{:?}", outcome.unseen);
        running.finish();
    }
}

#[test]
fn auditing_that_is_switched_off_and_on_leaves_a_time_that_is_told() {
    let _guard = alone_or_return!("audit off and on");
    let mut daemon = Daemon::start();
    let running = Running::start(Preference::Auto);
    let switch = || {
        daemon.switch(false);
        finished(Command::new("/bin/true").arg("in-between").spawn().unwrap());
        daemon.switch(true);
        running.until("the note", |seen| seen.notes.iter().any(|note| note.kind == Kind::Lost));
    };
    let outcome = across("off and on", &running, &["/bin/true"], switch, |source| source != Source::Poll);
    outcome.check();
    running.finish();
}

#[test]
fn what_is_started_while_the_audit_socket_is_lost_is_told_or_the_time_is() {
    let _guard = alone_or_return!("audit socket");
    let running = Running::start(Preference::Auto);
    assert!(running.detail().contains("registered"), "{}", running.detail());
    // The other one is for questions.
    let stream = || injure(*sockets("9").last().unwrap());
    let outcome = across("socket lost", &running, &["/bin/true"], stream, |source| source != Source::Audit);
    outcome.check();
    assert!(outcome.unseen > Duration::ZERO && outcome.unseen < SOON, "{:?}", outcome.unseen);
    running.finish();
}

#[test]
fn nothing_is_missed_while_the_wait_for_the_ring_fails() {
    let _guard = alone_or_return!("ring");
    for btf in [BTF, NO_BTF] {
        let mut settings = settings(Preference::Ebpf);
        settings.btf = btf.into();
        let running = Running::with(settings);
        let source = running.source().unwrap();
        if !matches!(source, Source::Ebpf | Source::EbpfEntry) {
            println!("skipped {btf}: {source} is taken: {:?}", running.status.lock().unwrap().declined);
            running.finish();
            continue;
        }
        let ring = || {
            for map in descriptors(|_, told| told.lines().any(|line| line == "map_type:\t27")) {
                injure(map);
            }
        };
        let outcome = across("ring", &running, &["/bin/true"], ring, |other| other != source);
        outcome.check();
        assert_eq!((outcome.missing().len(), outcome.unseen), (0, Duration::ZERO));
        running.finish();
    }
}

#[test]
fn what_goes_on_is_found_when_the_connector_is_lost() {
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let running = Running::start(Preference::Connector);
    if running.source() != Some(Source::Connector) {
        println!("skipped connector: {:?}", running.status.lock().unwrap().declined);
        running.finish();
        return;
    }
    let socket = || sockets("11").into_iter().for_each(injure);
    // Polling is for those that stay a while.
    let program = ["/bin/sh", "-c", "read until"];
    let outcome = across("connector lost", &running, &program, socket, |source| source == Source::Poll);
    outcome.check();
    assert!(outcome.missing().len() <= outcome.nameless, "{:?}", outcome.missing());
    running.finish();
}
