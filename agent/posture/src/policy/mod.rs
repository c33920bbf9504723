//! A policy: checks as data.
//!
//! | Module | Holds |
//! |---|---|
//! | `parse` | from a TOML file to a [`Policy`], with named errors |
//! | `keys` | the keys of one table, each asked for once, the rest an error |

pub(crate) mod keys;
mod parse;

pub use parse::duplicates;

use std::sync::Arc;

use defender_model::severity::Severity;

use crate::expression::Expression;

/// A policy file.
#[derive(Debug)]
pub struct Policy {
    /// Its id, which is also the name of its file.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What it is about.
    pub description: String,
    /// Its version.
    pub version: String,
    /// What benchmarks ask and a device cannot be judged by.
    pub excluded: Vec<Excluded>,
    pub(crate) rules: Vec<Rule>,
}

impl Policy {
    /// Its checks, in the order of the file.
    pub fn checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.rules.iter().map(|rule| &rule.check)
    }
}

/// A check and what decides it.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) check: Arc<Check>,
    pub(crate) applies: Applies,
    pub(crate) when: Option<Expression>,
    pub(crate) expect: Expression,
}

/// Where a check can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applies {
    Both,
    Live,
    Offline,
}

/// One check of a policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Unique over all policies: `[a-z0-9.-]`.
    pub id: String,
    /// The good state, in one sentence.
    pub title: String,
    /// What it is grouped under in reports.
    pub section: String,
    /// How bad it is when it fails.
    pub severity: Severity,
    /// Level in the CIS sense: 1 for every device, 2 where defence in depth is worth its cost.
    pub level: Option<u8>,
    /// Why it matters.
    pub rationale: String,
    /// What to do about it.
    pub remediation: String,
    /// The Yocto way, where it differs.
    pub yocto: Option<String>,
    /// The Buildroot way, where it differs.
    pub buildroot: Option<String>,
    /// Names of catalogues (`cis`, `etsi`, `nist`, `iec62443`, `kspp`, `cce`, `microsoft`) and the place in each.
    pub references: Vec<(String, String)>,
    /// The recommendation it maps to, such as `IoT_OpenPorts`.
    pub finding: Option<String>,
}

/// What a benchmark asks and a device cannot be judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// Place in the benchmark.
    pub reference: String,
    /// What it asks.
    pub title: String,
    /// Why it is left out.
    pub reason: String,
}
