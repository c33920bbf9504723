//! What the programs of `entry.c` cannot tell of an exec, from `/proc` while the process is there.

use std::path::Path;

use defender_model::process::Process;

use crate::process::procfs;

/// Fills in what is missing. `called` says that the arguments are those the system call was made with; otherwise (a 32-bit system
/// call, one that the kernel did not run the program for) there are none, and those of `/proc` are taken. Returns whether the
/// arguments are known, all of them.
pub(crate) fn complete(proc: &Path, called: bool, process: &mut Process, ppid: &mut u32) -> bool {
    let Some(mut now) = procfs::read(proc, process.pid) else { return called };
    // One that has ended shows none.
    let known = called || !now.process.argv.is_empty() && procfs::is_whole(&now.process.argv);
    if called && !same(&process.argv, &now.process.argv) {
        // Another program by now: only what stays through an exec is taken.
        (process.auid, process.session) = (now.process.auid, now.process.session);
        if *ppid == 0 {
            *ppid = now.ppid;
        }
        return true;
    }
    // A parent that ended has handed its children on.
    *ppid = now.ppid;
    if called {
        now.process.argv = std::mem::take(&mut process.argv);
    }
    if now.process.executable.is_empty() {
        now.process.executable = std::mem::take(&mut process.executable);
    }
    *process = now.process;
    known
}

/// Whether these are the arguments of one and the same exec. A script's were given to its interpreter behind its own and the
/// script's name.
fn same(called: &[String], now: &[String]) -> bool {
    called == now || now.len() > called.len() && now.ends_with(called.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc` with one process, of that command line.
    fn with(command_line: &[u8]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        let process = proc.path().join("40");
        std::fs::create_dir(&process).unwrap();
        let stat = b"40 (run) R 7 40 40 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        std::fs::write(process.join("stat"), stat).unwrap();
        std::fs::write(process.join("cmdline"), command_line).unwrap();
        proc
    }

    #[test]
    fn what_the_call_did_not_tell_is_known_as_far_as_proc_has_it() {
        let completed = |called, given: &[&str], command_line: &[u8]| {
            let proc = with(command_line);
            let argv = given.iter().map(|word| (*word).to_owned()).collect();
            let mut process = Process { pid: 40, argv, ..Process::default() };
            let known = complete(proc.path(), called, &mut process, &mut 0);
            (known, process.argv.len())
        };
        assert_eq!(completed(false, &[], b"run\0fast\0"), (true, 2));
        // It has ended, but was not waited for.
        assert_eq!(completed(false, &[], b""), (false, 0));
        assert_eq!(completed(true, &["run", "fast"], b""), (true, 2));
        // More than is read.
        assert_eq!(completed(false, &[], &b"y".repeat(100_000)), (false, 1));
        assert_eq!(completed(false, &[], &b"y\0".repeat(5000)), (false, 4096));
    }

    #[test]
    fn a_script_s_arguments_are_those_of_its_interpreter() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        assert!(same(&words("./s a b"), &words("/bin/sh ./s a b")));
        assert!(same(&words("x"), &words("x")));
        assert!(!same(&words("x a"), &words("y b")));
        assert!(!same(&words("x a"), &words("x")));
    }
}
