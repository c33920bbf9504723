//! Where systemd hands the agent the socket that the journal forwards to, log messages come from there.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

mod agent;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent::{is_root, Agent};

#[test]
fn a_failed_login_comes_through_the_socket_of_the_journal() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    let file = directory.path().join("defender.toml");
    fs::write(
        &file,
        format!(
            "[agent]\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\n[process]\nenabled = false\n[network]\nenabled = false\n\
             [posture]\nenabled = false\n[dbus]\nenabled = false\n[feeds]\ndirectories = []\n[rules]\ndirectories = []\n\
             [login]\nfiles = []\naccounting = []\n[sink.file]\npath = \"{at}/events.jsonl\"\n[sink.syslog]\nenabled = false\n\
             [confinement]\ndrop_privileges = false\n"
        ),
    )
    .unwrap();
    let forwarded = directory.path().join("syslog");
    let socket = UnixDatagram::bind(&forwarded).unwrap();
    // As systemd hands it over: descriptor 3, and the number of the process that it is for.
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_defender"), "run", "--config"])
        .arg(&file);
    let _agent =
        Agent(command.stdin(Stdio::from(OwnedFd::from(socket))).stderr(Stdio::null()).spawn().unwrap());
    // What comes before the agent reads waits in the socket, as with systemd.
    let line = "<38>Nov  3 20:50:52 sshd[812]: Failed password for root from 192.0.2.7 port 4711 ssh2";
    UnixDatagram::unbound().unwrap().send_to(line.as_bytes(), &forwarded).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let events = fs::read_to_string(directory.path().join("events.jsonl")).unwrap_or_default();
        let told = |line: &&str| {
            line.contains("\"class_uid\":3002") && line.contains("192.0.2.7") && line.contains("4711")
        };
        if events.lines().any(|line| told(&line)) {
            break;
        }
        assert!(Instant::now() < end, "the login was not told: {events}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
