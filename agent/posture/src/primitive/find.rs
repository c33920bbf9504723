//! `find`: files that stand out anywhere in the tree.

use std::os::unix::ffi::OsStrExt as _;

use super::Primitive;
use crate::expression::Outcome;
use crate::facts::walk::{Hit, Trait};
use crate::policy::keys::{Fault, Keys};
use crate::root::glob::matches_path;
use crate::root::Unreadable;
use crate::scan::Scan;

/// Holds when no file stands out, or at most so many.
#[derive(Debug)]
struct Find {
    stands_out: Trait,
    /// In words, for the evidence.
    name: String,
    except: Vec<String>,
    under: Vec<String>,
    /// Only files with mode bits beyond these.
    mode_beyond: Option<u32>,
    at_most: usize,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let stands_out = keys.word("find", &Trait::ALL)?;
    let stands_out = stands_out.ok_or_else(|| Fault::new(keys.at, "`find` is missing"))?;
    let name = Trait::ALL.iter().find(|(_, known)| *known == stands_out).map_or("", |(name, _)| name);
    Ok(Box::new(Find {
        stands_out,
        name: name.replace('_', " "),
        except: keys.list("except")?.unwrap_or_default(),
        under: keys.list("under")?.unwrap_or_default(),
        mode_beyond: keys.mode("mode_beyond")?,
        at_most: keys.count("at_most")?.unwrap_or(0),
    }))
}

impl Find {
    fn counts(&self, hit: &Hit) -> bool {
        let path = hit.path.as_os_str().as_bytes();
        !self.except.iter().any(|pattern| matches_path(pattern, path))
            && (self.under.is_empty() || self.under.iter().any(|above| hit.path.starts_with(above)))
            && self.mode_beyond.is_none_or(|most| hit.mode & !most != 0)
    }

    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let walk = scan.walk()?;
        let (hits, more) = walk.of(self.stands_out);
        let found: Vec<&Hit> = hits.iter().filter(|hit| self.counts(hit)).collect();
        if found.len() > self.at_most {
            return Ok(Outcome::no(found.iter().map(|hit| hit.shown()).collect()));
        }
        if more > 0 {
            return Ok(Outcome::unknown(format!("{} more files than are kept are {}", more, self.name)));
        }
        if let Some(reason) = &walk.incomplete {
            return Ok(Outcome::unknown(format!("the tree was not searched to its end: {reason}")));
        }
        let mut evidence =
            vec![format!("{} such files ({}), at most {}", found.len(), self.name, self.at_most)];
        evidence.extend(found.iter().map(|hit| hit.shown()));
        Ok(Outcome::yes(evidence))
    }
}

impl Primitive for Find {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
