//! Policy files: found in directories or named, read within bounds.

use std::io;
use std::path::{Path, PathBuf};

use defender_model::order;
use defender_posture::policy::duplicates;
use defender_posture::{Policy, Root};

use crate::small_file;

/// Longest policy file, in bytes.
const LIMIT: u64 = 2 << 20;
/// Most policy files.
const FILES: usize = 200;

/// Where policies come from.
#[derive(Debug)]
pub enum Source<'a> {
    /// Directories of this machine.
    Directories(&'a [PathBuf]),
    /// Directories of an image, read below its root.
    Image(&'a Root, &'a [PathBuf]),
}

/// Reads policies: all of the source, or those named by id or as a file of this machine.
///
/// # Errors
/// Every mistake in them, and what is named and not there.
pub fn load(source: &Source<'_>, wanted: &[String]) -> Result<Vec<Policy>, Vec<String>> {
    let mut mistakes = Vec::new();
    let mut files: Vec<(PathBuf, io::Result<Vec<u8>>)> = Vec::new();
    let found = source.files(&mut mistakes);
    if wanted.is_empty() {
        files.extend(found.into_iter().map(|file| (file.clone(), source.read(&file))));
    } else {
        for word in wanted {
            // A name with a slash or an ending is a file; an id has neither.
            if word.contains('/') || word.ends_with(".toml") {
                files.push((word.into(), small_file::read(Path::new(word), LIMIT)));
            } else if let Some(file) = found.iter().find(|file| id_of(file) == Some(word)) {
                files.push((file.clone(), source.read(file)));
            } else {
                let known: Vec<&str> = found.iter().filter_map(|file| id_of(file)).collect();
                mistakes.push(match defender_model::text::nearest(word, known.iter().copied()) {
                    Some(known) => format!("no policy is called `{word}`; did you mean `{known}`?"),
                    None => format!("no policy is called `{word}`; there are: {}", known.join(", ")),
                });
            }
        }
    }
    let mut policies: Vec<(String, Policy)> = Vec::new();
    for (file, bytes) in files {
        let name = file.display().to_string();
        match bytes {
            Err(error) => mistakes.push(format!("{name}: cannot be read: {error}")),
            Ok(bytes) => match Policy::parse(&name, &bytes) {
                Ok(policy) => policies.push((name, policy)),
                Err(errors) => mistakes.extend(errors.iter().map(ToString::to_string)),
            },
        }
    }
    mistakes.extend(duplicates(&policies).iter().map(ToString::to_string));
    if policies.is_empty() && mistakes.is_empty() {
        mistakes.push(format!("no policies in {}", source.places()));
    }
    match mistakes.is_empty() {
        true => Ok(policies.into_iter().map(|(_, policy)| policy).collect()),
        false => Err(mistakes),
    }
}

impl Source<'_> {
    fn directories(&self) -> &[PathBuf] {
        match self {
            Self::Directories(directories) | Self::Image(_, directories) => directories,
        }
    }

    fn places(&self) -> String {
        let names: Vec<String> = self.directories().iter().map(|path| path.display().to_string()).collect();
        match self {
            Self::Directories(_) => names.join(", "),
            Self::Image(root, _) => format!("{} of {}", names.join(", "), root.name().display()),
        }
    }

    /// The policy files of the directories, by name; a directory that is missing has none.
    fn files(&self, mistakes: &mut Vec<String>) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for directory in self.directories() {
            let listed: Result<Vec<_>, String> = match self {
                Self::Directories(_) => match std::fs::read_dir(directory) {
                    Ok(entries) => Ok(entries.flatten().map(|entry| entry.file_name()).collect()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                    Err(error) => Err(format!("{}: {error}", directory.display())),
                },
                Self::Image(root, _) => root.list(directory).map_err(|error| error.to_string()),
            };
            match listed {
                Ok(mut names) => {
                    order::sort(&mut names);
                    files.extend(
                        names.iter().map(|name| directory.join(name)).filter(|file| id_of(file).is_some()),
                    );
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if files.len() > FILES {
            mistakes.push(format!(
                "{} policy files in {}; at most {FILES} are read",
                files.len(),
                self.places()
            ));
            files.truncate(FILES);
        }
        files
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        match self {
            Self::Directories(_) => small_file::read(file, LIMIT),
            Self::Image(root, _) => {
                let bytes = root.read(file).map_err(|error| io::Error::other(error.reason))?;
                bytes.ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }
}

/// The id of the policy in a file, by its name; `None` for what is not a policy file, tests of policies among it.
fn id_of(file: &Path) -> Option<&str> {
    let id = file.file_name()?.to_str()?.strip_suffix(".toml")?;
    (!id.ends_with(".tests") && !id.starts_with('.')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_policies_and_names_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let policy = |id: &str, check: &str| {
            format!("[policy]\nid = \"{id}\"\ntitle = \"T\"\n[[check]]\nid = \"{check}\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"low\"\nrationale = \"R\"\nremediation = \"M\"\nexpect = {{ systemd = true }}\n")
        };
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let directories = [directory.path().to_owned(), directory.path().join("missing")];
        let source = Source::Directories(&directories);
        assert!(load(&source, &[]).unwrap_err()[0].starts_with("no policies in "));
        write("one.toml", &policy("one", "a"));
        write("two.toml", &policy("two", "b"));
        write("two.tests.toml", "not a policy");
        write("notes.txt", "");
        let ids = |wanted: &[String]| -> Vec<String> {
            load(&source, wanted).unwrap().into_iter().map(|policy| policy.id).collect()
        };
        assert_eq!(ids(&[]), ["one", "two"]);
        assert_eq!(ids(&["two".into()]), ["two"]);
        assert_eq!(ids(&[directory.path().join("one.toml").display().to_string()]), ["one"]);
        assert!(load(&source, &["onee".into()]).unwrap_err()[0].contains("did you mean `one`"));
        assert!(load(&source, &["./x.toml".into()]).unwrap_err()[0].contains("cannot be read"));
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(load(&Source::Image(&root, &["/".into()]), &[]).unwrap().len(), 2);
        write("three.toml", &policy("three", "a"));
        assert!(load(&source, &[]).unwrap_err()[0].contains("unique over all policies"));
    }
}
