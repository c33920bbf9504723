//! A page with one event of every kind, as the agent wrote it on a device: what `docs/samples.md` is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::Flavour;
use crate::qemu::Machine;
use crate::workspace::Workspace;

/// Events of one class and activity that are looked at, of each file of the agent's.
const CANDIDATES: u32 = 40;
/// A sample should show much, and still be read: bytes.
const READABLE: usize = 2600;

/// Names of classes in the schema.
const CLASSES: [(u64, &str); 21] = [
    (0, "Base Event"),
    (1001, "File System Activity"),
    (1002, "Kernel Extension Activity"),
    (1007, "Process Activity"),
    (1010, "Peripheral Activity"),
    (2003, "Compliance Finding"),
    (2004, "Detection Finding"),
    (3001, "Account Change"),
    (3002, "Authentication"),
    (3004, "Entity Management"),
    (3006, "Group Management"),
    (4001, "Network Activity"),
    (4003, "DNS Activity"),
    (5001, "Device Inventory Info"),
    (5020, "Software Inventory Info"),
    (6002, "Application Lifecycle"),
    (6008, "Application Error"),
    (7001, "Remediation Activity"),
    (7002, "File Remediation Activity"),
    (7003, "Process Remediation Activity"),
    (7004, "Network Remediation Activity"),
];

/// What tells one kind from another: class, activity, and our own word where the class has several.
type Kind = (u64, u64, String);

fn file(workspace: &Workspace, flavour: Flavour) -> PathBuf {
    workspace.work(&format!("runs/{}/samples.jsonl", flavour.name()))
}

/// Keeps candidates of every kind that the machine's agent has written.
///
/// # Errors
/// When the machine does not answer.
pub fn keep(workspace: &Workspace, machine: &mut Machine) -> Result<()> {
    let files = "$(ls -tr /var/log/defender/events.jsonl*)";
    let heads = machine.ok(&format!(
        "grep -ho '^{{\"class_uid\":[0-9]*,\"category_uid\":[0-9]*,\"activity_id\":[0-9]*,' {files} | sort -u"
    ))?;
    let mut lines = String::new();
    for head in heads.lines() {
        lines += &machine.ok(&format!("grep -hF -m {CANDIDATES} -- '{head}' {files}"))?;
    }
    let kept = file(workspace, machine.flavour());
    fs::write(&kept, lines).map_err(Error::io(format!("cannot write {}", kept.display())))
}

/// Writes the page from what runs of these flavours kept: of each kind the event that says most. A kind that they do not have keeps the
/// sample that the page has.
///
/// # Errors
/// When nothing was kept, or the page cannot be written.
pub fn write(workspace: &Workspace, flavours: &[Flavour], page: &Path) -> Result<()> {
    let mut best: BTreeMap<Kind, (Flavour, String)> = BTreeMap::new();
    for flavour in flavours {
        let kept = fs::read_to_string(file(workspace, *flavour)).unwrap_or_default();
        for line in kept.lines() {
            let Some(kind) = kind(line) else { continue };
            let better = best.get(&kind).is_none_or(|(_, known)| rank(line) > rank(known));
            if better {
                best.insert(kind, (*flavour, line.to_owned()));
            }
        }
    }
    if best.is_empty() {
        return Err(Error::Missing {
            what: "events".into(),
            next: "run scenarios that need the agent".into(),
        });
    }
    let before = fs::read_to_string(page).unwrap_or_default();
    for (kind, sample) in samples_of(&before) {
        best.entry(kind).or_insert(sample);
    }
    fs::write(page, text(&best)).map_err(Error::io(format!("cannot write {}", page.display())))
}

/// What kind of event a line is; `None` if it is none.
fn kind(line: &str) -> Option<Kind> {
    let event: Value = serde_json::from_str(line).ok()?;
    let number = |name: &str| event[name].as_u64().unwrap_or_default();
    // A module and an eBPF program are of one class.
    let program = if event["unmapped"]["program_type"].is_string() { "ebpf" } else { "" };
    let own = event["unmapped"]["kind"].as_str().unwrap_or(program).to_owned();
    (number("class_uid") > 0 || event["class_uid"] == 0)
        .then(|| (number("class_uid"), number("activity_id"), own))
}

/// The samples of a page, with the images that its table says they are from.
fn samples_of(page: &str) -> Vec<(Kind, (Flavour, String))> {
    page.lines()
        .filter_map(|line| Some((kind(line)?, line)))
        .filter_map(|((class, activity, own), line)| {
            let (begin, end) = (format!("| {class} "), format!(" | {activity} | {own} | "));
            let flavour =
                page.lines().filter(|row| row.starts_with(&begin)).find_map(|row| row.split_once(&end))?.1;
            let flavour = Flavour::parse(flavour.trim_end_matches(" |")).ok()?;
            Some(((class, activity, own), (flavour, line.to_owned())))
        })
        .collect()
}

/// Long is good, too long is not.
fn rank(line: &str) -> (bool, i64) {
    let length = i64::try_from(line.len()).unwrap_or(i64::MAX);
    let readable = line.len() <= READABLE;
    (readable, if readable { length } else { -length })
}

fn text(best: &BTreeMap<Kind, (Flavour, String)>) -> String {
    let mut out = String::from(
        "# Samples\n\nOne event of every kind ([events.md](events.md)), as the agent wrote it in runs of the validation on the reference \
         images.\nNothing is edited. `defender-validation run --samples docs/samples.md` writes anew what its scenarios bring about; `tests/tests/ocsf` checks \
         every line\nagainst the published schema.\n\n| Class | Activity | Kind | Image |\n|---|---|---|---|\n",
    );
    let name = |class: u64| CLASSES.iter().find(|(known, _)| *known == class).map_or("", |(_, name)| name);
    for ((class, activity, own), (flavour, _)) in best {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {class} {} | {activity} | {own} | {} |", name(*class), flavour.name());
    }
    for ((class, activity, own), (_, line)) in best {
        let own = if own.is_empty() { String::new() } else { format!(", {own}") };
        let _ = writeln!(out, "\n## {class} {}, {activity}{own}\n\n```json\n{line}\n```", name(*class));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_line_as_it_was() {
        let line = r#"{"class_uid":1001,"activity_id":3}"#;
        let mut best = BTreeMap::new();
        best.insert((1001, 3, String::new()), (Flavour::Busybox, line.to_owned()));
        let load = r#"{"class_uid":1002,"activity_id":1,"unmapped":{"program_type":"kprobe"}}"#;
        best.insert((1002, 1, "ebpf".into()), (Flavour::Systemd, load.to_owned()));
        let page = text(&best);
        assert!(page.contains("| 1001 File System Activity | 3 |  | busybox |"), "{page}");
        assert_eq!(page.lines().filter(|on| *on == line).count(), 1);
        assert_eq!(samples_of(&page), best.into_iter().collect::<Vec<_>>());
        assert!(rank("long") > rank("s") && rank("s") > rank(&"x".repeat(READABLE + 1)));
    }
}
