//! From the file's values to the types. Without serde's derive: that is another copy of the code for every section, 100 KB in all.

use std::collections::BTreeMap;
use std::path::PathBuf;

use defender_model::order;
use defender_model::text::nearest;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

/// A mistake at a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Offset in bytes from the start of the file.
    pub(crate) at: usize,
    /// What is wrong and what would be right.
    pub(crate) message: String,
    /// The message goes on from the name of the key, which only the table knows.
    nameless: bool,
}

impl Fault {
    /// A mistake that explains itself.
    pub(super) fn new(value: &Spanned<DeValue<'_>>, message: impl Into<String>) -> Self {
        Self { at: value.span().start, message: message.into(), nameless: false }
    }

    /// A value of the wrong type or beyond its limits. `wanted` as in "must be ...".
    pub(super) fn wanted(value: &Spanned<DeValue<'_>>, wanted: &str) -> Self {
        let found = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Boolean(truth) => truth.to_string(),
            other => format!("a value of type {}", other.type_str()),
        };
        Self { at: value.span().start, message: format!("must be {wanted}, not {found}"), nameless: true }
    }

    /// A word that means nothing here.
    pub(super) fn unknown_value(value: &Spanned<DeValue<'_>>, word: &str, known: &[&str]) -> Self {
        Self::new(value, unknown("value", word, known.iter().copied()))
    }
}

/// The message about an unknown word, with the nearest known one.
fn unknown<'a>(what: &str, wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(wrong, known.clone()) {
        Some(near) => format!("unknown {what} `{wrong}`; did you mean `{near}`?"),
        None => {
            let known: Vec<String> = known.map(|word| format!("`{word}`")).collect();
            format!("unknown {what} `{wrong}`, expected one of {}", known.join(", "))
        }
    }
}

/// A type that a value of the file can have.
pub(super) trait Value: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault>;
}

/// A place for a value, whatever its type.
pub(super) trait Place {
    /// Puts there what the file says.
    fn fill(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Fault>;
}

impl<T: Value> Place for T {
    fn fill(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
        *self = T::from_toml(value)?;
        Ok(())
    }
}

/// Reads a table into the places named; a key without a place is a mistake.
pub(super) fn table(
    value: &Spanned<DeValue<'_>>,
    places: &mut [(&'static str, &mut dyn Place)],
) -> Result<(), Fault> {
    match value.get_ref() {
        DeValue::Table(table) => entries(table, places),
        _ => Err(Fault::wanted(value, "a section")),
    }
}

/// Reads the keys of a table into the places named, in the order of the file: the first mistake is the one that is told.
pub(super) fn entries(
    table: &DeTable<'_>,
    places: &mut [(&'static str, &mut dyn Place)],
) -> Result<(), Fault> {
    let mut keys: Vec<_> = table.iter().collect();
    order::sort_by_key(&mut keys, |(key, _)| key.span().start);
    for (key, value) in keys {
        let name: &str = key.get_ref();
        let Some((_, place)) = places.iter_mut().find(|(known, _)| *known == name) else {
            let message = unknown("key", name, places.iter().map(|(known, _)| *known));
            return Err(Fault { at: key.span().start, message, nameless: false });
        };
        place.fill(value).map_err(|fault| match fault.nameless {
            true => Fault { message: format!("`{name}` {}", fault.message), nameless: false, ..fault },
            false => fault,
        })?;
    }
    Ok(())
}

/// The text of a string.
pub(super) fn text<'v>(value: &'v Spanned<DeValue<'_>>) -> Result<&'v str, Fault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err(Fault::wanted(value, "a text in quotes")),
    }
}

/// A whole number; `None` when it is not one or does not fit.
pub(super) fn integer(value: &Spanned<DeValue<'_>>) -> Option<i64> {
    match value.get_ref() {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

fn count(value: &Spanned<DeValue<'_>>, most: u64) -> Result<u64, Fault> {
    integer(value)
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| *number <= most)
        .ok_or_else(|| Fault::wanted(value, &format!("a whole number from 0 to {most}")))
}

macro_rules! counts {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
                // TOML's numbers end at i64's largest.
                let most = u64::try_from(<$type>::MAX).unwrap_or(u64::MAX).min(i64::MAX as u64);
                count(value, most).map(|number| number as $type)
            }
        }
    )*};
}
counts!(u16, u32, u64, usize);

impl Value for bool {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        value.get_ref().as_bool().ok_or_else(|| Fault::wanted(value, "true or false"))
    }
}

impl Value for String {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        text(value).map(str::to_owned)
    }
}

impl Value for PathBuf {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        text(value).map(Self::from)
    }
}

impl<T: Value> Value for Option<T> {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        T::from_toml(value).map(Some)
    }
}

impl<T: Value> Value for Vec<T> {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        let DeValue::Array(items) = value.get_ref() else { return Err(Fault::wanted(value, "an array")) };
        items.iter().map(T::from_toml).collect()
    }
}

impl<T: Value> Value for BTreeMap<String, T> {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Fault> {
        let DeValue::Table(table) = value.get_ref() else { return Err(Fault::wanted(value, "a table")) };
        let mut entries = Self::new();
        for (key, value) in table {
            entries.insert(key.get_ref().to_string(), T::from_toml(value)?);
        }
        Ok(entries)
    }
}
