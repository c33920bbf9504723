//! Which system calls of which architecture the sensor asks audit for.
//!
//! Architectures are `AUDIT_ARCH_*` of linux/audit.h, numbers those of each architecture's system call table. A 64-bit kernel
//! that runs 32-bit programs needs a second rule: the numbers differ.

/// One architecture's calls, for one audit rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arch {
    pub(crate) audit_arch: u32,
    pub(crate) execve: u32,
    pub(crate) execveat: u32,
    pub(crate) exit_group: u32,
    /// `init_module`, `finit_module`, `delete_module`.
    pub(crate) modules: [u32; 3],
    pub(crate) ptrace: u32,
    pub(crate) bpf: u32,
    /// The calls that open a file: `open` and `creat` where there are any, `openat`, `openat2`.
    pub(crate) opens: &'static [u32],
    /// `mkdir`, `mkdirat`.
    makes_directory: &'static [u32],
    /// `unlink`, `rmdir`, `unlinkat`.
    removes: &'static [u32],
    /// `chmod`, `chown`, `setxattr`, `removexattr` and what is called like them.
    attributes: &'static [u32],
}

/// What a call can have done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Effect {
    /// It made a directory, nothing else.
    Directory,
    /// It removed something, nothing else.
    Removal,
    /// It changed mode, owner or extended attributes, nothing else.
    Attributes,
    /// Anything.
    #[default]
    Any,
}

/// What this call can have done.
pub(crate) fn effect(audit_arch: u32, number: u32) -> Effect {
    let Some(arch) = ALL.iter().find(|arch| arch.audit_arch == audit_arch) else { return Effect::Any };
    let of = [
        (arch.makes_directory, Effect::Directory),
        (arch.removes, Effect::Removal),
        (arch.attributes, Effect::Attributes),
    ];
    of.into_iter().find(|(calls, _)| calls.contains(&number)).map_or(Effect::Any, |(_, effect)| effect)
}

pub(crate) const X86_64: Arch = Arch {
    audit_arch: 0xc000_003e,
    execve: 59,
    execveat: 322,
    exit_group: 231,
    modules: [175, 313, 176],
    ptrace: 101,
    bpf: 321,
    opens: &[2, 85, 257, 437],
    makes_directory: &[83, 258],
    removes: &[84, 87, 263],
    attributes: &[90, 91, 92, 93, 94, 188, 189, 190, 197, 198, 199, 260, 268, 452],
};
pub(crate) const I386: Arch = Arch {
    audit_arch: 0x4000_0003,
    execve: 11,
    execveat: 358,
    exit_group: 252,
    modules: [128, 350, 129],
    ptrace: 26,
    bpf: 357,
    opens: &[5, 8, 295, 437],
    makes_directory: &[39, 296],
    removes: &[10, 40, 301],
    attributes: &[15, 16, 94, 95, 182, 198, 207, 212, 226, 227, 228, 235, 236, 237, 298, 306, 452],
};
pub(crate) const AARCH64: Arch = Arch {
    audit_arch: 0xc000_00b7,
    execve: 221,
    execveat: 281,
    exit_group: 94,
    modules: [105, 273, 106],
    ptrace: 117,
    bpf: 280,
    opens: &[56, 437],
    makes_directory: &[34],
    removes: &[35],
    attributes: &[5, 6, 7, 14, 15, 16, 52, 53, 54, 55, 452],
};
pub(crate) const ARM: Arch = Arch {
    audit_arch: 0x4000_0028,
    execve: 11,
    execveat: 387,
    exit_group: 248,
    modules: [128, 379, 129],
    ptrace: 26,
    bpf: 386,
    opens: &[5, 8, 322, 437],
    makes_directory: &[39, 323],
    removes: &[10, 40, 328],
    attributes: &[15, 16, 94, 95, 182, 198, 207, 212, 226, 227, 228, 235, 236, 237, 325, 333, 452],
};
pub(crate) const RISCV64: Arch = Arch { audit_arch: 0xc000_00f3, ..AARCH64 };

/// The requests of ptrace(2) that attach the caller to a process that runs: `PTRACE_ATTACH`, `PTRACE_SEIZE` (linux/ptrace.h).
pub(crate) const ATTACHES: [u32; 2] = [16, 0x4206];
/// The command of bpf(2) that loads a program: `BPF_PROG_LOAD` (linux/bpf.h).
pub(crate) const LOADS: u32 = 5;

const ALL: [Arch; 5] = [X86_64, I386, AARCH64, ARM, RISCV64];

/// What a system call means to the sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Exec,
    ExitGroup,
    LoadModule,
    DeleteModule,
    Ptrace,
    Bpf,
}

/// The meaning of a call in a record, whatever machine wrote it; `None` for calls of no interest.
pub(crate) fn call(audit_arch: u32, number: u32) -> Option<Call> {
    let arch = ALL.iter().find(|arch| arch.audit_arch == audit_arch)?;
    if number == arch.execve || number == arch.execveat {
        Some(Call::Exec)
    } else if number == arch.exit_group {
        Some(Call::ExitGroup)
    } else if number == arch.modules[2] {
        Some(Call::DeleteModule)
    } else if arch.modules.contains(&number) {
        Some(Call::LoadModule)
    } else if number == arch.ptrace {
        Some(Call::Ptrace)
    } else if number == arch.bpf {
        Some(Call::Bpf)
    } else {
        None
    }
}

/// The architectures whose programs this machine's kernel may run: its own, and its 32-bit sibling.
///
/// A 32-bit agent on a 64-bit kernel asks for both as well: `machine` is what uname(2) says, not how the agent was built.
pub(crate) fn of_machine(machine: &str) -> &'static [Arch] {
    match machine {
        "x86_64" => &[X86_64, I386],
        "i386" | "i486" | "i586" | "i686" => &[I386],
        "aarch64" => &[AARCH64, ARM],
        "riscv64" => &[RISCV64],
        arm if arm.starts_with("armv") => &[ARM],
        _ => &[],
    }
}
