//! What processes do to others, and becoming root.

use defender_model::process::{Deed, ProcessDeed};

use super::{non_empty, number, optional, text, user, with_actor, word, Class, FieldSpec, Value, Values};

// The names that Sigma's rules about Windows use for both ends. The first three are of the process that does it, and of it there is more.
pub(super) const ACCESS: &[FieldSpec] = with_actor![
    text(&["SourceImage"]),
    number(&["SourceProcessId"]),
    word(&["SourceUser"]),
    text(&["TargetImage"]),
    text(&["TargetCommandLine"]),
    number(&["TargetProcessId"]),
    word(&["TargetUser"]),
    number(&["TargetUid"]),
];

pub(super) const PRIVILEGE: &[FieldSpec] = with_actor![number(&["PreviousUid", "old_uid"])];

pub(super) fn read(done: &ProcessDeed) -> (&'static [Class], Values<'_>) {
    let by = &done.process;
    match &done.deed {
        Deed::Traced(target) => {
            let values = Values::of(&[
                non_empty(&by.executable),
                Value::Number(by.pid.into()),
                user(by.user.as_deref(), by.uid),
                non_empty(&target.executable),
                non_empty(&target.command_line),
                Value::Number(target.pid.into()),
                user(target.user.as_deref(), target.uid),
                optional(target.uid),
            ]);
            (&[Class::ProcessAccess], values.actor(8, Some(by)))
        }
        Deed::BecameRoot { from } => {
            (&[Class::PrivilegeChange], Values::of(&[Value::Number((*from).into())]).actor(1, Some(by)))
        }
    }
}
