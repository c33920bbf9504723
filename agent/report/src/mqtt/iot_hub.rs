//! Azure IoT Hub's conventions of MQTT: who we are, what we sign, and where we publish.
//!
//! Facts: *Communicate with an IoT hub using the MQTT protocol* and *Control access to IoT Hub with shared access signatures* (Microsoft
//! Learn). The hub knows no topics but its own, keeps nothing retained, and ends a connection when its token expires.

pub(super) mod provisioning;
pub(super) mod twin;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Error;
use crate::record::Record;

/// Version of the hub's interface that is asked for.
const API: &str = "2021-04-12";
/// Longest connection string that is read, in bytes.
const MAX_FILE: u64 = 4096;

/// How a device knows its hub.
#[derive(Debug, Clone)]
pub enum Hub {
    /// By a file with the connection string of a device or module. It is read at each connection.
    ConnectionString(PathBuf),
    /// By asking the provisioning service.
    Provisioned(provisioning::Provisioning),
}

/// A device or module of a hub, from its connection string. No `Debug`: it holds a secret.
#[derive(PartialEq, Eq)]
pub(super) struct Identity {
    /// The hub.
    pub(super) host: String,
    device: String,
    module: Option<String>,
    /// Base64. `None`: the certificate of the connection says who we are.
    key: Option<String>,
}

impl Identity {
    /// Reads a connection string: the file that Microsoft's micro agent has as `connection_string.txt`.
    pub(super) fn read(file: &Path) -> Result<Self, Error> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(file)
            .and_then(|open| open.take(MAX_FILE).read_to_string(&mut text))
            .map_err(|source| Error::File { path: file.to_owned(), action: "read", source })?;
        Self::parse(text.trim())
            .map_err(|detail| Error::Protocol { target: file.display().to_string(), detail })
    }

    /// `HostName=...;DeviceId=...[;ModuleId=...];SharedAccessKey=...`, or `;x509=true` in place of the key.
    fn parse(text: &str) -> Result<Self, String> {
        let find = |name: &str| {
            let value = text.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let need = |name: &str| find(name).ok_or_else(|| format!("the connection string has no {name}"));
        let (host, device, module) = (need("HostName")?, need("DeviceId")?, find("ModuleId"));
        // Ids of a hub have none of these; in a topic they would lead elsewhere.
        let ids = [Some(&device), module.as_ref()];
        if ids.into_iter().flatten().any(|id| id.contains(['/', '+', '#', '\0'])) {
            return Err("the connection string has an id that no hub gives".to_owned());
        }
        let x509 = find("x509").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let key = if x509 { None } else { Some(need("SharedAccessKey")?) };
        Ok(Self { host, device, module, key })
    }

    pub(super) fn client_id(&self) -> String {
        self.path("")
    }

    pub(super) fn user(&self) -> String {
        format!("{}/{}/?api-version={API}", self.host, self.path(""))
    }

    /// `DEVICE` or `DEVICE/MODULE`, with something in between.
    fn path(&self, between: &str) -> String {
        match &self.module {
            None => self.device.clone(),
            Some(module) => format!("{}/{between}{module}", self.device),
        }
    }

    /// A token that is good for so long from now, by the wall clock; nothing where the certificate does.
    pub(super) fn token(&self, lifetime: Duration) -> Result<Option<String>, Error> {
        let Some(key) = &self.key else { return Ok(None) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let token = self.token_until(key, (now + lifetime).as_secs());
        token.map(Some).map_err(|detail| Error::Protocol { target: self.host.clone(), detail })
    }

    fn token_until(&self, key: &str, expiry: u64) -> Result<String, String> {
        let resource = encode(&format!("{}/devices/{}", self.host, self.path("modules/")));
        let signature = sign(key, &format!("{resource}\n{expiry}"))?;
        Ok(format!("SharedAccessSignature sr={resource}&sig={}&se={expiry}", encode(&signature)))
    }

    /// Where a record is published, with what the hub can route by: content type and encoding, kind and severity.
    pub(super) fn topic(&self, record: &Record, kind: &str) -> String {
        format!(
            "devices/{}/messages/events/$.ct=application%2Fjson&$.ce=utf-8&kind={kind}&severity={}",
            self.path("modules/"),
            record.severity
        )
    }
}

/// Base64 of the HMAC-SHA256 of a text, with a key in base64.
#[cfg(feature = "tls")]
fn sign(key: &str, text: &str) -> Result<String, String> {
    use openssl::base64::{decode_block, encode_block};
    let key = decode_block(key).map_err(|_| "the key is not base64")?;
    let signed = openssl::pkey::PKey::hmac(&key).and_then(|key| {
        openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key)?
            .sign_oneshot_to_vec(text.as_bytes())
    });
    signed.map(|mac| encode_block(&mac)).map_err(|error| format!("cannot sign a token: {error}"))
}

#[cfg(not(feature = "tls"))]
fn sign(_: &str, _: &str) -> Result<String, String> {
    Err("this agent was built without TLS, which signs tokens".to_owned())
}

/// Percent-encoding of everything but what RFC 3986 calls unreserved.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(all(test, feature = "tls"))]
pub(super) mod stand_in;
#[cfg(all(test, feature = "tls"))]
mod tests;
