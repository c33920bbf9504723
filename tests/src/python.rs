//! Programs of other people's that are Python packages, each set in a virtual environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Tests of one program run side by side: one makes an environment, the others find it made.
static MAKING: Mutex<()> = Mutex::new(());

/// The interpreter of a virtual environment below `directory` that has `requirements` (`name==version`) installed; made once.
/// `None`, with the reason printed, where that is not possible.
#[must_use]
pub fn environment(directory: &Path, name: &str, requirements: &[&str]) -> Option<PathBuf> {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let place = directory.join(name);
    let python = place.join("bin/python");
    let ready = place.join("ready");
    // Written last, and holding what is installed: another set of requirements makes it anew.
    let wanted = requirements.join("\n");
    if fs::read_to_string(&ready).is_ok_and(|installed| installed == wanted) {
        return Some(python);
    }
    let run = |program: &Path, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !run(Path::new("python3"), &["-m", "venv", "--clear", name]) {
        println!("skipped: python3 with venv is not installed");
        return None;
    }
    let install = [["-m", "pip", "install", "--quiet"].as_slice(), requirements].concat();
    if !run(&python, &install) {
        println!("skipped: {} cannot be installed (no package index?)", requirements.join(", "));
        return None;
    }
    if let Err(error) = fs::write(&ready, wanted) {
        println!("skipped: cannot write {}: {error}", ready.display());
        return None;
    }
    Some(python)
}
