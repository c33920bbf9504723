//! The keys of one table: each asked for by name and type; what nobody asked for is a mistake.

use defender_model::order;
use defender_model::text::nearest;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use crate::pattern::Pattern;

/// A mistake at a place in the file, before file and check are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Offset in bytes.
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// A table that is being read.
#[derive(Debug)]
pub(crate) struct Keys<'t> {
    table: &'t DeTable<'t>,
    /// Where the table starts.
    pub(crate) at: usize,
    asked: Vec<&'static str>,
}

impl<'t> Keys<'t> {
    pub(crate) fn new(table: &'t DeTable<'t>, at: usize) -> Self {
        Self { table, at, asked: Vec::new() }
    }

    /// The value of any type.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.table.get(key)
    }

    /// Every key with the place where it stands, in the order of the file.
    pub(crate) fn names(&self) -> Vec<(&'t str, usize)> {
        let mut names: Vec<_> =
            self.table.iter().map(|(key, _)| (key.get_ref().as_ref(), key.span().start)).collect();
        order::sort_by_key(&mut names, |(_, at)| *at);
        names
    }

    /// A string.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<String>, Fault> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some(text.as_ref().to_owned())),
            other => Err(wrong_type(key, "a string", value, other)),
        }
    }

    /// A string that has to be there.
    pub(crate) fn required_text(&mut self, key: &'static str) -> Result<String, Fault> {
        self.text(key)?.ok_or_else(|| Fault::new(self.at, format!("`{key}` is missing")))
    }

    /// A string, number or boolean, as text.
    pub(crate) fn scalar(&mut self, key: &'static str) -> Result<Option<String>, Fault> {
        self.value(key).map(|value| scalar(key, value)).transpose()
    }

    /// One string, number or boolean, or a list of them.
    pub(crate) fn list(&mut self, key: &'static str) -> Result<Option<Vec<String>>, Fault> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Array(items) => {
                items.iter().map(|item| scalar(key, item)).collect::<Result<_, _>>().map(Some)
            }
            _ => Ok(Some(vec![scalar(key, value)?])),
        }
    }

    /// A boolean.
    pub(crate) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Some(*flag)),
            other => Err(wrong_type(key, "true or false", value, other)),
        }
    }

    /// A whole number.
    pub(crate) fn number(&mut self, key: &'static str) -> Result<Option<i64>, Fault> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Some)
                .map_err(|_| Fault::new(value.span().start, format!("`{key}` is too large a number"))),
            DeValue::String(text) => text.parse().map(Some).map_err(|_| {
                Fault::new(value.span().start, format!("`{key}` is a whole number, not `{text}`"))
            }),
            other => Err(wrong_type(key, "a whole number", value, other)),
        }
    }

    /// A whole number of at least 0.
    pub(crate) fn count(&mut self, key: &'static str) -> Result<Option<usize>, Fault> {
        let at = self.place(key);
        let negative = |_| Fault::new(at, format!("`{key}` cannot be negative"));
        self.number(key)?.map(usize::try_from).transpose().map_err(negative)
    }

    /// A mode in octal, as a string.
    pub(crate) fn mode(&mut self, key: &'static str) -> Result<Option<u32>, Fault> {
        let at = self.place(key);
        let Some(text) = self.text(key)? else { return Ok(None) };
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
        mode.map(Some).ok_or_else(|| Fault::new(at, format!("`{key}` is a mode in octal, such as \"0640\"")))
    }

    /// A regular expression.
    pub(crate) fn pattern(&mut self, key: &'static str) -> Result<Option<Pattern>, Fault> {
        let at = self.place(key);
        let Some(text) = self.text(key)? else { return Ok(None) };
        Pattern::new(text).map(Some).map_err(|message| Fault::new(at, format!("`{key}`: {message}")))
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<T>, Fault> {
        let at = self.place(key);
        let Some(text) = self.text(key)? else { return Ok(None) };
        choose(key, &text, words, at).map(Some)
    }

    /// Some of some words.
    pub(crate) fn words<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<Vec<T>>, Fault> {
        let at = self.place(key);
        let Some(list) = self.list(key)? else { return Ok(None) };
        list.iter().map(|text| choose(key, text, words, at)).collect::<Result<_, _>>().map(Some)
    }

    /// Where a key's value stands; the table where it does not.
    pub(crate) fn place(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.at, |value| value.span().start)
    }

    /// A mistake in the value of a key.
    pub(crate) fn fault(&self, key: &str, message: impl Into<String>) -> Fault {
        Fault::new(self.place(key), message)
    }

    /// Ends the reading: a key that nobody asked for is a mistake.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        for (name, at) in self.names() {
            if !self.asked.contains(&name) {
                return Err(Fault::new(at, unknown("key", name, self.asked.iter().copied())));
            }
        }
        Ok(())
    }
}

/// The message about an unknown word, with the nearest known one.
pub(crate) fn unknown<'a>(what: &str, wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(wrong, known.clone()) {
        Some(known) => format!("unknown {what} `{wrong}`; did you mean `{known}`?"),
        None => format!("unknown {what} `{wrong}`; it is one of {}", known.collect::<Vec<_>>().join(", ")),
    }
}

fn choose<T: Copy>(key: &str, text: &str, words: &[(&'static str, T)], at: usize) -> Result<T, Fault> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        Fault::new(at, unknown(&format!("value of `{key}`:"), text, words.iter().map(|(word, _)| *word)))
    })
}

fn scalar(key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, Fault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.as_ref().to_owned()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| Fault::new(value.span().start, format!("`{key}` is too large a number"))),
        other => Err(wrong_type(key, "a string, a number or a boolean", value, other)),
    }
}

fn wrong_type(key: &str, wanted: &str, value: &Spanned<DeValue<'_>>, found: &DeValue<'_>) -> Fault {
    Fault::new(value.span().start, format!("`{key}` is {wanted}, not {}", found.type_str()))
}
