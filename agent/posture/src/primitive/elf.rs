//! `elf`: hardening of installed programs.

use std::collections::HashSet;
use std::path::PathBuf;

use super::{expand, Primitive};
use crate::expression::Outcome;
use crate::facts::elf::{self, Hardening, Relro};
use crate::facts::walk::Trait;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

/// Which files are meant.
#[derive(Debug)]
enum Files {
    Patterns(Vec<String>),
    /// Programs with the set-user-id bit.
    Setuid,
    /// Programs of services that are started at boot.
    Services,
}

#[derive(Debug)]
struct Elf {
    files: Files,
    /// Libraries, too.
    libraries: bool,
    pie: bool,
    relro: Option<Relro>,
    nx: bool,
    canary: bool,
    fortify: bool,
    no_rpath: bool,
    at_least_percent: usize,
    except: Vec<String>,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let files = match keys.list("elf")?.unwrap_or_default().as_slice() {
        [word] if word == "setuid" => Files::Setuid,
        [word] if word == "services" => Files::Services,
        patterns if !patterns.is_empty() && patterns.iter().all(|path| path.starts_with('/')) => {
            Files::Patterns(patterns.to_vec())
        }
        _ => return Err(keys.fault("elf", "`elf` is \"setuid\", \"services\" or paths that start with `/`")),
    };
    let relro = [("full", Relro::Full), ("partial", Relro::Partial)];
    let elf = Elf {
        files,
        libraries: keys.flag("libraries")?.unwrap_or(false),
        pie: keys.flag("pie")?.unwrap_or(false),
        relro: keys.word("relro", &relro)?,
        nx: keys.flag("nx")?.unwrap_or(false),
        canary: keys.flag("canary")?.unwrap_or(false),
        fortify: keys.flag("fortify")?.unwrap_or(false),
        no_rpath: keys.flag("no_rpath")?.unwrap_or(false),
        at_least_percent: keys.count("at_least_percent")?.unwrap_or(100),
        except: keys.list("except")?.unwrap_or_default(),
    };
    if !(elf.pie || elf.nx || elf.canary || elf.fortify || elf.no_rpath) && elf.relro.is_none() {
        return Err(Fault::new(
            keys.at,
            "nothing is asked; one of pie, relro, nx, canary, fortify, no_rpath",
        ));
    }
    Ok(Box::new(elf))
}

/// Directories a run path may name: only root writes there.
fn is_safe(path: &str) -> bool {
    path.split(':').all(|part| {
        ["/usr/lib", "/lib", "/usr/libexec", "$ORIGIN", "${ORIGIN}"].iter().any(|start| {
            part.strip_prefix(start)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with("64"))
        })
    })
}

impl Elf {
    /// What a file lacks; `None` where it cannot be told.
    fn lacks(&self, found: &Hardening) -> Vec<String> {
        let mut lacks = Vec::new();
        let mut lack = |is: bool, words: &str| {
            if is {
                lacks.push(words.to_owned());
            }
        };
        lack(self.pie && !found.pie, "not position-independent");
        if let (Some(least), Some(is)) = (self.relro, found.relro) {
            lack(is < least, if is == Relro::None { "no RELRO" } else { "partial RELRO" });
        }
        lack(self.nx && !found.nx, "executable stack");
        lack(self.canary && found.canary == Some(false), "no stack protector");
        lack(self.fortify && found.fortify == Some(false), "not fortified");
        if self.no_rpath {
            lacks.extend(
                found.run_paths.iter().filter(|path| !is_safe(path)).map(|path| format!("run path {path}")),
            );
        }
        lacks
    }

    fn paths(&self, scan: &Scan<'_>) -> Result<Vec<PathBuf>, Unreadable> {
        match &self.files {
            Files::Patterns(patterns) => expand(scan, patterns),
            Files::Setuid => {
                Ok(scan.walk()?.of(Trait::Setuid).0.iter().map(|hit| hit.path.clone()).collect())
            }
            Files::Services => scan.services()?.programs(scan.root),
        }
    }

    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let (mut seen, mut judged, mut faulty, mut faults, mut unread) =
            (HashSet::new(), 0_usize, 0_usize, Vec::new(), None);
        for path in self.paths(scan)? {
            let name = path.to_string_lossy();
            if self.except.iter().any(|pattern| crate::root::glob::matches_path(pattern, name.as_bytes())) {
                continue;
            }
            let (file, metadata) = match scan.root.open_regular(&path) {
                Ok(Some(opened)) => opened,
                // A link to nothing, a directory, a FIFO: no program.
                Ok(None) => continue,
                Err(unreadable) if unreadable.reason.contains("not a file") => continue,
                Err(unreadable) => {
                    unread = unread.or(Some(unreadable.to_string()));
                    continue;
                }
            };
            if !seen.insert(metadata.inode) {
                continue;
            }
            match elf::read(&file) {
                Ok(Some(found)) if found.program || self.libraries => {
                    judged += 1;
                    let lacks = self.lacks(&found);
                    if !lacks.is_empty() {
                        faulty += 1;
                        if faults.len() <= crate::result::EVIDENCE_LINES {
                            faults.push(format!("{name}: {}", lacks.join(", ")));
                        }
                    }
                }
                Ok(_) => {}
                Err(error) => unread = unread.or(Some(format!("{name}: {error}"))),
            }
        }
        if judged == 0 && unread.is_none() {
            return Ok(Outcome::absent("no such ELF program in the image"));
        }
        let good = judged - faulty;
        let enough = good * 100 >= self.at_least_percent * judged;
        if !enough {
            faults
                .insert(0, format!("{good} of {judged} programs are so, wanted {} %", self.at_least_percent));
            return Ok(Outcome::no(faults));
        }
        match unread {
            Some(reason) => Ok(Outcome::unknown(reason)),
            None => Ok(Outcome::yes(vec![format!("{good} of {judged} programs are so")])),
        }
    }
}

impl Primitive for Elf {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}

#[cfg(test)]
mod tests {
    use super::is_safe;

    #[test]
    fn run_paths_only_root_writes_to() {
        assert!(is_safe("/usr/lib/systemd") && is_safe("$ORIGIN/../lib:/lib64") && is_safe("/usr/lib64"));
        assert!(
            !is_safe("/home/builder/sysroot/lib")
                && !is_safe("/usr/library")
                && !is_safe("")
                && !is_safe("/lib:./x")
        );
    }
}
