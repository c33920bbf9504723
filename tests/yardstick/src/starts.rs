//! Program starts as both sides take them.

use std::fs;
use std::path::Path;

use defender_model::event::Event;
use defender_model::process::{Ancestor, Change, Process, ProcessActivity, Source};
use defender_model::time::Timestamp;

/// One program start.
pub struct Start {
    /// As the file has it.
    pub line: String,
    /// For our detector.
    pub ours: Event,
    /// For `sigma-rust`, with the same fields under Sigma's names.
    pub theirs: sigma_rust::Event,
}

/// Parent of every start: what runs them on a device.
const PARENT: &str = "/sbin/init";

/// Reads `image|command line` lines; `#` begins a comment line.
pub fn read(file: &Path) -> Result<Vec<Start>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let starts: Vec<Start> = lines
        .filter_map(|line| line.split_once('|').map(|(image, command)| start(line, image, command)))
        .collect();
    if starts.is_empty() {
        return Err(format!("{}: no line `image|command line`", file.display()));
    }
    Ok(starts)
}

fn start(line: &str, image: &str, command: &str) -> Start {
    let process = Process {
        pid: 4242,
        executable: image.into(),
        argv: command.split(' ').map(str::to_owned).collect(),
        cwd: "/".into(),
        uid: Some(0),
        euid: Some(0),
        user: Some("root".into()),
        parent: Some(
            Ancestor { pid: 1, executable: PARENT.into(), command_line: PARENT.into(), parent: None }.into(),
        ),
        ..Process::default()
    };
    let change = Change::Exec { truncated: false };
    let activity = ProcessActivity { process, change, source: Source::Replay, started: None };
    let theirs = sigma_rust::Event::from([
        ("Image", image),
        ("CommandLine", command),
        ("ParentImage", PARENT),
        ("ParentCommandLine", PARENT),
        ("CurrentDirectory", "/"),
        ("User", "root"),
    ]);
    Start {
        line: line.to_owned(),
        ours: Event::new(Timestamp::from_secs(1_700_000_000), activity.into()),
        theirs,
    }
}
