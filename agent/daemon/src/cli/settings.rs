//! `config check` and `config show`.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{json, Map, Value};

use super::arguments::Given;
use super::{complain, query, Failure, Outcome, Streams, CONFIGURATION};
use crate::config::load::{load, Loaded};

fn file(given: &Given) -> PathBuf {
    given.arguments.first().map_or_else(|| CONFIGURATION.into(), PathBuf::from)
}

/// Lists every mistake; 2 when there is one.
pub(super) fn check(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let loaded = load(&file(given));
    if given.json {
        let problems: Vec<Value> = loaded
            .problems
            .iter()
            .map(|problem| json!({ "file": problem.file, "line": problem.line, "message": problem.message }))
            .collect();
        query::print(streams.output, &json!({ "files": loaded.files, "problems": problems }))?;
    } else if loaded.problems.is_empty() {
        for file in &loaded.files {
            writeln!(
                streams.output,
                "{}: in order",
                defender_model::text::printable(&file.to_string_lossy())
            )?;
        }
    }
    Ok(told(&loaded, streams))
}

/// Prints the configuration in force; 2 when a file had to be left out.
pub(super) fn show(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let loaded = load(&file(given));
    let value = serde_json::to_value(&loaded.config)
        .map_err(|error| Failure::failed(format!("cannot show the configuration: {error}")))?;
    if given.json {
        query::print(streams.output, &value)?;
    } else if let Value::Object(sections) = &value {
        table(streams.output, "", sections)?;
    }
    Ok(told(&loaded, streams))
}

/// The mistakes on standard error.
fn told(loaded: &Loaded, streams: &mut Streams<'_>) -> Outcome {
    for problem in &loaded.problems {
        complain(streams, &problem.to_string());
    }
    if loaded.problems.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Usage
    }
}

/// A TOML table: values first, then the tables in it. JSON's strings, numbers, booleans and arrays of these are TOML's too.
fn table(out: &mut dyn Write, name: &str, entries: &Map<String, Value>) -> io::Result<()> {
    let is_table = |value: &Value| {
        matches!(value, Value::Object(_))
            || matches!(value, Value::Array(items) if items.iter().any(Value::is_object))
    };
    let values: Vec<_> = entries.iter().filter(|(_, value)| !is_table(value) && !value.is_null()).collect();
    if !name.is_empty() && !values.is_empty() {
        writeln!(out, "[{name}]")?;
    }
    key_values(out, &values)?;
    for (key, value) in entries.iter().filter(|(_, value)| is_table(value)) {
        let path = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        match value {
            Value::Object(inner) => table(out, &path, inner)?,
            Value::Array(items) => {
                for item in items.iter().filter_map(Value::as_object) {
                    writeln!(out, "[[{path}]]")?;
                    let values: Vec<_> = item.iter().filter(|(_, value)| !value.is_null()).collect();
                    key_values(out, &values)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn key_values(out: &mut dyn Write, values: &[(&String, &Value)]) -> io::Result<()> {
    for (key, value) in values {
        writeln!(out, "{key} = {}", literal(value))?;
    }
    if values.is_empty() {
        return Ok(());
    }
    writeln!(out)
}

/// A value as TOML has it: JSON's, but for tables.
fn literal(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let pairs: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{} = {}", plain(&key.as_str().into()), literal(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        value => plain(value),
    }
}

/// TOML forbids DEL in strings, which JSON leaves as it is; a terminal should not see C1 controls either.
fn plain(value: &Value) -> String {
    let mut out = String::new();
    for c in value.to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::{Values, When};
    use crate::config::{self, Config, Rule, RuleException};

    #[test]
    fn what_is_shown_can_be_read_back() {
        let mut config = Config::default();
        config.device.id = "quote \" and \\ and \u{7f}".into();
        config.rule = vec![
            Rule { id: "a".into(), enabled: Some(false), ..Rule::default() },
            Rule { id: "b".into(), count: Some(3), ..Rule::default() },
        ];
        let when = [("CommandLine|contains".to_owned(), Values::One(config::value::Value::Text("a".into())))];
        config.exception = vec![RuleException { when: When(when.into()), ..RuleException::default() }];
        let Value::Object(sections) = serde_json::to_value(&config).unwrap() else { panic!("no table") };
        let mut text = Vec::new();
        table(&mut text, "", &sections).unwrap();
        let text = String::from_utf8(text).unwrap();
        let table = toml::de::DeTable::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let read = Config::read(table.get_ref()).unwrap_or_else(|fault| panic!("{}\n{text}", fault.message));
        assert_eq!(read, config, "{text}");
    }
}
