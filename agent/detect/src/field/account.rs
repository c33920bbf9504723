//! Local users and groups.

use defender_model::account::AccountActivity;

use super::{non_empty, number, optional, text, with_actor, word, FieldSpec, Value, Values};

pub(super) const FIELDS: &[FieldSpec] = with_actor![
    word(&["activity"]),
    text(&["TargetUserName", "account"]),
    number(&["TargetUserId"]),
    text(&["TargetGroup", "group"]),
    number(&["TargetGroupId"]),
    text(&["shell"]),
    text(&["detail"]),
];

pub(super) fn read(done: &AccountActivity) -> Values<'_> {
    Values::of(&[
        Value::Text(done.change.name()),
        non_empty(&done.user),
        optional(done.uid),
        non_empty(&done.group),
        optional(done.gid),
        non_empty(&done.shell),
        non_empty(&done.detail),
    ])
    .actor(7, done.process.as_ref())
}
