use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, Publish, SubAck, SubscribeReasonCode};
use rumqttc::mqttbytes::QoS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::super::tests::{config, output, start, subscribe, wait_for, Broker};
use super::*;
use crate::mqtt::{Config, Twin};
use crate::sink::tests::record;
use crate::sink::State;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn module() -> String {
    format!("HostName=127.0.0.1;DeviceId=camera-7;ModuleId=DefenderIotMicroAgent;SharedAccessKey={KEY}")
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

/// The HMAC by the openssl program, base64 and percent-encoded.
fn signature(resource: &str, expiry: u64) -> String {
    let hex: String = "0123456789abcdef0123456789abcdef".bytes().map(|byte| format!("{byte:02x}")).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("text");
    std::fs::write(&file, format!("{resource}\n{expiry}")).expect("write");
    let run = Command::new("sh")
        .args([
            "-c",
            "openssl dgst -sha256 -mac HMAC -macopt hexkey:$1 -binary $2 | openssl base64",
            "-",
            &hex,
        ])
        .arg(&file)
        .output()
        .expect("openssl");
    let text = String::from_utf8(run.stdout).expect("text");
    text.trim().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

/// What the hub's rules are asked of, and what it found.
#[derive(Default)]
struct Seen {
    connections: usize,
    expiries: Vec<u64>,
    faults: Vec<String>,
    ended: usize,
    /// What clients reported to their twin.
    reported: Vec<serde_json::Value>,
}

/// A hub's front: checks what the published rules ask of a client, passes the rest to a broker.
struct Hub {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    /// The twin's desired properties; a change goes to who listens.
    desired: watch::Sender<String>,
}

impl Hub {
    async fn start(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let (desired, watched) = watch::channel("{}".to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.lock().expect("lock").connections += 1;
                tokio::spawn(serve(client, broker, Arc::clone(&shared), watched.clone()));
            }
        });
        Self { port, seen, desired }
    }
}

async fn packet(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Packet> {
    loop {
        if let Ok(packet) = Packet::read(buffer, 1 << 20) {
            return Some(packet);
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// Client id, user name and token are as the hub wants them; until when the token is good.
fn login(packet: &Packet) -> Result<u64, String> {
    let Packet::Connect(connect) = packet else { return Err(format!("not a CONNECT: {packet:?}")) };
    if connect.client_id != "camera-7/DefenderIotMicroAgent" {
        return Err(format!("client id {}", connect.client_id));
    }
    let login = connect.login.clone().ok_or("no login")?;
    if login.username != "127.0.0.1/camera-7/DefenderIotMicroAgent/?api-version=2021-04-12" {
        return Err(format!("user {}", login.username));
    }
    let token = login.password.strip_prefix("SharedAccessSignature ").ok_or("no token")?;
    let part = |name: &str| token.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let resource = "127.0.0.1%2Fdevices%2Fcamera-7%2Fmodules%2FDefenderIotMicroAgent";
    let expiry: u64 = part("se").and_then(|at| at.parse().ok()).ok_or("no expiry")?;
    if part("sr") != Some(resource) || part("sig") != Some(signature(resource, expiry).as_str()) {
        return Err(format!("token {token}"));
    }
    // The hub takes no will but to its own topics; this client has none.
    if connect.last_will.is_some() {
        return Err("a last will".to_owned());
    }
    Ok(expiry)
}

async fn send(client: &mut TcpStream, packet: &Packet) {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, 1 << 20).expect("encoded");
    let _ = client.write_all(&bytes).await;
}

/// The twin's side of the hub; false for what is not about twins.
async fn twin_answers(client: &mut TcpStream, packet: &Packet, desired: &str, seen: &Mutex<Seen>) -> bool {
    match packet {
        Packet::Subscribe(subscribe) => {
            let mut known = ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"].into_iter();
            assert!(subscribe.filters.iter().all(|filter| known.next() == Some(filter.path.as_str())));
            let codes = vec![SubscribeReasonCode::Success(QoS::AtMostOnce); 2];
            send(client, &Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes: codes })).await;
        }
        Packet::Publish(publish) if publish.topic.starts_with("$iothub/twin/GET/?$rid=") => {
            let id = &publish.topic["$iothub/twin/GET/?$rid=".len()..];
            let topic = format!("$iothub/twin/res/200/?$rid={id}");
            let twin = format!("{{\"desired\":{desired},\"reported\":{{\"$version\":1}}}}");
            send(client, &Packet::Publish(Publish::new(topic, QoS::AtMostOnce, twin))).await;
        }
        Packet::Publish(publish)
            if publish.topic.starts_with("$iothub/twin/PATCH/properties/reported/?$rid=") =>
        {
            let id = &publish.topic["$iothub/twin/PATCH/properties/reported/?$rid=".len()..];
            let topic = format!("$iothub/twin/res/204/?$rid={id}&$version=2");
            seen.lock().expect("lock").reported.push(serde_json::from_slice(&publish.payload).expect("JSON"));
            send(client, &Packet::Publish(Publish::new(topic, QoS::AtMostOnce, ""))).await;
        }
        _ => return false,
    }
    true
}

async fn serve(
    mut client: TcpStream,
    broker: u16,
    seen: Arc<Mutex<Seen>>,
    mut desired: watch::Receiver<String>,
) {
    desired.mark_unchanged();
    let mut buffer = BytesMut::new();
    let Some(connect) = packet(&mut client, &mut buffer).await else { return };
    let expiry = match login(&connect) {
        Ok(expiry) => expiry,
        Err(fault) => {
            seen.lock().expect("lock").faults.push(fault);
            let mut bytes = BytesMut::new();
            let refusal = ConnAck { session_present: false, code: ConnectReturnCode::NotAuthorized };
            Packet::ConnAck(refusal).write(&mut bytes, 1 << 20).expect("encoded");
            let _ = client.write_all(&bytes).await;
            return;
        }
    };
    seen.lock().expect("lock").expiries.push(expiry);
    let mut behind = TcpStream::connect(("127.0.0.1", broker)).await.expect("the broker");
    let mut bytes = BytesMut::new();
    connect.write(&mut bytes, 1 << 20).expect("encoded");
    behind.write_all(&bytes).await.expect("write");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let end = Instant::now() + Duration::from_secs(expiry).saturating_sub(now);
    let mut answer = [0; 4096];
    loop {
        tokio::select! {
            packet = packet(&mut client, &mut buffer) => {
                let Some(packet) = packet else { return };
                let twin = desired.borrow().clone();
                if twin_answers(&mut client, &packet, &twin, &seen).await {
                    continue;
                }
                if let Packet::Publish(publish) = &packet {
                    let known = publish.topic.strip_prefix("devices/camera-7/modules/DefenderIotMicroAgent/messages/events/");
                    let bag = known.is_some_and(|bag| bag.split('&').all(|pair| pair.split_once('=').is_some()));
                    if !bag || publish.retain || publish.qos == QoS::ExactlyOnce {
                        // As the hub does.
                        seen.lock().expect("lock").faults.push(format!("{publish:?}"));
                        return;
                    }
                }
                let mut bytes = BytesMut::new();
                packet.write(&mut bytes, 1 << 20).expect("encoded");
                if behind.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Ok(()) = desired.changed() => {
                let change = desired.borrow_and_update().clone();
                let topic = "$iothub/twin/PATCH/properties/desired/?$version=2";
                send(&mut client, &Packet::Publish(Publish::new(topic, QoS::AtMostOnce, change))).await;
            }
            read = behind.read(&mut answer) => match read {
                Ok(length @ 1..) => client.write_all(&answer[..length]).await.unwrap_or(()),
                _ => return,
            },
            () = tokio::time::sleep_until(end.into()) => {
                seen.lock().expect("lock").ended += 1;
                return;
            }
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_hub_gets_telemetry_by_its_rules_and_tokens_are_renewed_in_time() {
    let Some(broker) = Broker::start(None) else { return };
    let hub = Hub::start(broker.port).await;
    let Some(subscriber) = subscribe(&broker, "devices/#", 301) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("connection_string.txt");
    std::fs::write(&file, format!("{}\n", module())).expect("write");
    let lifetime = Duration::from_secs(8);
    let (handle, task) = start(Config { iot_hub: Some(file), token_lifetime: lifetime, ..config(hub.port) });
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
    let hub = Hub::start(broker.port).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("connection_string.txt");
    std::fs::write(&file, module().replace("MDEy", "MDEz")).expect("write");
    let (handle, task) = start(Config { iot_hub: Some(file.clone()), ..config(hub.port) });
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
    let (handle, _task) = start(Config { iot_hub: Some(file), ..config(hub.port) });
    wait_for(&handle, "the missing file", |stats| {
        stats.last_error.as_ref().is_some_and(|error| error.contains("connection_string.txt"))
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_twin_sets_periods_and_is_told() {
    let Some(broker) = Broker::start(None) else { return };
    let hub = Hub::start(broker.port).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("connection_string.txt");
    std::fs::write(&file, module()).expect("write");
    hub.desired.send_replace(
        r#"{"CollectorsCore_PriorityIntervals":"30,60,90","Process_Mode":1,"$version":1}"#.to_owned(),
    );
    let twin = Twin { periods: [Duration::from_secs(3600); 3], alerts: None, telemetry: Some(1) };
    let (handle, _task) = start(Config { iot_hub: Some(file), twin: Some(twin), ..config(hub.port) });
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
