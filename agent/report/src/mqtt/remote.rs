//! Configuration from afar: signed by a key that the image names, for this device, not older than the last, not expired.
//!
//! An envelope is `BASE64(document).BASE64(signature)`, the signature Ed25519 (RFC 8032) over the document's bytes. A document:
//!
//! ```json
//! {"format":"defender-configuration-1","devices":["camera-7"],"version":12,"expires":1801440000,
//!  "set":{"telemetry":"low","low_s":43200}}
//! ```
//!
//! | In `set` | Value |
//! |---|---|
//! | `high_s`, `medium_s`, `low_s` | seconds, 60 to 2592000: the periods of `[priorities]`, for this sink |
//! | `telemetry` | `immediate`, `high`, `medium` or `low`: when what is no alert is sent |
//!
//! What a document does not set is as the file has it. What is `immediate` of alerts stays so; nothing is switched off, no rule changed.
//! The last document taken is kept: it holds after a restart, and no older one is taken then.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use defender_model::health::Kind;
use defender_model::text::{printable, truncate};
use defender_model::time::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::Config;
use crate::sink::Intake;

/// Longest envelope, in bytes.
const MAX_ENVELOPE: usize = 8 << 10;
/// What a document calls its own form. A signature under anything else that the same key signs is of no use here.
const FORMAT: &str = "defender-configuration-1";
/// Shortest and longest period, in seconds.
const PERIOD: std::ops::RangeInclusive<u64> = 60..=2_592_000;
/// Signatures that are looked at within a minute: each costs a little, and whoever may publish to the topic can send many.
const TRIES: u32 = 10;

/// The periods of a sink, and which kind of record has which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Periods {
    /// High, medium and low.
    pub periods: [Duration; 3],
    /// Which of them alerts have; `None`: they go at once.
    pub alerts: Option<usize>,
    /// Which of them other records have; `None`: they go at once.
    pub telemetry: Option<usize>,
}

impl Periods {
    /// Those of alerts and of other records.
    fn schedule(&self) -> [Duration; 2] {
        [self.alerts, self.telemetry]
            .map(|level| level.and_then(|level| self.periods.get(level)).copied().unwrap_or_default())
    }
}

/// Who may configure the sink from afar.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Ed25519 public keys, each of which will do: base64 of the DER that `openssl pkey -pubout -outform DER` writes.
    pub keys: Vec<String>,
    /// The last document that was taken is kept here.
    pub kept: PathBuf,
}

/// What a document says, once it is known to be signed.
#[derive(Debug, PartialEq, Eq, Default)]
struct Document {
    devices: Vec<String>,
    version: u64,
    /// Seconds since 1970.
    expires: u64,
    periods: [Option<u64>; 3],
    /// A place among high, medium and low; or at once.
    telemetry: Option<Option<usize>>,
}

/// What holds, over all connections of a run.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Periods that an unsigned twin has set.
    pub(super) unsigned: Option<[Duration; 3]>,
    in_force: Option<Document>,
    /// The last that was taken, whether it still holds or not.
    taken: String,
    version: u64,
    /// Why the last was refused; said once.
    refused: String,
    minute: Option<Instant>,
    tries: u32,
    /// The broker's topic for configuration is not listened to.
    pub(super) deaf: bool,
}

impl State {
    /// With what was kept by the last run.
    pub(super) fn load(config: &Config, intake: &mut Intake) -> Self {
        let mut state = Self::default();
        let Some(remote) = &config.remote else { return state };
        let mut kept = String::new();
        let read = fs::File::open(&remote.kept)
            .and_then(|file| file.take(MAX_ENVELOPE as u64).read_to_string(&mut kept));
        let kept = kept.trim();
        if read.is_err() || kept.is_empty() {
            return state;
        }
        // Keys of a new image may be others: then it is not in force, and nothing is known of versions.
        match verify(&remote.keys, kept).and_then(|bytes| Document::parse(&bytes)) {
            Ok(document) => {
                state.version = document.version;
                kept.clone_into(&mut state.taken);
                state.in_force = Some(document);
                state.expire(intake);
                state.reschedule(config, intake);
            }
            Err(why) => {
                let words = format!("{} is not in force any more: {why}", remote.kept.display());
                intake.say(Kind::Degraded, "configuration", words);
            }
        }
        state
    }

    /// What is to be looked at: an envelope from afar. The version that is in force, or why this one is not.
    pub(super) fn take(
        &mut self,
        config: &Config,
        envelope: &str,
        intake: &mut Intake,
    ) -> Result<u64, String> {
        let envelope = envelope.trim();
        if envelope == self.taken && self.in_force.is_some() {
            return Ok(self.version);
        }
        match self.judge(config, envelope) {
            Ok(document) => {
                let until = Timestamp(i64::try_from(document.expires).unwrap_or(0).saturating_mul(1000));
                let words = format!("version {} is in force until {until}: {document}", document.version);
                self.refused.clear();
                self.version = document.version;
                envelope.clone_into(&mut self.taken);
                self.in_force = Some(document);
                self.reschedule(config, intake);
                intake.say(Kind::Changed, "configuration", words);
                Ok(self.version)
            }
            Err(why) => {
                if why != self.refused {
                    self.refused.clone_from(&why);
                    let words = format!("what was sent from afar is refused: {why}");
                    intake.say(Kind::Degraded, "configuration", words);
                }
                Err(why)
            }
        }
    }

    fn judge(&mut self, config: &Config, envelope: &str) -> Result<Document, String> {
        let Some(remote) = &config.remote else { return Err("no key may sign it".to_owned()) };
        let now = Instant::now();
        if self.minute.is_none_or(|began| began + Duration::from_secs(60) <= now) {
            (self.minute, self.tries) = (Some(now), 0);
        }
        self.tries += 1;
        if self.tries > TRIES {
            return Err("too many came within a minute".to_owned());
        }
        let document = Document::parse(&verify(&remote.keys, envelope)?)?;
        document.is_for(&config.device, wall_clock())?;
        let (version, taken) = (document.version, self.version);
        if version < taken {
            return Err(format!("its version {version} is older than {taken}, which was taken before"));
        }
        if version == taken && envelope != self.taken {
            return Err(format!("another of version {version} was taken before; count on"));
        }
        // What cannot be kept could be followed by an older one after a restart.
        keep(&remote.kept, envelope)
            .map_err(|error| format!("it cannot be kept in {}: {error}", remote.kept.display()))?;
        Ok(document)
    }

    /// Until when what is in force holds, as far as the clock is right.
    pub(super) fn until(&self) -> Option<Instant> {
        let left = self.in_force.as_ref()?.expires.saturating_sub(wall_clock());
        // A clock that is set meanwhile is noticed within the hour.
        Some(Instant::now() + Duration::from_secs(left.clamp(1, 3600)))
    }

    /// Ends what has expired.
    pub(super) fn expire(&mut self, intake: &mut Intake) {
        if self.in_force.as_ref().is_some_and(|document| document.expires <= wall_clock()) {
            self.in_force = None;
            let words = format!("version {} has expired; the device's own file holds again", self.version);
            intake.say(Kind::Changed, "configuration", words);
        }
    }

    /// What is too long for a packet would break every connection that asks for it: whoever may publish to the topic must not keep
    /// alerts from their way.
    pub(super) fn deafen(&mut self, intake: &mut Intake) {
        if !std::mem::replace(&mut self.deaf, true) {
            let words = "the broker has a packet that is too long; configuration from afar is not listened to until the agent starts again";
            intake.say(Kind::Degraded, "configuration", words.to_owned());
        }
    }

    /// Puts in force what holds: a signed document before an unsigned twin, and that before the file.
    pub(super) fn reschedule(&self, config: &Config, intake: &mut Intake) {
        let mut now = config.periods;
        now.periods = self.unsigned.unwrap_or(now.periods);
        if let Some(document) = &self.in_force {
            for (period, set) in now.periods.iter_mut().zip(document.periods) {
                *period = set.map_or(*period, Duration::from_secs);
            }
            now.telemetry = document.telemetry.unwrap_or(now.telemetry);
        }
        intake.reschedule(now.schedule());
    }
}

impl Document {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|_| "its document is not JSON".to_owned())?;
        let members = value.as_object().ok_or("its document is no object")?;
        let mut document = Self::default();
        let mut form = false;
        for (name, value) in members {
            match (name.as_str(), value) {
                ("format", Value::String(format)) => form = format == FORMAT,
                ("devices", Value::Array(devices)) => {
                    document.devices =
                        devices.iter().map(|device| device.as_str().unwrap_or_default().to_owned()).collect();
                }
                ("version", Value::Number(number)) => document.version = number.as_u64().unwrap_or(0),
                ("expires", Value::Number(number)) => document.expires = number.as_u64().unwrap_or(0),
                ("set", Value::Object(set)) => {
                    for (name, value) in set {
                        document
                            .set(name, value)
                            .ok_or_else(|| format!("it may not set {} so", shown(name)))?;
                    }
                }
                _ => return Err(format!("its document has {}", shown(name))),
            }
        }
        if !form {
            return Err(format!("its document is not of the format {FORMAT}"));
        }
        if document.version == 0 || document.expires == 0 || document.devices.is_empty() {
            return Err("its document lacks `version`, `expires` or `devices`".to_owned());
        }
        Ok(document)
    }

    fn set(&mut self, name: &str, value: &Value) -> Option<()> {
        if name == "telemetry" {
            let words = ["high", "medium", "low", "immediate"];
            let level = words.iter().position(|word| value.as_str() == Some(word))?;
            self.telemetry = Some((level < 3).then_some(level));
            return Some(());
        }
        let level = ["high_s", "medium_s", "low_s"].iter().position(|key| *key == name)?;
        let seconds = value.as_u64().filter(|seconds| PERIOD.contains(seconds))?;
        *self.periods.get_mut(level)? = Some(seconds);
        Some(())
    }

    fn is_for(&self, device: &str, now: u64) -> Result<(), String> {
        if !self.devices.iter().any(|of| of == "*" || of == device) {
            return Err(format!("it is for other devices than {}", shown(device)));
        }
        if self.expires <= now {
            return Err(format!("its version {} has expired", self.version));
        }
        Ok(())
    }
}

/// What it sets.
impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut nothing = true;
        for (name, seconds) in ["high_s", "medium_s", "low_s"].iter().zip(self.periods) {
            if let Some(seconds) = seconds {
                write!(f, "{}{name}={seconds}", if nothing { "" } else { " " })?;
                nothing = false;
            }
        }
        if let Some(level) = self.telemetry {
            let word = level.and_then(|level| ["high", "medium", "low"].get(level)).unwrap_or(&"immediate");
            write!(f, "{}telemetry={word}", if nothing { "" } else { " " })?;
            nothing = false;
        }
        f.write_str(if nothing { "nothing is set" } else { "" })
    }
}

fn shown(text: &str) -> String {
    format!("{:?}", printable(truncate(text, 64)))
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Keeps it whole or not at all.
fn keep(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The document of an envelope that one of the keys has signed.
#[cfg(feature = "tls")]
fn verify(keys: &[String], envelope: &str) -> Result<Vec<u8>, String> {
    use openssl::base64::decode_block;
    if envelope.len() > MAX_ENVELOPE {
        return Err(format!("it is longer than {MAX_ENVELOPE} bytes"));
    }
    let form = "it is not of the form BASE64(document).BASE64(signature)";
    let (document, signature) = envelope.split_once('.').ok_or(form)?;
    let (document, signature) = (decode_block(document), decode_block(signature));
    let (Ok(document), Ok(signature)) = (document, signature) else { return Err(form.to_owned()) };
    for key in keys {
        let verified = public_key(key).and_then(|key| {
            let mut verifier =
                openssl::sign::Verifier::new_without_digest(&key).map_err(|e| e.to_string())?;
            // A signature of the wrong length is an error, and no more than one that is wrong.
            Ok(verifier.verify_oneshot(&signature, &document).unwrap_or(false))
        })?;
        if verified {
            return Ok(document);
        }
    }
    Err("none of the configured keys has signed it".to_owned())
}

#[cfg(not(feature = "tls"))]
fn verify(_: &[String], _: &str) -> Result<Vec<u8>, String> {
    Err("this agent was built without OpenSSL, which verifies signatures".to_owned())
}

#[cfg(feature = "tls")]
fn public_key(text: &str) -> Result<openssl::pkey::PKey<openssl::pkey::Public>, String> {
    let der = openssl::base64::decode_block(text).map_err(|_| "it is not base64".to_owned())?;
    let key = openssl::pkey::PKey::public_key_from_der(&der);
    let key = key.map_err(|_| "it is not the DER of a public key".to_owned())?;
    if key.id() == openssl::pkey::Id::ED25519 {
        Ok(key)
    } else {
        Err("it is a key of another kind than Ed25519".to_owned())
    }
}

/// Whether a text is a public key as [`Remote::keys`] has them.
///
/// # Errors
/// In words: what is wrong with it.
pub fn check_key(text: &str) -> Result<(), String> {
    #[cfg(feature = "tls")]
    public_key(text)?;
    let _ = text;
    Ok(())
}

#[cfg(all(test, feature = "tls"))]
mod tests;
