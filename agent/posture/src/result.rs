//! What a scan concluded: the model every report format is written from.

use std::sync::Arc;

use defender_model::severity::Severity;
use defender_model::time::Timestamp;

use crate::policy::{Check, Excluded};

/// Most lines of evidence kept for one check.
pub const EVIDENCE_LINES: usize = 20;
/// Longest line of evidence, in bytes.
pub const EVIDENCE_BYTES: usize = 300;

/// One scan of one root directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The root directory as it was named.
    pub root: String,
    /// The root is that of the running system.
    pub live: bool,
    /// When the scan was made.
    pub time: Timestamp,
    /// `PRETTY_NAME` of the root's os-release; empty when there is none.
    pub host: String,
    /// One entry a policy, in the order they were given.
    pub policies: Vec<PolicyResult>,
}

/// What one policy concluded.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyResult {
    /// The policy's id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its version.
    pub version: String,
    /// 0 to 100; `None` when nothing could be judged.
    pub score: Option<f32>,
    /// One entry a check, in the policy's order.
    pub checks: Vec<CheckResult>,
    /// What the benchmark behind the policy asks and a device cannot be judged by.
    pub excluded: Vec<Excluded>,
}

/// What one check concluded.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckResult {
    /// The check.
    pub check: Arc<Check>,
    /// What it concluded.
    pub verdict: Verdict,
    /// What the conclusion rests on, such as `/etc/shadow: mode 0644, wanted at most 0640`. At most [`EVIDENCE_LINES`] lines of
    /// [`EVIDENCE_BYTES`] bytes; not yet made safe for a terminal.
    pub evidence: Vec<String>,
    /// The exception that covers the check, in force or expired.
    pub exception: Option<AppliedException>,
}

/// The conclusion of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The image is as the check wants it.
    Pass,
    /// It is not.
    Fail,
    /// The check is about something this image does not have; says what.
    NotApplicable(String),
    /// The check could not tell; says why.
    Unknown(String),
    /// It fails, and an exception in force accepts that.
    Excepted,
}

impl Verdict {
    /// Stable name for machine-readable output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotApplicable(_) => "not_applicable",
            Self::Unknown(_) => "unknown",
            Self::Excepted => "excepted",
        }
    }

    /// Why it does not apply or could not tell.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::NotApplicable(reason) | Self::Unknown(reason) => Some(reason),
            Self::Pass | Self::Fail | Self::Excepted => None,
        }
    }
}

/// An exception of the configuration that names the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedException {
    /// Why the fault is accepted.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// Last day it is in force, `YYYY-MM-DD`.
    pub expires: String,
    /// That day is over: the check fails again.
    pub expired: bool,
}

/// What a check of that severity weighs in the score.
#[must_use]
pub const fn weight(severity: Severity) -> u32 {
    match severity {
        Severity::Informational => 0,
        Severity::Low => 1,
        Severity::Medium => 3,
        Severity::High => 6,
        Severity::Critical => 10,
    }
}

/// The weighted share of checks that pass or are excepted, 0 to 100. What does not apply or could not be told counts neither way;
/// `None` when nothing is left.
#[must_use]
pub fn score<'a>(checks: impl IntoIterator<Item = &'a CheckResult>) -> Option<f32> {
    let (mut good, mut all) = (0_u32, 0_u32);
    for result in checks {
        let weight = weight(result.check.severity);
        match result.verdict {
            Verdict::Pass | Verdict::Excepted => (good, all) = (good + weight, all + weight),
            Verdict::Fail => all += weight,
            Verdict::NotApplicable(_) | Verdict::Unknown(_) => {}
        }
    }
    // Weights are small: both numbers are exact in an f32.
    #[allow(clippy::cast_precision_loss, reason = "at most some thousand checks of weight 10")]
    (all > 0).then(|| 100.0 * good as f32 / all as f32)
}

impl Report {
    /// The score over all policies.
    #[must_use]
    pub fn score(&self) -> Option<f32> {
        score(self.policies.iter().flat_map(|policy| &policy.checks))
    }
}
