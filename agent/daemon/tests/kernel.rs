//! An agent on a kernel that lacks what sensors are made of: it runs, works with what there is, and `defender status` names the option.
//!
//! A filter of system calls answers as such a kernel does: `EPROTONOSUPPORT` for protocols of netlink that are not built in, `ENOSYS` for
//! system calls.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.
#![allow(clippy::multiple_unsafe_ops_per_block)] // They are made together or not at all.

mod agent;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use agent::{is_root, Agent};

/// `AF_NETLINK` and its protocols for audit, connector, netfilter and messages about devices (linux/netlink.h).
const NETLINK: u32 = 16;
const PROTOCOLS: [u32; 4] = [9, 11, 12, 15];

/// The filter (classic BPF over `struct seccomp_data`, linux/seccomp.h): loads of the number at 0, of arguments at 16 and 32.
fn lacking() -> Vec<libc::sock_filter> {
    let load = |k| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k };
    let answer = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let equal = |k, jt, jf| libc::sock_filter { code: 0x15, jt, jf, k };
    let fails = |errno: i32| answer(0x0005_0000 | errno as u32);
    vec![
        load(0),
        equal(libc::SYS_inotify_init1 as u32, 9, 0),
        equal(libc::SYS_bpf as u32, 8, 0),
        equal(libc::SYS_socket as u32, 0, 8),
        load(16),
        equal(NETLINK, 0, 6),
        load(32),
        equal(PROTOCOLS[0], 5, 0),
        equal(PROTOCOLS[1], 4, 0),
        equal(PROTOCOLS[2], 3, 0),
        equal(PROTOCOLS[3], 2, 1),
        fails(libc::ENOSYS),
        answer(0x7fff_0000),
        fails(libc::EPROTONOSUPPORT),
    ]
}

#[test]
fn every_sensor_says_what_the_kernel_lacks() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    let configuration = format!(
        "[agent]\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\n[process]\npoll_interval_ms = 50\n[posture]\nenabled = false\n\
         [dbus]\nenabled = false\n[feeds]\ndirectories = []\n[rules]\ndirectories = []\n[files]\npaths = [\"{at}/watched\"]\n\
         [login]\nfiles = [\"{at}/auth.log\"]\nsyslog_socket = \"off\"\n[sink.file]\npath = \"{at}/events.jsonl\"\n\
         [sink.syslog]\nenabled = false\n[confinement]\ndrop_privileges = false\n"
    );
    let file = directory.path().join("defender.toml");
    fs::write(&file, configuration).unwrap();
    let filter = lacking();
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_defender"), "run", "--config"]).arg(&file);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    // SAFETY: what runs between fork and exec is one system call on memory that was made before.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            if libc::syscall(libc::SYS_seccomp, 1, 0, &raw const program) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let _agent = Agent(command.spawn().unwrap());
    let parts = ["process", "network.0", "firewall.monitor", "files", "login", "peripheral.0"];
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        let asked = Command::new(env!("CARGO_BIN_EXE_defender"))
            .args(["status", "--json", "--socket"])
            .arg(directory.path().join("run/control.sock"))
            .output()
            .unwrap();
        let status: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        // What only polling sees shows that the agent works.
        let execs = status["process"]["counters"][0][1].as_u64();
        // Each sensor says it in its own time.
        let degraded = status["degraded"].to_string();
        let said = parts.iter().all(|part| degraded.contains(&format!("\"{part}")));
        if status["armed"] == true && execs > Some(0) && said {
            break status;
        }
        assert!(Instant::now() < end, "{status} {}", String::from_utf8_lossy(&asked.stderr));
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!((&status["health"], &status["process"]["source"]), (&"degraded".into(), &"poll".into()));
    for (sensor, options) in [
        ("/process/declined", &["CONFIG_AUDIT", "CONFIG_PROC_EVENTS"][..]),
        ("/network/lacks", &["CONFIG_NETFILTER_NETLINK"]),
        ("/packet_filter/lacks", &["CONFIG_NETFILTER_NETLINK"]),
        ("/files/modes", &["CONFIG_INOTIFY_USER"]),
        ("/peripherals/lacks", &["CONFIG_NET"]),
    ] {
        let said = status.pointer(sensor).unwrap().to_string();
        assert!(options.iter().all(|option| said.contains(option)), "{sensor}: {said}");
    }
}
