//! What a posture check concluded about the device or an image.

use crate::severity::Severity;

/// The conclusion of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All is as the check wants it.
    Pass,
    /// It is not.
    Fail,
    /// It is not, and an exception of the configuration accepts that.
    Excepted,
    /// The check is about something that is not there.
    NotApplicable,
    /// The check could not tell.
    Unknown,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 5] = [Self::Pass, Self::Fail, Self::Excepted, Self::NotApplicable, Self::Unknown];

    /// The word used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Excepted => "excepted",
            Self::NotApplicable => "not_applicable",
            Self::Unknown => "unknown",
        }
    }

    /// The verdict of that word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }
}

/// What one check concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compliance {
    /// Id of the policy the check belongs to.
    pub policy: String,
    /// Id of the check, unique over all policies.
    pub check: String,
    /// The good state, in one sentence.
    pub title: String,
    /// What the policy groups it under.
    pub section: String,
    /// The conclusion.
    pub verdict: Verdict,
    /// How bad it is when the check fails.
    pub severity: Severity,
    /// Why it does not apply, could not be told, or is accepted.
    pub reason: Option<String>,
    /// What the conclusion rests on, a line each.
    pub evidence: Vec<String>,
    /// What to do about it.
    pub remediation: String,
    /// Catalogues (`cis`, `etsi`, ...) and the place in each.
    pub references: Vec<(String, String)>,
    /// The recommendation it maps to, such as `IoT_OpenPorts`.
    pub recommendation: Option<String>,
    /// The check had another verdict when the device was last looked at.
    pub changed: bool,
}

impl Compliance {
    /// As bad as the check says when it fails; all else is informational.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self.verdict {
            Verdict::Fail => self.severity,
            _ => Severity::Informational,
        }
    }
}
