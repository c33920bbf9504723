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
}

pub(crate) const X86_64: Arch = Arch { audit_arch: 0xc000_003e, execve: 59, execveat: 322, exit_group: 231 };
pub(crate) const I386: Arch = Arch { audit_arch: 0x4000_0003, execve: 11, execveat: 358, exit_group: 252 };
pub(crate) const AARCH64: Arch = Arch { audit_arch: 0xc000_00b7, execve: 221, execveat: 281, exit_group: 94 };
pub(crate) const ARM: Arch = Arch { audit_arch: 0x4000_0028, execve: 11, execveat: 387, exit_group: 248 };
pub(crate) const RISCV64: Arch = Arch { audit_arch: 0xc000_00f3, execve: 221, execveat: 281, exit_group: 94 };

const ALL: [Arch; 5] = [X86_64, I386, AARCH64, ARM, RISCV64];

/// What a system call means to the sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Exec,
    ExitGroup,
}

/// The meaning of a call in a record, whatever machine wrote it; `None` for calls of no interest.
pub(crate) fn call(audit_arch: u32, number: u32) -> Option<Call> {
    let arch = ALL.iter().find(|arch| arch.audit_arch == audit_arch)?;
    if number == arch.execve || number == arch.execveat {
        Some(Call::Exec)
    } else if number == arch.exit_group {
        Some(Call::ExitGroup)
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
