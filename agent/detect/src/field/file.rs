//! Files.

use std::fmt::Write as _;

use defender_model::file::{FileActivity, FileChange, FileType, Sha256};

use super::{
    non_empty, number, optional, some_text, text, truth, with_actor, word, Class, FieldSpec, Scratch, Value,
    Values,
};

pub(super) const FIELDS: &[FieldSpec] = with_actor![
    text(&["TargetFilename", "path", "FileName"]),
    text(&["SourceFilename", "old_path"]),
    word(&["activity"]),
    word(&["file_type"]),
    word(&["mode"]),
    word(&["setuid"]),
    word(&["executable"]),
    number(&["owner", "OwnerId"]),
    word(&["Hashes"]),
    word(&["sha256"]),
];

pub(super) const fn classes(change: FileChange) -> &'static [Class] {
    match change {
        FileChange::Created => &[Class::FileEvent],
        FileChange::Modified => &[Class::FileEvent, Class::FileChange],
        FileChange::Renamed => &[Class::FileEvent, Class::FileRename],
        FileChange::Attributes => &[Class::FileChange],
        FileChange::Deleted => &[Class::FileDelete],
        FileChange::Read => &[Class::FileAccess],
    }
}

/// Set-user-id and set-group-id of `st_mode`; the latter means another thing without the group's execute bit (inode(7)).
fn runs_as_another(mode: u16) -> bool {
    mode & 0o4000 != 0 || mode & 0o2010 == 0o2010
}

pub(super) fn read<'e>(file: &'e FileActivity, scratch: &'e mut Scratch) -> Values<'e> {
    let Scratch { first, second, .. } = scratch;
    let (hashes, sha256) = digest(file.sha256, first);
    let mode = match file.mode {
        Some(mode) => {
            // Writing to a String cannot fail.
            let _ = write!(second, "{mode:04o}");
            Value::Text(second)
        }
        None => Value::Absent,
    };
    let regular = matches!(file.file_type, FileType::Regular | FileType::Unknown);
    Values::of(&[
        non_empty(&file.path),
        some_text(file.old_path.as_deref()),
        Value::Text(file.change.name()),
        match file.file_type {
            FileType::Unknown => Value::Absent,
            FileType::Regular => Value::Text("regular"),
            FileType::Directory => Value::Text("directory"),
            FileType::CharacterDevice => Value::Text("character_device"),
            FileType::BlockDevice => Value::Text("block_device"),
            FileType::Socket => Value::Text("socket"),
            FileType::Pipe => Value::Text("pipe"),
            FileType::Link => Value::Text("link"),
        },
        mode,
        file.mode.map_or(Value::Absent, |mode| truth(regular && runs_as_another(mode))),
        file.mode.map_or(Value::Absent, |mode| truth(regular && mode & 0o111 != 0)),
        optional(file.owner),
        hashes,
        sha256,
    ])
    .actor(10, file.process.as_ref())
}

/// `SHA256=...` as Sysmon writes it, and the digits alone.
pub(super) fn digest(sha256: Option<Sha256>, out: &mut String) -> (Value<'_>, Value<'_>) {
    const PREFIX: &str = "SHA256=";
    let Some(sha256) = sha256 else { return (Value::Absent, Value::Absent) };
    // Writing to a String cannot fail.
    let _ = write!(out, "{PREFIX}{sha256}");
    (Value::Text(out), Value::Text(&out[PREFIX.len()..]))
}
