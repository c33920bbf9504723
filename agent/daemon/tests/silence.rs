//! An agent that runs notices what does not happen: its clock, and no event, tells of a minimum that is not reached.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn silence_is_told_by_the_clock() {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: needs root for a network namespace of its own");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    let configuration = format!(
        "[agent]\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\n[process]\nenabled = false\n[network]\nenabled = false\n\
         [posture]\nenabled = false\n[dbus]\nenabled = false\n[feeds]\ndirectories = []\n[rules]\ndirectories = []\n\
         [login]\nfiles = [\"{at}/auth.log\"]\nsyslog_socket = \"off\"\n[sink.file]\npath = \"{at}/events.jsonl\"\n\
         [sink.syslog]\nenabled = false\n[confinement]\ndrop_privileges = false\n\
         [[alert]]\nname = \"Silence\"\ncount = \"failed_logins\"\nwindow_s = 2\nminimum = 1\n\
         [[alert]]\nname = \"Patience\"\ncount = \"failed_logins\"\nwindow_s = 600\nminimum = 1\n"
    );
    let file = directory.path().join("defender.toml");
    fs::write(&file, configuration).unwrap();
    fs::write(directory.path().join("auth.log"), "").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_defender"), "run", "--config"]).arg(&file);
    let _agent = Agent(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(60);
    let alerts = loop {
        let events = fs::read_to_string(directory.path().join("events.jsonl")).unwrap_or_default();
        let whole = events.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let findings = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let findings: Vec<Value> = findings.filter(|event| event["class_uid"] == 2004).collect();
        if !findings.is_empty() {
            break findings;
        }
        assert!(Instant::now() < end, "nothing was told: {events}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let messages: Vec<&str> =
        alerts.iter().map(|alert| alert["message"].as_str().unwrap_or_default()).collect();
    assert_eq!(messages, ["Silence: 0 events in 2 s, fewer than 1"], "{alerts:?}");
}
