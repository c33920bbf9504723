//! What the image would set by sysctl: the files of sysctl.d(5) in the order of the program that applies them.

use std::collections::BTreeMap;

use super::image;
use crate::root::glob::matches_name;
use crate::root::{Root, Unreadable};

/// One assignment that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) value: String,
    pub(crate) file: String,
}

/// Everything the image would set.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// By key with dots.
    assignments: BTreeMap<String, Assignment>,
    /// Keys with `*`, in the order of the files.
    patterns: Vec<(String, Assignment)>,
    /// Keys that patterns leave alone (`-net.ipv4.conf.eth0.x`).
    spared: Vec<String>,
    /// Something applies them at boot.
    pub(crate) applied: bool,
}

/// A file name earlier in this list stands in for the same name later (sysctl.d(5)).
const DIRECTORIES: &[&str] =
    &["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];

impl Settings {
    pub(crate) fn read(root: &Root) -> Result<Self, Unreadable> {
        let systemd = image::systemd(root)?;
        let mut settings = Self { applied: systemd || applied_by_script(root)?, ..Self::default() };
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for directory in DIRECTORIES {
            for name in root.list(directory)? {
                let Some(name) = name.to_str().filter(|name| name.ends_with(".conf")) else { continue };
                files.entry(name.to_owned()).or_insert_with(|| format!("{directory}/{name}"));
            }
        }
        let mut order: Vec<String> = files.into_values().collect();
        // procps and the init scripts end with sysctl.conf; systemd reads it only where sysctl.d links to it.
        if !systemd {
            order.push("/etc/sysctl.conf".to_owned());
        }
        for file in order {
            if let Some(text) = root.text(&file)? {
                settings.add(&text, &file);
            }
        }
        Ok(settings)
    }

    fn add(&mut self, text: &str, file: &str) {
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            match line.split_once('=') {
                Some((key, value)) => {
                    let key = normal(key.trim().trim_start_matches('-'));
                    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                    let assignment = Assignment { value, file: file.to_owned() };
                    if key.contains(['*', '?', '[']) {
                        self.patterns.push((key, assignment));
                    } else {
                        self.assignments.insert(key, assignment);
                    }
                }
                None => {
                    if let Some(key) = line.strip_prefix('-') {
                        self.spared.push(normal(key.trim()));
                    }
                }
            }
        }
    }

    /// What a key would be set to: an assignment of its own before one by pattern.
    pub(crate) fn get(&self, key: &str) -> Option<&Assignment> {
        let key = normal(key);
        if let Some(assignment) = self.assignments.get(&key) {
            return Some(assignment);
        }
        if self.spared.contains(&key) {
            return None;
        }
        let matching =
            |(pattern, _): &&(String, Assignment)| matches_name(pattern.as_bytes(), key.as_bytes());
        self.patterns.iter().rfind(matching).map(|(_, assignment)| assignment)
    }
}

/// Dots between the parts. A key with a slash first has slashes between them, and dots are part of names (sysctl.d(5)).
pub(crate) fn normal(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// Some init script runs sysctl.
fn applied_by_script(root: &Root) -> Result<bool, Unreadable> {
    if image::any(
        root,
        &[
            "/etc/init.d/*procps*",
            "/etc/init.d/*sysctl*",
            "/etc/rc*.d/S*procps*",
            "/etc/rc*.d/S*sysctl*",
            "/etc/runlevels/boot/sysctl",
        ],
    )?
    .is_some()
    {
        return Ok(true);
    }
    for pattern in ["/etc/inittab", "/etc/init.d/rcS", "/etc/rc.local", "/etc/init.d/*"] {
        for path in root.glob(pattern)? {
            let Ok(Some(text)) = root.text(&path) else { continue };
            if text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("sysctl ")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_of_its_own_beats_a_pattern() {
        let mut settings = Settings::default();
        settings.add(
            "# c\nnet.ipv4.conf.*.rp_filter = 2\nnet/ipv4/conf/eth0.100/rp_filter=0\n-kernel.x = 1\nempty\n",
            "a",
        );
        settings.add(
            "net.ipv4.conf.all.rp_filter=1\n-net.ipv4.conf.lo.rp_filter\nkernel.printk = 3  4\t1 3\n",
            "b",
        );
        let value = |key: &str| settings.get(key).map(|a| a.value.as_str());
        assert_eq!(value("net.ipv4.conf.all.rp_filter"), Some("1"));
        assert_eq!(value("net.ipv4.conf.default.rp_filter"), Some("2"));
        assert_eq!(value("net.ipv4.conf.lo.rp_filter"), None);
        assert_eq!(value("net.ipv4.conf.eth0/100.rp_filter"), Some("0"));
        assert_eq!(value("kernel.x"), Some("1"));
        assert_eq!(value("kernel.printk"), Some("3 4 1 3"));
        assert_eq!(settings.get("kernel.printk").unwrap().file, "b");
    }
}
