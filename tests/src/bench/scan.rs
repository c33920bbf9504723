//! A scan of the posture, beside Lynis on the same Debian root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::command;
use crate::error::{Error, Result};
use crate::progress;

use super::table::{self, budget, median, spread};
use super::Bench;

/// A scan may take so long: Lynis on a slow machine.
const LIMIT: Duration = Duration::from_secs(900);
/// Making the root may take so long: several hundred packages are downloaded and unpacked.
const BUILD: Duration = Duration::from_secs(1800);
/// Files of the root a device builder's Debian image has, which the offline budget is about.
const FILES: u64 = 30_000;
/// What the root holds: a device with a screen and a kernel for every board, and Lynis. About [`FILES`] files.
const PACKAGES: &str = "adwaita-icon-theme,auditd,bluez,ca-certificates,chrony,cron,curl,dbus,libpam-pwquality,linux-image-amd64,\
    logrotate,lynis,mosquitto,network-manager,nftables,nodejs,openssh-server,python3-flask,python3-numpy,rsyslog,sudo,\
    systemd-sysv,udev,weston";
/// Runs the arguments after the first two in a live root: its own `/proc`, a network of its own, none of this machine's processes.
const LIVE: &str = ". \"$0\"; live_root \"$1\"; shift; exec \"$@\"";

/// What one scan took.
struct Cost {
    seconds: f64,
    cpu: f64,
    peak_kib: u64,
}

/// Scans a Debian root live and as an image that is not running with all shipped policies, and lets Lynis scan the live one; turn by
/// turn, as the machine's caches are warm for whoever comes second.
///
/// # Errors
/// When the root cannot be made, or one of them cannot be run.
pub fn run(bench: &Bench) -> Result<()> {
    let rounds = bench.options.rounds.unwrap_or(3);
    let root = debian(bench)?;
    let policies = bench.source.join("rootfs-overlay/usr/share/defender/policies");
    let library = bench.source.join("tests/lib/live_root.sh");
    let report = bench.directory.join("report");
    let live = || {
        let mut command = Command::new("unshare");
        command.args(["-n", "-m", "-p", "-f", "sh", "-e", "-c", LIVE]).arg(&library).arg(&root);
        command
    };
    let ours = |mut command: Command| {
        command.args(["posture", "--format", "json", "--policies"]).arg(&policies);
        command.arg("--output").arg(&report).arg("--root").arg(&root);
        command
    };
    let lynis = || {
        let mut command = live();
        command.arg("chroot").arg(&root);
        command.args(["lynis", "audit", "system", "--quiet", "--no-colors", "--quick"]);
        command.args(["--logfile", "/run/lynis.log", "--report-file", "/run/lynis.dat"]);
        command
    };
    let (mut running, mut offline, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let mut here = live();
        here.arg(&bench.options.agent);
        let mut here = ours(here);
        here.arg("--live");
        let costs =
            (cost(&mut here)?, cost(&mut ours(Command::new(&bench.options.agent)))?, cost(&mut lynis())?);
        // The first round fills the caches.
        if round > 0 {
            running.push(costs.0);
            offline.push(costs.1);
            theirs.push(costs.2);
        }
    }
    let (files, bytes) = size(&root)?;
    let verdicts = fs::read_to_string(&report).map_or(0, |text| text.lines().count());
    progress::say(format_args!(
        "scan: {verdicts} lines of verdicts about a root of {files} files, {} MiB",
        bytes >> 20
    ));
    let mut rows =
        vec![["scan", "seconds", "processor seconds", "peak memory KiB"].map(str::to_owned).to_vec()];
    for (name, costs) in [("defender, live", &running), ("defender, offline", &offline), ("lynis", &theirs)] {
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
        seconds(&theirs) / seconds(&running)
    ));
    budget("live scan / lynis, time", seconds(&running) / seconds(&theirs), 0.05, "");
    let share = FILES as f64 / files.max(1) as f64;
    budget("offline scan, per 30,000 files", seconds(&offline) * share, 3.0, "s");
    // Of the whole program, so that a thread of the agent, which shares its code, takes less.
    let peak = running.iter().chain(&offline).map(|c| c.peak_kib).max().unwrap_or(0);
    budget("memory of a scan", peak as f64 / 1024.0, 12.0, "MiB");
    Ok(())
}

/// The Debian root, made once and kept in the work directory.
fn debian(bench: &Bench) -> Result<PathBuf> {
    let root = bench.programs.join("debian");
    // Made elsewhere first: what is there is whole.
    let unfinished = bench.programs.join("debian.new");
    if !root.is_dir() {
        progress::say(format_args!("scan: making a Debian root, once"));
        let _ = fs::remove_dir_all(&unfinished);
        let mut build = Command::new("mmdebstrap");
        build.args(["--quiet", "--variant=important", "--include", PACKAGES, "bookworm"]).arg(&unfinished);
        command::run(&mut build, BUILD)?;
        fs::rename(&unfinished, &root)
            .map_err(Error::io(format!("cannot rename {}", unfinished.display())))?;
    }
    Ok(root)
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

/// How many files a root has, and how many bytes are in them.
fn size(root: &Path) -> Result<(u64, u64)> {
    let mut find = Command::new("find");
    find.arg(root).args(["-xdev", "-type", "f", "-printf", "%s\n"]);
    let output = command::run(&mut find, BUILD)?;
    let sizes = output
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.parse::<u64>().ok());
    Ok(sizes.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size)))
}
