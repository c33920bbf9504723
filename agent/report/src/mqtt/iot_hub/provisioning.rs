//! Azure Device Provisioning Service: which hub a device belongs to, asked over MQTT.
//!
//! Facts: *Communicate with DPS using the MQTT protocol* and *Symmetric key attestation* (Microsoft Learn). What it answers is kept, so
//! that it is asked once; and again when the hub that it named refuses the device, or has not been reached for an hour.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::mqttbytes::v4::{Connect, Packet, Publish, Subscribe};
use rumqttc::mqttbytes::QoS;
use serde_json::Value;
use tokio::time::Instant;

use super::{encode, sign, Identity, MAX_FILE};
use crate::error::Error;
use crate::mqtt::connection::Connection;
use crate::mqtt::Config;
use crate::sink::Intake;
use crate::stream::{self, PATIENCE};

/// Version of the service's interface that is asked for.
const API: &str = "2019-03-31";
/// Where its answers come.
const ANSWERS: &str = "$dps/registrations/res/";
/// Longest packet taken from it.
const MAX_INCOMING: usize = 64 << 10;
/// How long a token for it is good.
const TOKEN: Duration = Duration::from_secs(3600);
/// How often it is asked how far it is, at most. It says how long to wait each time.
const POLLS: u32 = 60;
/// The wait where it does not say, and the longest that is taken from it, in seconds.
const WAIT: (u64, u64) = (3, 60);
/// A device that its hub refuses asks again so often, at most: who is switched off there must not besiege the service.
const AGAIN: Duration = Duration::from_secs(600);
/// A hub that has not been reached for so long may be gone.
const GONE: Duration = Duration::from_secs(3600);

/// An enrolment with the service.
#[derive(Debug, Clone)]
pub struct Provisioning {
    /// The service: `global.azure-devices-provisioning.net`, or one of the product's own.
    pub host: String,
    /// Which instance of it.
    pub id_scope: String,
    /// Who the device is there; of a certificate, its common name.
    pub registration_id: String,
    /// File with the symmetric key, base64; `None`: the certificate of the connection says who we are.
    pub key_file: Option<PathBuf>,
    /// The key is that of a group of devices, from which each derives its own.
    pub group: bool,
    /// What the service answered is kept here.
    pub kept: PathBuf,
}

/// What became of registrations in this run.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct History {
    registered: Option<Instant>,
    /// The hub has not been reached since.
    failing: Option<Instant>,
    /// The service is to be asked though an answer is kept.
    again: bool,
}

impl History {
    pub(in crate::mqtt) fn reached(&mut self) {
        self.failing = None;
    }

    pub(in crate::mqtt) fn failed(&mut self, error: &Error) {
        let now = Instant::now();
        let failing = *self.failing.get_or_insert(now);
        let due = self.registered.is_none_or(|at| at + AGAIN <= now);
        // A hub that does not answer is not asked about more often than it takes to believe that it is gone.
        let gone = failing + GONE <= now;
        if gone {
            self.failing = Some(now);
        }
        self.again = due && (gone || matches!(error, Error::Refused { .. }));
    }
}

impl Provisioning {
    /// The device's identity at its hub.
    pub(in crate::mqtt) async fn identity(
        &self,
        config: &Config,
        intake: &mut Intake,
        history: &mut History,
    ) -> Result<Identity, Error> {
        let key = self.key()?;
        // If the service cannot be asked, the next try is with what is kept.
        if !std::mem::take(&mut history.again) {
            if let Some(kept) = self.read() {
                return Ok(Identity { key, ..kept });
            }
        }
        let mut identity = self.register(config, intake, key.as_deref()).await?;
        history.registered = Some(Instant::now());
        self.keep(&identity).map_err(|source| Error::File {
            path: self.kept.clone(),
            action: "write",
            source,
        })?;
        identity.key = key;
        Ok(identity)
    }

    /// The device's own key, in base64.
    fn key(&self) -> Result<Option<String>, Error> {
        let Some(file) = &self.key_file else { return Ok(None) };
        let key = read(file).map_err(|source| Error::File { path: file.clone(), action: "read", source })?;
        let own = if self.group { sign(&key, &self.registration_id) } else { Ok(key) };
        own.map(Some).map_err(|detail| Error::Protocol { target: file.display().to_string(), detail })
    }

    /// What the service answered before, if it was asked about the same enrolment.
    fn read(&self) -> Option<Identity> {
        let text = read(&self.kept).ok()?;
        let (enrolment, hub) = text.split_once('\n')?;
        if enrolment != self.enrolment() {
            return None;
        }
        Identity::parse(hub).ok()
    }

    fn enrolment(&self) -> String {
        format!("{}/registrations/{}", self.id_scope, self.registration_id)
    }

    /// Keeps it whole or not at all.
    fn keep(&self, identity: &Identity) -> std::io::Result<()> {
        let new = self.kept.with_extension("new");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let (enrolment, host, device) = (self.enrolment(), &identity.host, &identity.device);
        file.write_all(format!("{enrolment}\nHostName={host};DeviceId={device};x509=true\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.kept)
    }

    /// Asks the service, and waits until it has decided.
    async fn register(
        &self,
        config: &Config,
        intake: &mut Intake,
        key: Option<&str>,
    ) -> Result<Identity, Error> {
        let target = stream::target(&self.host, config.port);
        let fault = |detail: String| Error::Protocol { target: target.clone(), detail };
        if self.enrolment().contains(['+', '#', '?', '&', '"', '\\', '\n', '\0']) {
            return Err(fault("the id scope or the registration id is none".to_owned()));
        }
        let mut connect = Connect::new(self.registration_id.as_str());
        let user = format!("{}/api-version={API}", self.enrolment());
        let password = key.map_or(Ok(String::new()), |key| self.token(key)).map_err(fault)?;
        connect.set_login(user, password);
        let mut connection = Connection::open(config, &self.host, connect, MAX_INCOMING).await?;
        let mut subscribe = Subscribe::new(format!("{ANSWERS}#"), QoS::AtMostOnce);
        subscribe.pkid = 1;
        connection.send(&[Packet::Subscribe(subscribe)]).await?;
        let register = "$dps/registrations/PUT/iotdps-register/?$rid=1".to_owned();
        let ask = format!("{{\"registrationId\":\"{}\"}}", self.registration_id);
        let mut request = Publish::new(register, QoS::AtMostOnce, ask);
        for _ in 0..POLLS {
            let answer = self.answer(&mut connection, &request).await?;
            intake.spend(std::mem::take(&mut connection.sent));
            match Answer::read(&answer).map_err(fault)? {
                Answer::Assigned(identity) => {
                    connection.end().await?;
                    return Ok(identity);
                }
                Answer::Wait { seconds, operation } => {
                    if let Some(operation) = operation {
                        let ask = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=";
                        request = Publish::new(format!("{ask}{operation}"), QoS::AtMostOnce, String::new());
                    }
                    if intake.pause(Duration::from_secs(seconds)).await {
                        return Err(Error::Closed { target });
                    }
                }
                Answer::Refused(detail) => return Err(Error::Refused { target, detail }),
            }
        }
        Err(fault(format!("no hub was assigned after {POLLS} questions")))
    }

    fn token(&self, key: &str) -> Result<String, String> {
        let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + TOKEN;
        let (resource, expiry) = (encode(&self.enrolment()), expiry.as_secs());
        let signature = encode(&sign(key, &format!("{resource}\n{expiry}"))?);
        Ok(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=registration"))
    }

    /// The service's answer to a request.
    async fn answer(&self, connection: &mut Connection, request: &Publish) -> Result<Publish, Error> {
        let send = [Packet::Publish(request.clone())];
        connection.send(&send).await?;
        let late = Error::Timeout {
            target: connection.target.clone(),
            action: "get an answer from",
            after: PATIENCE,
        };
        let answer = async {
            loop {
                match connection.receive().await? {
                    Packet::Publish(answer) if answer.topic.starts_with(ANSWERS) => return Ok(answer),
                    // The subscription's acknowledgement.
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(late))
    }
}

/// A short text file, without what surrounds its text.
fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// What an answer of the service comes to.
#[derive(PartialEq, Eq)]
enum Answer {
    Assigned(Identity),
    /// It is to be asked again: how the operation stands, or, if none is named, the same.
    Wait {
        seconds: u64,
        operation: Option<String>,
    },
    Refused(String),
}

impl Answer {
    /// `$dps/registrations/res/STATUS/?$rid=ID[&retry-after=SECONDS]` and JSON.
    fn read(answer: &Publish) -> Result<Self, String> {
        let rest = answer.topic.strip_prefix(ANSWERS).unwrap_or_default();
        let (status, properties) = rest.split_once('/').unwrap_or((rest, ""));
        let wait = properties.split(['?', '&']).find_map(|pair| pair.strip_prefix("retry-after="));
        let seconds = wait.and_then(|wait| wait.parse().ok()).unwrap_or(WAIT.0).clamp(1, WAIT.1);
        let body: Value = serde_json::from_slice(&answer.payload).unwrap_or(Value::Null);
        let text = |place| body.pointer(place).and_then(Value::as_str).unwrap_or_default();
        match (status, text("/status")) {
            // Too many ask at once.
            ("429", _) => Ok(Self::Wait { seconds, operation: None }),
            ("200" | "202", "assigned") => {
                let (hub, device) =
                    (text("/registrationState/assignedHub"), text("/registrationState/deviceId"));
                if [hub, device].iter().any(|text| text.contains([';', '\n'])) {
                    return Err("the service assigns what is no hub".to_owned());
                }
                Identity::parse(&format!("HostName={hub};DeviceId={device};x509=true"))
                    .map(Self::Assigned)
                    .map_err(|_| "the service assigns no hub".to_owned())
            }
            ("200" | "202", status @ ("assigning" | "unassigned" | "")) => {
                let operation = text("/operationId");
                if operation.is_empty() || operation.contains(['+', '#', '&', '/', '?', '\0']) {
                    return Err(format!("the service names no operation (status {status:?})"));
                }
                Ok(Self::Wait { seconds, operation: Some(operation.to_owned()) })
            }
            (code, status) => {
                let why = [text("/registrationState/errorMessage"), text("/message"), status];
                let why = why.into_iter().find(|why| !why.is_empty()).unwrap_or("without a reason");
                let why =
                    defender_model::text::printable(defender_model::text::truncate(why, 200)).into_owned();
                Ok(Self::Refused(format!("the registration is refused: {code} {why}")))
            }
        }
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests;
