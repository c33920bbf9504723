//! The packet filter changed by hand, from the kernel's message to the alert: the agent itself, with the real `nft`.

// In tests a failed step is a failed test; clippy sees that only for functions marked as tests.
#![allow(clippy::unwrap_used)]

mod namespace;

use std::fs;
use std::time::{Duration, Instant};

use namespace::{wait, Device};
use serde_json::Value;

fn events(device: &Device) -> Vec<Value> {
    let events = fs::read_to_string(device.path("events.jsonl")).unwrap_or_default();
    events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The first event that this holds for.
fn event(device: &Device, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait(what, || events(device).into_iter().find(&holds))
}

/// A change of the packet filter with this in its effect.
fn change(device: &Device, effect: &str) -> Value {
    event(device, effect, |event| {
        let words = event["unmapped"]["effect"].as_str().unwrap_or_default();
        event["class_uid"] == 3004 && words.split(' ').any(|word| word == effect)
    })
}

fn alert(device: &Device, title: &str) -> Value {
    event(device, title, |event| event["finding_info"]["title"] == title)
}

#[test]
fn a_flush_by_hand_is_told_and_the_agent_s_table_is_back_at_once() {
    let Some(device) = Device::start() else { return };
    let _agent = device.agent("");
    let nft = |line: &str| assert!(device.inside(&format!("nft '{line}'")).status.success(), "{line}");
    assert_eq!(device.ask(&["block", "198.51.100.7"]).status.code(), Some(0));
    nft("add table inet product");
    nft("add chain inet product input { type filter hook input priority 0; policy drop; }");
    nft("add rule inet product input tcp dport 22 accept");
    nft("chain inet product input { policy accept; }");
    let opened = change(&device, "policy_accept");
    assert_eq!(
        (&opened["entity"]["name"], &opened["actor"]["process"]["file"]["name"]),
        (&"product".into(), &"nft".into()),
        "{opened}"
    );
    alert(&device, "Packet filter opened");
    // What the agent did to its own tables is no event.
    let of_others = |event: &Value| event["class_uid"] == 3004;
    assert!(events(&device)
        .iter()
        .filter(|event| of_others(event))
        .all(|event| event["entity"]["name"] == "product"));

    nft("delete table inet product");
    change(&device, "base_chain_deleted");
    // Nothing of others is left that could judge.
    alert(&device, "Packet filter emptied");

    nft("add table inet product; add chain inet product input { type filter hook input priority 0; policy drop; }; \
         add rule inet product input accept");
    let begin = Instant::now();
    nft("flush ruleset");
    wait("the table is back, with the block", || {
        let listed = device.inside("nft list table inet defender");
        String::from_utf8(listed.stdout).unwrap().contains("198.51.100.7").then_some(())
    });
    assert!(begin.elapsed() < Duration::from_secs(20), "the agent did not wait for its next look");
    let flushed = change(&device, "own_table");
    let effect = flushed["unmapped"]["effect"].as_str().unwrap();
    assert!(effect.contains("ruleset_flushed") && effect.contains("base_chain_deleted"), "{flushed}");
    event(&device, "the repair is said", |event| {
        event["status_detail"]
            .as_str()
            .or(event["message"].as_str())
            .is_some_and(|words| words.contains("put right"))
    });
    let status: Value = serde_json::from_slice(&device.ask(&["status", "--json"]).stdout).unwrap();
    assert!(
        status["packet_filter"]["modes"][0].as_str().is_some_and(|mode| mode.contains("nf_tables")),
        "{status}"
    );
}
