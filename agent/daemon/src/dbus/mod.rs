//! The service `org.defender.Agent1` on the system bus.
//!
//! The contract is `rootfs-overlay/usr/share/dbus-1/interfaces/org.defender.Agent1.xml`; a test compares it with what the
//! running service says of itself.
//!
//! | Module | Holds |
//! |---|---|
//! | `interface` | the members: methods, properties, signals |
//! | `caller` | who calls, as the bus says |
//! | `submission` | events that other services hand in |
//! | `arguments` | what methods of other services are given |
//! | `standing` | the latest status, for what everybody may ask |
//!
//! The agent does not need a bus. [`serve`] connects whenever there is one: at the start, when it appears later, and again after it
//! was restarted.

mod arguments;
mod caller;
mod interface;
mod standing;
mod submission;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use defender_model::health::{Health, Kind};
use defender_model::severity::Severity;
use defender_sensors::{Observation, Outlet};
use futures_core::Stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};
use zbus::connection::Builder;
use zbus::fdo::RequestNameFlags;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, MessageStream};

use crate::control::Operators;
use crate::request::Desk;
use crate::tally::Tally;
pub(crate) use arguments::texts;
use interface::Agent;
use standing::Standing;
use submission::Senders;

/// The agent's name on the bus.
pub const NAME: &str = "org.defender.Agent1";
/// The agent's object.
pub const PATH: &str = "/org/defender/Agent1";

/// First and longest pause between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long connecting, or handing one signal to the bus, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Failed attempts at the start before the bus counts as missing: it may be starting too.
const TOLERATED: u32 = 3;

/// Offers the service for ever: on the system bus, or on the bus at `address`. What changes is told through `outlet`.
///
/// Of what other services submit, `submissions` a second are taken from each user; `tally` has what became of it.
pub async fn serve(
    desk: Desk,
    address: Option<String>,
    operators: Operators,
    submissions: u32,
    outlet: Outlet,
    tally: Tally,
) -> Infallible {
    let senders = Senders::new(outlet.clone(), submissions, tally);
    let mut ledger = Ledger { outlet, failures: 0, state: State::New };
    let mut pause = PAUSE.0;
    loop {
        let standing = Standing::new(desk.clone());
        let agent = Agent::new(desk.clone(), standing.clone(), operators, senders.fresh());
        match timeout(PATIENCE, connect(agent, address.as_deref())).await {
            Ok(Ok(connection)) => {
                ledger.connected();
                pause = PAUSE.0;
                let why = attend(&connection, &desk, &standing).await;
                ledger.lost(&why);
            }
            Ok(Err(error)) => ledger.failed(&error.to_string()),
            Err(_) => ledger.failed(&format!("the bus has not answered within {} s", PATIENCE.as_secs())),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn connect(agent: Agent, address: Option<&str>) -> zbus::Result<Connection> {
    let builder = match address {
        Some(address) => Builder::address(address)?,
        None => Builder::system()?,
    };
    // The object is there before the name is, so that nobody who waits for the name finds nothing.
    let connection = builder.serve_at(PATH, agent)?.build().await?;
    connection.request_name_with_flags(NAME, RequestNameFlags::DoNotQueue.into()).await?;
    Ok(connection)
}

/// Sends signals until the connection ends; tells why it did.
async fn attend(connection: &Connection, desk: &Desk, standing: &Standing) -> String {
    // Each is polled while the other waits: the stream's queue must not fill up, or zbus stops reading.
    tokio::select! {
        why = ended(connection) => why,
        why = announce(connection, desk, standing) => why,
    }
}

async fn ended(connection: &Connection) -> String {
    let mut messages = MessageStream::from(connection);
    loop {
        match poll_fn(|context| Pin::new(&mut messages).poll_next(context)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.to_string(),
            None => return "the bus has closed the connection".to_owned(),
        }
    }
}

async fn announce(connection: &Connection, desk: &Desk, standing: &Standing) -> String {
    let emitter = match SignalEmitter::new(connection, PATH) {
        Ok(emitter) => emitter,
        Err(error) => return error.to_string(),
    };
    let mut notices = desk.watch();
    let mut shown = standing.now().await.ok();
    loop {
        let notice = match notices.recv().await {
            Ok(notice) => notice,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!("D-Bus: {missed} signals were not sent, the bus takes them too slowly");
                continue;
            }
            // The desk is gone, so the agent is stopping; nobody calls any more.
            Err(RecvError::Closed) => std::future::pending().await,
        };
        match timeout(PATIENCE, interface::signal(&emitter, notice, standing, &mut shown)).await {
            Ok(Ok(())) => {}
            // One signal that cannot be written, for instance because it is too long, does not end the service; a connection
            // that is gone is noticed where it is read.
            Ok(Err(error)) => tracing::warn!("D-Bus: a signal was not sent: {error}"),
            Err(_) => return format!("the bus has not taken a signal within {} s", PATIENCE.as_secs()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Connected,
    Away,
}

/// Tells each change once, however many attempts there are.
#[derive(Debug)]
struct Ledger {
    outlet: Outlet,
    failures: u32,
    state: State,
}

impl Ledger {
    fn connected(&mut self) {
        let kind = if self.state == State::Away { Kind::Recovered } else { Kind::Changed };
        self.state = State::Connected;
        self.failures = 0;
        self.say(Health::new(kind, "dbus", format!("{NAME} is on the bus")));
    }

    fn lost(&mut self, why: &str) {
        self.away(&format!("the bus is gone: {why}"));
    }

    fn failed(&mut self, why: &str) {
        self.failures += 1;
        tracing::debug!("D-Bus: attempt {}: {why}", self.failures);
        if self.state == State::New && self.failures >= TOLERATED {
            self.away(&format!("not on a bus: {why}"));
        }
    }

    fn away(&mut self, why: &str) {
        self.state = State::Away;
        let words = format!(
            "{why}; everything but D-Bus works, and the agent tries again at most {} s apart",
            PAUSE.1.as_secs()
        );
        let mut health = Health::new(Kind::Degraded, "dbus", words);
        // Seeing, judging and acting do not pass over the bus.
        health.severity = Severity::Low;
        self.say(health);
    }

    fn say(&self, health: Health) {
        self.outlet.try_send(Observation::Health(health));
    }
}
