//! The service sensor on a private bus, with a systemd and services that the test plays.
#![cfg(feature = "dbus")]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests; the functions they share are tests too.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use defender_daemon::clock::wall_clock;
use defender_daemon::services::bus::{watch, Watch};
use defender_daemon::tally::Tally;
use defender_model::event::{Event, EventKind};
use defender_model::health::Kind;
use defender_model::service::{ServiceActivity, ServiceChange};
use defender_sensors::file::Order;
use defender_sensors::{Observation, Outlet};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use zbus::zvariant::{ObjectPath, OwnedValue, Value};
use zbus::{interface, Connection};

/// Longest wait for anything; machines under load are slow, and nothing is proven by a shorter one.
const PATIENCE: Duration = Duration::from_secs(60);
const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT: &str = "/org/freedesktop/systemd1/unit/nftables_2eservice";

struct Bus {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Bus {
    /// `None`, and the reason on standard output, where there is no dbus-daemon.
    fn start() -> Option<Self> {
        if Command::new("dbus-daemon").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: dbus-daemon is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN' \
             'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'><busconfig><listen>unix:path={}</listen>\
             <auth>EXTERNAL</auth><policy context='default'><allow user='*'/><allow own='*'/><allow send_destination='*'/>\
             <allow receive_sender='*'/></policy></busconfig>",
            at.join("bus").display()
        );
        std::fs::write(at.join("bus.conf"), text).unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", at.join("bus.conf").display()))
            .arg("--nofork")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { directory, daemon })
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.directory.path().join("bus").display())
    }

    async fn connect(&self) -> Connection {
        let began = Instant::now();
        loop {
            match zbus::connection::Builder::address(self.address().as_str()).unwrap().build().await {
                Ok(connection) => return connection,
                Err(error) => assert!(began.elapsed() < PATIENCE, "the bus does not come up: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

type Shared = Arc<Mutex<(String, u32, u32)>>;

/// systemd's manager. Shared: its state, how many have subscribed, and how many have asked for the state.
struct Manager(Shared);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn subscribe(&self) {
        self.0.lock().unwrap().1 += 1;
    }

    async fn load_unit(&self, name: String) -> zbus::fdo::Result<ObjectPath<'static>> {
        if name == "nftables.service" {
            return Ok(ObjectPath::from_static_str_unchecked(UNIT));
        }
        Err(zbus::fdo::Error::Failed(format!("{name} not found")))
    }

    #[zbus(property)]
    async fn system_state(&self) -> String {
        let mut shared = self.0.lock().unwrap();
        shared.2 += 1;
        shared.0.clone()
    }
}

/// The unit `nftables.service`.
struct Unit;

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    async fn active_state(&self) -> &'static str {
        "active"
    }
}

/// Says that a property changed.
async fn say(connection: &Connection, path: &str, interface: &str, property: &str, value: Value<'_>) {
    let body = (interface, HashMap::from([(property, value)]), Vec::<&str>::new());
    let properties = "org.freedesktop.DBus.Properties";
    connection.emit_signal(None::<&str>, path, properties, "PropertiesChanged", &body).await.unwrap();
}

async fn state(connection: &Connection, word: &str) {
    say(connection, UNIT, "org.freedesktop.systemd1.Unit", "ActiveState", word.into()).await;
}

async fn systemd(bus: &Bus) -> (Connection, Shared) {
    let shared = Shared::default();
    shared.lock().unwrap().0 = "running".to_owned();
    let connection = bus.connect().await;
    let server = connection.object_server();
    server.at("/org/freedesktop/systemd1", Manager(Arc::clone(&shared))).await.unwrap();
    server.at(UNIT, Unit).await.unwrap();
    connection.request_name(SYSTEMD).await.unwrap();
    (connection, shared)
}

async fn subscribed(shared: &Shared, times: u32) {
    let began = Instant::now();
    while shared.lock().unwrap().1 < times {
        assert!(began.elapsed() < PATIENCE, "the sensor does not subscribe");
        sleep(Duration::from_millis(20)).await;
    }
}

struct Sensor {
    heard: mpsc::Receiver<Observation>,
    orders: mpsc::Receiver<Order>,
}

impl Sensor {
    fn start(bus: &Bus) -> Self {
        let (outlet, heard) = Outlet::channel(64);
        let (send, orders) = mpsc::channel(4);
        let units = ["nftables.service", "absent.service"].map(str::to_owned).to_vec();
        let asked = Watch {
            units,
            address: Some(bus.address()),
            clock: wall_clock,
            orders: Some(send),
            tally: Tally::default(),
        };
        tokio::spawn(async move {
            watch(asked, outlet).await;
        });
        Self { heard, orders }
    }

    async fn next(&mut self) -> Observation {
        timeout(PATIENCE, self.heard.recv()).await.expect("nothing is told").unwrap()
    }

    async fn event(&mut self) -> ServiceActivity {
        loop {
            if let Observation::Event(Event { kind: EventKind::Service(activity), .. }) = self.next().await {
                return *activity;
            }
        }
    }

    /// The next event has to be this one.
    async fn tells(&mut self, name: &str, change: ServiceChange, detail: &str) {
        let told = self.event().await;
        assert_eq!((told.name.as_str(), told.change, told.detail.as_str()), (name, change, detail));
    }
}

#[tokio::test]
async fn a_unit_that_stops_fails_or_is_restarted_is_told() {
    let Some(bus) = Bus::start() else { return };
    let (manager, shared) = systemd(&bus).await;
    let mut sensor = Sensor::start(&bus);
    subscribed(&shared, 1).await;
    // A restart first: what it would take for a stop to be told must not be in the way of the next.
    for word in ["deactivating", "inactive", "activating", "active"] {
        state(&manager, word).await;
    }
    sensor.tells("nftables.service", ServiceChange::Restarted, "").await;
    state(&manager, "deactivating").await;
    state(&manager, "inactive").await;
    sensor.tells("nftables.service", ServiceChange::Stopped, "").await;
    state(&manager, "active").await;
    sensor.tells("nftables.service", ServiceChange::Started, "").await;
    state(&manager, "failed").await;
    sensor.tells("nftables.service", ServiceChange::Failed, "").await;
    state(&manager, "active").await;
    sensor.tells("nftables.service", ServiceChange::Started, "").await;
    // The device goes down: that everything stops is no news.
    let asked = {
        let mut shared = shared.lock().unwrap();
        shared.0 = "stopping".to_owned();
        shared.2
    };
    state(&manager, "inactive").await;
    let began = Instant::now();
    while shared.lock().unwrap().2 == asked {
        assert!(began.elapsed() < PATIENCE, "the sensor does not ask whether the device goes down");
        sleep(Duration::from_millis(20)).await;
    }
    shared.lock().unwrap().0 = "running".to_owned();
    state(&manager, "active").await;
    sensor.tells("nftables.service", ServiceChange::Started, "").await;
}

#[tokio::test]
async fn others_cannot_speak_for_systemd() {
    let Some(bus) = Bus::start() else { return };
    let (manager, shared) = systemd(&bus).await;
    let mut sensor = Sensor::start(&bus);
    subscribed(&shared, 1).await;
    let liar = bus.connect().await;
    let body = (
        "org.freedesktop.systemd1.Unit",
        HashMap::from([("ActiveState", Value::from("failed"))]),
        Vec::<&str>::new(),
    );
    let names = zbus::fdo::DBusProxy::new(&liar).await.unwrap().list_names().await.unwrap();
    for name in names.iter().filter(|name| name.starts_with(':')) {
        liar.emit_signal(
            Some(name.as_str()),
            UNIT,
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            &body,
        )
        .await
        .unwrap();
    }
    state(&manager, "inactive").await;
    sensor.tells("nftables.service", ServiceChange::Stopped, "").await;
}

#[tokio::test]
async fn services_appear_and_vanish() {
    let Some(bus) = Bus::start() else { return };
    let mut sensor = Sensor::start(&bus);
    let said = sensor.next().await;
    assert!(matches!(&said, Observation::Health(health) if health.kind == Kind::Changed), "{said:?}");
    for _ in 0..2 {
        let (manager, shared) = systemd(&bus).await;
        subscribed(&shared, 1).await;
        state(&manager, "inactive").await;
        sensor.tells("nftables.service", ServiceChange::Stopped, "").await;
        manager.close().await.unwrap();
        let (again, shared) = systemd(&bus).await;
        subscribed(&shared, 1).await;
        // It runs when systemd is back.
        sensor.tells("nftables.service", ServiceChange::Started, "").await;
        again.close().await.unwrap();
    }
}

#[tokio::test]
async fn announcements_are_told_and_an_update_moves_the_baseline() {
    let Some(bus) = Bus::start() else { return };
    let (_manager, shared) = systemd(&bus).await;
    let mut sensor = Sensor::start(&bus);
    subscribed(&shared, 1).await;
    let service = bus.connect().await;
    for name in [
        "de.pengutronix.rauc",
        "org.freedesktop.NetworkManager",
        "net.connman",
        "org.bluez",
        "org.freedesktop.UDisks2",
    ] {
        service.request_name(name).await.unwrap();
    }
    // All names have an owner once the sensor hears of one after the other: it asks for them in the order of the table.
    let manager = "/org/freedesktop/NetworkManager";
    say(&service, manager, "org.freedesktop.NetworkManager", "Connectivity", 1u32.into()).await;
    sensor.tells("NetworkManager", ServiceChange::Reported, "connectivity none").await;
    let device = "/org/bluez/hci0/dev_AA_BB_CC_DD_EE_FF";
    say(&service, device, "org.bluez.Device1", "Paired", true.into()).await;
    sensor.tells("bluez", ServiceChange::Reported, &format!("device paired true {device}")).await;
    let stick = "/org/freedesktop/UDisks2/block_devices/sda1";
    for (points, words) in [(vec![b"/media/stick\0".to_vec()], "/media/stick"), (Vec::new(), "nothing")] {
        say(&service, stick, "org.freedesktop.UDisks2.Filesystem", "MountPoints", points.into()).await;
        sensor.tells("udisks2", ServiceChange::Reported, &format!("mounted at {words} {stick}")).await;
    }
    let value: OwnedValue = Value::from("online").try_into().unwrap();
    service
        .emit_signal(None::<&str>, "/", "net.connman.Manager", "PropertyChanged", &("State", value))
        .await
        .unwrap();
    sensor.tells("connman", ServiceChange::Reported, "network online").await;
    for (result, change, detail) in [
        (1i32, ServiceChange::Failed, "installation 1"),
        (0, ServiceChange::Updated, "installation complete"),
    ] {
        service
            .emit_signal(None::<&str>, "/", "de.pengutronix.rauc.Installer", "Completed", &result)
            .await
            .unwrap();
        sensor.tells("rauc", change, detail).await;
    }
    let order = timeout(PATIENCE, sensor.orders.recv()).await.unwrap();
    assert_eq!(order, Some(Order::AcceptAtNextStart));
    assert!(sensor.orders.try_recv().is_err(), "a failed installation moves nothing");
}
