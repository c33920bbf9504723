//! Functions of the kernel that tell what no tracepoint does. A program runs as one begins (fentry) or ends (fexit); both need
//! `CONFIG_FUNCTION_TRACER` and an architecture with direct calls from it (64-bit ARM since Linux 6.4). Each of them can be missing.
//!
//! None is static but the last resort for ptrace(2), and the compiler has put none into its callers in the kernels looked at (5.8 to 6.18).
//! `__ptrace_link` and `inet_bind` were no choice: the former is a part of its callers since 5.15, the latter of IPv6 lies in a module.

use std::path::Path;

/// When the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Begins,
    Ends,
    /// At the end of a function that may have slept. Before Linux 5.12 the way back of a sleeper was freed with the program.
    EndsAfterSleep,
}

/// A function, the program for it and the word for what it tells.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) tells: &'static str,
    pub(crate) section: &'static str,
    /// Numbers of `programs.c`.
    pub(crate) variant: i32,
    pub(crate) when: When,
}

const fn function(
    name: &'static str,
    tells: &'static str,
    section: &'static str,
    variant: i32,
    when: When,
) -> Function {
    Function { name, tells, section, variant, when }
}

/// How many there are.
pub(crate) const COUNT: usize = 6;

/// All of them. Of two that tell the same the first one is taken that the kernel has.
pub(crate) const FUNCTIONS: [Function; COUNT] = [
    function("proc_ptrace_connector", "ptrace", "deed", 11, When::Begins),
    function("ptrace_attach", "ptrace", "deed", 11, When::EndsAfterSleep),
    function("perf_event_bpf_event", "bpf", "deed", 12, When::Begins),
    function("commit_creds", "credentials", "deed", 13, When::Begins),
    function("inet_csk_accept", ACCEPT, "socket", 1, When::EndsAfterSleep),
    function("udp_lib_get_port", BIND, "socket", 2, When::Ends),
];

/// What tells of connections.
pub(crate) const ACCEPT: &str = "accept";
/// And of datagrams.
pub(crate) const BIND: &str = "bind";

/// `PTRACE_ATTACH` (linux/ptrace.h), which the first one is called with for each way to attach.
const PTRACE_ATTACH: u32 = 16;

/// Id in the kernel's BTF and number of arguments of each function; without an id, it is not there.
pub(crate) type Found = [(u32, u32); COUNT];

/// Where the contexts of the programs have what they look at, in the order of the last four of `struct offsets`: arguments have eight bytes
/// each, the result comes behind them.
pub(crate) fn layout(found: &Found) -> [u32; 4] {
    let result = |index: usize| 8 * found[index].1;
    let [at, is] = if found[0].0 == 0 { [result(1), 0] } else { [8, PTRACE_ATTACH] };
    [at, is, result(4), result(5)]
}

/// The kernel's version, as far as two numbers tell it.
pub(crate) fn kernel(proc: &Path) -> (u32, u32) {
    let release = std::fs::read_to_string(proc.join("sys/kernel/osrelease")).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Since when a program may run at the end of functions that sleep.
pub(crate) const MAY_SLEEP: (u32, u32) = (5, 12);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_lies_behind_the_arguments() {
        let mut found = [(9, 3); COUNT];
        found[4].1 = 4;
        assert_eq!(layout(&found), [8, 16, 32, 24]);
        found[0] = (0, 0);
        assert_eq!(layout(&found), [24, 0, 32, 24]);
    }

    #[test]
    fn kernels_have_two_numbers() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("sys/kernel")).unwrap();
        for (release, version) in [
            ("5.10.0-32-amd64", (5, 10)),
            ("5.12-rc1", (5, 12)),
            ("7.0.13+deb13-rt-amd64", (7, 0)),
            ("", (0, 0)),
        ] {
            std::fs::write(directory.path().join("sys/kernel/osrelease"), release).unwrap();
            assert_eq!(kernel(directory.path()), version, "{release}");
        }
    }
}
