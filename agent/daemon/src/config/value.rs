//! Values with a meaning of their own: checked while the file is read, so that an error knows its line.

use std::collections::BTreeMap;
use std::str::FromStr;

use defender_detect::exception::Scalar;
use defender_firewall::Cidr;
use defender_model::finding::Responses;
use defender_model::severity::Severity;
use defender_sensors::process::Preference;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address or prefix, such as `192.0.2.0/24`, `2001:db8::/32` or `192.0.2.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix(pub Cidr);

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Cidr::from_str(&text).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Conditions on an event: Sigma's `field|modifier`, and the values of which any will do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct When(pub BTreeMap<String, Values>);

/// One value or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a text, a whole number, true or false, or a list of these")]
pub enum Values {
    /// One value.
    One(Value),
    /// Several.
    Several(Vec<Value>),
}

/// A value of a condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a text, a whole number, true or false")]
pub enum Value {
    /// True or false.
    Truth(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
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

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match String::deserialize(deserializer)?.as_str() {
                    $($word => Ok(Self($value)),)*
                    other => Err(D::Error::unknown_variant(other, &[$($word),*])),
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
        "connector" => Preference::Connector,
        "poll" => Preference::Poll,
    }
);
/// What is done about a finding: a word, or a list of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseChoice(pub Responses);

impl<'de> Deserialize<'de> for ResponseChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = match Words::deserialize(deserializer)? {
            Words::One(name) => vec![name],
            Words::Several(names) => names,
        };
        const KNOWN: &[&str] = &["none", "block_source", "block_destination", "kill_process", "run_hook"];
        Responses::from_names(names.iter().map(String::as_str))
            .map(Self)
            .map_err(|name| D::Error::unknown_variant(name, KNOWN))
    }
}

impl Serialize for ResponseChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(defender_model::finding::Response::name))
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a response or a list of them")]
enum Words {
    One(String),
    Several(Vec<String>),
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
    /// How much the agent says on its standard error.
    LogLevel(tracing::Level) {
        "error" => tracing::Level::ERROR,
        "warn" => tracing::Level::WARN,
        "info" => tracing::Level::INFO,
    }
);

/// How remote syslog travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// One datagram a message (RFC 5426).
    Udp,
    /// Octet counting (RFC 6587).
    Tcp,
    /// Octet counting in TLS (RFC 5425).
    Tls,
}
