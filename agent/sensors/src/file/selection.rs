//! Which paths are watched.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// What a path is to the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Nothing.
    Outside,
    /// A selected path is below it.
    OnTheWay,
    /// It is below a selected path.
    Inside,
    /// It is selected itself.
    Selected,
}

impl Place {
    /// What happens there is reported.
    pub(super) fn is_reported(self) -> bool {
        self >= Self::Inside
    }
}

/// Selected paths with everything below them. In a name, `*` stands for any characters but a slash.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    include: Vec<Vec<Box<[u8]>>>,
    exclude: Vec<Vec<Box<[u8]>>>,
    /// Selected paths that are links, each behind what it leads to.
    links: Vec<(PathBuf, PathBuf)>,
}

fn pattern(path: &Path) -> Vec<Box<[u8]>> {
    names(path).map(|name| name.as_bytes().into()).collect()
}

/// The path with the links in the directories on the way followed, as far as they exist and have no star; its last name is left.
fn real(path: &Path) -> PathBuf {
    for above in path.ancestors().skip(1) {
        if above.as_os_str().as_bytes().contains(&b'*') {
            continue;
        }
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    path.to_path_buf()
}

impl Selection {
    /// Paths that are not absolute are left out. Links on the way are followed now; where a selected path is a link itself, what it
    /// leads to is selected too.
    pub(super) fn new(include: &[PathBuf], exclude: &[PathBuf]) -> Self {
        let mut selection = Self::default();
        for path in include.iter().filter(|path| path.is_absolute()) {
            let path = real(path);
            if let Some(target) = path.read_link().ok().and_then(|_| path.canonicalize().ok()) {
                selection.include.push(pattern(&target));
                selection.links.push((target, path.clone()));
            }
            selection.include.push(pattern(&path));
        }
        selection.exclude =
            exclude.iter().filter(|path| path.is_absolute()).map(|path| pattern(&real(path))).collect();
        selection
    }

    /// What a path is called in events: where a selected link leads to it, by the link's name.
    pub(super) fn name<'a>(&self, path: &'a Path) -> Cow<'a, Path> {
        for (target, link) in &self.links {
            if let Ok(rest) = path.strip_prefix(target) {
                return if rest.as_os_str().is_empty() { link.clone() } else { link.join(rest) }.into();
            }
        }
        path.into()
    }

    /// What an absolute path is to the selection.
    pub(super) fn place(&self, path: &Path) -> Place {
        let begins = |pattern: &[Box<[u8]>]| {
            // How many of the pattern's names the path has; `None` where one differs.
            let mut path = names(path);
            let mut matched = 0;
            for wanted in pattern {
                match path.next() {
                    Some(name) if matches(wanted, name.as_bytes()) => matched += 1,
                    Some(_) => return None,
                    None => return Some((matched, false)),
                }
            }
            Some((matched, path.next().is_some()))
        };
        let whole = |pattern: &[Box<[u8]>]| begins(pattern).filter(|(matched, _)| *matched == pattern.len());
        if self.exclude.iter().any(|pattern| whole(pattern).is_some()) {
            return Place::Outside;
        }
        let place = |pattern: &Vec<Box<[u8]>>| match begins(pattern) {
            None => Place::Outside,
            Some((matched, _)) if matched < pattern.len() => Place::OnTheWay,
            Some((_, true)) => Place::Inside,
            Some((_, false)) => Place::Selected,
        };
        self.include.iter().map(place).max().unwrap_or(Place::Outside)
    }

    /// The names that matter in a directory on the way; `None` if that takes a look at all of them.
    pub(super) fn names_in(&self, directory: &Path) -> Option<Vec<&OsStr>> {
        let depth = names(directory).count();
        let mut next = Vec::new();
        for pattern in &self.include {
            let way =
                pattern.iter().zip(names(directory)).all(|(wanted, name)| matches(wanted, name.as_bytes()));
            let Some(name) = pattern.get(depth).filter(|_| way) else { continue };
            if name.contains(&b'*') {
                return None;
            }
            let name = OsStr::from_bytes(name);
            if !next.contains(&name) {
                next.push(name);
            }
        }
        Some(next)
    }
}

fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

/// Whether the name is what the pattern asks for; linear in practice, at most pattern times name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star = None;
    while pos < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, pos));
                at += 1;
            }
            Some(byte) if *byte == name[pos] => (at, pos) = (at + 1, pos + 1),
            _ => match star {
                // One more character for the last star.
                Some((star_at, star_pos)) => {
                    star = Some((star_at, star_pos + 1));
                    (at, pos) = (star_at + 1, star_pos + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection() -> Selection {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        Selection::new(
            &paths(&["/etc/passwd", "/etc/cron*", "/home/*/.ssh", "/boot", "relative"]),
            &paths(&["/boot/grub/grubenv", "/boot/*.log"]),
        )
    }

    #[test]
    fn places() {
        let selection = selection();
        for (path, place) in [
            ("/", Place::OnTheWay),
            ("/etc", Place::OnTheWay),
            ("/etc/passwd", Place::Selected),
            ("/etc/passwd-", Place::Outside),
            ("/etc/crontab", Place::Selected),
            ("/etc/cron.d/job", Place::Inside),
            ("/home/alice", Place::OnTheWay),
            ("/home/alice/.ssh/authorized_keys", Place::Inside),
            ("/home/alice/notes", Place::Outside),
            ("/boot/grub/grub.cfg", Place::Inside),
            ("/boot/grub/grubenv", Place::Outside),
            ("/boot/a.log/below", Place::Outside),
            ("/relative", Place::Outside),
        ] {
            assert_eq!(selection.place(Path::new(path)), place, "{path}");
        }
    }

    #[test]
    fn literal_names_need_no_listing() {
        let selection = selection();
        assert_eq!(
            selection.names_in(Path::new("/")),
            Some(["etc", "home", "boot"].map(OsStr::new).to_vec())
        );
        assert_eq!(selection.names_in(Path::new("/etc")), None);
        assert_eq!(selection.names_in(Path::new("/home/bob")), Some(vec![OsStr::new(".ssh")]));
    }

    #[test]
    fn links_are_followed() {
        use std::os::unix::fs::symlink;

        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("usr/lib/modules")).unwrap();
        std::fs::create_dir_all(root.join("data")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("data/shadow", root.join("shadow")).unwrap();
        std::fs::write(root.join("data/shadow"), "").unwrap();
        let selection = Selection::new(&[root.join("lib/modules"), root.join("shadow")], &[]);
        assert_eq!(selection.place(&root.join("usr/lib/modules/x.ko")), Place::Inside);
        assert_eq!(selection.place(&root.join("shadow")), Place::Selected);
        assert_eq!(selection.place(&root.join("data/shadow")), Place::Selected);
        assert_eq!(selection.name(&root.join("data/shadow")), root.join("shadow"));
        assert_eq!(selection.name(&root.join("data/other")), root.join("data/other"));
    }

    #[test]
    fn stars() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "x", true),
            ("rc*.d", "rc5.d", true),
            ("rc*.d", "rc5.dd", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYcZ", false),
            ("abc", "ab", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
