//! Values with a meaning of their own: checked while the file is read, so that an error knows its line.

use std::collections::BTreeMap;
use std::str::FromStr;

use defender_detect::exception::Scalar;
use defender_firewall::Cidr;
use defender_model::finding::Responses;
use defender_model::severity::Severity;
use defender_sensors::peripheral::allow::Entry;
use defender_sensors::process::Preference;
use serde::{Serialize, Serializer};
use toml::de::DeValue;
use toml::Spanned;

use super::read::{self, integer, text, Fault};

/// An address or prefix, such as `192.0.2.0/24`, `2001:db8::/32` or `192.0.2.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix(pub Cidr);

impl read::Value for Prefix {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        Cidr::from_str(text(value)?).map(Self).map_err(|error| Fault::new(value, error.to_string()))
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A public key that verifies configuration from afar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct VerifyingKey(pub String);

impl read::Value for VerifyingKey {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        let key = text(value)?;
        #[cfg(feature = "mqtt")]
        defender_report::mqtt::check_key(key)
            .map_err(|error| Fault::new(value, format!("not an Ed25519 public key as `openssl pkey -pubout -outform DER | base64 -w0` writes it: {error}")))?;
        Ok(Self(key.to_owned()))
    }
}

/// An entry of the list of peripherals, such as `0781:5567` or `class:hid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedPeripheral(pub Entry);

impl read::Value for AllowedPeripheral {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        Entry::from_str(text(value)?).map(Self).map_err(|error| Fault::new(value, error.to_string()))
    }
}

impl Serialize for AllowedPeripheral {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Conditions on an event: Sigma's `field|modifier`, and the values of which any will do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct When(pub BTreeMap<String, Values>);

impl read::Value for When {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        read::Value::from_toml(value).map(Self)
    }
}

/// One value or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Values {
    /// One value.
    One(Value),
    /// Several.
    Several(Vec<Value>),
}

/// A value of a condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Truth(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

impl read::Value for Values {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        match value.get_ref() {
            DeValue::Array(_) => read::Value::from_toml(value).map(Self::Several),
            _ => Value::from_toml(value).map(Self::One),
        }
    }
}

impl read::Value for Value {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        match value.get_ref() {
            DeValue::Boolean(truth) => Ok(Self::Truth(*truth)),
            DeValue::String(text) => Ok(Self::Text(text.as_ref().to_owned())),
            _ => integer(value).map(Self::Number).ok_or_else(|| {
                Fault::wanted(value, "a text, a whole number, true or false, or a list of these")
            }),
        }
    }
}

impl When {
    /// The conditions as detection takes them.
    #[must_use]
    pub fn conditions(&self) -> Vec<(String, Vec<Scalar>)> {
        let scalar = |value: &Value| match value {
            Value::Truth(truth) => Scalar::Truth(*truth),
            Value::Number(number) => Scalar::Number(*number),
            Value::Text(text) => Scalar::Text(text.clone()),
        };
        let all = self.0.iter().map(|(field, values)| {
            let values = match values {
                Values::One(value) => vec![scalar(value)],
                Values::Several(values) => values.iter().map(scalar).collect(),
            };
            (field.clone(), values)
        });
        all.collect()
    }
}

/// Words of the file for values of ours, with the list of what would have been right in the error.
macro_rules! words {
    ($(#[doc = $doc:literal])* $type:ident($inner:ty) { $($word:literal => $value:expr,)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $type(pub $inner);

        impl read::Value for $type {
            fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
                match text(value)? {
                    $($word => Ok(Self($value)),)*
                    other => Err(Fault::unknown_value(value, other, &[$($word),*])),
                }
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $(if self.0 == $value {
                    return serializer.serialize_str($word);
                })*
                serializer.serialize_none()
            }
        }
    };
}

words!(
    /// A Sigma level.
    Level(Severity) {
        "informational" => Severity::Informational,
        "low" => Severity::Low,
        "medium" => Severity::Medium,
        "high" => Severity::High,
        "critical" => Severity::Critical,
    }
);
words!(
    /// Where process events come from.
    SourceChoice(Preference) {
        "auto" => Preference::Auto,
        "audit" => Preference::Audit,
        "ebpf" => Preference::Ebpf,
        "connector" => Preference::Connector,
        "poll" => Preference::Poll,
    }
);
/// What is done about a finding: a word, or a list of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseChoice(pub Responses);

impl read::Value for ResponseChoice {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        const KNOWN: &[&str] =
            &["none", "block_source", "block_destination", "kill_process", "run_hook", "isolate"];
        let names = match value.get_ref() {
            DeValue::Array(names) => names.iter().map(text).collect::<Result<Vec<_>, _>>()?,
            DeValue::String(name) => vec![name.as_ref()],
            _ => return Err(Fault::wanted(value, "a response or a list of them")),
        };
        Responses::from_names(names.iter().copied())
            .map(Self)
            .map_err(|name| Fault::unknown_value(value, name, KNOWN))
    }
}

impl Serialize for ResponseChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(defender_model::finding::Response::name))
    }
}

words!(
    /// What a threat feed may list.
    FeedKind(defender_detect::feed::Kind) {
        "any" => defender_detect::feed::Kind::Any,
        "address" => defender_detect::feed::Kind::Address,
        "domain" => defender_detect::feed::Kind::Domain,
        "sha256" => defender_detect::feed::Kind::Sha256,
    }
);
words!(
    /// Whether the learned profile is held against what happens.
    Enforcement(bool) {
        "off" => false,
        "alert" => true,
    }
);
words!(
    /// How much the agent says on its standard error.
    LogLevel(tracing::Level) {
        "error" => tracing::Level::ERROR,
        "warn" => tracing::Level::WARN,
        "info" => tracing::Level::INFO,
    }
);
/// How soon something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// At once.
    Immediate,
    /// With the others of its priority, so often as section `priorities` says.
    High,
    /// The same.
    Medium,
    /// The same.
    Low,
}
words!(
    /// The priority of a kind of record.
    Priority(Urgency) {
        "immediate" => Urgency::Immediate,
        "high" => Urgency::High,
        "medium" => Urgency::Medium,
        "low" => Urgency::Low,
    }
);
words!(
    /// What a line of remote syslog looks like.
    SyslogFormat(defender_report::syslog::Format) {
        "rfc5424" => defender_report::syslog::Format::Rfc5424,
        "rfc3164" => defender_report::syslog::Format::Rfc3164,
        "cef" => defender_report::syslog::Format::Cef,
    }
);

words!(
    /// Whether MQTT carries security messages where there is a counterpart.
    MqttFormat(bool) {
        "ocsf" => false,
        "security-message" => true,
    }
);

/// How remote syslog travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// One datagram a message (RFC 5426).
    Udp,
    /// Octet counting (RFC 6587).
    Tcp,
    /// Octet counting in TLS (RFC 5425).
    Tls,
}

impl read::Value for Transport {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        match text(value)? {
            "udp" => Ok(Self::Udp),
            "tcp" => Ok(Self::Tcp),
            "tls" => Ok(Self::Tls),
            other => Err(Fault::unknown_value(value, other, &["udp", "tcp", "tls"])),
        }
    }
}
