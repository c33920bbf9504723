use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::super::tests::{config, output, start, subscribe, wait_for, Broker};
use super::stand_in::{Rules, StandIn};
use super::*;
use crate::mqtt::{Config, Periods};
use crate::sink::tests::record;
use crate::sink::State;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn module() -> String {
    format!("HostName=127.0.0.1;DeviceId=camera-7;ModuleId=DefenderIotMicroAgent;SharedAccessKey={KEY}")
}

fn rules() -> Rules {
    let modules = "camera-7/modules/DefenderIotMicroAgent".to_owned();
    let key = Some(b"0123456789abcdef0123456789abcdef".to_vec());
    Rules { client: "camera-7/DefenderIotMicroAgent".to_owned(), path: modules, key, provisioning: None }
}

#[test]
fn connection_strings() {
    let device = Identity::parse("HostName=h.azure-devices.net;DeviceId=d;x509=true")
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (device.client_id(), device.user(), device.token(Duration::from_secs(60)).expect("none needed")),
        ("d".to_owned(), "h.azure-devices.net/d/?api-version=2021-04-12".to_owned(), None)
    );
    let module = Identity::parse(&module()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(module.client_id(), "camera-7/DefenderIotMicroAgent");
    assert_eq!(
        module.topic(&record(1, true), "alerts"),
        "devices/camera-7/modules/DefenderIotMicroAgent/messages/events/$.ct=application%2Fjson&$.ce=utf-8&kind=alerts&severity=high"
    );
    for (text, missing) in [
        ("", "no HostName"),
        ("HostName=h", "no DeviceId"),
        ("HostName=h;DeviceId=d", "no SharedAccessKey"),
        ("HostName=h;DeviceId=a/b;x509=true", "no hub gives"),
    ] {
        let error = Identity::parse(text).map(|_| ()).expect_err(text);
        assert!(error.contains(missing), "{error}");
    }
    let bad = Identity::parse("HostName=h;DeviceId=d;SharedAccessKey=!").unwrap_or_else(|e| panic!("{e}"));
    assert!(bad.token(Duration::from_secs(60)).expect_err("no key").to_string().contains("is not base64"));
}

proptest! {
    #[test]
    fn arbitrary_connection_strings_never_panic(text in "(HostName|DeviceId|ModuleId|SharedAccessKey|x509|=|;|\\PC){0,20}") {
        if let Ok(identity) = Identity::parse(&text) {
            let _ = (identity.token(Duration::from_secs(1)), identity.topic(&record(1, false), "events"));
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_hub_gets_telemetry_by_its_rules_and_tokens_are_renewed_in_time() {
    let Some(broker) = Broker::start(None) else { return };
    let hub = StandIn::start(broker.port, rules()).await;
    let Some(subscriber) = subscribe(&broker, "devices/#", 301) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("connection_string.txt");
    std::fs::write(&file, format!("{}\n", module())).expect("write");
    let lifetime = Duration::from_secs(8);
    let (handle, task) = start(Config {
        iot_hub: Some(Hub::ConnectionString(file)),
        token_lifetime: lifetime,
        ..config(hub.port)
    });
    let begun = Instant::now();
    let mut pushed = 0;
    // Over three lives of a token, records all the while.
    while pushed < 300 || hub.seen.lock().expect("lock").connections < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no new token");
        if pushed < 300 {
            handle.push(record(pushed, pushed % 10 == 0)).await;
            pushed += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_for(&handle, "acknowledgements", |stats| stats.written == 300).await;
    handle.push(record(300, true)).await;
    handle.close();
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("in time").expect("no panic");
    assert_eq!((handle.stats().state, handle.stats().last_error), (State::Ok, None));
    {
        let seen = hub.seen.lock().expect("lock");
        assert_eq!((seen.faults.as_slice(), seen.ended), (&[][..], 0), "refused, or not renewed in time");
        assert!(seen.expiries.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", seen.expiries);
    }
    let lines = output(subscriber).await;
    for sequence in 0..=300 {
        let (kind, severity) =
            if sequence % 10 == 0 { ("alerts", "high") } else { ("events", "informational") };
        let line = format!("devices/camera-7/modules/DefenderIotMicroAgent/messages/events/$.ct=application%2Fjson&$.ce=utf-8&kind={kind}&severity={severity} {{\"sequence\":{sequence}}}");
        assert_eq!(lines.iter().filter(|found| **found == line).count(), 1, "{line}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_hub_refuses_another_key_and_a_new_one_is_read_at_the_next_try() {
    let Some(broker) = Broker::start(None) else { return };
    let hub = StandIn::start(broker.port, rules()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("connection_string.txt");
    std::fs::write(&file, module().replace("MDEy", "MDEz")).expect("write");
    let (handle, task) =
        start(Config { iot_hub: Some(Hub::ConnectionString(file.clone())), ..config(hub.port) });
    handle.push(record(1, true)).await;
    wait_for(&handle, "a refusal", |stats| {
        stats.last_error.as_ref().is_some_and(|error| error.contains("refuses the login: NotAuthorized"))
    })
    .await;
    std::fs::write(&file, module()).expect("write");
    wait_for(&handle, "delivery", |stats| stats.written == 1).await;
    handle.close();
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("in time").expect("no panic");
    std::fs::remove_file(&file).expect("removed");
    let (handle, _task) = start(Config { iot_hub: Some(Hub::ConnectionString(file)), ..config(hub.port) });
    wait_for(&handle, "the missing file", |stats| {
        stats.last_error.as_ref().is_some_and(|error| error.contains("connection_string.txt"))
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_twin_sets_periods_and_is_told() {
    let Some(broker) = Broker::start(None) else { return };
    let hub = StandIn::start(broker.port, rules()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("connection_string.txt");
    std::fs::write(&file, module()).expect("write");
    hub.desired.send_replace(
        r#"{"CollectorsCore_PriorityIntervals":"30,60,90","Process_Mode":1,"$version":1}"#.to_owned(),
    );
    let periods = Periods { periods: [Duration::from_secs(3600); 3], alerts: None, telemetry: Some(1) };
    let (handle, _task) = start(Config {
        iot_hub: Some(Hub::ConnectionString(file)),
        periods,
        unsigned_twin: true,
        ..config(hub.port)
    });
    let reported = |count: usize| {
        let seen = Arc::clone(&hub.seen);
        move |_: &crate::sink::Stats| seen.lock().expect("lock").reported.len() >= count
    };
    wait_for(&handle, "the first report", reported(1)).await;
    let first = hub.seen.lock().expect("lock").reported[0].clone();
    let expected = serde_json::json!({
        "latest_state": "success", "latest_invalid_fields": "", "ignored_fields": "Process_Mode",
        "CollectorsCore_PriorityIntervals": "30,60,90",
    });
    assert_eq!(first, expected);
    // Nothing waited at start, so the first period has begun; alerts go all the same.
    wait_for(&handle, "the period", |_| handle.held() == [false, true]).await;
    handle.push(record(1, false)).await;
    handle.push(record(2, true)).await;
    wait_for(&handle, "the alert", |stats| stats.written == 1).await;
    assert_eq!(handle.stats().queued, 1);
    hub.desired.send_replace(r#"{"CollectorsCore_PriorityIntervals":"soon","$version":2}"#.to_owned());
    wait_for(&handle, "the second report", reported(2)).await;
    let second = hub.seen.lock().expect("lock").reported[1].clone();
    assert_eq!(second["latest_invalid_fields"], "CollectorsCore_PriorityIntervals");
    assert_eq!((second["latest_state"].as_str(), handle.held()), (Some("failed"), [false, true]));
    let faults = std::mem::take(&mut hub.seen.lock().expect("lock").faults);
    assert_eq!(faults, [""; 0]);
}
