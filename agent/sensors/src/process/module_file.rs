//! Which file a kernel module came from: the call that loads it has its content, not its path. That stands among the arguments of the
//! program that makes the call.

use std::collections::VecDeque;
use std::path::{Component, Path, PathBuf};

use defender_model::text;

/// Files remembered.
const FILES: usize = 16;

/// Files of modules that programs were started with lately, by process.
#[derive(Debug, Default)]
pub(super) struct ModuleFiles(VecDeque<(u32, String)>);

impl ModuleFiles {
    /// Looks at the arguments of a program that was started.
    pub(super) fn note(&mut self, pid: u32, cwd: &str, argv: &[String]) {
        for argument in argv.iter().skip(1).filter(|argument| argument.contains(".ko")).take(FILES) {
            if self.0.len() >= FILES {
                self.0.pop_front();
            }
            self.0.push_back((pid, plain(&Path::new(cwd).join(argument))));
        }
    }

    /// The file of the module by this name that this process was started with.
    pub(super) fn of(&self, pid: u32, module: &str) -> Option<String> {
        let found = self.0.iter().rev().find(|(by, path)| *by == pid && is_module(path, module));
        found.map(|(_, path)| path.clone())
    }
}

/// The path without `.` and `..`, as it is written: the file itself may be gone.
fn plain(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    text::from_bytes(plain.as_os_str().as_encoded_bytes())
}

/// The file is that of a module by this name: `snd-hda-intel.ko.xz` has the module `snd_hda_intel`.
fn is_module(path: &str, name: &str) -> bool {
    let file = text::file_name(path);
    let stem = file.find(".ko").map_or(file, |at| &file[..at]);
    stem.replace('-', "_") == name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_s_file_is_known_by_its_name() {
        assert!(is_module("/tmp/snd-hda-intel.ko.xz", "snd_hda_intel"));
        assert!(is_module("x.ko", "x") && !is_module("/x/y.ko", "x"));
        assert_eq!(plain(Path::new("/root/./a/../evil.ko")), "/root/evil.ko");
    }
}
