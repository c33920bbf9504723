//! Rules about the paths that are worth to know who writes to: which there are, and keeping up with what comes to be.

use std::path::{Path, PathBuf};

use super::arch::Arch;
use super::control::{Control, Rule};
use crate::process::writers::Writers;

/// Most rules. Each costs every call that opens a file some nanoseconds (docs/performance.md).
const RULES: usize = 96;
/// Names looked at for one star.
const NAMES: usize = 256;

/// The rules about paths. What cannot be had costs no more than the knowledge of who it was.
pub(crate) struct PathRules {
    arches: &'static [Arch],
    /// As configured, with stars.
    patterns: Vec<PathBuf>,
    writers: Writers,
    /// By number: the rule that is in the kernel, and whether it is one about a directory.
    rules: Vec<Option<(Rule, bool)>>,
}

impl PathRules {
    pub(crate) fn new(arches: &'static [Arch], patterns: Vec<PathBuf>, writers: Writers) -> Self {
        Self { arches, patterns, writers, rules: Vec::new() }
    }

    /// Adds rules for what is there now and had none, or one of another kind.
    pub(crate) fn refresh(&mut self, control: &mut Control) {
        for pattern in self.patterns.clone() {
            for path in expand(&pattern) {
                self.keep(&path, control);
            }
        }
        self.writers.set_live(self.rules.iter().any(Option::is_some));
    }

    fn keep(&mut self, path: &Path, control: &mut Control) {
        let Some(number) = self.writers.number(path, RULES) else { return };
        if self.rules.len() <= number {
            self.rules.resize(number + 1, None);
        }
        let directory = path.is_dir();
        // A rule that cannot be added is a line in the log of an audit daemon, time and again.
        if !directory && !path.parent().is_some_and(Path::is_dir) {
            return;
        }
        if matches!(&self.rules[number], Some((_, was)) if *was == directory) {
            return;
        }
        if let Some((old, _)) = self.rules[number].take() {
            let _ = control.remove(&old);
        }
        let rule = Rule::watch(self.arches, path, directory, number);
        // What cannot be had is tried again, and its changes have no process until then.
        if control.add(&rule).is_ok() {
            self.rules[number] = Some((rule, directory));
        }
    }

    /// The rules that should be in the kernel.
    pub(crate) fn held(&self) -> Vec<Rule> {
        self.rules.iter().flatten().map(|(rule, _)| rule.clone()).collect()
    }

    /// Some are not there any more: the kernel drops those whose directory went. What can be had is added again.
    pub(crate) fn renew(&mut self, control: &mut Control) {
        self.rules.fill(None);
        self.refresh(control);
    }

    pub(crate) fn remove(&mut self, control: &mut Control) {
        for (rule, _) in self.rules.drain(..).flatten() {
            // A rule that cannot be removed is found again by its key at the next start.
            let _ = control.remove(&rule);
        }
        self.writers.set_live(false);
    }
}

/// The paths that a pattern stands for now, links followed as far as they lead; without a star it is one, whether it exists or not.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str();
        let Some((before, after)) = name.to_str().and_then(|name| name.split_once('*')) else {
            found.iter_mut().for_each(|path| path.push(name));
            continue;
        };
        let mut next = Vec::new();
        for directory in &found {
            for entry in directory.read_dir().into_iter().flatten().flatten().take(NAMES) {
                let name = entry.file_name();
                let fits = name.to_str().is_some_and(|name| {
                    name.len() >= before.len() + after.len()
                        && name.starts_with(before)
                        && name.ends_with(after)
                });
                if fits && next.len() < RULES {
                    next.push(entry.path());
                }
            }
        }
        found = next;
    }
    found.into_iter().map(|path| real(&path)).collect()
}

/// The kernel wants the path as the files themselves have it: a rule about a link would be one about the link.
fn real(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn stars_and_links_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["home/a/.ssh", "home/b", "usr/lib"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        let mut homes = expand(&root.join("home/*/.ssh"));
        homes.sort();
        assert_eq!(homes, [root.join("home/a/.ssh"), root.join("home/b/.ssh")]);
        assert_eq!(expand(&root.join("lib/modules")), [root.join("usr/lib/modules")]);
        assert_eq!(expand(&root.join("lib")), [root.join("usr/lib")]);
        assert_eq!(expand(&root.join("cron*")), Vec::<PathBuf>::new());
        assert_eq!(expand(&root.join("none/at/all")), [root.join("none/at/all")]);
    }
}
