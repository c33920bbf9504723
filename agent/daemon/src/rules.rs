//! Rule files of the configured directories, read and compiled.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use defender_detect::{RuleOverride, RuleSet};

use crate::config::Config;

/// Deepest directory below a rules directory.
const DEPTH: usize = 8;
/// Most rule files.
const FILES: usize = 10_000;
/// Longest rule file, in bytes.
const BYTES: u64 = 1 << 20;

/// Reads rule files below the configured directories and compiles them, the configuration's changes applied. What is wrong with
/// which file comes back as sentences; one bad file stops no other.
#[must_use]
pub fn load(config: &Config) -> (RuleSet, Vec<String>) {
    let mut errors = Vec::new();
    let mut builder = RuleSet::builder();
    for directory in &config.rules.directories {
        let mut files = Vec::new();
        collect(directory, 0, &mut files, &mut errors);
        files.sort();
        for file in files {
            match read_bounded(&file) {
                Ok(bytes) => builder = builder.add_source(&file.display().to_string(), &bytes),
                Err(error) => errors.push(format!("{}: {error}", file.display())),
            }
        }
    }
    let overrides = config
        .rule
        .iter()
        .map(|rule| RuleOverride {
            id: rule.id.clone(),
            enabled: rule.enabled,
            level: rule.level.map(|level| level.0),
            response: rule.response.map(|response| response.0),
            count: rule.count,
            timespan_ms: rule.timespan_s.map(|seconds| seconds.saturating_mul(1000)),
        })
        .collect();
    let (rules, problems) = builder.overrides(overrides).build();
    errors.extend(problems.iter().map(ToString::to_string));
    (rules, errors)
}

fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, errors: &mut Vec<String>) {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        // A product without rules of its own has no directory for them.
        Err(error) if depth == 0 && error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return errors.push(format!("{}: cannot list the rules: {error}", directory.display())),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && depth < DEPTH {
            collect(&path, depth + 1, files, errors);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            if files.len() == FILES {
                return errors.push(format!("{}: more than {FILES} rule files", directory.display()));
            }
            files.push(path);
        }
    }
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES {
        return Err(io::Error::other(format!("longer than {BYTES} bytes")));
    }
    Ok(bytes)
}
