//! Landlock.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use defender_daemon::confinement::{Capability, Confinement, Measure, Report, Setting, State};

use crate::child::*;
use crate::device::*;

/// Root that may do anything with files, so that only Landlock can deny.
fn almighty(device: &Device, execute: &[&Path]) -> Confinement {
    let mut confinement = device.confinement();
    confinement.user = "nobodyhere".into();
    confinement.capabilities.extend([Capability::CAP_DAC_OVERRIDE, Capability::CAP_KILL]);
    confinement.child_capabilities.clear();
    confinement.landlock = Setting::On(device.paths(execute));
    confinement
}

fn has_landlock(report: &Report) -> bool {
    let entry = report.entries().iter().find(|entry| entry.measure == Measure::Landlock).unwrap();
    entry.state != State::Missing
}

#[test]
fn files_are_open_as_far_as_they_were_given() {
    if !is_root() {
        return;
    }
    let device = Device::new("files");
    let other = device.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("secret"), "x").unwrap();
    let (mut signal, mut wait) = UnixStream::pair().unwrap();
    let (log, rotated) = (device.path("log/auth.log"), device.path("log/auth.log.1"));
    // Another process, outside the domain, creates and rotates a log after the agent confined itself.
    let writer = std::thread::spawn(move || {
        wait.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        wait.read_exact(&mut [0]).unwrap();
        fs::write(&log, "first").unwrap();
        fs::rename(&log, &rotated).unwrap();
        fs::write(&log, "second").unwrap();
        wait.write_all(&[1]).unwrap();
    });
    let skipped = confined(|| {
        let report = almighty(&device, &[]).apply();
        if !has_landlock(&report) {
            signal.write_all(&[0]).unwrap();
            return format!("skipped: {}", reason(&report, Measure::Landlock));
        }
        assert_eq!(report.state(Measure::Landlock), Some(State::InForce), "{report}");
        let denied = libc::EACCES;
        assert_eq!(errno(fs::OpenOptions::new().append(true).open("/etc/passwd")), denied);
        assert_eq!(errno(fs::write("/etc/defender-confinement-test", "x")), denied);
        assert_eq!(errno(fs::read_dir("/root")), denied);
        assert_eq!(errno(fs::read(other.join("secret"))), denied);
        assert_eq!(errno(fs::rename(device.path("etc/passwd"), device.path("state/passwd"))), denied);
        assert_eq!(errno(Command::new("/bin/true").output()), denied);

        fs::read("/etc/passwd").unwrap();
        fs::read("/proc/meminfo").unwrap();
        fs::read_dir("/sys").unwrap();
        fs::write("/dev/null", "x").unwrap();
        let state = device.path("state");
        fs::write(state.join("new"), "x").unwrap();
        fs::write(state.join("new"), "truncated").unwrap();
        fs::rename(state.join("new"), state.join("renamed")).unwrap();
        fs::create_dir(state.join("directory")).unwrap();
        fs::rename(state.join("renamed"), state.join("directory/moved")).unwrap();
        fs::remove_file(state.join("directory/moved")).unwrap();
        fs::remove_dir(state.join("directory")).unwrap();
        std::os::unix::net::UnixListener::bind(state.join("socket")).unwrap();
        UnixStream::connect(state.join("socket")).unwrap_err();
        fs::copy("/bin/true", state.join("true")).unwrap();
        fs::set_permissions(state.join("true"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(errno(Command::new(state.join("true")).output()), denied, "nothing it wrote runs");

        signal.write_all(&[0]).unwrap();
        signal.read_exact(&mut [0]).unwrap();
        assert_eq!(fs::read_to_string(device.path("log/auth.log")).unwrap(), "second");
        assert_eq!(fs::read_to_string(device.path("log/auth.log.1")).unwrap(), "first");
        assert_eq!(errno(fs::write(device.path("log/auth.log"), "x")), denied);
        String::new()
    });
    writer.join().unwrap();
    println!("{skipped}");
}

#[test]
fn a_path_that_is_not_there_is_named_and_costs_nothing_else() {
    if !is_root() {
        return;
    }
    let device = Device::new("absent");
    confined(|| {
        let mut confinement = almighty(&device, &[Path::new("/no/such/nft")]);
        if let Setting::On(paths) = &mut confinement.landlock {
            paths.read.push("/no/such/log".into());
        }
        let report = confinement.apply();
        let reason = reason(&report, Measure::Landlock);
        assert!(reason.ends_with("left out, not there: /no/such/log /no/such/nft"), "{reason}");
        if has_landlock(&report) {
            assert_eq!(report.state(Measure::Landlock), Some(State::InForce), "{report}");
            fs::read("/etc/passwd").unwrap();
            assert_eq!(errno(fs::read_dir("/root")), libc::EACCES);
        }
        String::new()
    });
}

/// The price of Landlock, which the process source has to know.
#[test]
fn landlock_closes_other_processes_to_what_needs_ptrace_access_and_capabilities_do_not_help() {
    if !is_root() {
        return;
    }
    let device = Device::new("ptrace");
    let parent = std::process::id();
    let look = |name: &str| -> Result<(), i32> {
        let path = format!("/proc/{parent}/{name}");
        let result = match name {
            "exe" | "cwd" | "root" => fs::read_link(path).map(drop),
            "fd" => fs::read_dir(path)
                .and_then(|mut entries| {
                    entries.next().unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::ENOENT)))
                })
                .and_then(|entry| fs::read_link(entry.path()))
                .map(drop),
            _ => fs::read(path).map(drop),
        };
        result.map_err(|error| error.raw_os_error().unwrap_or(-1))
    };
    let needing_ptrace = ["exe", "cwd", "root", "fd", "environ", "maps", "io"];
    let open_to_all = ["stat", "status", "cmdline", "comm", "statm", "cgroup", "loginuid", "sessionid"];
    confined(|| {
        let report = device.confinement().apply();
        assert_whole(&report);
        for name in needing_ptrace.iter().chain(&open_to_all) {
            assert_eq!(look(name), Ok(()), "without Landlock: {name}");
        }
        String::new()
    });
    let text = confined(|| {
        let mut confinement = device.confinement();
        confinement.landlock = Setting::On(device.paths(&[]));
        let report = confinement.apply();
        if !has_landlock(&report) {
            return format!("skipped: {}", reason(&report, Measure::Landlock));
        }
        for name in needing_ptrace {
            assert!(
                matches!(look(name), Err(libc::EACCES | libc::EPERM)),
                "with Landlock: {name} {:?}",
                look(name)
            );
        }
        for name in open_to_all {
            assert_eq!(look(name), Ok(()), "with Landlock: {name}");
        }
        // Itself and its children stay open.
        fs::read_link("/proc/self/exe").unwrap();
        fs::read_link("/proc/self/cwd").unwrap();
        String::new()
    });
    println!("{text}");
}

#[test]
fn landlock_keeps_signals_and_abstract_sockets_inside() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    if !is_root() {
        return;
    }
    let device = Device::new("scope");
    let parent = i32::try_from(std::process::id()).unwrap();
    let address = SocketAddr::from_abstract_name(format!("defender-confinement-{parent}")).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let _with_path = UnixListener::bind(device.path("socket")).unwrap();
    for abstract_sockets in [false, true] {
        let text = confined(|| {
            let sleep = fs::canonicalize("/bin/sleep").unwrap();
            let mut confinement = almighty(&device, &[&sleep]);
            if let Setting::On(paths) = &mut confinement.landlock {
                paths.abstract_sockets = abstract_sockets;
            }
            let report = confinement.apply();
            if report.state(Measure::Landlock) != Some(State::InForce) {
                return format!("skipped: {}", reason(&report, Measure::Landlock));
            }
            // SAFETY: takes numbers; signal 0 only asks.
            assert_eq!(unsafe { libc::kill(parent, 0) }, -1);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
            let connected = UnixStream::connect_addr(&address);
            if abstract_sockets {
                connected.unwrap();
            } else {
                assert_eq!(errno(connected), libc::EPERM);
            }
            UnixStream::connect(device.path("socket")).unwrap();
            // A child that hangs can be killed.
            let mut child = Command::new(&sleep).arg("60").spawn().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            String::new()
        });
        println!("{text}");
    }
}

#[test]
fn landlock_without_a_scope_is_landlock_all_the_same() {
    if !is_root() {
        return;
    }
    let device = Device::new("no-scope");
    let parent = i32::try_from(std::process::id()).unwrap();
    let text = confined(|| {
        let mut confinement = almighty(&device, &[]);
        if let Setting::On(paths) = &mut confinement.landlock {
            (paths.signals, paths.abstract_sockets) = (true, true);
        }
        let report = confinement.apply();
        let why = reason(&report, Measure::Landlock);
        if why.contains("kernel without Landlock") || why.contains("not enabled") {
            return format!("skipped: {why}");
        }
        assert_ne!(report.state(Measure::Landlock), Some(State::Missing), "{why}");
        // SAFETY: takes numbers; signal 0 only asks.
        assert_eq!(unsafe { libc::kill(parent, 0) }, 0);
        String::new()
    });
    println!("{text}");
}
