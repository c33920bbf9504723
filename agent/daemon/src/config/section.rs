//! One section of the file: a struct, its defaults and its documentation from one list, so that they cannot drift apart.

use serde::Serialize;

/// One key of the configuration file, for the reference and the commented default file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Name within its section.
    pub name: &'static str,
    /// Kind of value in the file's own words.
    pub kind: &'static str,
    /// Default as it would be written in the file; `None` for keys that are absent by default.
    pub default: Option<String>,
    /// What it means.
    pub doc: String,
}

/// One section of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name between the brackets.
    pub name: &'static str,
    /// The section is a list: its name stands between double brackets and may be repeated.
    pub list: bool,
    /// What it is about.
    pub doc: String,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// Joins the lines of a doc comment.
pub(super) fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// A value as the file would have it. JSON's strings, numbers, booleans and arrays are TOML's too.
pub(super) fn literal(value: &impl Serialize) -> Option<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Null) | Err(_) => None,
        Ok(serde_json::Value::Array(items)) => {
            Some(format!("[{}]", items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
        }
        Ok(value) => Some(value.to_string()),
    }
}

/// Kind of value, by the Rust type.
pub(super) fn kind(rust: &'static str) -> &'static str {
    match rust {
        "bool" | "Option<bool>" => "boolean",
        "u32" | "u64" | "u16" | "usize" | "Option<u32>" | "Option<u64>" => "integer",
        "When" => "table of fields and values",
        "Placeholders" => "table of arrays of strings",
        "Vec<u16>" => "array of integers",
        "Vec<PostureException>" => "array of tables",
        "Vec<String>" | "Vec<PathBuf>" | "Option<Vec<String>>" => "array of strings",
        "Vec<AllowedPeripheral>" => "array of devices, classes and buses",
        "Vec<Prefix>" => "array of addresses or prefixes",
        "Vec<VerifyingKey>" => "array of public keys",
        "Level" | "Option<Level>" => "`informational`, `low`, `medium`, `high` or `critical`",
        "SourceChoice" => "`auto`, `audit`, `ebpf`, `connector` or `poll`",
        "Option<ResponseChoice>" | "ResponseChoice" => "a response or an array of them: `none`, `block_source`, `block_destination`, `kill_process`, `run_hook`, `isolate`",
        "Enforcement" => "`off` or `alert`",
        "FeedKind" => "`any`, `address`, `domain` or `sha256`",
        "Priority" => "`immediate`, `high`, `medium` or `low`",
        "SyslogFormat" => "`rfc5424`, `rfc3164` or `cef`",
        "MqttFormat" => "`ocsf` or `security-message`",
        "Transport" => "`udp`, `tcp` or `tls`",
        "LogLevel" => "`error`, `warn` or `info`",
        _ => "string",
    }
}

/// Declares a section: a struct whose fields have a documentation and a default.
macro_rules! section {
    ($(list $list:literal)? $name:literal $(#[doc = $section_doc:literal])* $type:ident {
        $($(#[doc = $doc:literal])* $key:ident: $kind:ty = $default:expr,)*
    }) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $type {
            $($(#[doc = $doc])* pub $key: $kind,)*
        }

        impl Default for $type {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $crate::config::read::Value for $type {
            fn from_toml(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
            ) -> Result<Self, $crate::config::read::Fault> {
                let mut read = Self::default();
                $crate::config::read::table(value, &mut [$((stringify!($key), &mut read.$key),)*])?;
                Ok(read)
            }
        }

        impl $type {
            /// The section's documentation.
            #[must_use]
            pub fn section() -> $crate::config::section::Section {
                use $crate::config::section::{kind, literal, prose, Key, Section};
                let defaults = Self::default();
                Section {
                    name: $name,
                    list: false $(|| $list)?,
                    doc: prose(&[$($section_doc),*]),
                    keys: vec![$(Key {
                        name: stringify!($key),
                        kind: kind(stringify!($kind)),
                        default: literal(&defaults.$key),
                        doc: prose(&[$($doc),*]),
                    },)*],
                }
            }
        }
    };
}
pub(super) use section;
