//! One connection to a broker.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, LastWill, Packet, Publish};
use rumqttc::mqttbytes::{Error as CodecError, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::Config;
use crate::error::Error;
use crate::record::Record;
use crate::sink::Intake;
use crate::stream::{self, Stream, PATIENCE};

/// Records published and not acknowledged, at most.
const WINDOW: usize = 32;
/// Longest packet taken from a broker: it has nothing long to say to a client that subscribes to nothing.
const MAX_INCOMING: usize = 4096;
/// MQTT's own limit (MQTT 3.1.1 section 2.2.3).
const MAX_OUTGOING: usize = 268_435_455;
/// How long a broker may take to acknowledge.
const ACKNOWLEDGE: Duration = Duration::from_secs(30);

/// Why a session ended without an error.
pub(super) enum End {
    /// The sink was closed, everything is acknowledged.
    Closed,
}

/// An open connection that the broker has accepted.
pub(super) struct Session<'a> {
    config: &'a Config,
    /// The broker's address.
    pub(super) peer: Option<IpAddr>,
    target: String,
    stream: Box<dyn Stream>,
    incoming: BytesMut,
    /// Packet ids of what is unacknowledged, in the order of the records.
    ids: VecDeque<u16>,
    next_id: u16,
    last_sent: Instant,
    ping_sent: Option<Instant>,
    oldest: Option<Instant>,
    /// Bytes sent that the sink's budget does not know of.
    sent: usize,
}

impl<'a> Session<'a> {
    /// Connects, logs in and says that the device is online.
    pub(super) async fn open(config: &'a Config) -> Result<Self, Error> {
        let (stream, peer) = stream::connect(&config.host, config.port, config.tls()).await?;
        let mut session = Self {
            config,
            peer,
            target: stream::target(&config.host, config.port),
            stream,
            incoming: BytesMut::new(),
            ids: VecDeque::new(),
            next_id: 0,
            last_sent: Instant::now(),
            ping_sent: None,
            oldest: None,
            sent: 0,
        };
        let mut connect = Connect::new(config.device.as_str());
        connect.keep_alive = u16::try_from(config.keep_alive.as_secs().max(1)).unwrap_or(u16::MAX);
        connect.last_will = Some(LastWill::new(config.topic("status"), "offline", QoS::AtLeastOnce, true));
        if let Some((user, password)) = &config.login {
            connect.set_login(user.as_str(), password.as_str());
        }
        session.send(&[Packet::Connect(connect)]).await?;
        let answer = tokio::time::timeout(PATIENCE, session.receive()).await.map_err(|_| {
            Error::Timeout { target: session.target.clone(), action: "log in to", after: PATIENCE }
        })??;
        match answer {
            Packet::ConnAck(answer) if answer.code == ConnectReturnCode::Success => {}
            Packet::ConnAck(answer) => {
                return Err(session.protocol(format!("the broker refuses the login: {:?}", answer.code)))
            }
            _ => return Err(session.protocol("the broker answers the login with something else".to_owned())),
        }
        let mut online = Publish::new(config.topic("status"), QoS::AtMostOnce, "online");
        online.retain = true;
        session.send(&[Packet::Publish(online)]).await?;
        Ok(session)
    }

    /// Publishes what `unacknowledged` holds, then what comes, until the connection breaks or the sink is closed.
    pub(super) async fn run(
        &mut self,
        intake: &mut Intake,
        unacknowledged: &mut VecDeque<Record>,
    ) -> Result<End, Error> {
        self.publish(unacknowledged.iter(), true).await?;
        let mut closing = false;
        loop {
            intake.spend(std::mem::take(&mut self.sent));
            if closing && unacknowledged.is_empty() {
                self.send(&[Packet::Disconnect]).await?;
                // Good order; what matters has been acknowledged.
                let _ = tokio::time::timeout(PATIENCE, self.stream.shutdown()).await;
                return Ok(End::Closed);
            }
            let due = self.due();
            let room = !closing && unacknowledged.len() < WINDOW;
            tokio::select! {
                packet = self.receive() => match packet? {
                    Packet::PubAck(packet) => {
                        // Brokers acknowledge in order (MQTT 3.1.1 section 4.6), but need not be believed to.
                        if let Some(at) = self.ids.iter().position(|&id| id == packet.pkid) {
                            self.ids.remove(at);
                            self.oldest = (!self.ids.is_empty()).then(Instant::now);
                            intake.delivered(unacknowledged.remove(at).iter());
                        }
                    }
                    Packet::PingResp => self.ping_sent = None,
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
                () = tokio::time::sleep_until(due) => self.on_time().await?,
            }
        }
    }

    /// When something is to be done though nothing happens.
    fn due(&self) -> Instant {
        let ping = self.ping_sent.map_or(self.last_sent + self.keep_alive(), |at| at + PATIENCE);
        self.oldest.map_or(ping, |oldest| ping.min(oldest + ACKNOWLEDGE))
    }

    async fn on_time(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let late = |action, after| Err(Error::Timeout { target: self.target.clone(), action, after });
        if self.oldest.is_some_and(|at| at + ACKNOWLEDGE <= now) {
            return late("get an acknowledgement from", ACKNOWLEDGE);
        }
        match self.ping_sent {
            Some(at) if at + PATIENCE <= now => late("get an answer from", PATIENCE),
            None if self.last_sent + self.keep_alive() <= now => {
                self.ping_sent = Some(now);
                self.send(&[Packet::PingReq]).await
            }
            _ => Ok(()),
        }
    }

    /// Half of what the broker was told, to be in time.
    fn keep_alive(&self) -> Duration {
        self.config.keep_alive.max(Duration::from_secs(1)) / 2
    }

    async fn publish(&mut self, records: impl Iterator<Item = &Record>, again: bool) -> Result<(), Error> {
        let (alerts, events) = (self.config.topic("alerts"), self.config.topic("events"));
        let mut packets = Vec::new();
        for record in records {
            let topic = if record.alert { &alerts } else { &events };
            let mut packet = Publish::new(topic.as_str(), QoS::AtLeastOnce, &*record.ocsf);
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            packet.pkid = self.next_id;
            packet.dup = again;
            self.ids.push_back(packet.pkid);
            packets.push(Packet::Publish(packet));
        }
        if !packets.is_empty() {
            self.oldest.get_or_insert_with(Instant::now);
            self.send(&packets).await?;
        }
        Ok(())
    }

    async fn send(&mut self, packets: &[Packet]) -> Result<(), Error> {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet
                .write(&mut bytes, MAX_OUTGOING)
                .map_err(|e| self.protocol(format!("cannot encode a packet: {e}")))?;
        }
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        stream::within(&self.target, "send to", write).await?;
        self.last_sent = Instant::now();
        self.sent += bytes.len();
        Ok(())
    }

    /// The next packet. May be dropped before it is done without losing anything.
    async fn receive(&mut self) -> Result<Packet, Error> {
        loop {
            match Packet::read(&mut self.incoming, MAX_INCOMING) {
                Ok(packet) => return Ok(packet),
                Err(CodecError::InsufficientBytes(_)) => {}
                Err(error) => {
                    return Err(self.protocol(format!("the broker sends what is not MQTT 3.1.1: {error}")))
                }
            }
            match self.stream.read_buf(&mut self.incoming).await {
                Ok(0) => return Err(Error::Closed { target: self.target.clone() }),
                Ok(_) => {}
                Err(source) => {
                    return Err(Error::Socket { target: self.target.clone(), action: "read from", source })
                }
            }
        }
    }

    fn protocol(&self, detail: String) -> Error {
        Error::Protocol { target: self.target.clone(), detail }
    }
}
