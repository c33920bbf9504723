//! The D-Bus service on private buses: the contract, calls, errors, signals, floods, strangers, and buses that come and go.
#![cfg(feature = "dbus")]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests; the functions they share are tests too.

mod bus;
mod submission;

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use defender_daemon::control::Operators;
use defender_daemon::dbus::{serve, NAME, PATH};
use defender_daemon::request::{BlockedAddress, Desk, IsolationStatus, Notice, Reply, Request, StatusReport};
use defender_daemon::tally::Tally;
use defender_model::event::{Event, EventKind};
use defender_model::health::{Health, Kind};
use defender_model::service::Submitted;
use defender_sensors::{Observation, Outlet};
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zbus::zvariant::OwnedValue;

use bus::{Bus, Policy};

/// Longest wait for anything; buses and machines under load are slow, and nothing is proven by a shorter one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Submissions a second from each user, and as many at once.
const SUBMISSIONS: u32 = 2;
const BURST: u64 = 10;
/// Nobody on the machines the tests run on.
const STRANGER: u32 = 65534;
/// `daemon`: stands for the agent's own user, since a bus turns users away that have no account.
const AGENT: u32 = 1;

fn overlay(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay").join(path).canonicalize().unwrap()
}

fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// An agent whose pipeline answers from a few facts.
struct Agent {
    desk: Desk,
    status: Arc<Mutex<StatusReport>>,
    blocks: Arc<Mutex<Vec<Request>>>,
    health: mpsc::Receiver<Observation>,
    tally: Tally,
}

impl Agent {
    fn start(bus: &Bus, operators: Operators) -> Self {
        Self::with(bus, operators, false)
    }

    /// `stuck`: the pipeline never tells its status.
    fn with(bus: &Bus, operators: Operators, stuck: bool) -> Self {
        let (desk, mut requests) = Desk::open();
        let status = Arc::new(Mutex::new(StatusReport {
            version: "9.9.9".into(),
            health: "ok".into(),
            armed: true,
            uptime_s: 7,
            ..StatusReport::default()
        }));
        let blocks = Arc::new(Mutex::new(Vec::new()));
        let (told, noted) = (Arc::clone(&status), Arc::clone(&blocks));
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Some((request, answer)) = requests.recv().await {
                let reply = match &request {
                    Request::Status if stuck => {
                        kept.push(answer);
                        continue;
                    }
                    Request::Status => Reply::Status(Box::new(told.lock().unwrap().clone())),
                    Request::Alerts { limit } => {
                        Reply::Events { lines: vec![format!("{{\"limit\":{}}}", (*limit).min(1000)).into()] }
                    }
                    Request::Events { .. } => {
                        Reply::Events { lines: vec!["{\"a\":1}".into(), "{\"b\":2}".into()] }
                    }
                    Request::Block { address, .. } => {
                        noted.lock().unwrap().push(request.clone());
                        match address.to_string().as_str() {
                            "192.0.2.1" => Reply::Refused { error: "192.0.2.1 is on the allow-list".into() },
                            "192.0.2.2" => Reply::Failed { error: "nft: not found".into() },
                            _ => Reply::Done { changed: true },
                        }
                    }
                    Request::Pam { .. } => Reply::Done { changed: false },
                    Request::Unblock { address } => Reply::Done { changed: address.is_ipv6() },
                    Request::Blocked => Reply::Blocked { addresses: vec![blocked()] },
                    Request::Isolate { .. } | Request::EndIsolation | Request::AcceptBaseline { .. } => {
                        Reply::Done { changed: true }
                    }
                };
                let _ = answer.send(reply);
            }
        });
        let (outlet, health) = Outlet::channel(16);
        let tally = Tally::default();
        tokio::spawn(serve(desk.clone(), Some(bus.address()), operators, SUBMISSIONS, outlet, tally.clone()));
        Self { desk, status, blocks, health, tally }
    }

    fn ours(bus: &Bus) -> Self {
        Self::start(bus, Operators { uid: own_uid(), gid: None })
    }

    async fn next_health(&mut self) -> Health {
        match timeout(PATIENCE, self.health.recv()).await.expect("the service says nothing").unwrap() {
            Observation::Health(health) => health,
            other => panic!("{other:?}"),
        }
    }

    async fn next_submitted(&mut self) -> Submitted {
        loop {
            let heard = timeout(PATIENCE, self.health.recv()).await.expect("nothing was handed on").unwrap();
            if let Observation::Event(Event { kind: EventKind::Submitted(event), .. }) = heard {
                return *event;
            }
        }
    }
}

fn blocked() -> BlockedAddress {
    BlockedAddress { address: "198.51.100.7".parse().unwrap(), seconds_left: 60, reason: "noise \0".into() }
}

fn error_name(error: zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, Some(words), _) => format!("{name}: {words}"),
        other => panic!("not an error of a method: {other:?}"),
    }
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> S::Item {
    let item = timeout(PATIENCE, poll_fn(|context| Pin::new(&mut *stream).poll_next(context))).await;
    item.expect("no signal came").expect("the stream ended")
}

#[tokio::test]
async fn the_running_service_is_what_the_contract_says() {
    let Some(bus) = Bus::running(Policy::Open) else { return };
    let _agent = Agent::ours(&bus);
    let proxy = bus.agent().await;
    let introspectable = zbus::fdo::IntrospectableProxy::builder(proxy.connection())
        .destination(NAME)
        .unwrap()
        .path(PATH)
        .unwrap()
        .build()
        .await
        .unwrap();
    let running = members(&introspectable.introspect().await.unwrap());
    let contract = overlay("usr/share/dbus-1/interfaces/org.defender.Agent1.xml");
    let contract = members(&std::fs::read_to_string(contract).unwrap());
    assert!(contract.len() >= 15, "{contract:#?}");
    assert_eq!(running, contract);
}

/// Members of the agent's interface by kind and name, with what is said of each: access, arguments, annotations, in order.
fn members(xml: &str) -> BTreeMap<String, Vec<String>> {
    let mut text = xml.to_owned();
    while let Some(start) = text.find("<!--") {
        let end = text[start..].find("-->").unwrap() + start + 3;
        text.replace_range(start..end, "");
    }
    let mut found = BTreeMap::new();
    let (mut interface, mut member) = (String::new(), String::new());
    for tag in text.split('<').skip(1) {
        let tag = &tag[..tag.find('>').unwrap()];
        let kind = tag.split([' ', '\n', '/']).next().unwrap();
        let attribute = |name: &str| {
            let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
            Some(tag[start..].split('"').next().unwrap().to_owned())
        };
        let said = |names: &[&str]| {
            names.iter().filter_map(|n| Some(format!("{n}={}", attribute(n)?))).collect::<Vec<_>>().join(" ")
        };
        match kind {
            "interface" => interface = attribute("name").unwrap(),
            _ if interface != NAME => {}
            "method" | "signal" | "property" => {
                member = format!("{kind} {}", attribute("name").unwrap());
                found.insert(member.clone(), vec![said(&["type", "access"])]);
            }
            "arg" => {
                let mut arg = said(&["name", "type"]);
                // Signals' arguments can only go out, so neither side need say so.
                if member.starts_with("method") {
                    arg = format!("{arg} {}", said(&["direction"]));
                }
                found.get_mut(&member).unwrap().push(arg);
            }
            "annotation" => {
                let annotation = said(&["name", "value"]);
                // The default (D-Bus specification, "org.freedesktop.DBus.Properties").
                if !annotation.ends_with("EmitsChangedSignal value=true") {
                    found.get_mut(&member).unwrap().push(annotation);
                }
            }
            _ => {}
        }
    }
    found
}

#[tokio::test]
async fn every_method_answers() {
    let Some(bus) = Bus::running(Policy::Open) else { return };
    let agent = Agent::ours(&bus);
    let proxy = bus.agent().await;
    let health: HashMap<String, OwnedValue> = proxy.call("GetHealth", &()).await.unwrap();
    assert_eq!(health["health"], zbus::zvariant::Value::from("ok").try_into().unwrap());
    assert_eq!(health["armed"], OwnedValue::from(true));
    assert_eq!(health["uptime"], OwnedValue::from(7u64));
    assert!(!health.contains_key("reasons"));
    let status: String = proxy.call("GetStatus", &()).await.unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&status).unwrap(),
        serde_json::to_value(&*agent.status.lock().unwrap()).unwrap()
    );
    let alerts: Vec<String> = proxy.call("GetAlerts", &(0u32,)).await.unwrap();
    assert_eq!(alerts, ["{\"limit\":1000}"]);
    let alerts: Vec<String> = proxy.call("GetAlerts", &(3u32,)).await.unwrap();
    assert_eq!(alerts, ["{\"limit\":3}"]);
    let events: Vec<String> = proxy.call("GetEvents", &(0u32,)).await.unwrap();
    assert_eq!(events, ["{\"a\":1}", "{\"b\":2}"]);
    let verified: bool = proxy.call("Block", &("2001:db8::1", 60u32, "why")).await.unwrap();
    assert!(verified);
    let verified: bool = proxy.call("Block", &("192.0.2.9", 0u32, "")).await.unwrap();
    assert!(verified);
    let removed: bool = proxy.call("Unblock", &("2001:db8::1",)).await.unwrap();
    assert!(removed);
    let removed: bool = proxy.call("Unblock", &("192.0.2.9",)).await.unwrap();
    assert!(!removed);
    let verified: bool = proxy.call("Isolate", &(0u32, "")).await.unwrap();
    assert!(verified);
    let ended: bool = proxy.call("EndIsolation", &()).await.unwrap();
    assert!(ended);
    let error = proxy.call::<_, _, bool>("Isolate", &(86_401u32, "x")).await.unwrap_err();
    assert!(error.to_string().contains("a day"), "{error}");
    let list: Vec<(String, u32, String)> = proxy.call("ListBlocked", &()).await.unwrap();
    assert_eq!(list, [("198.51.100.7".to_owned(), 60, "noise \\x00".to_owned())]);
    let asked = agent.blocks.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            Request::Block {
                address: "2001:db8::1".parse().unwrap(),
                seconds: Some(60),
                reason: "why".into()
            },
            Request::Block {
                address: "192.0.2.9".parse().unwrap(),
                seconds: None,
                reason: "operator".into()
            },
        ]
    );
    assert_eq!(proxy.get_property::<String>("Version").await.unwrap(), env!("CARGO_PKG_VERSION"));
    assert_eq!(proxy.get_property::<String>("Health").await.unwrap(), "ok");
    assert!(proxy.get_property::<bool>("Armed").await.unwrap());
    assert_eq!(proxy.get_property::<String>("ProcessSource").await.unwrap(), "none");
}

#[tokio::test]
async fn errors_have_the_contract_s_names() {
    let Some(bus) = Bus::running(Policy::Open) else { return };
    let agent = Agent::ours(&bus);
    let proxy = bus.agent().await;
    let long = "x".repeat(2000);
    for (address, seconds, reason, says) in [
        ("192.0.2.999", 0u32, "", "InvalidArgs: address: not an IPv4 or IPv6 address"),
        ("192.0.2.0/24", 0, "", "InvalidArgs: address"),
        ("", 0, "", "InvalidArgs: address"),
        ("192.0.2.9", 2_592_001, "", "InvalidArgs: seconds must be from 1 to 2592000"),
        ("192.0.2.9", 1, &long, "InvalidArgs: the reason is longer"),
        ("192.0.2.1", 1, "", "InvalidArgs: 192.0.2.1 is on the allow-list"),
        ("192.0.2.2", 1, "", "Failed: nft: not found"),
    ] {
        let error = proxy.call::<_, _, bool>("Block", &(address, seconds, reason)).await.unwrap_err();
        let said = error_name(error);
        assert!(said.starts_with("org.freedesktop.DBus.Error.") && said.contains(says), "{address}: {said}");
    }
    let passed_on = agent.blocks.lock().unwrap().len();
    assert_eq!(passed_on, 2, "only what is in range reaches the pipeline");
}

#[tokio::test]
async fn signals_arrive() {
    let Some(bus) = Bus::running(Policy::Open) else { return };
    let agent = Agent::ours(&bus);
    let proxy = bus.agent().await;
    let mut signals = proxy.receive_all_signals().await.unwrap();
    let properties = zbus::fdo::PropertiesProxy::builder(proxy.connection())
        .destination(NAME)
        .unwrap()
        .path(PATH)
        .unwrap()
        .build()
        .await
        .unwrap();
    let mut changes = properties.receive_properties_changed().await.unwrap();
    agent.desk.announce(Notice::Alert { severity: "high", title: "T\0".into(), ocsf: "{}".into() });
    agent.desk.announce(Notice::Blocked(blocked()));
    agent.desk.announce(Notice::Unblocked("2001:db8::1".parse().unwrap()));
    let isolation = IsolationStatus { seconds_left: 900, reason: "why".into() };
    agent.desk.announce(Notice::Isolation(Some(isolation)));
    {
        let mut status = agent.status.lock().unwrap();
        status.health = "degraded".into();
        status.process.source = "connector".into();
    }
    let reasons = vec!["cannot reach 192.0.2.5:514".to_owned()];
    agent.desk.announce(Notice::Health { health: "degraded", reasons });
    let mut named = Vec::new();
    for _ in 0..5 {
        let message = next(&mut signals).await;
        named.push(message.header().member().unwrap().to_string());
        let body = message.body();
        match named.last().unwrap().as_str() {
            "AlertRaised" => {
                let (severity, title, ocsf): (String, String, String) = body.deserialize().unwrap();
                assert_eq!((severity.as_str(), title.as_str(), ocsf.as_str()), ("high", "T\\x00", "{}"));
            }
            "AddressBlocked" => {
                let (address, seconds, reason): (String, u32, String) = body.deserialize().unwrap();
                assert_eq!((address.as_str(), seconds, reason.as_str()), ("198.51.100.7", 60, "noise \\x00"));
            }
            "AddressUnblocked" => assert_eq!(body.deserialize::<String>().unwrap(), "2001:db8::1"),
            "IsolationChanged" => {
                assert_eq!(body.deserialize::<(bool, u32, String)>().unwrap(), (true, 900, "why".into()));
            }
            _ => {
                let (health, reasons): (String, Vec<String>) = body.deserialize().unwrap();
                assert_eq!(
                    (health.as_str(), &reasons[..]),
                    ("degraded", &["cannot reach (address)".to_owned()][..])
                );
            }
        }
    }
    assert_eq!(
        named,
        ["AlertRaised", "AddressBlocked", "AddressUnblocked", "IsolationChanged", "HealthChanged"]
    );
    let change = next(&mut changes).await;
    let arguments = change.args().unwrap();
    let mut names: Vec<&str> = arguments.changed_properties().keys().copied().collect();
    names.sort_unstable();
    assert_eq!(names, ["Health", "ProcessSource"]);
    assert_eq!(proxy.get_property::<String>("ProcessSource").await.unwrap(), "proc-connector");
}

#[tokio::test]
async fn a_bus_that_restarts_gets_the_service_back() {
    let Some(mut bus) = Bus::running(Policy::Open) else { return };
    let mut agent = Agent::ours(&bus);
    bus.agent().await;
    let said = agent.next_health().await;
    assert_eq!(said.kind, Kind::Changed, "{said:?}");
    for _ in 0..3 {
        bus.kill();
        let said = agent.next_health().await;
        assert_eq!((said.kind, said.component.as_str()), (Kind::Degraded, "dbus"), "{said:?}");
        bus.start();
        let said = agent.next_health().await;
        assert_eq!(said.kind, Kind::Recovered, "{said:?}");
        let proxy = bus.agent().await;
        let mut signals = proxy.receive_signal("AlertRaised").await.unwrap();
        agent.desk.announce(Notice::Alert { severity: "low", title: "again".into(), ocsf: "{}".into() });
        next(&mut signals).await;
        assert!(proxy.call::<_, _, bool>("Block", &("192.0.2.9", 0u32, "")).await.unwrap());
    }
}

#[tokio::test]
async fn a_bus_that_appears_later_gets_the_service() {
    let Some(mut bus) = Bus::new(Policy::Open) else { return };
    let mut agent = Agent::ours(&bus);
    let said = agent.next_health().await;
    assert_eq!(said.kind, Kind::Degraded, "{said:?}");
    assert!(said.message.contains("everything but D-Bus works"), "{said:?}");
    bus.start();
    assert_eq!(agent.next_health().await.kind, Kind::Recovered);
    bus.agent().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_said_so() {
    let Some(bus) = Bus::running(Policy::Open) else { return };
    let squatter = bus.connect().await;
    squatter.request_name(NAME).await.unwrap();
    let mut agent = Agent::ours(&bus);
    let said = agent.next_health().await;
    assert!(said.kind == Kind::Degraded && said.message.contains("name already taken"), "{said:?}");
    squatter.release_name(NAME).await.unwrap();
    assert_eq!(agent.next_health().await.kind, Kind::Recovered);
}

#[tokio::test]
async fn a_flood_leaves_room_for_operators() {
    let Some(bus) = Bus::running(Policy::Open) else { return };
    // Every call of an open member waits for a status that never comes.
    let _agent = Agent::with(&bus, Operators { uid: own_uid(), gid: None }, true);
    let proxy = bus.agent().await;
    let flood: Vec<_> = (0..500)
        .map(|_| {
            let proxy = proxy.clone();
            tokio::spawn(
                async move { proxy.call::<_, _, HashMap<String, OwnedValue>>("GetHealth", &()).await },
            )
        })
        .collect();
    let operator = bus.agent().await;
    let call = operator.call::<_, _, bool>("Block", &("192.0.2.9", 0u32, ""));
    assert!(timeout(Duration::from_secs(5), call).await.expect("the operator has to wait").unwrap());
    let mut limited = 0;
    for call in flood {
        let said = error_name(timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err());
        if said.contains("LimitsExceeded") {
            limited += 1;
        } else {
            assert!(said.contains("Failed: the agent has not answered"), "{said}");
        }
    }
    assert!((400..500).contains(&limited), "{limited}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn strangers_are_refused_by_the_policy_and_by_the_agent() {
    if own_uid() != 0 {
        println!("skipped: needs root, to call as another user");
        return;
    }
    let restricted: [(&str, &[&str]); 8] = [
        ("GetStatus", &[]),
        ("GetAlerts", &["uint32:0"]),
        ("GetEvents", &["uint32:0"]),
        ("Block", &["string:192.0.2.9", "uint32:0", "string:x"]),
        ("Unblock", &["string:192.0.2.9"]),
        ("ListBlocked", &[]),
        ("Isolate", &["uint32:0", "string:x"]),
        ("EndIsolation", &[]),
    ];
    for policy in [Policy::Image, Policy::Open] {
        let Some(bus) = Bus::running(policy) else { return };
        let agent = Agent::start(&bus, Operators { uid: AGENT, gid: Some(4242) });
        bus.agent().await;
        for (member, arguments) in restricted {
            let member = format!("{NAME}.{member}");
            let calls = |uid, gid| {
                let (bus, member) = (&bus, member.as_str());
                tokio::task::block_in_place(|| bus.call_as(uid, gid, member, arguments))
            };
            let refused = calls(STRANGER, STRANGER).expect_err(&member);
            assert!(refused.contains("org.freedesktop.DBus.Error.AccessDenied"), "{member}: {refused}");
            calls(0, 0).unwrap_or_else(|error| panic!("{member} as root: {error}"));
            if matches!(policy, Policy::Open) {
                calls(AGENT, AGENT).unwrap_or_else(|error| panic!("{member} as the agent's user: {error}"));
                calls(STRANGER, 4242).unwrap_or_else(|error| panic!("{member} as a member: {error}"));
            }
        }
        let get = ["string:org.defender.Agent1", "string:Armed"];
        for (member, arguments) in
            [("org.defender.Agent1.GetHealth", &[][..]), ("org.freedesktop.DBus.Properties.Get", &get[..])]
        {
            let said = tokio::task::block_in_place(|| bus.call_as(STRANGER, STRANGER, member, arguments));
            assert!(said.as_ref().is_ok_and(|text| text.contains("boolean true")), "{member}: {said:?}");
        }
        assert!(agent.blocks.lock().unwrap().iter().all(|block| matches!(block, Request::Block { .. })));
    }
}
