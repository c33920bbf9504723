//! The image side of the product: one overlay and two installers, one set of kernel options, generated lists that are not stale,
//! scripts, units, firewall ruleset and bus policy that do what they say. A step whose tool is missing says so and is skipped.

mod bus;
mod device;
mod gate;
mod installers;
mod layer;
mod lists;
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The repository's top.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate is in the repository")
        .to_path_buf()
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A directory that goes away with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("defender-packaging-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("temporary directory");
        // Other users' processes of these tests reach into it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("temporary directory");
        Self(path)
    }

    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that goes away with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// True when the program can be started; otherwise says what is skipped.
pub(crate) fn have(program: &str, skipped: &str) -> bool {
    let found = Command::new(program).arg("--version").stdin(Stdio::null()).output().is_ok();
    if !found {
        println!("skipped: {skipped}: no {program} on this machine");
    }
    found
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Waits, at most ten seconds, until the condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every file below a directory, with its permissions.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, u32> {
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(directory) = left.pop() {
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.expect("directory entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let mode = fs::metadata(&path).expect("installed file").permissions().mode() & 0o7777;
                files.insert(path.strip_prefix(root).expect("below root").display().to_string(), mode);
            }
        }
    }
    files
}

/// A file of the overlay.
pub(crate) fn read_bytes(overlay_path: &str) -> Vec<u8> {
    fs::read(top().join("rootfs-overlay").join(overlay_path))
        .unwrap_or_else(|error| panic!("{overlay_path}: {error}"))
}
