use std::process::Command;

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::mqtt::tests::{config, wait_for, Broker};
use crate::mqtt::{run, Hub};
use crate::sink::tests::record;
use crate::sink::{channel, Limits, SinkHandle};

/// Keys and envelopes as the documentation makes them (docs/sinks.md), by the openssl program.
struct Signer {
    directory: tempfile::TempDir,
}

impl Signer {
    fn new() -> Self {
        let signer = Self { directory: tempfile::tempdir().expect("a directory") };
        signer.shell("openssl genpkey -algorithm ed25519 -out configuration.key");
        signer
    }

    fn shell(&self, command: &str) -> String {
        let run = Command::new("sh").args(["-c", command]).current_dir(self.directory.path()).output();
        let output = run.expect("a shell");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn public(&self) -> String {
        self.shell("openssl pkey -in configuration.key -pubout -outform DER | base64 -w0")
    }

    fn sign(&self, document: &str) -> String {
        fs::write(self.directory.path().join("configuration.json"), document).expect("write");
        self.shell(
            "openssl pkeyutl -sign -inkey configuration.key -rawin -in configuration.json -out configuration.sig && \
             echo \"$(base64 -w0 configuration.json).$(base64 -w0 configuration.sig)\"",
        )
    }

    fn document(&self, version: u64, expires: u64, set: &str) -> String {
        self.sign(&format!(
            r#"{{"format":"{FORMAT}","devices":["camera-7"],"version":{version},"expires":{expires},"set":{set}}}"#
        ))
    }

    /// A device that takes what this signer signs.
    fn device(&self, port: u16) -> Config {
        let remote = Remote { keys: vec![self.public()], kept: self.directory.path().join("kept") };
        Config {
            device: "camera-7".to_owned(),
            periods: Periods {
                periods: [600, 7200, 86_400].map(Duration::from_secs),
                alerts: None,
                telemetry: None,
            },
            remote: Some(remote),
            ..config(port)
        }
    }
}

/// A time far away.
const LATER: u64 = 4_000_000_000;

struct Bench {
    state: State,
    config: Config,
    handle: SinkHandle,
    intake: Intake,
    said: mpsc::Receiver<defender_model::health::Health>,
}

impl Bench {
    fn new(config: Config) -> Self {
        let (notices, said) = mpsc::channel(64);
        let (handle, mut intake) = channel("sink.mqtt", Limits::default(), notices);
        Self { state: State::load(&config, &mut intake), config, handle, intake, said }
    }

    fn take(&mut self, envelope: &str) -> Result<u64, String> {
        self.state.take(&self.config, envelope, &mut self.intake)
    }

    /// What was said since the last question, and whether telemetry waits for its period now.
    fn said(&mut self) -> Vec<(Kind, String)> {
        let mut said = Vec::new();
        while let Ok(health) = self.said.try_recv() {
            assert_eq!(health.component, "sink.mqtt.configuration");
            said.push((health.kind, health.message));
        }
        said
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_signed_is_taken_and_kept_and_what_is_older_is_not() {
    let signer = Signer::new();
    let mut bench = Bench::new(signer.device(1));
    let (seventh, eighth) = (
        signer.document(7, LATER, r#"{"telemetry":"medium","medium_s":900}"#),
        signer.document(8, LATER, "{}"),
    );
    assert_eq!(bench.take(&seventh), Ok(7));
    let said = bench.said();
    assert_eq!(said.len(), 1);
    assert!(
        said[0].1.ends_with("is in force until 2096-10-02T07:06:40.000Z: medium_s=900 telemetry=medium"),
        "{said:?}"
    );
    assert_eq!((bench.take(&seventh), bench.said().len()), (Ok(7), 0), "the same again is no news");

    // A restart: it holds, and none older is taken.
    let mut bench = Bench::new(signer.device(1));
    assert_eq!(bench.state.in_force.as_ref().map(|document| document.periods), Some([None, Some(900), None]));
    let older = bench.take(&signer.document(6, LATER, "{}")).expect_err("older");
    assert_eq!(older, "its version 6 is older than 7, which was taken before");
    let other = bench.take(&signer.document(7, LATER, "{}")).expect_err("another");
    assert!(other.contains("count on"), "{other}");
    assert_eq!(bench.said().len(), 2);
    assert_eq!(bench.take(&eighth), Ok(8));
    assert!(bench.said()[0].1.ends_with("nothing is set"));
    assert!(bench.take(&seventh).is_err(), "replayed");

    // An image with another key.
    let mut config = signer.device(1);
    config.remote.as_mut().expect("a key").keys = vec![Signer::new().public()];
    let mut bench = Bench::new(config);
    assert!(bench.state.in_force.is_none());
    assert!(bench.said()[0].1.contains("is not in force any more: none of the configured keys"));
}

#[tokio::test(flavor = "current_thread")]
async fn every_refusal_names_its_cause_and_is_said_once() {
    let (signer, other) = (Signer::new(), Signer::new());
    let good = signer.document(3, LATER, "{}");
    let (document, signature) = good.split_once('.').expect("an envelope");
    let forged = openssl::base64::encode_block(br#"{"format":"defender-configuration-1"}"#);
    let cases = [
        (other.document(3, LATER, "{}"), "none of the configured keys has signed it"),
        (format!("{forged}.{signature}"), "none of the configured keys has signed it"),
        (format!("{document}.AAAA"), "none of the configured keys has signed it"),
        (document.to_owned(), "not of the form"),
        (format!("{document}.!"), "not of the form"),
        ("A".repeat(MAX_ENVELOPE + 1), "longer than 8192 bytes"),
        (signer.document(3, 1_600_000_000, "{}"), "its version 3 has expired"),
        (signer.sign("[1]"), "is no object"),
        (signer.sign("x"), "is not JSON"),
        (signer.sign(r#"{"devices":["*"],"version":3,"expires":4000000000}"#), "not of the format"),
        (signer.sign(r#"{"format":"defender-configuration-1","devices":["*"]}"#), "lacks `version`"),
        (signer.sign(r#"{"format":"defender-configuration-1","devices":["camera-8"],"version":3,"expires":4000000000,"set":{}}"#), "for other devices than \"camera-7\""),
        (signer.document(3, LATER, r#"{"rules":[]}"#), "it may not set \"rules\""),
        (signer.document(3, LATER, r#"{"low_s":59}"#), "it may not set \"low_s\""),
        (signer.document(3, LATER, r#"{"telemetry":"never"}"#), "it may not set \"telemetry\""),
        (signer.sign(r#"{"format":"defender-configuration-1","alerts":"low"}"#), "its document has \"alerts\""),
    ];
    for (envelope, why) in cases {
        let mut bench = Bench::new(signer.device(1));
        let refused = bench.take(&envelope).expect_err(why);
        assert!(refused.contains(why), "{refused}");
        assert!(bench.take(&envelope).is_err());
        let said = bench.said();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0], (Kind::Degraded, format!("what was sent from afar is refused: {refused}")));
        assert!(!signer.directory.path().join("kept").exists());
    }
    // A flood is not looked at for ever.
    let mut bench = Bench::new(signer.device(1));
    for _ in 0..TRIES {
        assert!(bench.take("x.y").expect_err("none").contains("form"));
    }
    assert!(bench.take(&good).expect_err("too many").contains("too many"));
    bench.state.minute = None;
    assert_eq!(bench.take(&good), Ok(3));
    // What cannot be kept is not taken.
    let mut config = signer.device(1);
    config.remote.as_mut().expect("a key").kept = signer.directory.path().join("nowhere/kept");
    assert!(Bench::new(config).take(&good).expect_err("no place").contains("it cannot be kept in"));
}

#[tokio::test(flavor = "current_thread")]
async fn what_has_expired_gives_way_to_the_file() {
    let signer = Signer::new();
    let mut bench = Bench::new(signer.device(1));
    assert_eq!(bench.take(&signer.document(4, LATER, r#"{"telemetry":"low"}"#)), Ok(4));
    bench.said();
    bench.state.in_force.as_mut().expect("in force").expires = 1;
    bench.state.expire(&mut bench.intake);
    bench.state.reschedule(&bench.config, &mut bench.intake);
    assert!(bench.said()[0].1.contains("version 4 has expired"));
    assert!(bench.state.in_force.is_none() && bench.state.until().is_none());
    assert!(bench.take(&signer.document(3, LATER, "{}")).expect_err("older").contains("older than 4"));
    assert_eq!(bench.handle.stats().last_error, None);
}

/// A publisher of the distribution; the broker keeps the message.
fn publish(broker: &Broker, topic: &str, file: &Path) -> bool {
    let port = broker.port.to_string();
    let run = Command::new("mosquitto_pub").args(["-p", &port, "-r", "-t", topic, "-f"]).arg(file).status();
    let Ok(status) = run else {
        println!("skipped: mosquitto_pub is not installed");
        return false;
    };
    status.success()
}

#[tokio::test(flavor = "current_thread")]
async fn a_real_broker_brings_it() {
    let Some(broker) = Broker::start(None) else { return };
    let signer = Signer::new();
    let file = signer.directory.path().join("envelope");
    fs::write(&file, signer.document(2, LATER, r#"{"telemetry":"high"}"#)).expect("write");
    if !publish(&broker, "defender/camera-7/configuration", &file) {
        return;
    }
    let (notices, mut said) = mpsc::channel(64);
    let (handle, intake) = channel("sink.mqtt", Limits::default(), notices);
    let task = tokio::spawn(run(signer.device(broker.port), intake));
    let first = tokio::time::timeout(Duration::from_secs(20), said.recv()).await.expect("in time");
    let words = first.expect("a statement").message;
    assert!(words.contains("version 2") && words.ends_with("telemetry=high"), "{words}");
    wait_for(&handle, "the period", |_| handle.held() == [false, true]).await;
    // One that is too long breaks the connection once, and not the delivery.
    fs::write(&file, vec![b'A'; 200 << 10]).expect("write");
    assert!(publish(&broker, "defender/camera-7/configuration", &file));
    let deaf = async {
        while let Some(health) = said.recv().await {
            if health.message.contains("not listened to") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), deaf).await.expect("in time");
    handle.push(record(1, true)).await;
    wait_for(&handle, "the alert", |stats| stats.written == 1).await;
    task.abort();
}

#[tokio::test(flavor = "current_thread")]
async fn a_twin_brings_it() {
    use crate::mqtt::iot_hub::stand_in::{Rules, StandIn};
    let Some(broker) = Broker::start(None) else { return };
    let rules = Rules { client: "c".to_owned(), path: "c".to_owned(), key: None, provisioning: None };
    let hub = StandIn::start(broker.port, rules).await;
    let signer = Signer::new();
    let desired = |version| {
        let set = r#"{"telemetry":"high"}"#;
        let envelope = signer.document(version, LATER, set);
        format!(
            r#"{{"DefenderConfiguration":"{envelope}","CollectorsCore_PriorityIntervals":"1,2,3","$version":1}}"#
        )
    };
    hub.desired.send_replace(desired(5));
    let file = signer.directory.path().join("connection_string.txt");
    fs::write(&file, "HostName=127.0.0.1;DeviceId=c;x509=true").expect("write");
    let (notices, _said) = mpsc::channel(64);
    let (handle, intake) = channel("sink.mqtt", Limits::default(), notices);
    let config = Config { iot_hub: Some(Hub::ConnectionString(file)), ..signer.device(hub.port) };
    let task = tokio::spawn(run(config, intake));
    let reports = |count| {
        let seen = std::sync::Arc::clone(&hub.seen);
        move |_: &crate::sink::Stats| seen.lock().expect("lock").reported.len() >= count
    };
    wait_for(&handle, "the first report", reports(1)).await;
    wait_for(&handle, "the period", |_| handle.held() == [false, true]).await;
    hub.desired.send_replace(desired(4));
    wait_for(&handle, "the second report", reports(2)).await;
    let reported = hub.seen.lock().expect("lock").reported.clone();
    let expected = serde_json::json!({
        "latest_state": "success", "latest_invalid_fields": "",
        "ignored_fields": "CollectorsCore_PriorityIntervals",
        "DefenderConfiguration": { "version": 5, "error": null },
    });
    assert_eq!(reported[0], expected);
    assert_eq!(reported[1]["latest_invalid_fields"], "DefenderConfiguration");
    assert_eq!(
        reported[1]["DefenderConfiguration"]["error"],
        "its version 4 is older than 5, which was taken before"
    );
    task.abort();
}

#[test]
fn keys_are_checked() {
    let signer = Signer::new();
    assert_eq!(check_key(&signer.public()), Ok(()));
    let rsa = signer.shell(
        "openssl genpkey -algorithm rsa -out r && openssl pkey -in r -pubout -outform DER | base64 -w0",
    );
    for (text, why) in [("!", "not base64"), ("AAAA", "not the DER"), (rsa.as_str(), "of another kind")] {
        assert!(check_key(text).expect_err(why).contains(why));
    }
}

proptest! {
    #[test]
    fn whatever_a_document_says_nothing_panics(bytes: Vec<u8>, text in "[A-Za-z0-9+/=.]*", name in "\\PC*", number: u64) {
        let _ = Document::parse(&bytes);
        let _ = verify(&[], &text);
        let document = serde_json::json!({
            "format": FORMAT, "devices": [name], "version": number, "expires": number, "set": { name.as_str(): number },
        });
        let _ = Document::parse(document.to_string().as_bytes()).map(|document| document.to_string());
    }
}
