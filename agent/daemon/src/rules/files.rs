//! Rule files: which there are below a directory, and their bytes, within bounds.

use std::io;
use std::path::{Path, PathBuf};

use defender_model::order;

use crate::small_file;

/// Deepest directory below a named one.
const DEPTH: usize = 8;
/// Most rule files.
const FILES: usize = 10_000;
/// Longest rule file, in bytes.
const BYTES: u64 = 1 << 20;
/// Ending of the files that hold tests of rules rather than rules.
const TESTS: &str = ".tests.yaml";

/// Appends the rule files below a directory, by name; `problem` is told what is wrong with which file or directory.
pub(crate) fn below(directory: &Path, files: &mut Vec<PathBuf>, problem: &mut dyn FnMut(&Path, String)) {
    search(directory, 0, files, problem);
}

fn search(directory: &Path, depth: usize, files: &mut Vec<PathBuf>, problem: &mut dyn FnMut(&Path, String)) {
    let entries = std::fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => return problem(directory, format!("cannot be listed: {error}")),
    };
    order::sort(&mut entries);
    for path in entries {
        let name = path.to_string_lossy();
        if path.is_dir() {
            if depth == DEPTH {
                problem(&path, format!("deeper than {DEPTH} directories; not read"));
            } else {
                search(&path, depth + 1, files, problem);
            }
        } else if name.ends_with(".yml") {
            if files.len() == FILES {
                return problem(directory, format!("more than {FILES} rule files"));
            }
            files.push(path);
        } else if name.ends_with(".yaml") && !name.ends_with(TESTS) {
            problem(&path, "the agent does not read it: rule files end in .yml".to_owned());
        }
    }
}

/// The bytes of a rule file.
///
/// # Errors
/// It cannot be read, or is too long.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u8>> {
    small_file::read(file, BYTES)
}
