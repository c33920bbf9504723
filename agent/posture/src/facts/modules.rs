//! Kernel modules: what is there, what is built in, and what modprobe.d forbids.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use defender_model::order;

use crate::root::{Root, Unreadable};

/// The modules of an image.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// Files by module name.
    files: HashMap<String, String>,
    built_in: BTreeSet<String>,
    /// There is a list of what is built in.
    built_in_known: bool,
    /// Modules whose loading is replaced by a program that does nothing: where it says so.
    blocked: BTreeMap<String, String>,
    pub(crate) blacklisted: BTreeMap<String, String>,
    loaded: Option<BTreeSet<String>>,
    /// modprobe is BusyBox's, which knows no `install` lines (modutils/modprobe.c).
    busybox: bool,
}

const MODPROBE_DIRECTORIES: &[&str] = &[
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

impl Modules {
    pub(crate) fn read(root: &Root, live: bool) -> Result<Self, Unreadable> {
        let mut modules = Self::default();
        // On a running device only the running kernel's; in an image every kernel's.
        let release = if live { root.text("/proc/sys/kernel/osrelease")? } else { None };
        let release = release.map_or_else(|| "*".to_owned(), |release| release.trim().to_owned());
        for path in root.glob(&format!("/{{usr/,}}lib/modules/{release}/modules.dep"))? {
            for line in root.text(&path)?.unwrap_or_default().lines() {
                if let Some((file, _)) = line.split_once(':') {
                    modules.files.insert(name_of(file), file.to_owned());
                }
            }
        }
        for path in root.glob(&format!("/{{usr/,}}lib/modules/{release}/modules.builtin"))? {
            modules.built_in_known = true;
            for line in root.text(&path)?.unwrap_or_default().lines() {
                modules.built_in.insert(name_of(line));
            }
        }
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for directory in MODPROBE_DIRECTORIES {
            for name in root.list(directory)? {
                if let Some(name) = name.to_str().filter(|name| name.ends_with(".conf")) {
                    files.entry(name.to_owned()).or_insert_with(|| format!("{directory}/{name}"));
                }
            }
        }
        for file in files.into_values().chain(["/etc/modprobe.conf".to_owned()]) {
            let masked = root.read_link(&file)?.is_some_and(|target| target == Path::new("/dev/null"));
            if let Some(text) = if masked { None } else { root.text(&file)? } {
                modules.rules(&text, &file);
            }
        }
        for modprobe in ["/sbin/modprobe", "/usr/sbin/modprobe"] {
            let target = root.read_link(modprobe)?;
            modules.busybox |= target.is_some_and(|target| target.ends_with("busybox"));
        }
        if live {
            let loaded = root.text("/proc/modules")?.unwrap_or_default();
            let names = loaded.lines().filter_map(|line| Some(normal(line.split(' ').next()?)));
            modules.loaded = Some(order::set(names));
        }
        Ok(modules)
    }

    fn rules(&mut self, text: &str, file: &str) {
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let place = || format!("{file}:{}", number + 1);
            match words.as_slice() {
                ["install", module, command, ..]
                    if matches!(command.rsplit('/').next(), Some("false" | "true" | ":" | "nologin")) =>
                {
                    self.blocked.insert(normal(module), place());
                }
                ["blacklist", module, ..] => {
                    self.blacklisted.insert(normal(module), place());
                }
                _ => {}
            }
        }
    }

    /// Whether a module can get into the kernel, and why; the error says why that cannot be told.
    pub(crate) fn loadable(&self, name: &str) -> Result<(bool, String), String> {
        let name = normal(name);
        if self.built_in.contains(&name) {
            return Ok((true, format!("{name}: built into the kernel")));
        }
        match (self.files.get(&name), self.blocked.get(&name)) {
            (Some(file), Some(rule)) if self.busybox => {
                Ok((true, format!("{file}: {rule} forbids it, but BusyBox's modprobe knows no `install` lines")))
            }
            (Some(_), Some(rule)) => Ok((false, format!("{name}: forbidden by {rule}"))),
            (Some(file), None) => Ok((true, match self.blacklisted.get(&name) {
                Some(rule) => format!("{file}: {rule} only keeps it from loading by itself; wanted `install {name} /bin/false`"),
                None => format!("{file}: is there and not forbidden"),
            })),
            (None, _) if self.built_in_known => Ok((false, format!("{name}: not in this kernel"))),
            (None, _) => Err(format!("no modules.builtin in the image: whether {name} is built in is not known")),
        }
    }

    /// Whether a module is there, as a file or built in.
    pub(crate) fn present(&self, name: &str) -> Result<(bool, String), String> {
        let name = normal(name);
        match self.files.get(&name) {
            Some(file) => Ok((true, format!("{file}: is there"))),
            None if self.built_in.contains(&name) => Ok((true, format!("{name}: built into the kernel"))),
            None if self.built_in_known => Ok((false, format!("{name}: not in this kernel"))),
            None => Err(format!("no modules.builtin in the image: whether {name} is built in is not known")),
        }
    }

    /// Whether a module is loaded; `None` when the system does not run.
    pub(crate) fn loaded(&self, name: &str) -> Option<bool> {
        self.loaded.as_ref().map(|loaded| loaded.contains(&normal(name)))
    }
}

/// `-` and `_` are the same in names of modules.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Name of the module in a file such as `kernel/fs/cramfs/cramfs.ko.xz`.
fn name_of(file: &str) -> String {
    let base = file.trim().rsplit('/').next().unwrap_or_default();
    normal(base.split(".ko").next().unwrap_or(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_loaded() {
        let mut modules = Modules { built_in_known: true, ..Modules::default() };
        for file in [
            "kernel/fs/cramfs/cramfs.ko.xz",
            "kernel/drivers/usb/storage/usb-storage.ko",
            "kernel/net/dccp/dccp.ko",
        ] {
            modules.files.insert(name_of(file), file.to_owned());
        }
        modules.built_in.insert(name_of("kernel/fs/ext4/ext4.ko"));
        modules.rules("install usb-storage /bin/true\nblacklist dccp\n# install cramfs /bin/false\ninstall cramfs /sbin/modprobe x\n", "f");
        let of = |name: &str| modules.loadable(name).unwrap().0;
        assert_eq!(
            [of("cramfs"), of("usb_storage"), of("dccp"), of("ext4"), of("tipc")],
            [true, false, true, true, false]
        );
        modules.busybox = true;
        assert!(modules.loadable("usb-storage").unwrap().1.contains("BusyBox"));
        modules.built_in_known = false;
        assert!(modules.loadable("tipc").is_err());
    }
}
