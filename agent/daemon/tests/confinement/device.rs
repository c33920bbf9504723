//! A root directory with users and the agent's directories, and how to look at what came of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

use defender_daemon::confinement::{landlock, Capability, Confinement, Measure, Report, Setting, State};

pub(crate) const UID: u32 = 54_321;
pub(crate) const GID: u32 = 54_322;
pub(crate) const LOG_GROUP: u32 = 54_323;

pub(crate) const WANTED: [Capability; 5] = [
    Capability::CAP_AUDIT_CONTROL,
    Capability::CAP_AUDIT_READ,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_PTRACE,
];

/// On 32-bit x86 the filter cannot see socket families, and says so.
pub(crate) const FILTERED: State = if cfg!(target_arch = "x86") { State::Partial } else { State::InForce };

/// Nothing is missing, but for what this architecture cannot have.
pub(crate) fn assert_whole(report: &Report) {
    let shortfalls =
        report.shortfalls().filter(|entry| entry.measure != Measure::Seccomp || entry.state != FILTERED);
    assert_eq!(shortfalls.count(), 0, "{report}");
}

pub(crate) fn mask(capabilities: &[Capability]) -> u64 {
    capabilities.iter().fold(0, |mask, capability| mask | capability.bitmask())
}

pub(crate) fn is_root() -> bool {
    // SAFETY: takes nothing.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("skipped: needs root");
    }
    root
}

pub(crate) fn nft() -> Option<PathBuf> {
    let found = ["/usr/sbin/nft", "/sbin/nft"].iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        println!("skipped: no nft");
    }
    found
}

pub(crate) struct Device(pub(crate) PathBuf);

impl Device {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("defender-confinement-{name}-{}", std::process::id()));
        for directory in ["etc", "state", "log"] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        fs::write(path.join("etc/passwd"), format!("root:x:0:0::/:\ndefender:x:{UID}:{GID}::/:/bin/false\n"))
            .unwrap();
        fs::write(
            path.join("etc/group"),
            format!("defender:x:{GID}:\nadm:x:{LOG_GROUP}:syslog,defender\nother:x:7:syslog\n"),
        )
        .unwrap();
        std::os::unix::fs::chown(path.join("state"), Some(UID), Some(GID)).ok();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn confinement(&self) -> Confinement {
        Confinement {
            root: self.0.clone(),
            user: "defender".into(),
            capabilities: WANTED.to_vec(),
            child_capabilities: vec![Capability::CAP_NET_ADMIN],
            landlock: Setting::Off("not in this test".into()),
            seccomp: Setting::On(()),
        }
    }

    /// As on a device: system directories to read, the own ones to write, given programs to execute.
    pub(crate) fn paths(&self, execute: &[&Path]) -> landlock::Paths {
        let existing =
            |paths: &[&str]| paths.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
        let mut read: Vec<PathBuf> =
            existing(&["/etc", "/usr", "/lib", "/lib32", "/lib64", "/proc", "/sys", "/run", "/dev/urandom"]);
        read.push(self.path("log"));
        landlock::Paths {
            read,
            write: vec![self.path("state"), "/dev/null".into()],
            execute: execute.iter().map(|path| path.to_path_buf()).collect(),
            abstract_sockets: false,
            signals: false,
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A line of a `/proc/PID/status`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

pub(crate) fn set(status: &str, name: &str) -> u64 {
    u64::from_str_radix(field(status, name), 16).unwrap()
}

pub(crate) fn own_status() -> String {
    fs::read_to_string("/proc/self/status").unwrap()
}

pub(crate) fn reason(report: &Report, measure: Measure) -> String {
    report.entries().iter().find(|entry| entry.measure == measure).unwrap().reason.clone()
}

pub(crate) fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.expect_err("must be denied").raw_os_error().unwrap()
}

pub(crate) fn succeeded(output: io::Result<Output>) -> String {
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
