//! Services: what becomes of them, and what they submit.

use std::fmt::Write as _;

use defender_model::service::{ServiceActivity, Submitted};

use super::{non_empty, text, with_actor, word, FieldSpec, Scratch, Value, Values};

pub(super) const CHANGE: &[FieldSpec] =
    &[word(&["activity"]), text(&["ServiceName", "unit"]), text(&["detail", "message"])];

pub(super) fn change(activity: &ServiceActivity) -> Values<'_> {
    Values::of(&[Value::Text(activity.change.name()), non_empty(&activity.name), non_empty(&activity.detail)])
}

pub(super) const SUBMITTED: &[FieldSpec] = with_actor![
    text(&["title"]),
    word(&["severity", "level"]),
    word(&["category"]),
    word(&["code"]),
    text(&["message", "Msg"]),
    text(&["attributes"]),
    word(&["sender"]),
];

pub(super) fn submitted<'e>(said: &'e Submitted, scratch: &'e mut Scratch) -> Values<'e> {
    for (name, value) in &said.attributes {
        let space = if scratch.line.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(scratch.line, "{space}{name}={value}");
    }
    Values::of(&[
        Value::Text(&said.title),
        Value::Text(said.severity.level()),
        non_empty(&said.category),
        non_empty(&said.code),
        non_empty(&said.message),
        non_empty(&scratch.line),
        non_empty(&said.sender),
    ])
    .actor(7, said.process.as_ref())
}
