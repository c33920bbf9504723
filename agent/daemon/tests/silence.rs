//! An agent that runs notices what does not happen: its clock, and no event, tells of a minimum that is not reached. And its heart beats.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

mod agent;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use agent::{is_root, Agent};

#[test]
fn silence_is_told_by_the_clock() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    let configuration = format!(
        "[agent]\nstatistics_interval_s = 1\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\n[process]\nenabled = false\n[network]\nenabled = false\n\
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
    let (alerts, heartbeat) = loop {
        let events = fs::read_to_string(directory.path().join("events.jsonl")).unwrap_or_default();
        let whole = events.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let heartbeat = events
            .iter()
            .rev()
            .find(|event| {
                event["unmapped"]["component"] == "agent" && event["unmapped"]["kind"] == "statistics"
            })
            .cloned();
        let findings: Vec<Value> = events.into_iter().filter(|event| event["class_uid"] == 2004).collect();
        if let (false, Some(heartbeat)) = (findings.is_empty(), heartbeat) {
            break (findings, heartbeat);
        }
        assert!(Instant::now() < end, "nothing was told: {whole}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let messages: Vec<&str> =
        alerts.iter().map(|alert| alert["message"].as_str().unwrap_or_default()).collect();
    assert_eq!(messages, ["Silence: 0 events in 2 s, fewer than 1"], "{alerts:?}");
    let (said, figures) = (&heartbeat["message"], &heartbeat["unmapped"]["counters"]);
    assert!(said.as_str().is_some_and(|said| said.contains("confinement: drop_privileges")), "{heartbeat}");
    assert!(figures["rss_kib"].as_u64() > Some(500) && figures["degraded"].as_u64() > Some(0), "{heartbeat}");
    assert_eq!(figures["queue_dropped"], 0, "{heartbeat}");
}
