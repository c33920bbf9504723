//! Programs start in a steady stream while the process sensor goes from one source to another: each start is told once, or counted.
//!
//! Needs root in the initial namespaces and nobody else using audit; otherwise the test says why it did nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod process;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use defender_model::process::Source;
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

fn wait(running: &Running, what: &str, source: impl Fn(Source) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !running.source().is_some_and(&source) {
        assert!(Instant::now() < deadline, "never {what}: {:?}", running.status.lock().unwrap().declined);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Begins with what is taken while auditing is off, and goes to audit once it is on.
fn goes_to_audit(name: &str, btf: &str, first: impl Fn(Source) -> bool) {
    if let Some(reason) = obstacle() {
        println!("skipped {name}: {reason}");
        return;
    }
    let mut daemon = Daemon::start();
    daemon.switch(false);
    let mut settings = settings(Preference::Auto);
    settings.upgrade_interval = Duration::from_millis(300);
    settings.btf = btf.into();
    let running = Running::with(settings);
    let source = running.source().unwrap();
    if !first(source) {
        println!("skipped {name}: {source} is taken: {:?}", running.status.lock().unwrap().declined);
        running.finish();
        return;
    }

    let stop = AtomicBool::new(false);
    let mut count = 0;
    thread::scope(|scope| {
        let starts = scope.spawn(|| {
            let mut serial = 0;
            while !stop.load(Ordering::Relaxed) {
                finished(Command::new("/bin/true").arg(format!("serial-{serial}")).spawn().unwrap());
                serial += 1;
            }
            serial
        });
        running.exec("the first start", |process| process.argv.get(1).is_some_and(|one| one == "serial-0"));
        daemon.switch(true);
        let deadline = Instant::now() + PATIENCE;
        while running.source() != Some(Source::Audit) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        // Some more under the other one.
        let more = running.seen.lock().unwrap().events.len() + 40;
        while running.seen.lock().unwrap().events.len() < more && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        count = starts.join().unwrap();
    });
    wait(&running, "audit", |source| source == Source::Audit);
    let end = finished(Command::new("/bin/true").arg("end").spawn().unwrap());
    running.until("the end", |seen| exits(seen, end).is_some());

    let seen = running.seen.lock().unwrap();
    let mut told: HashMap<&str, u32> = HashMap::new();
    let mut nameless = 0;
    for process in execs(&seen) {
        match process.argv.get(1) {
            Some(serial) if serial.starts_with("serial-") => *told.entry(serial).or_default() += 1,
            // One that ended before the connector could look at it.
            _ if process.argv.is_empty() => nameless += 1,
            _ => {}
        }
    }
    let twice: Vec<_> = told.iter().filter(|(_, times)| **times > 1).collect();
    let missing: Vec<_> =
        (0..count).filter(|serial| !told.contains_key(format!("serial-{serial}").as_str())).collect();
    let lost = running.status.lock().unwrap().lost as usize;
    println!(
        "{name}: {source} to audit: {count} starts, {} told, {nameless} without a name, {lost} lost",
        told.len()
    );
    assert!(twice.is_empty(), "{twice:?} of {count}");
    assert!(missing.len() <= lost + nameless, "{missing:?} of {count}, {lost} counted, {nameless} nameless");
    drop(seen);
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

#[test]
fn every_start_is_told_once_while_the_source_changes() {
    goes_to_audit("best", "/sys/kernel/btf/vmlinux", |source| source != Source::Poll);
    // Once more where that was with BTF.
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        goes_to_audit("without BTF", "/nonexistent/btf", |source| source != Source::Poll);
    }
}
