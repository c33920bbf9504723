//! The members of `org.defender.Agent1`. What each means is in the contract, not here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use defender_model::event::Event;
use defender_sensors::Observation;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use zbus::fdo::{Error, Properties, Result};
use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::Value;
use zbus::{interface, Connection};

use super::caller::{admit, identify, Caller};
use super::standing::Standing;
use super::submission::{Draft, Senders};
use super::NAME;
use crate::clock::wall_clock;
use crate::control::Operators;
use crate::request::{BlockedAddress, Desk, Notice, Reply, Request, StatusReport};

/// Calls of open members handled at once; they wait for nothing but one status.
const OPEN: usize = 16;
/// Calls of restricted members handled at once.
const RESTRICTED: usize = 8;
/// How long the pipeline may take; nft(8) on a slow device takes some seconds.
const ANSWER: Duration = Duration::from_secs(20);
/// Most bytes of events in one reply. System buses refuse messages above 32 MiB (`max_message_size`) and cut the sender off.
const EVENTS: usize = 8 << 20;

/// The object.
#[derive(Debug)]
pub(super) struct Agent {
    desk: Desk,
    standing: Standing,
    operators: Operators,
    open: Semaphore,
    restricted: Semaphore,
    senders: Senders,
}

impl Agent {
    pub(super) fn new(desk: Desk, standing: Standing, operators: Operators, senders: Senders) -> Self {
        Self {
            desk,
            standing,
            operators,
            open: Semaphore::new(OPEN),
            restricted: Semaphore::new(RESTRICTED),
            senders,
        }
    }

    /// The status for everybody. Open and restricted members have places of their own, so that a flood from somebody who may
    /// call only the open ones does not keep an operator out.
    async fn status(&self) -> Result<Arc<StatusReport>> {
        let _place = place(&self.open)?;
        self.standing.now().await.map_err(Error::Failed)
    }

    /// Who submits, and that they may: one who has overdrawn their budget takes no place of the others.
    async fn submitter(&self, header: &Header<'_>, connection: &Connection) -> Result<(String, Caller)> {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        let caller = match self.senders.caller(&sender) {
            Some(caller) => caller,
            None => {
                let Some(_place) = self.senders.place(&sender) else {
                    self.senders.drop_one();
                    return Err(too_many());
                };
                let caller = identify(connection, header).await.inspect_err(|_| {
                    // Who it is cannot be told any more.
                    self.senders.end(|balance| balance.unreadable += 1);
                })?;
                self.senders.remember(&sender, &caller);
                caller
            }
        };
        if self.senders.admit(caller.uid, Instant::now()) {
            return Ok((sender, caller));
        }
        Err(too_many())
    }

    async fn ask(&self, request: Request, header: &Header<'_>, connection: &Connection) -> Result<Reply> {
        let _place = place(&self.restricted)?;
        admit(connection, header, self.operators).await?;
        request.check().map_err(Error::InvalidArgs)?;
        match timeout(ANSWER, self.desk.ask(request)).await {
            Ok(Reply::Failed { error }) => Err(Error::Failed(error)),
            // Policy speaks of the address, so the argument is what has to change.
            Ok(Reply::Refused { error }) => Err(Error::InvalidArgs(error)),
            Ok(reply) => Ok(reply),
            Err(_) => {
                let words = format!("the agent has not answered within {} s", ANSWER.as_secs());
                Err(Error::Failed(words))
            }
        }
    }
}

/// Refuses rather than queues: what waits takes memory.
fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>> {
    places.try_acquire().map_err(|_| too_many())
}

fn too_many() -> Error {
    Error::LimitsExceeded("too many calls at once; try again".to_owned())
}

// Results are tuples of one because only those can have a name in the introspection data; on the wire it is all the same.
#[interface(name = "org.defender.Agent1", introspection_docs = false)]
impl Agent {
    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    #[zbus(property)]
    async fn health(&self) -> Result<String> {
        Ok(text(&self.status().await?.health))
    }

    #[zbus(property)]
    async fn armed(&self) -> Result<bool> {
        Ok(self.status().await?.armed)
    }

    #[zbus(property)]
    async fn process_source(&self) -> Result<String> {
        Ok(process_source(&*self.status().await?).to_owned())
    }

    #[zbus(out_args("health"))]
    async fn get_health(&self) -> Result<(HashMap<&'static str, Value<'static>>,)> {
        let status = self.status().await?;
        let mut health = HashMap::from([
            ("health", Value::from(text(&status.health))),
            ("armed", Value::from(status.armed)),
            ("version", Value::from(text(&status.version))),
            ("process_source", Value::from(process_source(&status).to_owned())),
            ("uptime", Value::from(status.uptime_s)),
        ]);
        if !status.degraded.is_empty() {
            health.insert("reasons", Value::from(reasons(&status.degraded)));
        }
        Ok((health,))
    }

    #[zbus(out_args("json"))]
    async fn get_status(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String,)> {
        match self.ask(Request::Status, &header, connection).await? {
            Reply::Status(report) => match serde_json::to_string(&report) {
                Ok(json) => Ok((json,)),
                Err(error) => Err(Error::Failed(error.to_string())),
            },
            other => Err(unexpected(&other)),
        }
    }

    #[zbus(out_args("ocsf_json"))]
    async fn get_alerts(
        &self,
        limit: u32,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<String>,)> {
        Ok((events(self.ask(Request::Alerts { limit: bound(limit) }, &header, connection).await?)?,))
    }

    #[zbus(out_args("ocsf_json"))]
    async fn get_events(
        &self,
        limit: u32,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<String>,)> {
        Ok((events(self.ask(Request::Events { limit: bound(limit) }, &header, connection).await?)?,))
    }

    #[zbus(out_args("verified"))]
    async fn block(
        &self,
        address: &str,
        seconds: u32,
        reason: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(bool,)> {
        let seconds = (seconds != 0).then_some(u64::from(seconds));
        let reason = if reason.is_empty() { "operator".to_owned() } else { reason };
        let request = Request::Block { address: parse(address)?, seconds, reason };
        match self.ask(request, &header, connection).await? {
            // Done means read back, whether it was new or its time was set anew.
            Reply::Done { .. } => Ok((true,)),
            other => Err(unexpected(&other)),
        }
    }

    #[zbus(out_args("removed"))]
    async fn unblock(
        &self,
        address: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(bool,)> {
        match self.ask(Request::Unblock { address: parse(address)? }, &header, connection).await? {
            Reply::Done { changed } => Ok((changed,)),
            other => Err(unexpected(&other)),
        }
    }

    #[zbus(out_args("blocked"))]
    async fn list_blocked(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<(String, u32, String)>,)> {
        match self.ask(Request::Blocked, &header, connection).await? {
            Reply::Blocked { addresses } => Ok((addresses.iter().map(entry).collect(),)),
            other => Err(unexpected(&other)),
        }
    }

    #[zbus(out_args("verified"))]
    async fn isolate(
        &self,
        seconds: u32,
        reason: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(bool,)> {
        let seconds = (seconds != 0).then_some(u64::from(seconds));
        let reason = if reason.is_empty() { "operator".to_owned() } else { reason };
        match self.ask(Request::Isolate { seconds, reason }, &header, connection).await? {
            Reply::Done { .. } => Ok((true,)),
            other => Err(unexpected(&other)),
        }
    }

    #[zbus(out_args("ended"))]
    async fn end_isolation(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(bool,)> {
        match self.ask(Request::EndIsolation, &header, connection).await? {
            Reply::Done { changed } => Ok((changed,)),
            other => Err(unexpected(&other)),
        }
    }

    #[allow(clippy::too_many_arguments)] // As many as the contract has.
    async fn submit_event(
        &self,
        title: String,
        severity: String,
        category: String,
        code: String,
        message: String,
        attributes: HashMap<String, String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.senders.begin();
        let (sender, caller) = self.submitter(&header, connection).await?;
        let draft = Draft { title, severity, category, code, message, attributes };
        let event = draft.check(&sender, &caller).map_err(|words| {
            self.senders.end(|balance| balance.unreadable += 1);
            Error::InvalidArgs(words)
        })?;
        let event = Observation::Event(Event::new(wall_clock(), event.into()));
        match timeout(ANSWER, self.senders.pass(event)).await {
            Ok(true) => {
                self.senders.end(|balance| balance.delivered += 1);
                Ok(())
            }
            Ok(false) => Err(Error::Failed("the agent is stopping".to_owned())),
            Err(_) => {
                self.senders.drop_one();
                Err(Error::Failed(format!("the agent has not taken it within {} s", ANSWER.as_secs())))
            }
        }
    }

    #[zbus(signal)]
    async fn alert_raised(
        emitter: &SignalEmitter<'_>,
        severity: &str,
        title: &str,
        ocsf_json: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn address_blocked(
        emitter: &SignalEmitter<'_>,
        address: &str,
        seconds: u32,
        reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn address_unblocked(emitter: &SignalEmitter<'_>, address: &str) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn isolation_changed(
        emitter: &SignalEmitter<'_>,
        isolated: bool,
        seconds: u32,
        reason: &str,
    ) -> zbus::Result<()>;

    // Not `health_changed`: the property of that name has one already.
    #[zbus(signal, name = "HealthChanged")]
    async fn health_announced(
        emitter: &SignalEmitter<'_>,
        health: &str,
        reasons: Vec<String>,
    ) -> zbus::Result<()>;
}

/// Sends the signals of one notice. `shown` is the status the bus knows of.
pub(super) async fn signal(
    emitter: &SignalEmitter<'_>,
    notice: Notice,
    standing: &Standing,
    shown: &mut Option<Arc<StatusReport>>,
) -> zbus::Result<()> {
    match notice {
        Notice::Alert { severity, title, ocsf } => {
            Agent::alert_raised(emitter, severity, &text(&title), &text(&ocsf)).await
        }
        Notice::Blocked(blocked) => {
            let (address, seconds, reason) = entry(&blocked);
            Agent::address_blocked(emitter, &address, seconds, &reason).await
        }
        Notice::Unblocked(address) => Agent::address_unblocked(emitter, &address.to_string()).await,
        Notice::Isolation(isolation) => {
            let isolated = isolation.is_some();
            let now = isolation.unwrap_or_default();
            let seconds = u32::try_from(now.seconds_left).unwrap_or(u32::MAX);
            Agent::isolation_changed(emitter, isolated, seconds, &text(&now.reason)).await
        }
        Notice::Health { health, reasons: why } => {
            standing.forget().await;
            Agent::health_announced(emitter, health, reasons(&why)).await?;
            // Without a status there is nothing to compare; whoever reads the properties is told why.
            let Ok(now) = standing.now().await else { return Ok(()) };
            let changed = changes(shown.as_deref(), &now);
            *shown = Some(Arc::clone(&now));
            if changed.is_empty() {
                return Ok(());
            }
            let name = InterfaceName::from_static_str_unchecked(NAME);
            Properties::properties_changed(emitter, name, changed, (&[][..]).into()).await
        }
    }
}

/// The properties that differ.
fn changes<'a>(before: Option<&StatusReport>, now: &'a StatusReport) -> HashMap<&'static str, Value<'a>> {
    let mut changed = HashMap::new();
    let mut compare = |name, differs: bool, value: Value<'a>| {
        if differs {
            changed.insert(name, value);
        }
    };
    compare("Health", before.is_none_or(|b| b.health != now.health), Value::from(text(&now.health)));
    compare("Armed", before.is_none_or(|b| b.armed != now.armed), Value::from(now.armed));
    let source = process_source(now);
    compare("ProcessSource", before.is_none_or(|b| process_source(b) != source), Value::from(source));
    changed
}

/// The contract's word for the process source.
fn process_source(status: &StatusReport) -> &str {
    match status.process.source.as_str() {
        "" => "none",
        "audit" if status.process.detail.contains("multicast") => "audit-multicast",
        "connector" => "proc-connector",
        other => other,
    }
}

/// 0 means as many as the agent keeps.
fn bound(limit: u32) -> usize {
    match limit {
        0 => usize::MAX,
        limit => limit as usize,
    }
}

/// The newest events that fit into one message.
fn events(reply: Reply) -> Result<Vec<String>> {
    let lines = match reply {
        Reply::Events { lines } => lines,
        other => return Err(unexpected(&other)),
    };
    let mut room = EVENTS;
    let fitting = lines
        .iter()
        .rev()
        .take_while(|line| {
            let fits = line.len() <= room;
            room = room.saturating_sub(line.len());
            fits
        })
        .count();
    Ok(lines[lines.len() - fitting..].iter().map(|line| text(line)).collect())
}

fn entry(blocked: &BlockedAddress) -> (String, u32, String) {
    let seconds = u32::try_from(blocked.seconds_left).unwrap_or(u32::MAX);
    (blocked.address.to_string(), seconds, text(&blocked.reason))
}

fn parse(address: &str) -> Result<IpAddr> {
    address.parse().map_err(|_| {
        Error::InvalidArgs("address: not an IPv4 or IPv6 address without a prefix length".to_owned())
    })
}

fn unexpected(reply: &Reply) -> Error {
    tracing::error!("D-Bus: the pipeline gave an answer to another question: {reply:?}");
    Error::Failed("the agent gave an answer to another question".to_owned())
}

/// D-Bus strings cannot hold NUL (D-Bus specification, "Basic types"); titles and reasons may.
fn text(text: &str) -> String {
    text.replace('\0', "\\x00")
}

/// Everybody may read the reasons, and addresses are not for everybody.
fn reasons(sentences: &[String]) -> Vec<String> {
    sentences.iter().map(|sentence| without_addresses(&text(sentence))).collect()
}

fn without_addresses(sentence: &str) -> String {
    let words: Vec<&str> = sentence
        .split(' ')
        .map(|word| {
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ':');
            let bare = bare.trim_end_matches(':');
            let is_address = bare.parse::<IpAddr>().is_ok()
                || word.trim_end_matches([',', ';', '.', ':', ')']).parse::<std::net::SocketAddr>().is_ok()
                || bare.rsplit_once(':').is_some_and(|(host, port)| {
                    port.parse::<u16>().is_ok() && host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
                });
            if is_address {
                "(address)"
            } else {
                word
            }
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_not_for_everybody() {
        for (sentence, open) in [
            ("sink.file: no room on /var", "sink.file: no room on /var"),
            ("cannot reach 192.0.2.1:514: timed out", "cannot reach (address) timed out"),
            ("cannot reach [2001:db8::1]:6514, again", "cannot reach (address) again"),
            ("host 2001:db8::1 is away", "host (address) is away"),
            ("at 12:30:00 nothing", "at 12:30:00 nothing"),
            ("version 1.2.3 is old", "version 1.2.3 is old"),
        ] {
            assert_eq!(without_addresses(sentence), open);
        }
    }

    #[test]
    fn the_newest_events_that_fit_are_sent() {
        let big: Arc<str> = "x".repeat(EVENTS / 2).into();
        let lines = vec![Arc::from("old"), Arc::clone(&big), Arc::clone(&big)];
        let sent = events(Reply::Events { lines }).unwrap();
        assert_eq!(sent.len(), 2);
        let lines = vec![Arc::from("old"), big, Arc::from("new")];
        assert_eq!(events(Reply::Events { lines }).unwrap().len(), 3);
    }

    #[test]
    fn only_what_differs_is_told() {
        let before = StatusReport { health: "starting".into(), ..StatusReport::default() };
        let mut now = before.clone();
        assert!(changes(Some(&before), &now).is_empty());
        now.armed = true;
        now.process.source = "connector".into();
        let changed = changes(Some(&before), &now);
        assert_eq!(changed.len(), 2);
        assert_eq!(changed["ProcessSource"], Value::from("proc-connector"));
        assert_eq!(changes(None, &now).len(), 3);
    }
}
