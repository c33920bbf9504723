//! PAM: the effective stack of a service, with everything it includes (pam.d(5)).

use crate::root::{Root, Unreadable};

/// Deepest nesting of includes.
const MAX_DEPTH: usize = 16;
/// Longest stack.
const MAX_LINES: usize = 2000;

/// One line of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// `auth`, `account`, `password` or `session`.
    pub(crate) kind: String,
    /// A word or what stands between the brackets.
    pub(crate) control: String,
    pub(crate) module: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) from: String,
}

const DIRECTORIES: &[&str] = &["/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d"];

/// The file of a service.
pub(crate) fn file_of(root: &Root, service: &str) -> Result<Option<String>, Unreadable> {
    for directory in DIRECTORIES {
        let path = format!("{directory}/{service}");
        if root.exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The stack of a service; of `other` when it has no file of its own.
pub(crate) fn stack(root: &Root, service: &str) -> Result<Vec<Line>, Unreadable> {
    let mut lines = Vec::new();
    let file = match file_of(root, service)? {
        Some(file) => Some(file),
        None => file_of(root, "other")?,
    };
    if let Some(file) = file {
        add(root, &file, None, 0, &mut lines)?;
    }
    Ok(lines)
}

fn add(
    root: &Root,
    file: &str,
    only: Option<&str>,
    depth: usize,
    lines: &mut Vec<Line>,
) -> Result<(), Unreadable> {
    if depth > MAX_DEPTH || lines.len() > MAX_LINES {
        return Err(Unreadable { path: file.to_owned(), reason: "its includes go too deep".to_owned() });
    }
    let text = root.text(file)?.unwrap_or_default();
    for (number, line) in joined(&text) {
        let Some(entry) = parse(&line, &format!("{file}:{number}")) else { continue };
        let included = |name: &str| match name.starts_with('/') {
            true => Ok(Some(name.to_owned())),
            false => file_of(root, name),
        };
        match entry {
            Entry::Include(name) => {
                if let Some(file) = included(&name)? {
                    add(root, &file, only, depth + 1, lines)?;
                }
            }
            Entry::Line(line) if only.is_some_and(|only| only != line.kind) => {}
            Entry::Line(line) if matches!(line.control.as_str(), "include" | "substack") => {
                if let Some(file) = included(&line.module)? {
                    add(root, &file, Some(&line.kind), depth + 1, lines)?;
                }
            }
            Entry::Line(line) => lines.push(line),
        }
    }
    Ok(())
}

enum Entry {
    Include(String),
    Line(Line),
}

/// Lines with their numbers, those that end in `\` joined with the next.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in text.lines().enumerate() {
        let (line, more) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        match lines.last_mut() {
            Some((_, last)) if goes_on => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push((number + 1, line.to_owned())),
        }
        goes_on = more;
    }
    lines
}

fn parse(line: &str, from: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if let Some(name) = line.strip_prefix("@include") {
        return Some(Entry::Include(name.trim().to_owned()));
    }
    let mut words = words(line).into_iter();
    let kind = words.next()?.trim_start_matches('-').to_ascii_lowercase();
    let (control, module) = (words.next()?, words.next()?);
    Some(Entry::Line(Line { kind, control, module, arguments: words.collect(), from: from.to_owned() }))
}

/// Words separated by blanks; what stands between brackets is one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let bracket = rest.strip_prefix('[').and_then(|inside| Some((inside, inside.find(']')?)));
        let (word, after) = match bracket {
            Some((inside, end)) => (&inside[..end], &inside[end + 1..]),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_includes_of_every_kind() {
        let directory = tempfile::tempdir().unwrap();
        let pam = directory.path().join("etc/pam.d");
        std::fs::create_dir_all(&pam).unwrap();
        let files = [
            ("login", "auth [success=2 default=ignore] pam_unix.so nullok \\\n try_first_pass\nauth include common\n@include common\n-session optional pam_x.so # c\n"),
            ("common", "auth required pam_deny.so\naccount required pam_permit.so\nauth substack common2\n"),
            ("common2", "auth requisite /lib/security/pam_y.so a=[b c]\n"),
            ("round", "auth include round\n"),
            ("other", "auth required pam_warn.so\n"),
        ];
        for (name, text) in files {
            std::fs::write(pam.join(name), text).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let lines = stack(&root, "login").unwrap();
        let modules: Vec<_> = lines.iter().map(|line| line.module.as_str()).collect();
        assert_eq!(
            modules,
            [
                "pam_unix.so",
                "pam_deny.so",
                "/lib/security/pam_y.so",
                "pam_deny.so",
                "pam_permit.so",
                "/lib/security/pam_y.so",
                "pam_x.so"
            ]
        );
        assert_eq!(lines[0].control, "success=2 default=ignore");
        assert_eq!(lines[0].arguments, ["nullok", "try_first_pass"]);
        assert_eq!(lines[6].kind, "session");
        assert!(stack(&root, "round").unwrap_err().reason.contains("too deep"));
        assert_eq!(stack(&root, "sshd").unwrap()[0].module, "pam_warn.so");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in ".{0,80}") {
            let _ = (parse(&line, ""), joined(&line));
        }
    }
}
