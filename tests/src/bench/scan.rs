//! A scan of the posture, beside Lynis on the same root.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::progress;

use super::table::{self, budget, median, spread};
use super::Bench;

/// A scan may take so long: Lynis on a slow machine.
const LIMIT: Duration = Duration::from_secs(900);
/// Files of the root a device builder's Debian image has, which the offline budget is about.
const FILES: u64 = 30_000;

/// What one scan took.
struct Cost {
    seconds: f64,
    cpu: f64,
    peak_kib: u64,
}

/// Scans this machine live and as a root that is not running with all shipped policies, and lets Lynis scan it too; turn by
/// turn, as this machine's own caches are warm for whoever comes second.
///
/// # Errors
/// When one of them cannot be run.
pub fn run(bench: &Bench) -> Result<()> {
    let rounds = bench.options.rounds.unwrap_or(3);
    let policies = bench.source.join("rootfs-overlay/usr/share/defender/policies");
    let report = bench.directory.join("report");
    let ours = |live: bool| {
        let mut command = Command::new(&bench.options.agent);
        command.args(["posture", "--format", "json", "--policies"]).arg(&policies);
        command.arg("--output").arg(&report);
        if !live {
            command.args(["--root", "/"]);
        }
        command
    };
    let lynis = || {
        let mut command = Command::new("lynis");
        command.args(["audit", "system", "--quiet", "--no-colors", "--quick", "--logfile"]);
        command
            .arg(bench.directory.join("lynis.log"))
            .arg("--report-file")
            .arg(bench.directory.join("lynis.dat"));
        command
    };
    let (mut live, mut offline, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let costs = (cost(&mut ours(true))?, cost(&mut ours(false))?, cost(&mut lynis())?);
        // The first round fills the caches.
        if round > 0 {
            live.push(costs.0);
            offline.push(costs.1);
            theirs.push(costs.2);
        }
    }
    let files = count_files(Path::new("/"));
    let verdicts = fs::read_to_string(&report).map_or(0, |text| text.lines().count());
    progress::say(format_args!("scan: {verdicts} lines of verdicts about a root of {files} files"));
    let mut rows =
        vec![["scan", "seconds", "processor seconds", "peak memory KiB"].map(str::to_owned).to_vec()];
    for (name, costs) in [("defender, live", &live), ("defender, --root /", &offline), ("lynis", &theirs)] {
        let column = |of: fn(&Cost) -> f64| costs.iter().map(of).collect::<Vec<f64>>();
        rows.push(vec![
            name.to_owned(),
            spread(&column(|c| c.seconds), 2),
            spread(&column(|c| c.cpu), 2),
            spread(&column(|c| c.peak_kib as f64), 0),
        ]);
    }
    table::print(&rows);
    let seconds = |costs: &[Cost]| median(&costs.iter().map(|c| c.seconds).collect::<Vec<_>>());
    progress::say(format_args!(
        "live scan: {:.1} times faster than lynis",
        seconds(&theirs) / seconds(&live)
    ));
    budget("live scan / lynis, time", seconds(&live) / seconds(&theirs), 0.05, "");
    let share = FILES as f64 / files.max(1) as f64;
    budget("offline scan, per 30,000 files", seconds(&offline) * share, 3.0, "s");
    Ok(())
}

/// Runs `command` to its end. Its exit status says what it thinks of the machine and does not matter, but for 2 and above.
fn cost(command: &mut Command) -> Result<Cost> {
    let name = format!("{command:?}");
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io(format!("cannot start {name}")))?;
    // A bound on the wait: whoever takes too long is ended, and the wait below ends with it.
    let watched = child.id();
    let (done, over) = std::sync::mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if over.recv_timeout(LIMIT).is_err() {
            let _ = Command::new("kill").args(["-KILL", &watched.to_string()]).status();
        }
    });
    let waited = wait(&mut child);
    let seconds = began.elapsed().as_secs_f64();
    let _ = done.send(());
    let _ = watch.join();
    let (status, usage) = waited.map_err(Error::io(format!("cannot wait for {name}")))?;
    if !libc::WIFEXITED(status) || (libc::WEXITSTATUS(status) > 1 && !name.contains("\"lynis\"")) {
        return Err(Error::Command {
            command: name,
            status: format!("wait status {status}"),
            said: "run it by hand to see why".into(),
        });
    }
    let time = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Ok(Cost { seconds, cpu: time(usage.ru_utime) + time(usage.ru_stime), peak_kib: usage.ru_maxrss as u64 })
}

/// wait4(2): the only call that tells the peak memory of one child and its processor time with its children's.
fn wait(child: &mut Child) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: an all-zero `rusage` is valid: it holds numbers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the types wait4 writes; the child is ours and not waited for yet.
        let got = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
        if got >= 0 {
            return Ok((status, usage));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Files of the file system `root` is on.
fn count_files(root: &Path) -> u64 {
    let output = Command::new("find").arg(root).args(["-xdev", "-type", "f", "-printf", "."]).output();
    output.map_or(0, |output| output.stdout.len() as u64)
}
