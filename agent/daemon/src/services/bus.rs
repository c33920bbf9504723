//! systemd's units, and what services announce, over the system bus.
//!
//! The bus hands on only what match rules name, and only from who owns the name in question. That is checked once more on every
//! message: anybody may send a signal straight to the agent, past all rules.

use std::convert::Infallible;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::time::{Duration, Instant};

use defender_model::health::Kind;
use defender_model::service::ServiceChange;
use defender_model::time::Timestamp;
use defender_sensors::budget::Budget;
use defender_sensors::file::Order;
use defender_sensors::Outlet;
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use zbus::connection::Builder;
use zbus::message::{Flags, Type};
use zbus::zvariant::{Structure, Value};
use zbus::{Connection, Message, MessageStream};

use super::announcement::{changed, word, LINES, PROPERTIES};
use super::state::{Now, Service};
use super::watched::object;
use super::{mild, told};
use crate::dbus::texts;
use crate::tally::Tally;

/// What this is called in the status.
const WHAT: &str = "units and announcements";
const BUS: &str = "org.freedesktop.DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: (&str, &str) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// First and longest pause between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long connecting, or one answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Failed attempts before it is said: the bus may be starting too.
const TOLERATED: u32 = 3;
/// How often held stops are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Events a second, with bursts of five times as many; what goes beyond is counted.
const EVENTS: u32 = 10;
/// Messages kept while an answer is waited for.
const WAITING: usize = 256;

/// What is watched, and how.
#[derive(Debug)]
pub struct Watch {
    /// Units of systemd.
    pub units: Vec<String>,
    /// The bus; `None` for the system bus.
    pub address: Option<String>,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
    /// Takes what a finished update means for the file sensor.
    pub orders: Option<mpsc::Sender<Order>>,
    /// How it goes.
    pub tally: Tally,
}

/// One unit.
struct Unit {
    name: String,
    path: String,
    service: Service,
}

/// Watches for ever; a bus that is not there is tried for again, and so is one that is gone.
pub async fn watch(watch: Watch, outlet: Outlet) -> Infallible {
    let unit = |name: &String| Unit { path: object(name), name: name.clone(), service: Service::default() };
    let mut units: Vec<Unit> = watch.units.iter().map(unit).collect();
    let (mut pause, mut failures, mut said) = (PAUSE.0, 0, false);
    // A device without a bus lacks nothing; one that lost it does.
    let mut unseen = Kind::Changed;
    loop {
        let why = match timeout(PATIENCE, connect(watch.address.as_deref())).await {
            Ok(Ok(connection)) => {
                (pause, failures, unseen) = (PAUSE.0, TOLERATED, Kind::Degraded);
                let words =
                    format!("services are watched on the bus: {} units, and announcements", units.len());
                watch.tally.says(WHAT, Ok(&format!("on the bus, {} units", units.len())));
                let kind = if std::mem::take(&mut said) { Kind::Recovered } else { Kind::Changed };
                outlet.send(mild(kind, words)).await;
                let mut run = Run::new(&watch, &outlet, connection, &mut units);
                match run.run().await {
                    Err(why) => why,
                    Ok(never) => match never {},
                }
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the bus does not answer".to_owned(),
        };
        failures += 1;
        watch.tally.says(WHAT, Err(&format!("not on the bus, which is tried again: {why}")));
        if failures >= TOLERATED && !std::mem::replace(&mut said, true) {
            let words = format!("services are not watched on the bus, which is tried again: {why}");
            outlet.send(mild(unseen, words)).await;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn connect(address: Option<&str>) -> zbus::Result<Connection> {
    match address {
        Some(address) => Builder::address(address)?,
        None => Builder::system()?,
    }
    .build()
    .await
}

/// One connection.
struct Run<'a> {
    watch: &'a Watch,
    outlet: &'a Outlet,
    units: &'a mut [Unit],
    connection: Connection,
    stream: MessageStream,
    /// Messages that came while an answer was waited for.
    waiting: Vec<Message>,
    /// Names on the bus and who owns them; the first is systemd's.
    owners: Vec<(&'static str, String)>,
    budget: Budget,
    told: u64,
}

impl<'a> Run<'a> {
    fn new(watch: &'a Watch, outlet: &'a Outlet, connection: Connection, units: &'a mut [Unit]) -> Self {
        let mut owners = vec![(SYSTEMD, String::new())];
        for line in &LINES {
            if owners.iter().all(|(name, _)| *name != line.name) {
                owners.push((line.name, String::new()));
            }
        }
        let stream = MessageStream::from(&connection);
        let budget = Budget::new(EVENTS, Instant::now());
        Self { watch, outlet, units, connection, stream, waiting: Vec::new(), owners, budget, told: 0 }
    }

    async fn run(&mut self) -> Result<Infallible, String> {
        self.subscribe().await?;
        loop {
            for message in std::mem::take(&mut self.waiting) {
                self.hear(&message).await?;
            }
            if self.units.iter().any(|unit| unit.service.waits()) || self.budget.refused() > self.told {
                match timeout(TICK, next(&mut self.stream)).await {
                    Ok(message) => self.hear(&message?).await?,
                    Err(_) => self.settle().await?,
                }
            } else {
                let message = next(&mut self.stream).await?;
                self.hear(&message).await?;
            }
        }
    }

    /// Calls a method that takes texts, while what comes meanwhile is kept. `None` where the other side refuses.
    async fn call(
        &mut self,
        to: &str,
        (path, interface): (&str, &str),
        member: &str,
        arguments: &[&str],
    ) -> Result<Option<Message>, String> {
        let connection = self.connection.clone();
        let body = texts(arguments)?;
        let asked = connection.call_method(Some(to), path, Some(interface), member, &body);
        let mut asked = std::pin::pin!(timeout(PATIENCE, asked));
        loop {
            let answer = poll_fn(|context| {
                if let std::task::Poll::Ready(answer) = asked.as_mut().poll(context) {
                    return std::task::Poll::Ready(Ok(answer));
                }
                Pin::new(&mut self.stream).poll_next(context).map(Err)
            });
            match answer.await {
                Ok(Ok(Ok(reply))) => return Ok(Some(reply)),
                Ok(Ok(Err(zbus::Error::MethodError(..)))) => return Ok(None),
                Ok(Ok(Err(error))) => return Err(error.to_string()),
                Ok(Err(_)) => return Err(format!("no answer to {member} within {} s", PATIENCE.as_secs())),
                Err(Some(Ok(message))) => {
                    if message.message_type() != Type::Signal {
                        continue;
                    }
                    if self.waiting.len() < WAITING {
                        self.waiting.push(message);
                    } else {
                        self.watch.tally.produced(|balance| balance.no_room += 1);
                    }
                }
                Err(Some(Err(error))) => return Err(error.to_string()),
                Err(None) => return Err("the bus has closed the connection".to_owned()),
            }
        }
    }

    async fn bus(&mut self, member: &str, argument: &str) -> Result<Option<Message>, String> {
        self.call(BUS, ("/org/freedesktop/DBus", BUS), member, &[argument]).await
    }

    async fn subscribe(&mut self) -> Result<(), String> {
        for line in &LINES {
            self.bus("AddMatch", &line.rule()).await?;
        }
        for at in 0..self.units.len() {
            let rule = format!(
                "type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',path='{}',\
                 arg0='{UNIT}'",
                self.units[at].path
            );
            self.bus("AddMatch", &rule).await?;
        }
        for at in 0..self.owners.len() {
            let name = self.owners[at].0;
            let rule = format!(
                "type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{name}'"
            );
            self.bus("AddMatch", &rule).await?;
            let owner = self.bus("GetNameOwner", name).await?;
            let owner = owner.and_then(|reply| reply.body().deserialize::<String>().ok());
            self.owners[at].1 = owner.unwrap_or_default();
        }
        self.read_units().await
    }

    /// Has systemd send signals, and reads what the units are.
    async fn read_units(&mut self) -> Result<(), String> {
        if self.units.is_empty() || self.owners[0].1.is_empty() {
            return Ok(());
        }
        let (path, interface) = MANAGER;
        let subscribe = Message::method_call(path, "Subscribe")
            .and_then(|message| message.destination(SYSTEMD)?.interface(interface))
            // Who subscribed already is told so, and nothing follows from it.
            .and_then(|message| message.with_flags(Flags::NoReplyExpected)?.build(&()))
            .map_err(|error| error.to_string())?;
        self.connection.send(&subscribe).await.map_err(|error| error.to_string())?;
        for at in 0..self.units.len() {
            let name = self.units[at].name.clone();
            // What is not loaded has no state to be read.
            self.call(SYSTEMD, MANAGER, "LoadUnit", &[&name]).await?;
            let path = self.units[at].path.clone();
            if let Some(state) = self.property(&path, UNIT, "ActiveState").await? {
                self.unit_is(at, &state).await;
            }
        }
        Ok(())
    }

    async fn property(&mut self, path: &str, of: &str, name: &str) -> Result<Option<String>, String> {
        let reply = self.call(SYSTEMD, (path, PROPERTIES), "Get", &[of, name]).await?;
        Ok(reply.and_then(|reply| reply.body().deserialize::<Value<'_>>().ok().as_ref().and_then(word)))
    }

    async fn unit_is(&mut self, at: usize, state: &str) {
        let unit = &mut self.units[at];
        let change = Now::from_active_state(state).and_then(|now| unit.service.is(now, Instant::now()));
        if let Some(change) = change {
            let name = unit.name.clone();
            self.tell(&name, change, "").await;
        }
    }

    async fn hear(&mut self, message: &Message) -> Result<(), String> {
        let header = message.header();
        if message.message_type() != Type::Signal {
            return Ok(());
        }
        let Some(sender) = header.sender() else { return Ok(()) };
        let sender = sender.as_str();
        if sender == BUS {
            return self.owner_changed(message).await;
        }
        let owns = |name: &str| self.owners.iter().any(|(known, owner)| *known == name && owner == sender);
        if owns(SYSTEMD) {
            let at =
                header.path().and_then(|path| self.units.iter().position(|unit| unit.path == path.as_str()));
            if let (Some(at), Some(state)) = (at, changed(message, UNIT, "ActiveState")) {
                self.unit_is(at, &state).await;
            }
        }
        for line in &LINES {
            if self.owners.iter().any(|(name, owner)| *name == line.name && owner == sender) {
                if let Some((change, detail)) = line.read(message) {
                    self.tell(line.service, change, &detail).await;
                    if change == ServiceChange::Updated {
                        self.accept_update();
                    }
                }
            }
        }
        Ok(())
    }

    /// An update takes effect by the next start: what is found then is what is to be.
    fn accept_update(&self) {
        if let Some(orders) = &self.watch.orders {
            if orders.try_send(Order::AcceptAtNextStart).is_err() {
                tracing::warn!(
                    "the file sensor was not told of the update: its orders wait, or it has ended"
                );
            }
        }
    }

    async fn owner_changed(&mut self, message: &Message) -> Result<(), String> {
        let body = message.body();
        let Ok(arguments) = body.deserialize::<Structure<'_>>() else { return Ok(()) };
        let [Value::Str(name), _, Value::Str(owner)] = arguments.fields() else { return Ok(()) };
        let Some(at) = self.owners.iter().position(|(known, _)| *known == name.as_str()) else {
            return Ok(());
        };
        self.owners[at].1 = owner.as_str().to_owned();
        if at == 0 {
            self.read_units().await?;
        }
        Ok(())
    }

    /// Stops that were held long enough, and what went over the bound.
    async fn settle(&mut self) -> Result<(), String> {
        for at in 0..self.units.len() {
            let Some(change) = self.units[at].service.settle(Instant::now()) else { continue };
            // Everything stops when the device does.
            let state = self.property(MANAGER.0, MANAGER.1, "SystemState").await?;
            if state.as_deref() != Some("stopping") {
                let name = self.units[at].name.clone();
                self.tell(&name, change, "").await;
            }
        }
        let refused = self.budget.refused();
        if refused > self.told {
            let words = "services announced more than is listened to".to_owned();
            let defender_sensors::Observation::Health(health) = mild(Kind::Lost, words) else {
                return Ok(());
            };
            let health = health.with("over_bound", refused - self.told);
            self.told = refused;
            self.outlet.send(defender_sensors::Observation::Health(health)).await;
        }
        Ok(())
    }

    async fn tell(&mut self, name: &str, change: ServiceChange, detail: &str) {
        // States of units are few, and matter; whoever owns a name can announce without end.
        let told_of = change != ServiceChange::Reported || self.budget.admits(Instant::now());
        self.watch.tally.produced(|balance| match told_of {
            true => balance.delivered += 1,
            false => balance.over_bound += 1,
        });
        if told_of {
            self.outlet.send(told((self.watch.clock)(), name, change, detail)).await;
        }
    }
}

async fn next(stream: &mut MessageStream) -> Result<Message, String> {
    match poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the bus has closed the connection".to_owned()),
    }
}
