//! A stand-in for the hub and the provisioning service: enforces the published rules, passes what is allowed to a broker.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, Publish, SubAck, SubscribeReasonCode};
use rumqttc::mqttbytes::QoS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The HMAC of a text by the openssl program, base64.
pub(in crate::mqtt) fn signature(key: &[u8], text: &str) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("text");
    std::fs::write(&file, text).expect("write");
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
    text.trim().to_owned()
}

/// Whom the hub knows, and how.
#[derive(Clone)]
pub(in crate::mqtt) struct Rules {
    /// Its client id.
    pub(in crate::mqtt) client: String,
    /// Its place in topics and resources.
    pub(in crate::mqtt) path: String,
    /// What it signs with; `None`: its certificate says who it is.
    pub(in crate::mqtt) key: Option<Vec<u8>>,
    /// What the provisioning service answers to each question: status and properties of the topic, and a body.
    pub(in crate::mqtt) provisioning: Option<Vec<(&'static str, String)>>,
}

/// What the hub's rules are asked of, and what it found.
#[derive(Default)]
pub(in crate::mqtt) struct Seen {
    pub(in crate::mqtt) connections: usize,
    pub(in crate::mqtt) expiries: Vec<u64>,
    pub(in crate::mqtt) faults: Vec<String>,
    pub(in crate::mqtt) ended: usize,
    /// What clients reported to their twin.
    pub(in crate::mqtt) reported: Vec<serde_json::Value>,
    /// Topics that the provisioning service was asked under.
    pub(in crate::mqtt) asked: Vec<String>,
}

/// The front: one port for the hub and the service, which are told apart by the user name.
pub(in crate::mqtt) struct StandIn {
    pub(in crate::mqtt) port: u16,
    pub(in crate::mqtt) seen: Arc<Mutex<Seen>>,
    /// The twin's desired properties; a change goes to who listens.
    pub(in crate::mqtt) desired: watch::Sender<String>,
}

impl StandIn {
    pub(in crate::mqtt) async fn start(broker: u16, rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let (desired, watched) = watch::channel("{}".to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.lock().expect("lock").connections += 1;
                tokio::spawn(serve(client, broker, Arc::clone(&shared), watched.clone(), rules.clone()));
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

/// Client id, user name and token are as they must be; until when the token is good.
fn login(packet: &Packet, rules: &Rules) -> Result<u64, String> {
    let Packet::Connect(connect) = packet else { return Err(format!("not a CONNECT: {packet:?}")) };
    let login = connect.login.clone().ok_or("no login")?;
    let service = login.username.contains("/registrations/");
    if connect.client_id != rules.client {
        return Err(format!("client id {}", connect.client_id));
    }
    let (user, resource, policy) = if service {
        let resource = format!("0ne0001/registrations/{}", rules.client);
        (format!("{resource}/api-version=2019-03-31"), resource, Some("registration"))
    } else {
        let resource = format!("127.0.0.1/devices/{}", rules.path);
        (format!("127.0.0.1/{}/?api-version=2021-04-12", rules.client), resource, None)
    };
    if login.username != user {
        return Err(format!("user {}", login.username));
    }
    // Neither takes a will but to its own topics; this client has none.
    if connect.last_will.is_some() || !connect.clean_session {
        return Err("a last will, or a session that is to be kept".to_owned());
    }
    let Some(key) = &rules.key else {
        return if login.password.is_empty() { Ok(u64::MAX >> 20) } else { Err("a password".to_owned()) };
    };
    let token = login.password.strip_prefix("SharedAccessSignature ").ok_or("no token")?;
    let part = |name: &str| token.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let resource = resource.replace('/', "%2F");
    let expiry: u64 = part("se").and_then(|at| at.parse().ok()).ok_or("no expiry")?;
    let signed = signature(key, &format!("{resource}\n{expiry}"));
    let signed = signed.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    if part("sr") != Some(&resource) || part("sig") != Some(&signed) || part("skn") != policy {
        return Err(format!("token {token}"));
    }
    Ok(expiry)
}

/// The provisioning service's part: one subscription, then questions under its own topics.
async fn provision(client: &mut TcpStream, buffer: &mut BytesMut, seen: &Mutex<Seen>, rules: &Rules) {
    let accepted = ConnAck { session_present: false, code: ConnectReturnCode::Success };
    send(client, &Packet::ConnAck(accepted)).await;
    let answers = rules.provisioning.clone().expect("a service");
    while let Some(packet) = packet(client, buffer).await {
        match packet {
            Packet::Subscribe(subscribe) if subscribe.filters[0].path == "$dps/registrations/res/#" => {
                let codes = vec![SubscribeReasonCode::Success(QoS::AtMostOnce)];
                send(client, &Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes: codes })).await;
            }
            Packet::Publish(publish) => {
                let (ask, id) = publish.topic.split_once("/?$rid=").expect("a request id");
                let registers = ask == "$dps/registrations/PUT/iotdps-register";
                let asks = ask == "$dps/registrations/GET/iotdps-get-operationstatus"
                    && id.ends_with("&operationId=4.op.1");
                let body = String::from_utf8_lossy(&publish.payload).into_owned();
                let whose = format!("{{\"registrationId\":\"{}\"}}", rules.client);
                let (step, fault) = {
                    let mut seen = seen.lock().expect("lock");
                    seen.asked.push(ask.to_owned());
                    let fault = !(registers && body == whose || asks);
                    if fault {
                        seen.faults.push(format!("{publish:?}"));
                    }
                    ((seen.asked.len() - 1) % answers.len(), fault)
                };
                if fault {
                    return;
                }
                let (status, body) = &answers[step];
                let (status, properties) = status.split_once('&').unwrap_or((status, ""));
                let id = id.split('&').next().expect("an id");
                let topic = format!("$dps/registrations/res/{status}/?$rid={id}&{properties}");
                send(client, &Packet::Publish(Publish::new(topic, QoS::AtMostOnce, body.as_str()))).await;
            }
            _ => return,
        }
    }
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
    rules: Rules,
) {
    desired.mark_unchanged();
    let mut buffer = BytesMut::new();
    let Some(connect) = packet(&mut client, &mut buffer).await else { return };
    let expiry = match login(&connect, &rules) {
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
    if matches!(&connect, Packet::Connect(connect) if connect.login.as_ref().is_some_and(|login| login.username.contains("/registrations/")))
    {
        return provision(&mut client, &mut buffer, &seen, &rules).await;
    }
    seen.lock().expect("lock").expiries.push(expiry);
    let mut behind = TcpStream::connect(("127.0.0.1", broker)).await.expect("the broker");
    let mut bytes = BytesMut::new();
    connect.write(&mut bytes, 1 << 20).expect("encoded");
    behind.write_all(&bytes).await.expect("write");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let end =
        Instant::now() + Duration::from_secs(expiry).saturating_sub(now).min(Duration::from_secs(86_400));
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
                    let place = format!("devices/{}/messages/events/", rules.path);
                    let known = publish.topic.strip_prefix(&place);
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
