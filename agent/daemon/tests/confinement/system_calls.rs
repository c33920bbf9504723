//! Seccomp.

use std::io::{self};
use std::os::unix::net::UnixStream;

use defender_daemon::confinement::{Measure, State};

use crate::child::*;
use crate::device::*;

/// A system call with arguments nobody can use: what it returns shows how far it got.
fn senseless(number: libc::c_long) -> i32 {
    const SENSELESS: libc::c_long = -1;
    // SAFETY: every pointer is the last address, which is the kernel's and never mapped, every descriptor and flag
    // invalid.
    let result =
        unsafe { libc::syscall(number, SENSELESS, SENSELESS, SENSELESS, SENSELESS, SENSELESS, SENSELESS) };
    if result == -1 {
        io::Error::last_os_error().raw_os_error().unwrap()
    } else {
        0
    }
}

const DENIED: &[(&str, libc::c_long)] = &[
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("kcmp", libc::SYS_kcmp),
    ("pidfd_getfd", 438),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("kexec_load", libc::SYS_kexec_load),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("keyctl", libc::SYS_keyctl),
    ("io_uring_setup", 425),
    ("memfd_create", libc::SYS_memfd_create),
    ("execveat", libc::SYS_execveat),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("open_tree", 428),
    ("move_mount", 429),
    ("fsopen", 430),
    ("fsmount", 432),
    ("mount_setattr", 442),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("setns", libc::SYS_setns),
    ("unshare", libc::SYS_unshare),
    ("personality", libc::SYS_personality),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("acct", libc::SYS_acct),
    ("quotactl", libc::SYS_quotactl),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("adjtimex", libc::SYS_adjtimex),
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    ("iopl", libc::SYS_iopl),
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    ("ioperm", libc::SYS_ioperm),
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    ("modify_ldt", libc::SYS_modify_ldt),
];

#[test]
fn system_calls_nobody_needs_are_denied_by_the_filter_and_by_nothing_else() {
    // Without the filter each gets further than a permission check if it is to root, so EPERM later is the filter's.
    let before = confined(|| {
        let far = DENIED.iter().filter(|(_, number)| senseless(*number) != libc::EPERM);
        far.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    });
    println!("not EPERM without the filter: {before}");
    if is_root() {
        // iopl(-1) and the like are refused for their arguments; lockdown or a container may refuse a few for root too.
        assert!(before.split(' ').count() + 6 >= DENIED.len(), "only {before}");
    }
    let device = Device::new("syscalls");
    confined(|| {
        let report = device.confinement().apply();
        assert_eq!(report.state(Measure::Seccomp), Some(FILTERED), "{report}");
        for (name, number) in DENIED {
            assert_eq!(senseless(*number), libc::EPERM, "{name}");
        }
        String::new()
    });
}

#[test]
fn sockets_namespaces_and_executable_memory_are_filtered_by_argument() {
    let device = Device::new("arguments");
    confined(|| {
        let report = device.confinement().apply();
        assert_eq!(report.state(Measure::Seccomp), Some(FILTERED), "{report}");
        let result = |value: libc::c_long| {
            if value < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(value)
            }
        };
        let socket = |family: i32, kind: i32| {
            // SAFETY: takes numbers.
            result(libc::c_long::from(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) }))
        };
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            if let Err(error) = socket(family, libc::SOCK_DGRAM) {
                // A kernel without IPv6 says the same.
                assert!(family == libc::AF_INET6, "family {family}: {error}");
            }
        }
        socket(libc::AF_NETLINK, libc::SOCK_RAW).unwrap();
        for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH, libc::AF_CAN, -1] {
            if FILTERED == State::InForce {
                assert_eq!(errno(socket(family, libc::SOCK_RAW)), libc::EAFNOSUPPORT, "family {family}");
            }
        }
        UnixStream::pair().unwrap();

        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWNS] {
            let flags = libc::c_long::from(flag) | libc::c_long::from(libc::SIGCHLD);
            // SAFETY: must fail; if it did not, the child would share nothing and go on as a fork does.
            let cloned = result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) });
            assert_eq!(errno(cloned), libc::EPERM, "clone {flag:#x}");
        }
        assert_eq!(senseless(435), libc::ENOSYS, "clone3");
        std::thread::spawn(|| ()).join().expect("threads and programs start by clone all the same");

        let map = |protection| {
            // SAFETY: a new anonymous mapping at an address of the kernel's choice.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    protection,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if at == libc::MAP_FAILED {
                Err(io::Error::last_os_error())
            } else {
                Ok(at)
            }
        };
        let (r, w, x) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
        // musl makes ENOMEM of it, which is what older kernels meant by EPERM here.
        let denied = if cfg!(target_env = "musl") { libc::ENOMEM } else { libc::EPERM };
        assert_eq!(errno(map(r | w | x)), denied);
        map(r | x).unwrap();
        let writable = map(r | w).unwrap();
        // SAFETY: the mapping was just made and nothing refers into it.
        let made_executable = result(libc::c_long::from(unsafe { libc::mprotect(writable, 4096, r | x) }));
        assert_eq!(errno(made_executable), libc::EPERM);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::mprotect(writable, 4096, r) }, 0);

        for request in [0x5412u32, 0x541c] {
            // SAFETY: the descriptor is invalid, so nothing is read.
            let typed = result(libc::c_long::from(unsafe { libc::ioctl(-1, request as _, 0) }));
            assert_eq!(errno(typed), libc::EPERM, "ioctl {request:#x}");
        }
        // SAFETY: as above.
        let other = result(libc::c_long::from(unsafe { libc::ioctl(-1, 0x5413, 0) }));
        assert_eq!(errno(other), libc::EBADF, "TIOCGWINSZ");
        String::new()
    });
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_call_by_the_32_bit_convention_kills() {
    fn getpid_of_i386() -> u32 {
        let result: u32;
        // SAFETY: getpid (20) by the 32-bit entry: takes nothing and writes no memory; the entry clobbers r8 to r11.
        unsafe {
            std::arch::asm!("int 0x80", inout("eax") 20u32 => result,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        result
    }
    let before = in_child(|| getpid_of_i386().to_string());
    if before.status != 0 || before.text.starts_with("42949") {
        println!("skipped: kernel without 32-bit calls");
        return;
    }
    let device = Device::new("int80");
    let ended = in_child(|| {
        let report = device.confinement().apply();
        assert_eq!(report.state(Measure::Seccomp), Some(FILTERED), "{report}");
        getpid_of_i386().to_string()
    });
    assert!(libc::WIFSIGNALED(ended.status), "{} {}", ended.status, ended.text);
    assert_eq!(libc::WTERMSIG(ended.status), libc::SIGSYS);
}
