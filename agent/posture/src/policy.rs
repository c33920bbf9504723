//! A policy: checks as data.

use defender_model::severity::Severity;

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
