//! `service`, `inittab`: what is started at boot, what runs, and who gets a shell on a console.

use super::Primitive;
use crate::expression::Outcome;
use crate::facts::image::{self, PROGRAM_DIRECTORIES};
use crate::facts::services::{program_of, InittabLine, Services};
use crate::pattern::Pattern;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

/// One of the names is enough.
#[derive(Debug)]
struct Service {
    names: Vec<String>,
    enabled: Option<bool>,
    running: Option<bool>,
    installed: Option<bool>,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let service = Service {
        names: keys.list("service")?.unwrap_or_default(),
        enabled: keys.flag("enabled")?,
        running: keys.flag("running")?,
        installed: keys.flag("installed")?,
    };
    if service.names.is_empty() {
        return Err(keys.fault("service", "`service` names a service, such as \"telnetd\""));
    }
    if service.enabled.is_none() && service.running.is_none() && service.installed.is_none() {
        return Err(Fault::new(keys.at, "nothing is asked; one of enabled, running, installed"));
    }
    Ok(Box::new(service))
}

impl Service {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let services = scan.services()?;
        let mut evidence = Vec::new();
        let names = self.names.join(", ");
        if let Some(wanted) = self.enabled {
            let found = self.names.iter().find_map(|name| Some((name, services.enabled(name)?)));
            if found.is_some() != wanted {
                return Ok(Outcome::no(vec![match found {
                    Some((name, by)) => format!("{name}: started at boot by {by}"),
                    None => format!("{names}: not started at boot"),
                }]));
            }
            evidence.push(found.map_or_else(
                || format!("{names}: not started at boot"),
                |(name, by)| format!("{name}: started at boot by {by}"),
            ));
        }
        if let Some(wanted) = self.installed {
            let mut found = self.names.iter().find_map(|name| services.installed(name).map(str::to_owned));
            for (name, directory) in
                self.names.iter().flat_map(|name| PROGRAM_DIRECTORIES.iter().map(move |d| (name, d)))
            {
                let path = format!("{directory}/{name}");
                if found.is_none() && scan.root.link_metadata(&path)?.is_some() {
                    found = Some(path);
                }
            }
            let line = found
                .as_ref()
                .map_or_else(|| format!("{names}: not installed"), |path| format!("{path}: is there"));
            if found.is_some() != wanted {
                return Ok(Outcome::no(vec![line]));
            }
            evidence.push(line);
        }
        if let Some(wanted) = self.running {
            let Some(found) =
                self.names.iter().find_map(|name| services.running(name).map(|runs| (name, runs)))
            else {
                return Ok(Outcome::unknown("only a running device shows what runs"));
            };
            let found = self
                .names
                .iter()
                .find(|name| services.running(name) == Some(true))
                .map_or((found.0, false), |name| (name, true));
            let line =
                if found.1 { format!("{}: running", found.0) } else { format!("{names}: not running") };
            if found.1 != wanted {
                return Ok(Outcome::no(vec![line]));
            }
            evidence.push(line);
        }
        Ok(Outcome::yes(evidence))
    }
}

impl Primitive for Service {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}

/// Consoles, by inittab or by systemd's getty units.
#[derive(Debug)]
enum Console {
    /// Someone can log in on one.
    Getty(bool),
    /// A line that starts something matches.
    Matches(Pattern),
    /// One gives a shell to whoever is there.
    ShellWithoutLogin(bool),
}

pub(super) fn inittab(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let named = keys.value("inittab").map(|_| ());
    debug_assert!(named.is_some(), "the registry found the key");
    let (getty, matches, shell) =
        (keys.flag("getty")?, keys.pattern("matches")?, keys.flag("shell_without_login")?);
    match (getty, matches, shell) {
        (Some(wanted), None, None) => Ok(Box::new(Console::Getty(wanted))),
        (None, Some(pattern), None) => Ok(Box::new(Console::Matches(pattern))),
        (None, None, Some(wanted)) => Ok(Box::new(Console::ShellWithoutLogin(wanted))),
        _ => Err(Fault::new(keys.at, "`inittab` needs one of getty, matches, shell_without_login")),
    }
}

const SHELLS: &[&str] = &["sh", "ash", "bash", "dash", "zsh", "ksh", "mksh", "hush"];
const GETTYS: &[&str] =
    &["getty", "agetty", "mgetty", "mingetty", "ttylogin", "start_getty", "sulogin", "login"];

fn shell_without_login(line: &InittabLine) -> bool {
    // `sysinit`, `wait` and `once` run scripts by a shell; only a shell by itself waits for someone to type.
    let words: Vec<&str> = line.process.split_whitespace().collect();
    let Some(program) = program_of(&line.process) else { return false };
    let is_shell =
        |word: &str| SHELLS.contains(&word.trim_start_matches('-').rsplit('/').next().unwrap_or_default());
    if is_shell(&program) {
        let interactive = words[1..].iter().all(|word| matches!(*word, "-l" | "-i" | "--login" | "-"));
        return interactive;
    }
    if program.contains("getty") {
        let by_option =
            words.windows(2).any(|pair| matches!(pair[0], "-l" | "--login-program") && is_shell(pair[1]));
        let automatic = words
            .iter()
            .any(|word| *word == "-a" || word.starts_with("--autologin") || word.starts_with("-l/bin/sh"));
        return by_option || automatic;
    }
    (program == "login" || program == "busybox") && words.windows(2).any(|pair| pair[0] == "-f")
        || (program == "cttyhack" || program == "openvt" || program == "setsid")
            && words[1..].iter().any(|word| is_shell(word))
}

impl Console {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let services = scan.services()?;
        Ok(match self {
            Self::Matches(pattern) => {
                let found: Vec<String> = services
                    .inittab
                    .iter()
                    .filter(|line| pattern.matches(&format!("{}:{}:{}", line.id, line.action, line.process)))
                    .map(|line| format!("/etc/inittab: {}", line.process))
                    .collect();
                match found.is_empty() {
                    true => {
                        Outcome::no(vec![format!("/etc/inittab: no line matches `{}`", pattern.as_str())])
                    }
                    false => Outcome::yes(found),
                }
            }
            Self::Getty(wanted) => {
                let mut found: Vec<String> = services
                    .inittab
                    .iter()
                    .filter(|line| {
                        program_of(&line.process).is_some_and(|program| GETTYS.contains(&program.as_str()))
                    })
                    .map(|line| format!("/etc/inittab: {}", line.process))
                    .collect();
                for word in ["getty@", "serial-getty@", "console-getty"] {
                    let units = services.enabled_starting_with(word).filter(|(_, by)| by.contains(".wants/"));
                    found.extend(units.map(|(name, by)| format!("{name}: started at boot by {by}")));
                }
                let generated = match generated_gettys(scan)? {
                    Generated::Units(units) => units,
                    Generated::Unknown(_) if !found.is_empty() => Vec::new(),
                    Generated::Unknown(reason) => return Ok(Outcome::unknown(reason)),
                };
                found.extend(generated);
                let is = !found.is_empty();
                if !is {
                    found.push("no getty is started at boot".to_owned());
                }
                Outcome::of(is == *wanted, found)
            }
            Self::ShellWithoutLogin(wanted) => {
                let mut found: Vec<String> = services
                    .inittab
                    .iter()
                    .filter(|line| shell_without_login(line))
                    .map(|line| format!("/etc/inittab: {}", line.process))
                    .collect();
                found.extend(units_without_login(scan, services)?);
                let is = !found.is_empty();
                if !is {
                    found.push("no console gives a shell without a login".to_owned());
                }
                Outcome::of(is == *wanted, found)
            }
        })
    }
}

/// Gettys that no file enables.
enum Generated {
    Units(Vec<String>),
    /// Depends on what is not known.
    Unknown(String),
}

/// systemd-getty-generator(8) starts a getty on every console of the kernel that is not a virtual terminal.
fn generated_gettys(scan: &Scan<'_>) -> Result<Generated, Unreadable> {
    const GENERATOR: &str = "systemd/system-generators/systemd-getty-generator";
    let root = scan.root;
    let nothing = Ok(Generated::Units(Vec::new()));
    let masked = root.is_mask(format!("/etc/{GENERATOR}"))?
        || root.is_mask("/etc/systemd/system/serial-getty@.service")?
        || root.is_mask("/etc/systemd/system/getty.target")?;
    if masked || image::any(root, &[&format!("/{{usr/,}}lib/{GENERATOR}")])?.is_none() {
        return nothing;
    }
    let line = match scan.command_line() {
        Ok(line) => line,
        Err(reason) => {
            return Ok(Generated::Unknown(format!(
                "systemd starts a getty on the kernel's console: {reason}"
            )))
        }
    };
    if line.last("systemd.getty_auto").is_some_and(|value| matches!(value, "0" | "no" | "false" | "off")) {
        return nothing;
    }
    let mut units = Vec::new();
    for console in line.all("console") {
        let terminal = console.split(',').next().unwrap_or_default();
        let virtual_terminal =
            terminal.strip_prefix("tty").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
        let unit = format!("serial-getty@{terminal}.service");
        if terminal.is_empty()
            || terminal == "null"
            || virtual_terminal
            || root.is_mask(format!("/etc/systemd/system/{unit}"))?
        {
            continue;
        }
        units.push(format!("{unit}: started by systemd-getty-generator for console={console}"));
    }
    Ok(Generated::Units(units))
}

/// systemd's ways to a shell without a login: the debug shell, and gettys that log in by themselves.
fn units_without_login(scan: &Scan<'_>, services: &Services) -> Result<Vec<String>, Unreadable> {
    let mut found = Vec::new();
    if !image::systemd(scan.root)? {
        return Ok(found);
    }
    if let Some(by) = services.enabled("debug-shell") {
        found.push(format!("debug-shell: started at boot by {by}"));
    }
    let patterns = [
        "/{etc,usr/lib,lib}/systemd/system/*getty*.service",
        "/{etc,usr/lib,lib}/systemd/system/*getty*.service.d/*.conf",
    ];
    for pattern in patterns {
        for path in scan.root.glob(pattern)? {
            let Ok(Some(text)) = scan.root.text(&path) else { continue };
            for line in text.lines().filter_map(|line| line.trim().strip_prefix("ExecStart=")) {
                let line = line.trim_start_matches(['-', '@', ':', '+', '!']);
                let process =
                    InittabLine { id: String::new(), action: String::new(), process: line.to_owned() };
                if shell_without_login(&process) {
                    found.push(format!("{}: {line}", path.display()));
                }
            }
        }
    }
    found.dedup();
    Ok(found)
}

impl Primitive for Console {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_shell_from_a_login() {
        let line = |process: &str| InittabLine {
            id: String::new(),
            action: "respawn".into(),
            process: process.into(),
        };
        for process in [
            "-/bin/sh",
            "/bin/sh -l",
            "/bin/bash",
            "/sbin/getty -n -l /bin/sh 115200 ttyS0",
            "/sbin/agetty --autologin root tty1",
            "/bin/login -f root",
            "setsid cttyhack sh",
        ] {
            assert!(shell_without_login(&line(process)), "{process}");
        }
        for process in [
            "/sbin/getty -L ttyS0 115200 vt100",
            "/bin/sh /etc/init.d/rcS",
            "/etc/init.d/rcS",
            "/sbin/sulogin",
            "/bin/sh -c /etc/x",
            "",
            "/bin/login",
        ] {
            assert!(!shell_without_login(&line(process)), "{process}");
        }
    }
}
