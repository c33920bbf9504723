//! Isolation from the alert to the packet filter: the agent itself, in a network namespace of its own, with the real `nft`.

// In tests a failed step is a failed test; clippy sees that only for functions marked as tests.
#![allow(clippy::unwrap_used)]

mod namespace;

use std::fs::{self, OpenOptions};
use std::io::Write;

use namespace::{wait, Device};
use serde_json::Value;

/// What every alert of some weight asks for.
const ASKED: &str = "on_medium = \"isolate\"\non_high = \"isolate\"\non_critical = \"isolate\"";

/// What these tests ask of a device.
trait Isolated {
    fn table(&self) -> Option<String>;
    fn isolation(&self) -> Option<Value>;
    fn guess_passwords(&self, from: &str);
    fn said(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value;
}

impl Isolated for Device {
    fn table(&self) -> Option<String> {
        let listed = self.inside("nft list table inet defender_isolation");
        listed.status.success().then(|| String::from_utf8(listed.stdout).unwrap())
    }

    /// `firewall.isolation` of the status.
    fn isolation(&self) -> Option<Value> {
        let status = self.ask(&["status", "--json"]).stdout;
        let status: Value = serde_json::from_slice(&status).unwrap();
        Some(status["firewall"]["isolation"].clone()).filter(|isolation| !isolation.is_null())
    }

    fn guess_passwords(&self, from: &str) {
        let mut log = OpenOptions::new().append(true).open(self.path("auth.log")).unwrap();
        for port in 40_000..40_020 {
            let line = format!(
                "Nov 27 15:00:00 device sshd[77]: Failed password for root from {from} port {port} ssh2"
            );
            writeln!(log, "{line}").unwrap();
        }
    }

    /// The event in which the agent says what became of an isolation.
    fn said(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait(what, || {
            let events = fs::read_to_string(self.path("events.jsonl")).unwrap_or_default();
            let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let isolations = |event: &Value| event["class_uid"] == 7004 && event["observables"].is_null();
            events.into_iter().find(|event| isolations(event) && holds(event))
        })
    }
}

#[test]
fn an_alert_isolates_for_a_time_and_not_again_at_once() {
    let Some(device) = Device::start() else { return };
    {
        let _agent = device.agent(&format!(
            "{ASKED}\nisolate = true\nisolate_s = 600\nisolate_allow = [\"192.0.2.0/24\", \"2001:db8::7\"]"
        ));
        assert_eq!((device.table(), device.isolation()), (None, None));
        device.guess_passwords("198.51.100.7");
        let said = device.said("the isolation is reported", |event| event["activity_id"] == 1);
        assert_eq!((&said["status_id"], &said["unmapped"]["seconds"]), (&1.into(), &600.into()), "{said}");
        assert!(said["command_uid"].as_str().is_some_and(|uid| uid != "operator"), "{said}");
        let table = device.table().unwrap();
        assert!(table.contains("192.0.2.0/24") && table.contains("2001:db8::7"), "{table}");
        let isolation = device.isolation().unwrap();
        assert!(isolation["seconds_left"].as_u64().is_some_and(|left| left > 580), "{isolation}");
        let text = String::from_utf8(device.ask(&["status"]).stdout).unwrap();
        assert!(text.contains("ISOLATED"), "{text}");
        // Put right within seconds, not at the next block.
        device.inside("nft flush ruleset");
        wait("the table is back", || device.table());
    }
    // The agent crashed; the kernel isolates on.
    assert!(device.table().is_some());
    let _agent = device.agent(&format!("{ASKED}\nisolate = true\nisolate_s = 600"));
    let isolation = wait("the new agent knows of it", || device.isolation());
    assert!(isolation["reason"].as_str().is_some_and(|why| why.contains("restarted")), "{isolation}");
    // Its peers are those of before, whatever the configuration says now.
    assert!(device.table().unwrap().contains("192.0.2.0/24"));

    // A false alarm: the operator ends it, and the next alert does not bring it back.
    assert_eq!(device.ask(&["isolate", "off"]).status.code(), Some(0));
    assert_eq!(device.ask(&["isolate", "off"]).status.code(), Some(1));
    assert_eq!(device.isolation(), None);
    device.said("its end is reported", |event| event["activity_id"] == 3 && event["status_id"] == 1);
    device.guess_passwords("198.51.100.8");
    let refused = device.said("a refusal", |event| event["status_code"] == "refused");
    assert!(refused["status_detail"].as_str().is_some_and(|why| why.contains("not long over")), "{refused}");
    // That binds rules, not people.
    assert_eq!(device.ask(&["isolate", "--seconds", "3600", "--reason", "drill"]).status.code(), Some(0));
    assert_eq!(device.isolation().unwrap()["reason"], "drill");
    assert_eq!(device.ask(&["isolate", "--seconds", "86401"]).status.code(), Some(2));
}

#[test]
fn unless_switched_on_a_rule_isolates_nothing() {
    for (response, why) in [("", "`response.isolate` is off"), ("isolate = true\ndry_run = true", "dry_run")]
    {
        let Some(device) = Device::start() else { return };
        let _agent = device.agent(&format!("{ASKED}\n{response}"));
        device.guess_passwords("198.51.100.7");
        let refused = device.said("a refusal", |event| event["status_code"] == "refused");
        assert!(refused["status_detail"].as_str().is_some_and(|detail| detail.contains(why)), "{refused}");
        assert_eq!((device.table(), device.isolation()), (None, None));
    }
}
