//! What is denied, by system call number of the architecture this is built for.

use super::bpf::{Rule, Target};

// linux/audit.h: EM_* (elf-em.h) | __AUDIT_ARCH_64BIT | __AUDIT_ARCH_LE.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "x86")]
const ARCHITECTURE: Option<u32> = Some(0x4000_0003);
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(all(target_arch = "arm", target_endian = "little"))]
const ARCHITECTURE: Option<u32> = Some(0x4000_0028);
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00f3);
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    all(target_arch = "aarch64", target_endian = "little"),
    all(target_arch = "arm", target_endian = "little"),
    target_arch = "riscv64"
)))]
const ARCHITECTURE: Option<u32> = None;

/// The architecture the agent is built for; nothing if there is no filter for it.
pub(super) const TARGET: Option<Target> = match ARCHITECTURE {
    Some(architecture) => Some(Target {
        architecture,
        x32: cfg!(target_arch = "x86_64"),
        multiplexed_sockets: cfg!(target_arch = "x86"),
    }),
    None => None,
};

/// System calls denied with `EPERM`.
const DENIED: &[libc::c_long] = &[
    // Into other processes. CAP_SYS_PTRACE is kept for reading /proc, not for these.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    number::PIDFD_GETFD,
    number::PROCESS_MADVISE,
    // Past directory permissions: CAP_DAC_READ_SEARCH would open any inode of a file system by its number.
    libc::SYS_open_by_handle_at,
    // Into the kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    number::IO_URING_SETUP,
    number::IO_URING_ENTER,
    number::IO_URING_REGISTER,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    // Code without a file. Closed to both as Landlock cannot see it.
    libc::SYS_memfd_create,
    number::MEMFD_SECRET,
    libc::SYS_execveat,
    // Another view of the system.
    libc::SYS_mount,
    libc::SYS_umount2,
    number::OPEN_TREE,
    number::OPEN_TREE_ATTR,
    number::MOVE_MOUNT,
    number::FSOPEN,
    number::FSCONFIG,
    number::FSMOUNT,
    number::FSPICK,
    number::MOUNT_SETATTR,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_personality,
    // The state of the machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    number::QUOTACTL_FD,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
];

/// `kexec_file_load`, which the `libc` crate does not have for every target (arch/*/kernel/syscalls, asm-generic/unistd.h).
const KEXEC_FILE_LOAD: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    320,
    #[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
    294,
    #[cfg(target_arch = "arm")]
    401,
];

/// What only some architectures have.
const DENIED_HERE: &[libc::c_long] = &[
    #[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm"))]
    libc::SYS_uselib,
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    libc::SYS_iopl,
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    libc::SYS_ioperm,
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86")]
    libc::SYS_vm86,
    #[cfg(target_arch = "x86")]
    libc::SYS_vm86old,
    #[cfg(target_arch = "x86")]
    libc::SYS_umount,
    #[cfg(target_arch = "x86")]
    libc::SYS_stime,
    // The variants of 32-bit architectures with 64-bit time.
    #[cfg(target_pointer_width = "32")]
    number::CLOCK_SETTIME64,
    #[cfg(target_pointer_width = "32")]
    number::CLOCK_ADJTIME64,
];

/// Where mappings are made: `mmap2` where it exists. The old `mmap` of x86 takes a pointer to its arguments and no C library
/// of today calls it.
#[cfg(any(target_arch = "arm", target_arch = "x86"))]
const MAP: libc::c_long = libc::SYS_mmap2;
#[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
const MAP: libc::c_long = libc::SYS_mmap;

/// Every rule, in no order.
pub(super) fn rules() -> Vec<(u32, Rule)> {
    let denied = [DENIED, KEXEC_FILE_LOAD, DENIED_HERE].into_iter().flatten().map(|call| (*call, Rule::Deny));
    let others = [
        (libc::SYS_socket, Rule::Families),
        (libc::SYS_socketpair, Rule::Families),
        (libc::SYS_clone, Rule::NoNamespaces),
        (number::CLONE3, Rule::Unknown),
        (MAP, Rule::NotWritableAndExecutable),
        (libc::SYS_mprotect, Rule::NotExecutable),
        (libc::SYS_pkey_mprotect, Rule::NotExecutable),
        (libc::SYS_ioctl, Rule::NoTerminalInput),
        #[cfg(target_arch = "x86")]
        (libc::SYS_mmap, Rule::Deny),
    ];
    // System call numbers are small and positive, so the cast keeps them.
    denied.chain(others).map(|(call, rule)| (call as u32, rule)).collect()
}

/// Numbers that are the same on every architecture (asm-generic/unistd.h), as all since 403 are. Not every C library the `libc`
/// crate describes has them all.
mod number {
    use libc::c_long;

    #[cfg(target_pointer_width = "32")]
    pub(super) const CLOCK_SETTIME64: c_long = 404;
    #[cfg(target_pointer_width = "32")]
    pub(super) const CLOCK_ADJTIME64: c_long = 405;
    pub(super) const IO_URING_SETUP: c_long = 425;
    pub(super) const IO_URING_ENTER: c_long = 426;
    pub(super) const IO_URING_REGISTER: c_long = 427;
    pub(super) const OPEN_TREE: c_long = 428;
    pub(super) const MOVE_MOUNT: c_long = 429;
    pub(super) const FSOPEN: c_long = 430;
    pub(super) const FSCONFIG: c_long = 431;
    pub(super) const FSMOUNT: c_long = 432;
    pub(super) const FSPICK: c_long = 433;
    pub(super) const CLONE3: c_long = 435;
    pub(super) const PIDFD_GETFD: c_long = 438;
    pub(super) const PROCESS_MADVISE: c_long = 440;
    pub(super) const MOUNT_SETATTR: c_long = 442;
    pub(super) const QUOTACTL_FD: c_long = 443;
    pub(super) const MEMFD_SECRET: c_long = 447;
    pub(super) const OPEN_TREE_ATTR: c_long = 467;
}
