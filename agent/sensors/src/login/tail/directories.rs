//! Which directories decide what a path leads to.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Every directory that the way to `path` passes, symbolic links followed, as far as it exists: a change of the path's meaning is a
/// change in one of them. `path` must be absolute.
pub(super) fn on_the_way(path: &Path) -> Vec<PathBuf> {
    let mut at = PathBuf::from("/");
    let mut passed = vec![at.clone()];
    let mut todo: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let Ok(meta) = next.symlink_metadata() else { break };
        if meta.is_symlink() {
            links += 1;
            let Ok(target) = next.read_link() else { break };
            if links > MAX_LINKS {
                break;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                todo.push_front(name);
            }
        } else if meta.is_dir() {
            at = next;
            if !passed.contains(&at) {
                passed.push(at.clone());
            }
        } else {
            break;
        }
    }
    passed
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn follows_links_also_where_they_lead_nowhere_yet() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("a path");
        std::fs::create_dir_all(root.join("volatile")).expect("mkdir");
        symlink("volatile/log", root.join("log")).expect("link");
        symlink("loop", root.join("loop")).expect("link");
        let passed = on_the_way(&root.join("log/auth.log"));
        assert_eq!(passed.last(), Some(&root.join("volatile")));
        assert!(passed.contains(&root) && passed.contains(&PathBuf::from("/")));
        std::fs::create_dir_all(root.join("volatile/log")).expect("mkdir");
        assert_eq!(on_the_way(&root.join("log/auth.log")).last(), Some(&root.join("volatile/log")));
        assert_eq!(on_the_way(&root.join("loop/auth.log")).last(), Some(&root));
    }
}
