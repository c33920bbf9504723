//! `mount`: file systems and their options.

use super::Primitive;
use crate::expression::Outcome;
use crate::facts::mounts::Mount;
use crate::policy::keys::{Fault, Keys};
use crate::root::glob::{is_pattern, matches_path};
use crate::root::Unreadable;
use crate::scan::Scan;

#[derive(Debug)]
struct Wanted {
    point: String,
    separate: Option<bool>,
    options: Vec<String>,
    lacks: Vec<String>,
    fstype: Vec<String>,
    read_only: Option<bool>,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let wanted = Wanted {
        point: keys.required_text("mount")?,
        separate: keys.flag("separate")?,
        options: keys.list("options")?.unwrap_or_default(),
        lacks: keys.list("lacks_options")?.unwrap_or_default(),
        fstype: keys.list("fstype")?.unwrap_or_default(),
        read_only: keys.flag("read_only")?,
    };
    if !wanted.point.starts_with('/') {
        return Err(keys.fault("mount", "a mount point starts with `/`"));
    }
    if wanted.separate.is_none() && !wanted.asks_of_the_mount() {
        return Err(Fault::new(
            keys.at,
            "nothing is asked; one of separate, options, lacks_options, fstype, read_only",
        ));
    }
    Ok(Box::new(wanted))
}

impl Wanted {
    fn asks_of_the_mount(&self) -> bool {
        !(self.options.is_empty()
            && self.lacks.is_empty()
            && self.fstype.is_empty()
            && self.read_only.is_none())
    }

    fn faults(&self, mount: &Mount) -> Vec<String> {
        let has = |option: &String| mount.options.contains(option);
        let mut faults = Vec::new();
        let shown = format!("{} ({})", mount.point, mount.from);
        for option in self.options.iter().filter(|option| !has(option)) {
            faults.push(format!("{shown}: options {}, wanted {option}", mount.options.join(",")));
        }
        for option in self.lacks.iter().filter(|option| has(option)) {
            faults.push(format!("{shown}: options {}, not wanted: {option}", mount.options.join(",")));
        }
        if !self.fstype.is_empty() && !self.fstype.contains(&mount.fstype) {
            faults.push(format!("{shown}: type {}, wanted {}", mount.fstype, self.fstype.join(" or ")));
        }
        let is_read_only = mount.options.iter().any(|option| option == "ro");
        if let Some(wanted) = self.read_only.filter(|wanted| *wanted != is_read_only) {
            faults.push(format!("{shown}: {}", if wanted { "writable" } else { "read-only" }));
        }
        faults
    }

    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let mounts = scan.mounts()?;
        let found: Vec<&Mount> = if is_pattern(&self.point) {
            mounts.mounts.iter().filter(|mount| matches_path(&self.point, mount.point.as_bytes())).collect()
        } else {
            mounts.on(&self.point).into_iter().collect()
        };
        let none = format!("{}: not a file system of its own", self.point);
        if found.is_empty() {
            return Ok(match self.separate {
                Some(wanted) => Outcome::of(!wanted, vec![none]),
                None => Outcome::absent(none),
            });
        }
        let shown = found.iter().map(|mount| {
            format!("{} ({}): {} {}", mount.point, mount.from, mount.fstype, mount.options.join(","))
        });
        if self.separate == Some(false) {
            return Ok(Outcome::no(shown.collect()));
        }
        let faults: Vec<String> = found.iter().flat_map(|mount| self.faults(mount)).collect();
        Ok(if faults.is_empty() { Outcome::yes(shown.collect()) } else { Outcome::no(faults) })
    }
}

impl Primitive for Wanted {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
