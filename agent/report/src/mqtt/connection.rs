//! Packets over a connection that the broker has accepted.

use std::net::IpAddr;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet};
use rumqttc::mqttbytes::Error as CodecError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::Config;
use crate::error::Error;
use crate::stream::{self, Stream, PATIENCE};

/// MQTT's own limit (MQTT 3.1.1 section 2.2.3).
const MAX_OUTGOING: usize = 268_435_455;

/// An open connection.
pub(super) struct Connection {
    /// The broker's address.
    pub(super) peer: Option<IpAddr>,
    /// Host and port as error messages have them.
    pub(super) target: String,
    /// When the broker last heard of us.
    pub(super) last_sent: Instant,
    /// Bytes sent that the sink's budget does not know of.
    pub(super) sent: usize,
    /// It broke because of a packet that is longer than what is taken.
    pub(super) overlong: bool,
    stream: Box<dyn Stream>,
    incoming: BytesMut,
    max_incoming: usize,
}

impl Connection {
    /// Connects and logs in. No packet longer than `max_incoming` is taken.
    pub(super) async fn open(
        config: &Config,
        host: &str,
        mut connect: Connect,
        max_incoming: usize,
    ) -> Result<Self, Error> {
        connect.keep_alive = u16::try_from(config.keep_alive.as_secs().max(1)).unwrap_or(u16::MAX);
        let (stream, peer) = stream::connect(host, config.port, config.tls()).await?;
        let target = stream::target(host, config.port);
        let incoming = BytesMut::new();
        let mut opened = Self {
            peer,
            target,
            last_sent: Instant::now(),
            sent: 0,
            overlong: false,
            stream,
            incoming,
            max_incoming,
        };
        opened.send(&[Packet::Connect(connect)]).await?;
        let answer = tokio::time::timeout(PATIENCE, opened.receive()).await.map_err(|_| {
            Error::Timeout { target: opened.target.clone(), action: "log in to", after: PATIENCE }
        })??;
        match answer {
            Packet::ConnAck(answer) if answer.code == ConnectReturnCode::Success => Ok(opened),
            Packet::ConnAck(answer) => {
                let detail = format!("the broker refuses the login: {:?}", answer.code);
                Err(Error::Refused { target: opened.target, detail })
            }
            _ => Err(opened.protocol("the broker answers the login with something else".to_owned())),
        }
    }

    pub(super) async fn send(&mut self, packets: &[Packet]) -> Result<(), Error> {
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
    pub(super) async fn receive(&mut self) -> Result<Packet, Error> {
        loop {
            match Packet::read(&mut self.incoming, self.max_incoming) {
                Ok(packet) => return Ok(packet),
                Err(CodecError::InsufficientBytes(_)) => {}
                Err(error) => {
                    self.overlong = matches!(error, CodecError::PayloadSizeLimitExceeded(_));
                    return Err(self.protocol(format!("the broker sends what is not MQTT 3.1.1: {error}")));
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

    /// Says farewell and ends in good order; what matters has been acknowledged.
    pub(super) async fn end(&mut self) -> Result<(), Error> {
        self.send(&[Packet::Disconnect]).await?;
        let _ = tokio::time::timeout(PATIENCE, self.stream.shutdown()).await;
        Ok(())
    }

    pub(super) fn protocol(&self, detail: String) -> Error {
        Error::Protocol { target: self.target.clone(), detail }
    }
}
