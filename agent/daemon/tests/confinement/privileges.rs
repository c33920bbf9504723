//! User, capabilities and what the process itself gives up.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use defender_daemon::confinement::{Capability, Measure, Setting, State};

use crate::child::*;
use crate::device::*;

#[test]
fn root_becomes_the_user_with_exactly_what_is_wanted() {
    if !is_root() {
        return;
    }
    let device = Device::new("user");
    let status = confined(|| {
        let report = device.confinement().apply();
        assert_whole(&report);
        assert_eq!(reason(&report, Measure::User), "defender, uid 54321, gid 54322, groups 54323");
        // SAFETY: takes a number.
        assert_eq!(unsafe { libc::setuid(0) }, -1, "no way back");
        let file = device.path("state/new");
        fs::write(&file, "x").unwrap();
        let metadata = fs::metadata(file).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (UID, GID, 0o640));
        assert_eq!(errno(fs::write(device.path("etc/passwd"), "")), libc::EACCES);
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
        own_status()
    });
    assert_eq!(field(&status, "Uid"), "54321\t54321\t54321\t54321");
    assert_eq!(field(&status, "Gid"), "54322\t54322\t54322\t54322");
    assert_eq!(field(&status, "Groups"), "54323");
    assert_eq!(set(&status, "CapPrm"), mask(&WANTED));
    assert_eq!(set(&status, "CapEff"), mask(&WANTED));
    for inherited in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(set(&status, inherited), mask(&[Capability::CAP_NET_ADMIN]), "{inherited}");
    }
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
}

#[test]
fn a_child_gets_no_more_than_it_needs() {
    if !is_root() {
        return;
    }
    let device = Device::new("grandchild");
    let cat = fs::canonicalize("/bin/cat").unwrap();
    let status = confined(|| {
        let mut confinement = device.confinement();
        confinement.landlock = Setting::On(device.paths(&[&cat]));
        let report = confinement.apply();
        assert_whole(&report);
        succeeded(Command::new(&cat).arg("/proc/self/status").output())
    });
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(set(&status, name), mask(&[Capability::CAP_NET_ADMIN]), "{name}");
    }
    assert_eq!(field(&status, "Uid"), "54321\t54321\t54321\t54321");
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
}

#[test]
fn nft_works_under_everything_at_once() {
    let Some(nft) = nft().filter(|_| is_root()) else { return };
    let device = Device::new("nft");
    confined(|| {
        // SAFETY: takes a number. The child has one thread, and its network namespace goes with it.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
        let mut confinement = device.confinement();
        confinement.landlock = Setting::On(device.paths(&[&nft]));
        let report = confinement.apply();
        assert_whole(&report);

        let run = |arguments: &[&str]| succeeded(Command::new(&nft).args(arguments).output());
        assert!(run(&["--version"]).starts_with("nftables v"));
        assert!(!run(&["-j", "list", "tables"]).contains("defender"));
        // As the agent does it: a transaction by standard input.
        let mut child = Command::new(&nft)
            .args(["-f", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let rules = "add table inet defender\nadd set inet defender s { type ipv4_addr; flags timeout; }\n\
                     add element inet defender s { 192.0.2.1 timeout 60s }\n";
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(run(&["-j", "list", "tables"]).contains("\"defender\""));
        assert!(run(&["-j", "list", "set", "inet", "defender", "s"]).contains("192.0.2.1"));
        // Without its loader or with another program it would not start.
        assert_eq!(errno(Command::new("/bin/true").output()), libc::EACCES);
        String::new()
    });
}

#[test]
fn without_the_user_it_stays_root_with_no_more_than_what_is_wanted_and_says_so() {
    if !is_root() {
        return;
    }
    let device = Device::new("nouser");
    let status = confined(|| {
        let mut confinement = device.confinement();
        confinement.user = "nobodyhere".into();
        let report = confinement.apply();
        assert_eq!(report.state(Measure::User), Some(State::Missing));
        let reason = reason(&report, Measure::User);
        assert!(reason.contains("no user nobodyhere in") && reason.contains("still root"), "{reason}");
        assert_eq!(
            report.shortfalls().filter(|entry| entry.measure != Measure::Seccomp).count(),
            1,
            "{report}"
        );
        assert_eq!(report.state(Measure::Seccomp), Some(FILTERED), "{report}");
        // NOROOT and KEEP_CAPS, locked but for the latter's value, which is off (linux/securebits.h).
        // SAFETY: takes numbers.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) }, 0b10_0011);
        // Without a change of user nothing else has set it.
        // SAFETY: takes numbers.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }, 0);
        // Executing a program as root would otherwise fill its sets again.
        own_status() + "\n--\n" + &succeeded(Command::new("/bin/cat").arg("/proc/self/status").output())
    });
    let (own, child) = status.split_once("--").unwrap();
    assert!(field(own, "Uid").starts_with("0\t"));
    assert_eq!((set(own, "CapPrm"), set(own, "CapEff")), (mask(&WANTED), mask(&WANTED)));
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(set(child, name), mask(&[Capability::CAP_NET_ADMIN]), "{name}");
    }
}

/// As systemd starts it: not root, with ambient capabilities.
fn start_as(uid: u32, gid: u32, ambient: &[Capability]) {
    let all: caps::CapsHashSet = ambient.iter().copied().collect();
    caps::securebits::set_keepcaps(true).unwrap();
    // SAFETY: an empty list, then numbers.
    assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::setresgid(gid, gid, gid) }, 0);
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::setresuid(uid, uid, uid) }, 0);
    caps::set(None, caps::CapSet::Effective, &all).unwrap();
    caps::set(None, caps::CapSet::Permitted, &all).unwrap();
    caps::set(None, caps::CapSet::Inheritable, &all).unwrap();
    caps::set(None, caps::CapSet::Ambient, &all).unwrap();
}

#[test]
fn started_unprivileged_it_keeps_what_it_was_given_and_names_what_it_was_not() {
    if !is_root() {
        return;
    }
    let device = Device::new("systemd");
    let status = confined(|| {
        start_as(UID, GID, &[Capability::CAP_NET_ADMIN, Capability::CAP_CHOWN, Capability::CAP_AUDIT_READ]);
        let report = device.confinement().apply();
        assert_eq!(report.state(Measure::User), Some(State::InForce), "{report}");
        assert_eq!(report.state(Measure::Capabilities), Some(State::Partial));
        let reason = reason(&report, Measure::Capabilities);
        assert!(
            reason.ends_with("not given to the agent: CAP_DAC_READ_SEARCH CAP_SYS_PTRACE CAP_AUDIT_CONTROL"),
            "{reason}"
        );
        // The test's own bounding set is the full one, and nobody but systemd could have made it smaller.
        assert_eq!(report.state(Measure::BoundingSet), Some(State::Partial));
        own_status()
    });
    let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_AUDIT_READ];
    assert_eq!((set(&status, "CapPrm"), set(&status, "CapEff")), (mask(&kept), mask(&kept)));
    let inherited = mask(&kept[..1]);
    assert_eq!((set(&status, "CapInh"), set(&status, "CapAmb")), (inherited, inherited));
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
}

#[test]
fn started_as_somebody_else_it_says_so() {
    if !is_root() {
        return;
    }
    let device = Device::new("else");
    confined(|| {
        start_as(UID + 10, GID + 10, &WANTED);
        let report = device.confinement().apply();
        assert_eq!(report.state(Measure::User), Some(State::Partial));
        assert!(
            reason(&report, Measure::User).starts_with("started as uid 54331, not as defender"),
            "{report}"
        );
        assert_eq!(report.state(Measure::Capabilities), Some(State::InForce), "{report}");
        String::new()
    });
}

#[test]
fn other_threads_are_reported() {
    let device = Device::new("threads");
    confined(|| {
        let (hold, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let report = device.confinement().apply();
        assert_eq!(report.state(Measure::Threads), Some(State::Partial), "{report}");
        assert!(reason(&report, Measure::Threads).starts_with("2 threads were running"), "{report}");
        // The filter covers them all the same.
        assert_eq!(report.state(Measure::Seccomp), Some(FILTERED), "{report}");
        drop(hold);
        thread.join().unwrap().unwrap_err();
        String::new()
    });
}

#[test]
fn its_own_proc_files_stay_readable_but_those_that_belong_to_root_now() {
    if !is_root() {
        return;
    }
    let device = Device::new("proc");
    confined(|| {
        let mut confinement = device.confinement();
        // DAC_READ_SEARCH would open them all.
        confinement.capabilities = vec![Capability::CAP_NET_ADMIN];
        let report = confinement.apply();
        assert_whole(&report);
        for name in [
            "status",
            "stat",
            "statm",
            "maps",
            "smaps_rollup",
            "limits",
            "cmdline",
            "oom_score_adj",
            "cgroup",
        ] {
            fs::read(format!("/proc/self/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        fs::read_link("/proc/self/exe").unwrap();
        assert!(fs::read_dir("/proc/self/fd").unwrap().count() > 2);
        for name in ["environ", "io"] {
            assert_eq!(errno(fs::read(format!("/proc/self/{name}"))), libc::EACCES, "{name}");
        }
        assert_eq!(errno(fs::write("/proc/self/oom_score_adj", "0")), libc::EACCES);
        String::new()
    });
}
