use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::mqtt::iot_hub::stand_in::{signature, Rules, Seen, StandIn};
use crate::mqtt::tests::{config, start, wait_for, Broker};
use crate::mqtt::Hub;
use crate::sink::tests::record;
use crate::sink::Stats;

const GROUP_KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn assigning() -> String {
    r#"{"operationId":"4.op.1","status":"assigning"}"#.to_owned()
}

fn assigned() -> String {
    r#"{"operationId":"4.op.1","status":"assigned","registrationState":{"registrationId":"camera-7","assignedHub":"127.0.0.1","deviceId":"camera-7","status":"assigned"}}"#.to_owned()
}

/// The device as the hub and the service know it: by a key of its own, in base64.
fn rules(key: Option<Vec<u8>>, answers: Vec<(&'static str, String)>) -> Rules {
    Rules { client: "camera-7".to_owned(), path: "camera-7".to_owned(), key, provisioning: Some(answers) }
}

fn base64(key: &[u8]) -> String {
    openssl::base64::encode_block(key)
}

struct Enrolled {
    directory: tempfile::TempDir,
    provisioning: Provisioning,
}

fn enrolled(key: Option<&[u8]>, group: bool) -> Enrolled {
    let directory = tempfile::tempdir().expect("a directory");
    let key_file = key.map(|key| {
        let file = directory.path().join("key");
        fs::write(&file, base64(key) + "\n").expect("write");
        file
    });
    let provisioning = Provisioning {
        host: "127.0.0.1".to_owned(),
        id_scope: "0ne0001".to_owned(),
        registration_id: "camera-7".to_owned(),
        key_file,
        group,
        kept: directory.path().join("iot-hub"),
    };
    Enrolled { directory, provisioning }
}

impl Enrolled {
    fn config(&self, port: u16) -> Config {
        Config { iot_hub: Some(Hub::Provisioned(self.provisioning.clone())), ..config(port) }
    }
}

fn asked(seen: &Arc<std::sync::Mutex<Seen>>) -> Vec<String> {
    let seen = seen.lock().expect("lock");
    assert_eq!(seen.faults, [""; 0]);
    seen.asked.iter().map(|topic| topic.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

/// One record through a sink that starts anew.
async fn deliver(config: Config) {
    let (handle, task) = start(config);
    handle.push(record(1, true)).await;
    wait_for(&handle, "delivery", |stats| stats.written == 1).await;
    handle.close();
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("in time").expect("no panic");
}

#[tokio::test(flavor = "current_thread")]
async fn a_device_of_a_group_is_assigned_once() {
    let Some(broker) = Broker::start(None) else { return };
    let own = openssl::base64::decode_block(&signature(GROUP_KEY, "camera-7")).expect("base64");
    let answers = vec![
        ("429&retry-after=1", r#"{"errorCode":429001}"#.to_owned()),
        ("202&retry-after=1", assigning()),
        ("202&retry-after=1", assigning()),
        ("200", assigned()),
    ];
    let service = StandIn::start(broker.port, rules(Some(own), answers)).await;
    let device = enrolled(Some(GROUP_KEY), true);
    deliver(device.config(service.port)).await;
    let (register, status) = ("iotdps-register", "iotdps-get-operationstatus");
    assert_eq!(asked(&service.seen), [register, register, status, status]);
    let kept = fs::read_to_string(device.directory.path().join("iot-hub")).expect("kept");
    assert_eq!(kept, "0ne0001/registrations/camera-7\nHostName=127.0.0.1;DeviceId=camera-7;x509=true\n");
    deliver(device.config(service.port)).await;
    assert_eq!(asked(&service.seen).len(), 4, "what was assigned is kept");
}

#[tokio::test(flavor = "current_thread")]
async fn a_device_that_its_hub_refuses_asks_again_but_not_for_ever() {
    let Some(broker) = Broker::start(None) else { return };
    let service =
        StandIn::start(broker.port, rules(Some(GROUP_KEY.to_vec()), vec![("200", assigned())])).await;
    let device = enrolled(Some(GROUP_KEY), false);
    let kept = device.directory.path().join("iot-hub");
    let stale = "0ne0001/registrations/camera-7\nHostName=127.0.0.1;DeviceId=camera-6;x509=true\n";
    fs::write(&kept, stale).expect("write");
    let (handle, task) = start(device.config(service.port));
    handle.push(record(1, true)).await;
    wait_for(&handle, "delivery", |stats| stats.written == 1).await;
    task.abort();
    let faults = std::mem::take(&mut service.seen.lock().expect("lock").faults);
    assert_eq!(faults, ["client id camera-6"]);
    assert_eq!(asked(&service.seen), ["iotdps-register"]);
    // Another enrolment: what is kept is another's.
    fs::write(&kept, stale.replace("camera-7", "camera-5")).expect("write");
    deliver(device.config(service.port)).await;
    assert_eq!(asked(&service.seen).len(), 2);

    let mut history = History::default();
    let refused = Error::Refused { target: String::new(), detail: String::new() };
    let silent = Error::Closed { target: String::new() };
    history.failed(&silent);
    assert!(!history.again);
    history.failed(&refused);
    assert!(history.again);
    history.registered = Some(Instant::now());
    history.failed(&refused);
    assert!(!history.again, "a moment after the last registration");
}

#[tokio::test(flavor = "current_thread")]
async fn a_certificate_needs_no_key() {
    let Some(broker) = Broker::start(None) else { return };
    let service = StandIn::start(broker.port, rules(None, vec![("200", assigned())])).await;
    deliver(enrolled(None, false).config(service.port)).await;
    assert_eq!(asked(&service.seen), ["iotdps-register"]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_refusal_says_why() {
    let Some(broker) = Broker::start(None) else { return };
    let failed =
        r#"{"operationId":"4.op.1","status":"failed","registrationState":{"errorMessage":"no capacity"}}"#;
    let answers = vec![("401", r#"{"message":"unknown device"}"#.to_owned()), ("200", failed.to_owned())];
    let service = StandIn::start(broker.port, rules(Some(GROUP_KEY.to_vec()), answers)).await;
    let device = enrolled(Some(GROUP_KEY), false);
    let (handle, _task) = start(device.config(service.port));
    let said = |text: &'static str| {
        move |stats: &Stats| stats.last_error.as_ref().is_some_and(|error| error.contains(text))
    };
    wait_for(&handle, "the first", said("the registration is refused: 401 unknown device")).await;
    wait_for(&handle, "the second", said("the registration is refused: 200 no capacity")).await;
    fs::write(device.directory.path().join("key"), "!").expect("write");
    wait_for(&handle, "the key", said("is not base64")).await;
}

proptest! {
    #[test]
    fn whatever_the_service_says_nothing_panics(
        topic in "(\\$dps/registrations/res/)?[0-9a-z/?&=$-]*",
        body in "(\\{|\\}|\"status\":|\"assigned\"|,|\"operationId\":|\"x\"|\\PC){0,20}",
    ) {
        let _ = Answer::read(&Publish::new(topic, QoS::AtMostOnce, body));
    }
}
