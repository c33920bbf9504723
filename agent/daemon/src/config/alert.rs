//! Sections `[[alert]]`: read so that one with a mistake is left out alone, and told with file, line and key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use defender_detect::alert::{AlertSpec, Program, Range, Watch};
use defender_detect::Placeholders;
use serde::Serialize;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::read::{self, Fault, Value as _};
use super::Alert;

/// Most sections.
const MOST: usize = 256;
/// What comes before the digest of a program.
const DIGEST: &str = " sha256:";

/// Sections `[[alert]]`, those left out that cannot be read. [`super::load`] tells of these.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Alerts(pub Vec<Alert>);

impl read::Value for Alerts {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        let DeValue::Array(items) = value.get_ref() else {
            return Err(Fault::wanted(value, "sections, written as [[alert]]"));
        };
        Ok(Self(items.iter().filter_map(|item| Alert::from_toml(item).ok()).collect()))
    }
}

impl Alerts {
    /// The alerts as detection takes them. What is wrong with one of them was said when the configuration was read.
    #[must_use]
    pub fn specs(&self) -> Vec<AlertSpec> {
        self.0.iter().filter_map(|alert| alert.spec().ok()).collect()
    }
}

impl Alert {
    /// The alert as detection takes it.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn spec(&self) -> Result<AlertSpec, (&'static str, String)> {
        let mut kinds = Vec::new();
        kinds.extend(self.allow_users.clone().map(Watch::Users));
        kinds.extend(self.allow_outbound.clone().map(Watch::Outbound));
        kinds.extend(self.allow_inbound.clone().map(Watch::Inbound));
        kinds.extend(self.allow_dns.clone().map(Watch::Dns));
        if let Some(programs) = &self.allow_processes {
            kinds.push(Watch::Processes(programs.iter().map(|text| program(text)).collect()));
        }
        if let Some(count) = &self.count {
            kinds.push(Watch::Count(Range {
                count: count.clone(),
                select: self.select.conditions(),
                group_by: self.group_by.clone(),
                window_ms: self.window_s.saturating_mul(1000),
                minimum: self.minimum.map(u64::from),
                maximum: self.maximum.map(u64::from),
            }));
        }
        let Some(watch) = kinds.pop() else {
            let why = "it has none of `allow_users`, `allow_processes`, `allow_outbound`, `allow_inbound`, `allow_dns`, `count`";
            return Err(("", why.to_owned()));
        };
        if let Some(other) = kinds.pop() {
            let why = format!("an alert is of one kind, and this has `{}` too; write two", other.key());
            return Err((watch.key(), why));
        }
        if self.count.is_none() {
            let idle = [
                ("select", self.select != super::When::default()),
                ("group_by", !self.group_by.is_empty()),
                ("minimum", self.minimum.is_some()),
                ("maximum", self.maximum.is_some()),
            ];
            if let Some((key, _)) = idle.into_iter().find(|(_, given)| *given) {
                return Err((key, format!("it belongs to `count`, and this is a list: `{}`", watch.key())));
            }
        }
        Ok(AlertSpec {
            name: self.name.clone(),
            id: self.id.clone(),
            description: self.description.clone(),
            level: self.level.0,
            response: self.response.0,
            watch,
        })
    }
}

/// `PATH`, `PATH sha256:DIGEST`, and more digests behind it.
fn program(text: &str) -> Program {
    let mut parts = text.split(DIGEST);
    let path = parts.next().unwrap_or_default().to_owned();
    Program { path, sha256: parts.map(str::to_owned).collect() }
}

/// The alerts of all files that are right.
#[derive(Debug, Default)]
pub(super) struct Checked {
    alerts: Vec<Alert>,
    /// By id: where it is from.
    ids: BTreeMap<String, PathBuf>,
}

impl Checked {
    /// Adds those of a file. Yields the mistakes in it: an offset, and what is wrong there.
    pub(super) fn add(
        &mut self,
        file: &Path,
        table: &DeTable<'_>,
        placeholders: &Placeholders,
    ) -> Vec<(usize, String)> {
        let mut mistakes = Vec::new();
        let Some(DeValue::Array(items)) = table.get("alert").map(Spanned::get_ref) else { return mistakes };
        if items.is_empty() {
            // An empty list says that there shall be nothing.
            *self = Self::default();
        }
        for (number, item) in items.iter().enumerate() {
            if let Err((at, message)) = self.section(file, item, placeholders) {
                mistakes.push((at, format!("[[alert]] {}: {message}", label(item, number))));
            }
        }
        mistakes
    }

    fn section(
        &mut self,
        file: &Path,
        item: &Spanned<DeValue<'_>>,
        placeholders: &Placeholders,
    ) -> Result<(), (usize, String)> {
        let of_key = |key: &str, message: String| {
            let entry = match item.get_ref() {
                DeValue::Table(table) => table.iter().find(|(name, _)| name.get_ref() == key),
                _ => None,
            };
            match entry {
                Some((name, _)) => (name.span().start, format!("`{key}`: {message}")),
                None => (item.span().start, message),
            }
        };
        let alert = Alert::from_toml(item).map_err(|fault| (fault.at, fault.message))?;
        let spec = alert.spec().map_err(|(key, message)| of_key(key, message))?;
        spec.check(placeholders).map_err(|error| of_key(error.key, error.to_string()))?;
        if self.alerts.len() == MOST {
            return Err((item.span().start, format!("more than {MOST} sections")));
        }
        let id = spec.id();
        if let Some(first) = self.ids.get(&id) {
            let why =
                format!("its id `{id}` is that of another in {}; give it one with `id`", first.display());
            return Err(of_key("name", why));
        }
        self.ids.insert(id, file.to_owned());
        self.alerts.push(alert);
        Ok(())
    }

    /// All of them.
    pub(super) fn into_sections(self) -> Alerts {
        Alerts(self.alerts)
    }
}

/// What a section is called, or which one it is.
fn label(item: &Spanned<DeValue<'_>>, number: usize) -> String {
    let name = match item.get_ref() {
        DeValue::Table(table) => table.get("name").and_then(|name| name.get_ref().as_str()),
        _ => None,
    };
    match name {
        Some(name) => format!("\"{name}\""),
        None => format!("number {}", number + 1),
    }
}
