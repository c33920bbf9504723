//! One connection to a broker.

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::mqttbytes::v4::{Connect, LastWill, Packet, Publish, Subscribe, SubscribeFilter};
use rumqttc::mqttbytes::QoS;
use tokio::time::Instant;

use super::connection::Connection;
use super::iot_hub::{twin, Identity};
use super::remote::State;
use super::{security_message, Config, Format};
use crate::error::Error;
use crate::record::Record;
use crate::sink::Intake;
use crate::stream::PATIENCE;

/// Records published and not acknowledged, at most.
const WINDOW: usize = 32;
/// Longest packet taken from a broker that has nothing long to say: to a client that subscribes to nothing.
const MAX_INCOMING: usize = 4096;
/// The same of one that configures. A hub's desired and reported properties have at most 32 KiB each, names and times beside.
const MAX_TWIN: usize = 128 << 10;
/// How long a broker may take to acknowledge.
const ACKNOWLEDGE: Duration = Duration::from_secs(30);

/// Why a session ended without an error.
pub(super) enum End {
    /// The sink was closed, everything is acknowledged.
    Closed,
    /// The token is half used up, everything is acknowledged: the next session has a new one.
    Renew,
}

/// An open connection that the broker has accepted.
pub(super) struct Session<'a> {
    config: &'a Config,
    hub: Option<Identity>,
    /// When the token is to be renewed.
    renew: Option<Instant>,
    pub(super) connection: Connection,
    /// Packet ids of what is unacknowledged, in the order of the records.
    ids: VecDeque<u16>,
    next_id: u16,
    ping_sent: Option<Instant>,
    oldest: Option<Instant>,
    /// When what was configured from afar is to be looked at again.
    expires: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Connects, logs in and says that the device is online.
    pub(super) async fn open(config: &'a Config, hub: Option<Identity>, deaf: bool) -> Result<Self, Error> {
        let host = hub.as_ref().map_or(&config.host, |hub| &hub.host);
        let token = hub.as_ref().map_or(Ok(None), |hub| hub.token(config.token_lifetime))?;
        let mut connect =
            Connect::new(hub.as_ref().map_or_else(|| config.device.clone(), Identity::client_id));
        match (&hub, &config.login) {
            (Some(hub), _) => {
                connect.set_login(hub.user(), token.as_deref().unwrap_or_default());
            }
            (None, Some((user, password))) => {
                connect.set_login(user.as_str(), password.as_str());
            }
            (None, None) => {}
        }
        if hub.is_none() {
            let status = config.topic("status");
            connect.last_will = Some(LastWill::new(status, "offline", QoS::AtLeastOnce, true));
        }
        let twin = hub.is_some() && (config.unsigned_twin || config.remote.is_some());
        let longest = if twin || config.remote.is_some() { MAX_TWIN } else { MAX_INCOMING };
        let connection = Connection::open(config, host, connect, longest).await?;
        let mut session = Self {
            config,
            renew: token.map(|_| Instant::now() + config.token_lifetime / 2),
            hub,
            connection,
            ids: VecDeque::new(),
            next_id: 0,
            ping_sent: None,
            oldest: None,
            expires: None,
        };
        // A hub keeps nothing, and knows by itself who is connected.
        if session.hub.is_none() {
            let mut online = Publish::new(config.topic("status"), QoS::AtMostOnce, "online");
            online.retain = true;
            session.connection.send(&[Packet::Publish(online)]).await?;
        }
        if let Some(topic) = session.configuration().filter(|_| !deaf) {
            let mut subscribe = Subscribe::new(topic, QoS::AtMostOnce);
            subscribe.pkid = u16::MAX;
            session.connection.send(&[Packet::Subscribe(subscribe)]).await?;
        }
        if twin {
            let topics = twin::TOPICS.map(|topic| SubscribeFilter::new(topic.to_owned(), QoS::AtMostOnce));
            let mut subscribe = Subscribe::new_many(topics);
            // Its acknowledgement is not waited for; records have other numbers.
            subscribe.pkid = u16::MAX;
            let get = Publish::new(twin::GET, QoS::AtMostOnce, "");
            session.connection.send(&[Packet::Subscribe(subscribe), Packet::Publish(get)]).await?;
        }
        Ok(session)
    }

    /// Publishes what `unacknowledged` holds, then what comes, until the connection breaks or the sink is closed.
    pub(super) async fn run(
        &mut self,
        intake: &mut Intake,
        state: &mut State,
        unacknowledged: &mut VecDeque<Record>,
    ) -> Result<End, Error> {
        self.expires = state.until();
        self.publish(unacknowledged.iter(), true).await?;
        let mut closing = false;
        loop {
            intake.spend(std::mem::take(&mut self.connection.sent));
            let renewing = self.renew.is_some_and(|at| at <= Instant::now());
            if (closing || renewing) && unacknowledged.is_empty() {
                self.connection.end().await?;
                return Ok(if closing { End::Closed } else { End::Renew });
            }
            let due = self.due();
            let room = !closing && !renewing && unacknowledged.len() < WINDOW;
            tokio::select! {
                packet = self.connection.receive() => match packet? {
                    Packet::PubAck(packet) => {
                        // Brokers acknowledge in order (MQTT 3.1.1 section 4.6), but need not be believed to.
                        if let Some(at) = self.ids.iter().position(|&id| id == packet.pkid) {
                            self.ids.remove(at);
                            self.oldest = (!self.ids.is_empty()).then(Instant::now);
                            intake.delivered(unacknowledged.remove(at).iter());
                        }
                    }
                    Packet::PingResp => self.ping_sent = None,
                    Packet::Publish(packet) => self.hear(intake, state, &packet).await?,
                    // Nothing else is asked for.
                    _ => {}
                },
                more = intake.wait(), if room => {
                    if more {
                        let known = unacknowledged.len();
                        intake.take(unacknowledged, WINDOW, usize::MAX);
                        self.publish(unacknowledged.iter().skip(known), false).await?;
                    } else {
                        closing = true;
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    if self.expires.is_some_and(|at| at <= Instant::now()) {
                        state.expire(intake);
                        state.reschedule(self.config, intake);
                        self.expires = state.until();
                    }
                    self.on_time().await?;
                }
            }
        }
    }

    /// The topic for configuration from afar. One that stands for every kind would bring back what is published.
    fn configuration(&self) -> Option<String> {
        let wanted =
            self.config.remote.is_some() && self.hub.is_none() && self.config.topic.contains("{kind}");
        wanted.then(|| self.config.topic("configuration"))
    }

    /// A message for us: of a twin, or configuration.
    async fn hear(&mut self, intake: &mut Intake, state: &mut State, packet: &Publish) -> Result<(), Error> {
        let config = self.config;
        if self.configuration().is_some_and(|topic| topic == packet.topic) {
            // Taken out of the topic, what was taken holds on. What becomes of it is in the events.
            if !packet.payload.is_empty() {
                let _ = state.take(config, &String::from_utf8_lossy(&packet.payload), intake);
            }
        } else if self.hub.is_some() {
            let mut take = |envelope: &str| state.take(config, envelope, intake);
            let allowed = twin::Allowed {
                unsigned: config.unsigned_twin.then_some(config.periods.periods),
                signed: if config.remote.is_some() { Some(&mut take) } else { None },
            };
            let Some(outcome) = twin::apply(allowed, &packet.topic, &packet.payload) else { return Ok(()) };
            if outcome.periods.is_some() {
                state.unsigned = outcome.periods;
                state.reschedule(config, intake);
            }
            let report = Publish::new(twin::REPORT, QoS::AtMostOnce, outcome.report);
            self.connection.send(&[Packet::Publish(report)]).await?;
        }
        self.expires = state.until();
        Ok(())
    }

    /// When something is to be done though nothing happens.
    fn due(&self) -> Instant {
        let ping = self.ping_sent.map_or(self.connection.last_sent + self.keep_alive(), |at| at + PATIENCE);
        let due = self.oldest.map_or(ping, |oldest| ping.min(oldest + ACKNOWLEDGE));
        let due = self.expires.map_or(due, |at| due.min(at));
        // Once it has come, what is missing is acknowledgements.
        self.renew.filter(|at| *at > Instant::now()).map_or(due, |at| due.min(at))
    }

    async fn on_time(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let late =
            |action, after| Err(Error::Timeout { target: self.connection.target.clone(), action, after });
        if self.oldest.is_some_and(|at| at + ACKNOWLEDGE <= now) {
            return late("get an acknowledgement from", ACKNOWLEDGE);
        }
        match self.ping_sent {
            Some(at) if at + PATIENCE <= now => late("get an answer from", PATIENCE),
            None if self.connection.last_sent + self.keep_alive() <= now => {
                self.ping_sent = Some(now);
                self.connection.send(&[Packet::PingReq]).await
            }
            _ => Ok(()),
        }
    }

    /// Less than what the broker was told by the time an answer may take, or half of it; it waits for half as long again.
    fn keep_alive(&self) -> Duration {
        let told = self.config.keep_alive.max(Duration::from_secs(1));
        told.saturating_sub(PATIENCE).max(told / 2)
    }

    async fn publish(&mut self, records: impl Iterator<Item = &Record>, again: bool) -> Result<(), Error> {
        let mut packets = Vec::new();
        for record in records {
            let message = match self.config.format {
                Format::Ocsf => None,
                Format::SecurityMessage => security_message::encode(record),
            };
            let kind = if record.alert { "alerts" } else { "events" };
            let topic = match &self.hub {
                Some(hub) => {
                    let interface = if message.is_some() { security_message::INTERFACE } else { "" };
                    hub.topic(record, kind) + interface
                }
                None => self.config.topic(if message.is_some() { "security" } else { kind }),
            };
            let payload = message.map_or_else(|| record.ocsf.to_vec(), String::into_bytes);
            let mut packet = Publish::new(topic, QoS::AtLeastOnce, payload);
            // The last number is the subscription's.
            self.next_id = if self.next_id >= u16::MAX - 1 { 1 } else { self.next_id + 1 };
            packet.pkid = self.next_id;
            packet.dup = again;
            self.ids.push_back(packet.pkid);
            packets.push(Packet::Publish(packet));
        }
        if !packets.is_empty() {
            self.oldest.get_or_insert_with(Instant::now);
            self.connection.send(&packets).await?;
        }
        Ok(())
    }
}
