//! Packages of the build machine's distribution, downloaded and unpacked but never installed.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::architecture::Architecture;
use crate::command;
use crate::error::{Error, Result};
use crate::progress;
use crate::workspace::Workspace;

/// A download of all packages of an image takes seconds to a few minutes.
const DOWNLOAD: Duration = Duration::from_secs(600);

/// The names listed in one section of `packages.txt`, each with its alternatives.
///
/// # Errors
/// When the file cannot be read or has no such section.
pub fn section(workspace: &Workspace, name: &str) -> Result<Vec<Vec<String>>> {
    let path = workspace.tests("packages.txt");
    let text = fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let entries = parse_section(&text, name);
    if entries.is_empty() {
        return Err(Error::Missing {
            what: format!("section [{name}] of {}", path.display()),
            next: "restore the file".into(),
        });
    }
    Ok(entries)
}

fn parse_section(text: &str, name: &str) -> Vec<Vec<String>> {
    let header = format!("[{name}]");
    text.lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .skip_while(|line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty())
        .map(|line| line.split('|').map(|word| word.trim().to_owned()).collect())
        .collect()
}

/// Downloads the packages of `sections` with everything they depend on, as if for an empty machine; unpacks them into
/// one tree with merged `/usr`. What was downloaded or unpacked before for the same list is reused.
///
/// # Errors
/// When apt cannot resolve or download, or a package cannot be unpacked.
pub fn unpacked(workspace: &Workspace, architecture: Architecture, sections: &[&str]) -> Result<PathBuf> {
    let name = sections.join("-") + architecture.suffix();
    let mut entries = Vec::new();
    for name in sections {
        entries.extend(section(workspace, name)?);
    }
    let omit: Vec<String> = section(workspace, "omit")?.into_iter().flatten().collect();
    let mut hasher = DefaultHasher::new();
    (&entries, &omit).hash(&mut hasher);
    let directory = workspace.work(&format!("packages/{name}-{:016x}", hasher.finish()));
    let tree = directory.join("tree");
    let complete = directory.join("complete");
    if complete.exists() {
        return Ok(tree);
    }
    // Half of an earlier attempt may be there.
    let _ = fs::remove_dir_all(&directory);
    let archives = directory.join("archives");
    create(&archives.join("partial"))?;
    let apt = Apt::of(workspace, architecture)?;
    let names = entries.iter().map(|alternatives| apt.available(alternatives)).collect::<Result<Vec<_>>>()?;
    progress::step(&format!("downloading the packages of {name}"), || apt.download(&directory, &names))?;
    progress::step(&format!("unpacking the packages of {name}"), || -> Result<()> {
        for link in ["bin", "sbin", "lib", "lib64"] {
            create(&tree.join("usr").join(link))?;
            std::os::unix::fs::symlink(format!("usr/{link}"), tree.join(link))
                .map_err(Error::io(format!("cannot link {link}")))?;
        }
        for archive in archives_in(&archives)? {
            let file = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let package = file.split('_').next().unwrap_or_default();
            if !omit.iter().any(|name| name == package) {
                unpack(&archive, &tree)?;
            }
        }
        Ok(())
    })?;
    fs::write(&complete, "").map_err(Error::io(format!("cannot write {}", complete.display())))?;
    Ok(tree)
}

/// Downloads and unpacks the kernel of section `kind` (`kernel`, `kernel-usb`) or the one of that for `architecture`, without what it
/// would install around itself.
///
/// # Errors
/// As [`unpacked`].
pub fn kernel(workspace: &Workspace, architecture: Architecture, kind: &str) -> Result<PathBuf> {
    let name = format!("{kind}{}", architecture.suffix());
    let entries = section(workspace, &name)?;
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    let directory = workspace.work(&format!("packages/{name}-{:016x}", hasher.finish()));
    let tree = directory.join("tree");
    let complete = directory.join("complete");
    if complete.exists() {
        return Ok(tree);
    }
    let _ = fs::remove_dir_all(&directory);
    create(&tree)?;
    let apt = Apt::of(workspace, architecture)?;
    let meta = apt.available(&entries.concat())?;
    let names = apt.kernel_packages(&meta)?;
    progress::step(&format!("downloading {}", names.join(", ")), || {
        let mut download = apt.command("apt-get");
        download.arg("download").args(&names).current_dir(&directory);
        command::run(&mut download, DOWNLOAD).map(drop)
    })?;
    progress::step("unpacking the kernel", || {
        archives_in(&directory)?.iter().try_for_each(|archive| unpack(archive, &tree))
    })?;
    fs::write(&complete, "").map_err(Error::io(format!("cannot write {}", complete.display())))?;
    Ok(tree)
}

/// apt, as it knows the packages of one architecture.
struct Apt {
    architecture: Architecture,
    /// Options that every call gets.
    options: Vec<String>,
}

impl Apt {
    /// The build machine's own; for another architecture one with lists and state in the work directory, from the sources of the
    /// build machine, whose dpkg learns nothing of that architecture.
    fn of(workspace: &Workspace, architecture: Architecture) -> Result<Self> {
        let mut apt = Self { architecture, options: Vec::new() };
        if architecture.is_native() {
            return Ok(apt);
        }
        let state = workspace.work(&format!("packages/apt{}", architecture.suffix()));
        create(&state.join("lists/partial"))?;
        create(&state.join("archives/partial"))?;
        let status = state.join("status");
        fs::write(&status, "").map_err(Error::io(format!("cannot write {}", status.display())))?;
        apt.options = [
            format!("APT::Architecture={}", architecture.debian()),
            format!("APT::Architectures={}", architecture.debian()),
            format!("Dir::State={}", state.display()),
            format!("Dir::State::Lists={}", state.join("lists").display()),
            format!("Dir::State::Status={}", status.display()),
            format!("Dir::Cache={}", state.display()),
            "Acquire::Languages=none".to_owned(),
            "Debug::NoLocking=1".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect();
        // A list that is a day old may name what the archive has replaced since.
        progress::step(&format!("updating the package lists of {}", architecture.debian()), || {
            command::run(apt.command("apt-get").args(["-qq", "update"]), DOWNLOAD)
        })?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// The packages with the kernel and its modules that a `linux-image-*` metapackage stands for.
    fn kernel_packages(&self, meta: &str) -> Result<Vec<String>> {
        let depends = |package: &str| -> Result<Vec<String>> {
            let mut cache = self.command("apt-cache");
            let text = command::run(cache.args(["depends", "--important", package]), DOWNLOAD)?;
            Ok(String::from_utf8_lossy(&text)
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Depends: "))
                .map(str::to_owned)
                .collect())
        };
        let wanted = |name: &String| {
            ["linux-image-", "linux-modules-"].iter().any(|prefix| {
                name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            })
        };
        let mut names: Vec<String> = depends(meta)?.into_iter().filter(wanted).collect();
        for name in names.clone() {
            names.extend(depends(&name)?.into_iter().filter(wanted));
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(Error::Missing {
                what: format!("a kernel image among the dependencies of {meta}"),
                next: "name another kernel in tests/packages.txt".into(),
            });
        }
        Ok(names)
    }

    /// The first of `alternatives` that apt knows.
    fn available(&self, alternatives: &[String]) -> Result<String> {
        for name in alternatives {
            let mut cache = self.command("apt-cache");
            let shown = command::output(cache.args(["show", "--no-all-versions", name]), DOWNLOAD)?;
            if shown.status.success() && !shown.stdout.is_empty() {
                return Ok(name.clone());
            }
        }
        Err(Error::Missing {
            what: format!(
                "package {} for {} in the lists of apt",
                alternatives.join(" or "),
                self.architecture.debian()
            ),
            next:
                "run `apt-get update` as root; images need a Debian or Ubuntu machine of architecture amd64"
                    .into(),
        })
    }

    /// Lets apt resolve for a machine on which nothing is installed, and download into our own directory. Needs no root.
    fn download(&self, directory: &Path, names: &[String]) -> Result<()> {
        let status = directory.join("status");
        fs::write(&status, "").map_err(Error::io(format!("cannot write {}", status.display())))?;
        let mut apt = self.command("apt-get");
        apt.args(["-y", "-qq", "--download-only", "--no-install-recommends"])
            .arg("-o")
            .arg(format!("Dir::State::Status={}", status.display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", directory.display()))
            .arg("-o")
            .arg(format!("Dir::Cache::Archives={}", directory.join("archives").display()))
            .args(["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="])
            .args(["-o", "Debug::NoLocking=1", "install"])
            .args(names);
        command::run(&mut apt, DOWNLOAD).map(drop)
    }
}

fn archives_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).map_err(Error::io(format!("cannot list {}", directory.display())))?;
    let mut archives: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    archives.sort();
    Ok(archives)
}

/// Through tar, because `dpkg-deb -x` replaces the links of the merged `/usr` by directories.
fn unpack(archive: &Path, tree: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::io("cannot start dpkg-deb"))?;
    let Some(stream) = dpkg.stdout.take() else {
        return Err(Error::Missing { what: "the output of dpkg-deb".into(), next: "try again".into() });
    };
    let tar = Command::new("tar")
        .args(["-x", "--keep-directory-symlink", "--no-same-owner", "-p"])
        .args(["--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale"])
        .arg("-C")
        .arg(tree)
        .stdin(stream)
        .status();
    let ended = dpkg.wait();
    match (tar, ended) {
        (Ok(tar), Ok(dpkg)) if tar.success() && dpkg.success() => Ok(()),
        (tar, dpkg) => Err(Error::Command {
            command: format!("dpkg-deb --fsys-tarfile {} | tar -x", archive.display()),
            status: format!("{dpkg:?}, {tar:?}"),
            said: String::new(),
        }),
    }
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::io(format!("cannot create {}", directory.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let text = "# head\n[one]\na | b # why\n\n# note\nc\n[two]\nd\n";
        assert_eq!(parse_section(text, "one"), [vec!["a".to_owned(), "b".into()], vec!["c".into()]]);
        assert_eq!(parse_section(text, "two"), [["d"]]);
        assert!(parse_section(text, "three").is_empty());
    }
}
