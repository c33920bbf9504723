//! What the programs of `entry.c` cannot tell of an exec, from `/proc` while the process is there.

use std::path::Path;

use defender_model::process::Process;

use crate::process::procfs;

/// Fills in what is missing. `called` says that the arguments are those the system call was made with; otherwise (a 32-bit system
/// call, no room in the ring) there are none, and those of `/proc` are taken. Returns whether the arguments are known.
pub(crate) fn complete(proc: &Path, called: bool, process: &mut Process, ppid: &mut u32) -> bool {
    let Some(mut now) = procfs::read(proc, process.pid) else { return called };
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
    true
}

/// Whether these are the arguments of one and the same exec. A script's were given to its interpreter behind its own and the
/// script's name.
fn same(called: &[String], now: &[String]) -> bool {
    called == now || now.len() > called.len() && now.ends_with(called.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_s_arguments_are_those_of_its_interpreter() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        assert!(same(&words("./s a b"), &words("/bin/sh ./s a b")));
        assert!(same(&words("x"), &words("x")));
        assert!(!same(&words("x a"), &words("y b")));
        assert!(!same(&words("x a"), &words("x")));
    }
}
