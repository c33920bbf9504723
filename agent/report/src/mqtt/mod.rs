//! The MQTT sink: every record published with quality of service 1 to a broker, MQTT 3.1.1.
//!
//! A record counts as delivered when the broker has acknowledged it. What is not acknowledged when a connection breaks is published
//! again on the next, so the broker may get it twice (with the same sequence number) but never not at all, as long as the agent runs.
//!
//! Packets are encoded and decoded by the crate `rumqttc`. Its event loop is not used: it drops what is unacknowledged when the broker
//! comes back without the session, trusts the system's authorities beside the configured one, and takes no TLS stream of ours.
//!
//! Azure IoT Hub is a broker with rules of its own (`iot_hub`): what a connection string says takes the place of host, topic and login.
//!
//! What is published is OCSF, or where that has a counterpart the security message of Azure Security Center for IoT
//! (`security_message`).
//!
//! Under the `status` topic the broker has `online`, and `offline` once the connection is lost (last will), both retained.

mod connection;
mod iot_hub;
mod remote;
mod security_message;
mod session;

use std::collections::VecDeque;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::record::Record;
use crate::sink::Intake;
use iot_hub::provisioning::History;
pub use iot_hub::provisioning::Provisioning;
pub use iot_hub::Hub;
use iot_hub::Identity;
pub use remote::{check_key, Periods, Remote};
use session::{End, Session};

/// The topic if nothing else is configured.
pub const DEFAULT_TOPIC: &str = "defender/{device}/{kind}";

/// How long a token for Azure IoT Hub is good: each renewal costs a new connection.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The event in OCSF.
    #[default]
    Ocsf,
    /// The security message of Azure Security Center for IoT, schema 1.0, under the topic's kind `security`; what has no counterpart
    /// there is OCSF as ever.
    SecurityMessage,
}

/// Which broker, and how to publish.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name or address of the broker.
    pub host: String,
    /// Usually 1883, with TLS 8883.
    pub port: u16,
    /// Replaces `{device}` in the topic, and is the client's id.
    pub device: String,
    /// Topic to publish to: `{kind}` becomes `alerts`, `events`, `security` or `status`.
    pub topic: String,
    /// What is published.
    pub format: Format,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// A device or module of Azure IoT Hub; its host, topics and login take the place of those above.
    pub iot_hub: Option<Hub>,
    /// The sink's periods, as the file has them.
    pub periods: Periods,
    /// Lets a hub's twin set them, though nobody signs it.
    pub unsigned_twin: bool,
    /// Who may configure the sink from afar: by a hub's twin, or under the topic's kind `configuration`.
    pub remote: Option<Remote>,
    /// How long a token for the hub is good. It is renewed at half of that.
    pub token_lifetime: Duration,
    /// Longest silence on the connection; at least a second.
    pub keep_alive: Duration,
    /// Certificates, if the connection is to be encrypted.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::Tls>,
}

impl Config {
    /// OCSF to a broker, at once, unencrypted and without a login.
    #[must_use]
    pub fn plain(host: &str, port: u16, device: &str) -> Self {
        Self {
            host: host.to_owned(),
            port,
            device: device.to_owned(),
            topic: DEFAULT_TOPIC.to_owned(),
            format: Format::default(),
            login: None,
            iot_hub: None,
            periods: Periods::default(),
            unsigned_twin: false,
            remote: None,
            token_lifetime: TOKEN_LIFETIME,
            keep_alive: Duration::from_secs(60),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The topic for `kind`. Characters that have a meaning in topics are taken out of the device's name.
    fn topic(&self, kind: &str) -> String {
        let device: String =
            self.device.chars().map(|c| if matches!(c, '+' | '#' | '/' | '\0') { '_' } else { c }).collect();
        self.topic.replace("{device}", &device).replace("{kind}", kind)
    }

    fn tls(&self) -> Option<&crate::stream::Tls> {
        #[cfg(feature = "tls")]
        return self.tls.as_ref();
        #[cfg(not(feature = "tls"))]
        None
    }
}

/// Publishes until the sink is closed.
pub async fn run(config: Config, mut intake: Intake) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
    let mut unacknowledged: VecDeque<Record> = VecDeque::new();
    let mut history = History::default();
    let mut state = remote::State::load(&config, &mut intake);
    loop {
        let hub = match &config.iot_hub {
            None => Ok(None),
            Some(Hub::ConnectionString(file)) => Identity::read(file).map(Some),
            Some(Hub::Provisioned(by)) => by.identity(&config, &mut intake, &mut history).await.map(Some),
        };
        let opened = match hub {
            Ok(hub) => {
                Session::open(&config, hub, state.deaf).await.inspect_err(|error| history.failed(error))
            }
            Err(error) => Err(error),
        };
        let outcome = match opened {
            Ok(mut session) => {
                history.reached();
                intake.works();
                intake.connected(session.connection.peer);
                let before = intake.written();
                let outcome = session.run(&mut intake, &mut state, &mut unacknowledged).await;
                // A broker that takes a login and acknowledges nothing would be sent the same again and again.
                if intake.written() > before || unacknowledged.is_empty() {
                    backoff.worked();
                }
                if session.connection.overlong {
                    state.deafen(&mut intake);
                }
                outcome
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(End::Closed) => return,
            Ok(End::Renew) => {}
            Err(error) => {
                intake.failed(&error);
                if intake.pause(backoff.failed()).await {
                    // Asked to end: this was the last try.
                    intake.unsent(&unacknowledged);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use std::time::Duration;

    use super::iot_hub::twin::{apply, Allowed};
    use super::security_message;
    use crate::record::Record;

    pub(crate) fn security_message(record: &Record) {
        if let Some(message) = security_message::encode(record) {
            assert!(serde_json::from_str::<serde_json::Value>(&message).is_ok(), "{message}");
        }
    }

    pub(crate) fn twin(bytes: &[u8], within: &dyn Fn(Duration) -> bool) {
        let file = [Duration::from_secs(1800), Duration::from_secs(7200), Duration::from_secs(86_400)];
        for topic in ["$iothub/twin/res/200/?$rid=get", "$iothub/twin/PATCH/properties/desired/?$version=2"] {
            let mut take = |text: &str| if text.len() % 2 == 0 { Ok(7) } else { Err(text.to_owned()) };
            for unsigned in [None, Some(file)] {
                let allowed = Allowed { unsigned, signed: Some(&mut take) };
                let Some(outcome) = apply(allowed, topic, bytes) else { continue };
                let report = serde_json::from_str::<serde_json::Value>(&outcome.report);
                assert!(report.is_ok(), "{}", outcome.report);
                assert!(outcome.periods.is_none_or(|periods| periods.into_iter().all(within)));
            }
        }
    }
}
