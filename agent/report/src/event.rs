//! Looking into a record: the event it has in OCSF.

use serde_json::Value;

use crate::record::Record;

/// What the record says; nothing if it cannot be read.
pub(crate) fn of(record: &Record) -> Value {
    serde_json::from_slice(&record.ocsf).unwrap_or(Value::Null)
}

/// A number, or a text that is not empty, by its place in the event.
pub(crate) fn text_at(event: &Value, place: &str) -> Option<String> {
    match event.pointer(place)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
