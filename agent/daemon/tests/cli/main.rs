//! The command line as people and scripts meet it: the program itself, its output and its exit codes.
//!
//! | Module | Holds |
//! |---|---|
//! | here | help, configuration, streams; the documentation |
//! | `query` | commands that ask the running agent |
//! | `rules` | `rules check` and `rules list` |
//! | `replay` | `replay` |
//! | `posture` | `posture` and its kin |
//! | `sbom` | `sbom` |

#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests; the functions they share are tests too.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

mod posture;
mod query;
mod replay;
mod rules;
mod sbom;

#[derive(Debug)]
struct Ended {
    status: i32,
    output: String,
    errors: String,
}

fn defender(arguments: &[&str]) -> Ended {
    with_input(arguments, b"")
}

fn with_input(arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_defender"))
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that has seen enough closes its input.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ended = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    Ended {
        status: ended.status.code().unwrap_or(-1),
        output: String::from_utf8(ended.stdout).unwrap(),
        errors: String::from_utf8(ended.stderr).unwrap(),
    }
}

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
        .canonicalize()
        .unwrap()
        .display()
        .to_string()
}

fn shipped_rules() -> String {
    repository("rootfs-overlay/usr/share/defender/rules")
}

#[test]
fn help_and_version_are_answers_and_mistakes_are_not() {
    for arguments in [&["--help"][..], &["-h"], &["help"], &["block", "--help"], &["rules", "--help"]] {
        let ended = defender(arguments);
        assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{arguments:?}");
        assert!(ended.output.contains("block") || ended.output.contains("rules"), "{ended:?}");
    }
    assert_eq!(defender(&["--version"]).output, format!("defender {}\n", env!("CARGO_PKG_VERSION")));
    for arguments in [&[][..], &["stop"], &["block"], &["status", "--jsno"], &["block", "10.77.0.999"]] {
        let ended = defender(arguments);
        assert_eq!((ended.status, ended.output.as_str()), (2, ""), "{arguments:?}: {ended:?}");
        assert!(ended.errors.starts_with("defender: "), "{ended:?}");
    }
}

#[test]
fn the_configuration_is_checked_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("defender.toml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "[response]\nblock_seconds = 60\n").unwrap();
    assert_eq!(defender(&["config", "check", name]).status, 0);
    let ended = defender(&["config", "show", name, "--json"]);
    let shown: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((ended.status, &shown["response"]["block_seconds"]), (0, &60.into()));
    assert!(defender(&["config", "show", name]).output.contains("\n[response]\n"));
    std::fs::write(&file, "[response]\nblock_secnds = 60\n").unwrap();
    let ended = defender(&["config", "check", name]);
    assert_eq!(ended.status, 2);
    assert!(ended.errors.contains("defender.toml:2:") && ended.errors.contains("block_seconds"), "{ended:?}");
    let ended = defender(&["config", "check", name, "--json"]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((ended.status, &said["problems"][0]["line"]), (2, &2.into()));
    // What is shown then is what an agent would run with.
    let ended = defender(&["config", "show", name, "--json"]);
    let shown: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((ended.status, &shown["response"]["block_seconds"]), (2, &3600.into()));
    assert_eq!(defender(&["config", "check", "/nonexistent.toml"]).status, 2);
    assert!(defender(&["config", "reference"]).output.contains("block_seconds"));
    let written = directory.path().join("default.toml");
    std::fs::write(&written, defender(&["config", "default"]).output).unwrap();
    assert_eq!(defender(&["config", "check", written.to_str().unwrap()]).status, 0);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    for arguments in [&["rules", "list", "--json", "--rules", &shipped_rules()][..], &["--help"]] {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_defender"))
            .args(arguments)
            .stdout(OwnedFd::from(writer))
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
    // A disk that is full is one.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_defender")).arg("--help").stdout(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
}

#[test]
fn the_documentation_names_every_command_and_option() {
    let text = std::fs::read_to_string(repository("docs/command-line.md")).unwrap();
    let overview = defender(&["--help"]).output;
    let commands = overview.lines().filter_map(|line| line.strip_prefix("  ")).map(|line| {
        line.split_whitespace()
            .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()))
            .collect::<Vec<_>>()
    });
    let mut found = 0;
    for words in commands.filter(|words| !words.is_empty()) {
        // The words of the command end where the description, which begins with a capital, or an argument does.
        let command = words.join(" ");
        assert!(text.contains(&format!("`{command}")), "docs/command-line.md does not know `{command}`");
        let mut arguments = words.clone();
        arguments.push("--help");
        let help = defender(&arguments).output;
        for option in help.split_whitespace().filter(|word| word.starts_with("--")) {
            let option = option.trim_matches(|c: char| !c.is_ascii_lowercase() && c != '-');
            assert!(text.contains(option), "docs/command-line.md does not know {option} of `{command}`");
        }
        found += 1;
    }
    assert!(found >= 14, "{found} commands in {overview}");
}
