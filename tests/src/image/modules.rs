//! The kernel of the distribution, and which of its modules the images get.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};

use super::PACK;

/// An unpacked kernel package.
pub(super) struct Kernel {
    /// The bootable file.
    pub(super) image: PathBuf,
    /// What it was built with.
    pub(super) config: PathBuf,
    /// `uname -r` of it.
    pub(super) release: String,
    /// `lib/modules/RELEASE`.
    modules: PathBuf,
    /// Path of each module below that, in dependency order before it: what it needs.
    needs: BTreeMap<String, Vec<String>>,
}

/// Looks into the tree of an unpacked kernel package.
pub(super) fn kernel(tree: &Path) -> Result<Kernel> {
    let boot = tree.join("boot");
    let release = fs::read_dir(&boot)
        .map_err(Error::io(format!("cannot list {}", boot.display())))?
        .flatten()
        .find_map(|entry| entry.file_name().to_string_lossy().strip_prefix("vmlinuz-").map(str::to_owned))
        .ok_or_else(|| Error::Missing {
            what: format!("a kernel in {}", boot.display()),
            next: "name another kernel under [kernel] in tests/packages.txt".into(),
        })?;
    let base = if tree.join("lib/modules").is_dir() { tree.to_path_buf() } else { tree.join("usr") };
    Ok(Kernel {
        image: boot.join(format!("vmlinuz-{release}")),
        config: boot.join(format!("config-{release}")),
        needs: needs(&base, &release)?,
        modules: base.join("lib/modules").join(&release),
        release,
    })
}

/// What each module needs, with the index made where the package's installation script would have.
fn needs(base: &Path, release: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let dependencies = base.join("lib/modules").join(release).join("modules.dep");
    if !dependencies.exists() {
        command::run(Command::new("depmod").arg("-b").arg(base).arg(release), PACK)?;
    }
    let text = fs::read_to_string(&dependencies)
        .map_err(Error::io(format!("cannot read {}", dependencies.display())))?;
    Ok(parse(&text))
}

/// `modules.dep`: `path: what it needs, nearest first`.
fn parse(text: &str) -> BTreeMap<String, Vec<String>> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path.to_owned(), needs.split_whitespace().rev().map(str::to_owned).collect()))
        .collect()
}

impl Kernel {
    /// The modules below `base/lib/modules`, of a kernel that lies elsewhere; `None` if there are none.
    pub(super) fn with_modules_of(base: &Path) -> Result<Option<Self>> {
        let directory = base.join("lib/modules");
        let Some(entry) = fs::read_dir(&directory).into_iter().flatten().flatten().next() else {
            return Ok(None);
        };
        let release = entry.file_name().to_string_lossy().into_owned();
        Ok(Some(Self {
            image: PathBuf::new(),
            config: PathBuf::new(),
            needs: needs(base, &release)?,
            modules: entry.path(),
            release,
        }))
    }

    /// The modules one section of `image/modules.txt` asks for, each after those it needs.
    pub(super) fn select(&self, list: &str, section: &str) -> Vec<String> {
        let header = format!("[{section}]");
        let patterns = list
            .lines()
            .map(|line| line.split('#').next().unwrap_or("").trim())
            .skip_while(|line| *line != header)
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter(|line| !line.is_empty());
        let mut selected = Vec::new();
        for pattern in patterns {
            for (path, needs) in self.needs.iter().filter(|(path, _)| matches(pattern, name(path))) {
                for path in needs.iter().chain([path]) {
                    if !selected.contains(path) {
                        selected.push(path.clone());
                    }
                }
            }
        }
        selected
    }

    /// Puts module `path` (as in `modules.dep`) at `to`, not compressed: not every image's tools can unpack it. `to` names
    /// the file with the ending `.ko`.
    pub(super) fn install(&self, path: &str, to: &Path) -> Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::io(format!("cannot create {}", parent.display())))?;
        }
        unpack(&self.modules.join(path), to)
    }

    /// Puts a selection and its indexes below `root`, for modprobe.
    pub(super) fn install_tree(&self, selected: &[String], root: &Path) -> Result<()> {
        let directory = root.join("usr/lib/modules").join(&self.release);
        for path in selected {
            self.install(path, &directory.join(plain(path)))?;
        }
        for index in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            fs::copy(self.modules.join(index), directory.join(index))
                .map_err(Error::io(format!("cannot copy {index}")))?;
        }
        // So that a scan on the device can tell how its kernel was built.
        fs::copy(&self.config, directory.join("config"))
            .map_err(Error::io("cannot copy the configuration"))?;
        command::run(Command::new("depmod").arg("-b").arg(root).arg(&self.release), PACK).map(drop)
    }
}

/// Writes the module in file `from` to `to`, not compressed.
pub(crate) fn unpack(from: &Path, to: &Path) -> Result<()> {
    let content = match from.extension().and_then(|e| e.to_str()) {
        Some("xz") => command::run(Command::new("xz").arg("-dc").arg(from), PACK)?,
        Some("zst") => command::run(Command::new("zstd").arg("-dcq").arg(from), PACK)?,
        Some("gz") => command::run(Command::new("gzip").arg("-dc").arg(from), PACK)?,
        _ => fs::read(from).map_err(Error::io(format!("cannot read {}", from.display())))?,
    };
    fs::write(to, content).map_err(Error::io(format!("cannot write {}", to.display())))
}

/// Without the ending of its compression.
pub(super) fn plain(path: &str) -> &str {
    path.find(".ko").map_or(path, |at| &path[..at + 3])
}

/// The file's name without directory and endings.
fn name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file)
}

/// One `*` at most; `-` and `_` are the same in module names.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.replace('-', "_"), name.replace('-', "_"));
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let kernel = Kernel {
            image: PathBuf::new(),
            config: PathBuf::new(),
            release: String::new(),
            modules: PathBuf::new(),
            needs: parse(
                "k/virtio_net.ko.xz: k/net_failover.ko k/failover.ko\nk/failover.ko:\nk/other.ko:\n",
            ),
        };
        let list = "[boot]\nvirtio-net\n[root]\nother # x\n";
        assert_eq!(kernel.select(list, "boot"), ["k/failover.ko", "k/net_failover.ko", "k/virtio_net.ko.xz"]);
        assert_eq!(kernel.select(list, "root"), ["k/other.ko"]);
        assert_eq!(plain("k/virtio_net.ko.xz"), "k/virtio_net.ko");
    }

    #[test]
    fn one_star_matches_any_run() {
        assert!(
            matches("nft_*", "nft_ct")
                && matches("*_diag", "tcp_diag")
                && matches("virtio-rng", "virtio_rng")
        );
        assert!(!matches("nft_*", "nf_tables") && !matches("a*a", "a"));
    }
}
