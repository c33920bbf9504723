//! What is started at boot: systemd units that something pulls in, init scripts, lines of inittab and inetd; and what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use defender_model::text;

use super::image;
use crate::root::{Kind, Root, Unreadable};

/// One line of inittab(5) that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InittabLine {
    /// First field: the terminal in BusyBox's, a label in sysvinit's.
    pub(crate) id: String,
    pub(crate) action: String,
    pub(crate) process: String,
}

/// The services of an image.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// By name without `.service`: what starts it.
    enabled: BTreeMap<String, String>,
    /// Units, scripts that are there.
    installed: BTreeMap<String, String>,
    pub(crate) inittab: Vec<InittabLine>,
    /// Names of running programs; only of a running system.
    running: Option<BTreeSet<String>>,
    pub(crate) systemd: bool,
}

const UNIT_DIRECTORIES: &[&str] = &["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// Actions of inittab that start something.
const STARTING: &[&str] = &[
    "respawn",
    "askfirst",
    "wait",
    "once",
    "boot",
    "bootwait",
    "sysinit",
    "ondemand",
    "initdefault",
    "respawnlate",
];

impl Services {
    pub(crate) fn read(root: &Root, live: bool) -> Result<Self, Unreadable> {
        let mut services = Self { systemd: image::systemd(root)?, ..Self::default() };
        services.units(root)?;
        services.scripts(root)?;
        services.inittab = inittab(&root.read("/etc/inittab")?.unwrap_or_default());
        for line in &services.inittab {
            if let Some(program) = program_of(&line.process) {
                services
                    .enabled
                    .entry(program.clone())
                    .or_insert_with(|| format!("/etc/inittab: {}", line.process));
                services.installed.entry(program).or_insert_with(|| "/etc/inittab".to_owned());
            }
        }
        services.inetd(root)?;
        if live {
            services.running = Some(running(root)?);
        }
        Ok(services)
    }

    /// What starts a service at boot; `None` when nothing does. The name with or without `.service`.
    pub(crate) fn enabled(&self, name: &str) -> Option<&str> {
        self.enabled.get(plain(name)).map(String::as_str)
    }

    /// Where its unit or script is.
    pub(crate) fn installed(&self, name: &str) -> Option<&str> {
        self.installed.get(plain(name)).map(String::as_str)
    }

    /// Whether a program of that name runs; `None` when the system does not.
    pub(crate) fn running(&self, name: &str) -> Option<bool> {
        let running = self.running.as_ref()?;
        let name = plain(name);
        // The kernel keeps 15 bytes of a name.
        Some(running.contains(name) || running.contains(text::truncate(name, 15)))
    }

    /// Names of enabled services that start with a word.
    pub(crate) fn enabled_starting_with<'a>(
        &'a self,
        word: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let from = self.enabled.range(word.to_owned()..);
        from.take_while(move |(name, _)| name.starts_with(word))
            .map(|(name, by)| (name.as_str(), by.as_str()))
    }

    /// The programs that are started at boot: of units, of scripts, of inittab.
    pub(crate) fn programs(&self, root: &Root) -> Result<Vec<PathBuf>, Unreadable> {
        let mut programs = BTreeSet::new();
        for (name, by) in &self.enabled {
            for directory in image::PROGRAM_DIRECTORIES {
                let path = PathBuf::from(format!("{directory}/{name}"));
                if root.exists(&path).unwrap_or(false) {
                    programs.insert(path);
                }
            }
            // What cannot be read (a template's link, a line of inittab) has only its name.
            let Ok(Some(text)) = root.text(by) else { continue };
            for line in text.lines().map(str::trim) {
                let command = line.strip_prefix("ExecStart=").or_else(|| line.strip_prefix("DAEMON="));
                let Some(word) = command.and_then(|command| command.split_whitespace().next()) else {
                    continue;
                };
                let path = word.trim_start_matches(['-', '@', ':', '+', '!']).trim_matches(['"', '\'']);
                if path.starts_with('/') {
                    programs.insert(PathBuf::from(path));
                }
            }
        }
        Ok(programs.into_iter().collect())
    }

    fn units(&mut self, root: &Root) -> Result<(), Unreadable> {
        let mut masked = BTreeSet::new();
        for directory in UNIT_DIRECTORIES {
            for name in root.list(directory)? {
                let Some(name) = name.to_str() else { continue };
                let path = format!("{directory}/{name}");
                match name.rsplit_once('.').map(|(_, kind)| kind) {
                    Some("service" | "socket" | "timer" | "path" | "mount" | "automount" | "target") => {
                        if root.is_mask(&path)? {
                            masked.insert(plain(name).to_owned());
                        } else {
                            self.installed.entry(plain(name).to_owned()).or_insert(path);
                        }
                    }
                    Some("wants" | "requires") => {
                        for unit in root.list(&path)? {
                            let Some(unit) = unit.to_str() else { continue };
                            if !root.is_mask(format!("{path}/{unit}"))? {
                                self.enabled
                                    .entry(plain(unit).to_owned())
                                    .or_insert_with(|| format!("{path}/{unit}"));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        // An alias (`dbus-org.x.service`, `syslog.service`) is a link to the unit itself: enabled by it, too.
        for name in root.list("/etc/systemd/system")? {
            let Some(name) = name.to_str().filter(|name| name.ends_with(".service")) else { continue };
            let path = format!("/etc/systemd/system/{name}");
            let Some(target) = root.read_link(&path)? else { continue };
            let Some(target) = target.file_name().and_then(|target| target.to_str()) else { continue };
            if target.ends_with(".service") && target != name {
                self.enabled.entry(plain(target).to_owned()).or_insert(path);
            }
        }
        for name in masked {
            self.enabled.remove(&name);
            self.installed.remove(&name);
        }
        if !self.systemd {
            // Unit files without systemd start nothing.
            self.enabled.clear();
        }
        Ok(())
    }

    fn scripts(&mut self, root: &Root) -> Result<(), Unreadable> {
        // Buildroot's and OpenWrt's numbered scripts stand in init.d and rc.d themselves.
        for directory in ["/etc/init.d", "/etc/rc.d"] {
            for name in root.list(directory)? {
                let Some(name) = name.to_str() else { continue };
                let path = format!("{directory}/{name}");
                let service = unnumbered(name, 'S').unwrap_or(name);
                self.installed.entry(service.to_owned()).or_insert_with(|| path.clone());
                if let Some(service) = unnumbered(name, 'S') {
                    let runs = root
                        .metadata(&path)?
                        .is_some_and(|found| found.kind == Kind::File && found.mode & 0o111 != 0);
                    if runs {
                        self.enabled.entry(service.to_owned()).or_insert(path);
                    }
                }
            }
        }
        for directory in [
            "/etc/rcS.d",
            "/etc/rc2.d",
            "/etc/rc3.d",
            "/etc/rc4.d",
            "/etc/rc5.d",
            "/etc/rc.d/rc3.d",
            "/etc/rc.d/rc5.d",
        ] {
            for name in root.list(directory)? {
                let Some(name) = name.to_str() else { continue };
                if let Some(service) = unnumbered(name, 'S') {
                    // A systemd with a unit of that name does not run the script.
                    if !(self.systemd
                        && self.installed.get(service).is_some_and(|by| by.ends_with(".service")))
                    {
                        self.enabled
                            .entry(service.to_owned())
                            .or_insert_with(|| format!("{directory}/{name}"));
                    }
                }
            }
        }
        for level in ["boot", "default", "sysinit"] {
            let directory = format!("/etc/runlevels/{level}");
            for name in root.list(&directory)? {
                let Some(name) = name.to_str() else { continue };
                self.enabled.entry(name.to_owned()).or_insert_with(|| format!("{directory}/{name}"));
            }
        }
        Ok(())
    }

    /// Services that inetd or xinetd would start. They count as enabled: the file is there to be used.
    fn inetd(&mut self, root: &Root) -> Result<(), Unreadable> {
        for pattern in ["/etc/inetd.conf", "/etc/inetd.d/*"] {
            for path in root.glob(pattern)? {
                let text = root.text(&path)?.unwrap_or_default();
                for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    // service type protocol wait user server arguments
                    let [service, _, _, _, _, server, arguments @ ..] = words.as_slice() else { continue };
                    let by = format!("{}: {}", path.display(), line.trim());
                    // BusyBox and tcpd: the program is the first argument.
                    let names =
                        [*service, base(server), arguments.first().map_or("", |program| base(program))];
                    for name in names.into_iter().filter(|name| !name.is_empty()) {
                        self.enabled.entry(name.to_owned()).or_insert_with(|| by.clone());
                    }
                }
            }
        }
        for path in root.glob("/etc/xinetd.d/*")? {
            let text = root.text(&path)?.unwrap_or_default();
            let value = |key: &str| {
                let settings = text.lines().filter_map(|line| line.split_once('='));
                settings
                    .map(|(k, v)| (k.trim(), v.trim()))
                    .find(|(k, _)| *k == key)
                    .map(|(_, v)| v.to_owned())
            };
            if value("disable").as_deref() == Some("yes") {
                continue;
            }
            let name = path.file_name().map(|name| text::from_bytes(name.as_bytes()));
            let server = value("server").map(|server| base(&server).to_owned());
            for name in name.into_iter().chain(server) {
                self.enabled.entry(name).or_insert_with(|| path.display().to_string());
            }
        }
        Ok(())
    }
}

/// A name without `.service`; other kinds of units keep theirs.
fn plain(name: &str) -> &str {
    name.strip_suffix(".service").unwrap_or(name)
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `sshd` of `S50sshd`.
fn unnumbered(name: &str, letter: char) -> Option<&str> {
    let rest = name.strip_prefix(letter)?;
    let service = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() - service.len() >= 2 && !service.is_empty())
        .then(|| service.strip_suffix(".sh").unwrap_or(service))
}

/// The lines of an inittab that start something.
pub(crate) fn inittab(bytes: &[u8]) -> Vec<InittabLine> {
    let text = text::from_bytes(bytes);
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut fields = line.splitn(4, ':');
        let (Some(id), Some(_runlevels), Some(action), Some(process)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if STARTING.contains(&action) {
            lines.push(InittabLine {
                id: id.to_owned(),
                action: action.to_owned(),
                process: process.trim().to_owned(),
            });
        }
    }
    lines
}

/// Name of the program a command line runs, without BusyBox's `-` for a login shell.
pub(crate) fn program_of(command: &str) -> Option<String> {
    let word = command.trim_start_matches(['-', '+']).split_whitespace().next()?;
    Some(base(word).to_owned())
}

/// Names of running programs: of the process and of its executable.
fn running(root: &Root) -> Result<BTreeSet<String>, Unreadable> {
    let mut names = BTreeSet::new();
    for process in root.list("/proc")? {
        let Some(pid) = process.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        // A process may end between the listing and the reading.
        if let Ok(Some(name)) = root.text(format!("/proc/{pid}/comm")) {
            names.insert(name.trim_end().to_owned());
        }
        if let Ok(Some(target)) = root.read_link(format!("/proc/{pid}/exe")) {
            if let Some(name) = target.file_name() {
                names.insert(text::from_bytes(name.as_bytes()));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_inittab_of_both_kinds() {
        let lines = inittab(b"# c\n::sysinit:/etc/init.d/rcS\nttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100\n::askfirst:-/bin/sh\nS0:12345:respawn:/sbin/getty 115200 ttyS0\n::shutdown:/bin/umount -a\n~~:S:off:/bin/sh\nid:3:initdefault:\n");
        let processes: Vec<_> = lines.iter().map(|line| line.process.as_str()).collect();
        assert_eq!(processes.len(), 5);
        assert_eq!(program_of(processes[2]).as_deref(), Some("sh"));
        assert_eq!(program_of(""), None);
    }

    #[test]
    fn numbers_of_scripts() {
        assert_eq!(unnumbered("S50sshd", 'S'), Some("sshd"));
        assert_eq!(unnumbered("S02network.sh", 'S'), Some("network"));
        assert_eq!(unnumbered("Sshd", 'S'), None);
        assert_eq!(unnumbered("K50sshd", 'S'), None);
        assert_eq!(unnumbered("S50", 'S'), None);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), name in ".{0,12}") {
            let _ = (inittab(&bytes), unnumbered(&name, 'S'), program_of(&name));
        }
    }
}
