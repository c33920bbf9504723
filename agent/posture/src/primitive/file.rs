//! `file`: existence, kind, mode and owner.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{expand, paths, Primitive};
use crate::expression::Outcome;
use crate::policy::keys::{Fault, Keys};
use crate::root::glob::matches_path;
use crate::root::{Kind, Metadata, Unreadable};
use crate::scan::Scan;

#[derive(Debug)]
struct File {
    patterns: Vec<String>,
    exists: Option<bool>,
    required: bool,
    /// One matching file is enough.
    any: bool,
    attributes: Attributes,
    /// Of what a pattern stands for, only these kinds.
    only: Vec<Kind>,
    except: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Attributes {
    kinds: Vec<Kind>,
    mode_max: Option<u32>,
    mode_min: Option<u32>,
    owner: Vec<String>,
    group: Vec<String>,
    empty: Option<bool>,
    links_to: Option<String>,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let kinds = Kind::ALL.map(|kind| (kind.name(), kind));
    let file = File {
        patterns: paths(keys, "file")?,
        exists: keys.flag("exists")?,
        required: keys.flag("required")?.unwrap_or(false),
        any: keys.word("match", &[("any", true), ("all", false)])?.unwrap_or(false),
        only: keys.words("only", &kinds)?.unwrap_or_default(),
        except: keys.list("except")?.unwrap_or_default(),
        attributes: Attributes {
            kinds: keys.words("kind", &kinds)?.unwrap_or_default(),
            mode_max: keys.mode("mode_max")?,
            mode_min: keys.mode("mode_min")?,
            owner: keys.list("owner")?.unwrap_or_default(),
            group: keys.list("group")?.unwrap_or_default(),
            empty: keys.flag("empty")?,
            links_to: keys.text("links_to")?,
        },
    };
    if file.exists.is_none() && file.attributes.is_empty() && !file.required {
        return Err(Fault::new(
            keys.at,
            "nothing is asked of the file; one of exists, required, kind, mode_max, mode_min, owner, group, empty, links_to",
        ));
    }
    Ok(Box::new(file))
}

impl Attributes {
    fn is_empty(&self) -> bool {
        *self
            == Self {
                kinds: Vec::new(),
                mode_max: None,
                mode_min: None,
                owner: Vec::new(),
                group: Vec::new(),
                empty: None,
                links_to: None,
            }
    }

    /// What is not as wanted of one file; `None` when there is no file.
    fn faults(&self, scan: &Scan<'_>, path: &Path) -> Result<Option<Vec<String>>, Unreadable> {
        let of_link = self.kinds.contains(&Kind::Link) || self.links_to.is_some();
        let found = if of_link { scan.root.link_metadata(path)? } else { scan.root.metadata(path)? };
        let Some(found) = found else { return Ok(None) };
        if !of_link && found.kind == Kind::Character && scan.root.is_mask(path)? {
            // Mode and owner of /dev/null are no business of the file it stands for.
            return Ok(None);
        }
        let mut faults = Vec::new();
        let name = path.display();
        if !self.kinds.is_empty() && !self.kinds.contains(&found.kind) {
            let wanted: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
            faults.push(format!("{name}: a {}, wanted {}", found.kind.name(), wanted.join(" or ")));
        }
        if let Some(most) = self.mode_max.filter(|most| found.mode & !most != 0) {
            faults.push(format!("{name}: mode {:04o}, wanted at most {most:04o}", found.mode));
        }
        if let Some(least) = self.mode_min.filter(|least| found.mode & least != *least) {
            faults.push(format!("{name}: mode {:04o}, wanted at least {least:04o}", found.mode));
        }
        if !self.owner.is_empty() && !owns(&self.owner, found.uid, |n| Ok(scan.accounts()?.uid(n)))? {
            faults.push(format!("{name}: owner {}, wanted {}", found.uid, self.owner.join(" or ")));
        }
        if !self.group.is_empty() && !owns(&self.group, found.gid, |n| Ok(scan.accounts()?.gid(n)))? {
            faults.push(format!("{name}: group {}, wanted {}", found.gid, self.group.join(" or ")));
        }
        if let Some(wanted) = self.empty {
            if is_empty(scan, path, &found)? != wanted {
                faults.push(format!("{name}: {}", if wanted { "not empty" } else { "empty" }));
            }
        }
        if let Some(pattern) = &self.links_to {
            match scan.root.read_link(path)? {
                Some(target) if matches_target(pattern, &target) => {}
                Some(target) => {
                    faults.push(format!("{name}: a link to {}, wanted to {pattern}", target.display()));
                }
                None => faults.push(format!("{name}: not a link, wanted one to {pattern}")),
            }
        }
        Ok(Some(faults))
    }

    fn shown(&self, scan: &Scan<'_>, path: &Path) -> Result<String, Unreadable> {
        let found = scan.root.metadata(path)?;
        Ok(match found {
            Some(found) => {
                format!("{}: mode {:04o}, owner {}:{}", path.display(), found.mode, found.uid, found.gid)
            }
            None => format!("{}: is there", path.display()),
        })
    }
}

/// A pattern without a slash at its start matches the end of the target.
fn matches_target(pattern: &str, target: &Path) -> bool {
    let target = target.as_os_str().as_bytes();
    matches_path(pattern, target)
        || (!pattern.starts_with('/')
            && matches_path(&format!("**/{}", pattern.trim_start_matches("*/")), target))
}

fn owns(
    wanted: &[String],
    id: u32,
    of: impl Fn(&str) -> Result<Option<u32>, Unreadable>,
) -> Result<bool, Unreadable> {
    for name in wanted {
        if name.parse() == Ok(id) || of(name)? == Some(id) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_empty(scan: &Scan<'_>, path: &Path, found: &Metadata) -> Result<bool, Unreadable> {
    match found.kind {
        Kind::Directory => Ok(scan.root.list(path)?.is_empty()),
        _ => Ok(found.size == 0),
    }
}

impl File {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let mut paths = expand(scan, &self.patterns)?;
        paths.retain(|path| {
            !self.except.iter().any(|pattern| matches_path(pattern, path.as_os_str().as_bytes()))
        });
        if !self.only.is_empty() {
            let mut kept = Vec::new();
            for path in paths {
                if scan.root.metadata(&path)?.is_some_and(|found| self.only.contains(&found.kind)) {
                    kept.push(path);
                }
            }
            paths = kept;
        }
        let missing = || vec![format!("{}: missing", self.patterns.join(", "))];
        let there = || paths.iter().map(|path| format!("{}: is there", path.display())).collect::<Vec<_>>();
        if self.exists == Some(false) {
            return Ok(if paths.is_empty() { Outcome::yes(missing()) } else { Outcome::no(there()) });
        }
        if paths.is_empty() {
            return Ok(Outcome::of(self.exists.is_none() && !self.required, missing()));
        }
        if self.attributes.is_empty() {
            return Ok(Outcome::yes(there()));
        }
        let (mut judged, mut good, mut faults) = (0, Vec::new(), Vec::new());
        for path in &paths {
            let Some(found) = self.attributes.faults(scan, path)? else { continue };
            judged += 1;
            if found.is_empty() {
                good.push(self.attributes.shown(scan, path)?);
            }
            faults.extend(found);
        }
        let holds = match (judged, self.any) {
            (0, _) => self.exists.is_none() && !self.required,
            (_, true) => !good.is_empty(),
            (_, false) => faults.is_empty(),
        };
        Ok(Outcome::of(holds, if holds { good } else { faults }))
    }
}

impl Primitive for File {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
