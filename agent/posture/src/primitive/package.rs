//! `package`: installed packages.

use std::cmp::Ordering;

use super::Primitive;
use crate::expression::Outcome;
use crate::facts::packages::compare;
use crate::pattern::Pattern;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

#[derive(Debug)]
struct Package {
    /// The whole name matches one of these.
    names: Vec<Pattern>,
    shown: String,
    installed: bool,
    version_at_least: Option<String>,
    version_below: Option<String>,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let names = keys.list("package")?.unwrap_or_default();
    let whole = |name: &String| Pattern::new(format!("^(?:{name})$"));
    let patterns: Result<Vec<Pattern>, String> = names.iter().map(whole).collect();
    if names.is_empty() {
        return Err(keys.fault("package", "`package` names a package, such as \"telnetd\""));
    }
    Ok(Box::new(Package {
        names: patterns.map_err(|message| keys.fault("package", format!("`package`: {message}")))?,
        shown: names.join(", "),
        installed: keys.flag("installed")?.unwrap_or(true),
        version_at_least: keys.text("version_at_least")?,
        version_below: keys.text("version_below")?,
    }))
}

impl Package {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let packages = scan.packages()?;
        let Some(from) = &packages.from else {
            return Ok(match scan.root.exists("/var/lib/rpm")? {
                true => Outcome::unknown("the database of rpm is not read"),
                false => Outcome::absent("no package database in the image"),
            });
        };
        let mut compiled: Vec<_> = self.names.iter().filter_map(|pattern| pattern.compile().ok()).collect();
        let found: Vec<(&String, &String)> = packages
            .versions
            .iter()
            .filter(|(name, _)| compiled.iter_mut().any(|regex| regex.is_match(name.as_str())))
            .collect();
        let fits = |version: &str| {
            self.version_at_least.as_ref().is_none_or(|least| compare(version, least) != Ordering::Less)
                && self.version_below.as_ref().is_none_or(|most| compare(version, most) == Ordering::Less)
        };
        let fitting: Vec<_> = found.iter().filter(|(_, version)| fits(version)).collect();
        let lines = |found: &[&(&String, &String)]| {
            found.iter().map(|(name, version)| format!("{from}: {name} {version}")).collect::<Vec<_>>()
        };
        Ok(match (fitting.is_empty(), self.installed) {
            (false, wanted) => Outcome::of(wanted, lines(&fitting)),
            (true, wanted) if found.is_empty() => {
                Outcome::of(!wanted, vec![format!("{from}: no {}", self.shown)])
            }
            (true, wanted) => Outcome::of(!wanted, lines(&found.iter().collect::<Vec<_>>())),
        })
    }
}

impl Primitive for Package {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
