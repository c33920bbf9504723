//! Patterns of paths: `*` and `?` within a name, `[abc]`, `{a,b}`, and `**` for any depth of directories.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use defender_model::order;

use super::{Kind, Root, Unreadable};

/// Most paths one pattern stands for.
const MAX_PATHS: usize = 16_384;
/// Deepest `**`.
const MAX_DEPTH: usize = 32;

/// Whether a path of a policy is a pattern.
#[must_use]
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '{'])
}

/// Whether a name matches a pattern without slashes. Linear in the product of the lengths at worst.
#[must_use]
pub fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on after a mismatch: the star, and how much it has eaten.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(b'[') => {
                if let Some((inside, next)) = class(pattern, p, name[n]) {
                    if inside {
                        (p, n) = (next, n + 1);
                        continue;
                    }
                } else if name[n] == b'[' {
                    (p, n) = (p + 1, n + 1);
                    continue;
                }
            }
            Some(&c) if c == b'?' || c == name[n] => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            _ => {}
        }
        let Some((at, eaten)) = star else { return false };
        (p, n, star) = (at + 1, eaten + 1, Some((at, eaten + 1)));
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Whether a byte is in the class that starts at `at`, and where the pattern goes on; `None` when the class never ends.
fn class(pattern: &[u8], at: usize, byte: u8) -> Option<(bool, usize)> {
    let mut p = at + 1;
    let negated = matches!(pattern.get(p), Some(b'!' | b'^'));
    if negated {
        p += 1;
    }
    let (mut inside, first) = (false, p);
    loop {
        let c = *pattern.get(p)?;
        if c == b']' && p > first {
            return Some((inside != negated, p + 1));
        }
        match (pattern.get(p + 1), pattern.get(p + 2)) {
            (Some(b'-'), Some(&end)) if end != b']' => {
                inside |= (c..=end).contains(&byte);
                p += 3;
            }
            _ => {
                inside |= c == byte;
                p += 1;
            }
        }
    }
}

/// Whether a path matches a pattern: name by name, `**` for any number of them.
#[must_use]
pub fn matches_path(pattern: &str, path: &[u8]) -> bool {
    alternatives(pattern).iter().any(|pattern| {
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !name.is_empty()).collect();
        let parts: Vec<&[u8]> = pattern.split('/').filter(|p| !p.is_empty()).map(str::as_bytes).collect();
        let (mut p, mut n, mut star) = (0, 0, None);
        while n < names.len() {
            match parts.get(p) {
                Some(&b"**") => {
                    star = Some((p, n));
                    p += 1;
                    continue;
                }
                Some(part) if matches_name(part, names[n]) => {
                    (p, n) = (p + 1, n + 1);
                    continue;
                }
                _ => {}
            }
            let Some((at, eaten)) = star else { return false };
            (p, n, star) = (at + 1, eaten + 1, Some((at, eaten + 1)));
        }
        parts[p..].iter().all(|part| *part == b"**")
    })
}

/// `{a,b}` spelled out, at most 64 ways; one level of braces.
fn alternatives(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut pending = vec![pattern.to_owned()];
    while let Some(pattern) = pending.pop() {
        let braces = pattern.find('{').and_then(|open| Some((open, open + pattern[open..].find('}')?)));
        match braces {
            Some((open, close)) if done.len() + pending.len() < 64 => {
                for part in pattern[open + 1..close].split(',').rev() {
                    pending.push(format!("{}{part}{}", &pattern[..open], &pattern[close + 1..]));
                }
            }
            _ => done.push(pattern),
        }
    }
    done
}

impl Root {
    /// The paths a pattern stands for, sorted; a path that is not a pattern is itself when it exists.
    ///
    /// Links to directories are followed within a name of the pattern and not by `**`.
    ///
    /// # Errors
    /// A directory on the way cannot be listed, or there are too many.
    pub fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, Unreadable> {
        let mut found = Vec::new();
        for pattern in alternatives(pattern) {
            self.expand(&pattern, &mut found)?;
        }
        order::sort(&mut found);
        found.dedup();
        Ok(found)
    }

    fn expand(&self, pattern: &str, found: &mut Vec<PathBuf>) -> Result<(), Unreadable> {
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        // Each is a directory and how many parts of the pattern it stands for.
        let mut pending = vec![(PathBuf::from("/"), 0)];
        while let Some((path, at)) = pending.pop() {
            if found.len() + pending.len() > MAX_PATHS {
                return Err(Unreadable {
                    path: pattern.to_owned(),
                    reason: format!("more than {MAX_PATHS} paths"),
                });
            }
            let Some(part) = parts.get(at) else {
                found.push(path);
                continue;
            };
            if *part == "**" {
                pending.push((path.clone(), at + 1));
                if path.iter().count() > MAX_DEPTH {
                    continue;
                }
                for name in self.directory_names(&path)? {
                    let below = path.join(name);
                    match self.link_metadata(&below)? {
                        Some(entry) if entry.kind == Kind::Directory => pending.push((below, at)),
                        // At the end of a pattern it stands for everything below.
                        Some(_) if at + 1 == parts.len() => found.push(below),
                        _ => {}
                    }
                }
            } else if is_pattern(part) {
                for name in self.directory_names(&path)? {
                    let hidden = name.as_bytes().starts_with(b".") && !part.starts_with('.');
                    if !hidden && matches_name(part.as_bytes(), name.as_bytes()) {
                        pending.push((path.join(name), at + 1));
                    }
                }
            } else {
                let path = path.join(part);
                if self.link_metadata(&path)?.is_some() {
                    pending.push((path, at + 1));
                }
            }
        }
        Ok(())
    }

    /// Names in a directory; none where it is not one.
    fn directory_names(&self, path: &Path) -> Result<Vec<std::ffi::OsString>, Unreadable> {
        let mut names = match self.metadata(path)? {
            Some(metadata) if metadata.kind == Kind::Directory => self.list(path)?,
            _ => Vec::new(),
        };
        for (added, _, _) in self.added() {
            if added.parent() == Some(path) {
                names.extend(added.file_name().map(ToOwned::to_owned));
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let matches = |p: &str, n: &str| matches_name(p.as_bytes(), n.as_bytes());
        assert!(matches("*.conf", "a.conf") && matches("*", "") && matches("a*b*c", "axxbyyc"));
        assert!(!matches("*.conf", "a.conf.d") && !matches("a?", "a") && !matches("", "x"));
        assert!(matches("[a-c]x", "bx") && !matches("[!a-c]x", "bx") && matches("[]]", "]"));
        assert!(matches("[x", "[x"), "a class that never ends is a bracket");
    }

    #[test]
    fn paths() {
        assert!(matches_path("/usr/**/su", b"/usr/bin/su") && matches_path("/usr/**", b"/usr/a/b/c"));
        assert!(matches_path("/{usr/,}bin/su", b"/bin/su") && matches_path("/{usr/,}bin/su", b"/usr/bin/su"));
        assert!(!matches_path("/usr/*/su", b"/usr/a/b/su") && !matches_path("/bin", b"/bin/su"));
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_definition(p in "[ab*?]{0,8}", n in "[ab]{0,8}") {
            fn by_definition(p: &[u8], n: &[u8]) -> bool {
                match (p.first(), n.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => {
                        by_definition(&p[1..], n) || (!n.is_empty() && by_definition(p, &n[1..]))
                    }
                    (Some(c), Some(d)) => (*c == b'?' || c == d) && by_definition(&p[1..], &n[1..]),
                    _ => false,
                }
            }
            proptest::prop_assert_eq!(matches_name(p.as_bytes(), n.as_bytes()), by_definition(p.as_bytes(), n.as_bytes()));
        }

        #[test]
        fn never_panics(p in ".{0,40}", n in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let _ = matches_path(&p, &n);
            let _ = matches_name(p.as_bytes(), &n);
        }
    }
}
