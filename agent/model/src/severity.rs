//! How bad it is: one scale for events, findings and rules.

/// OCSF `severity_id`, which Sigma's `level` maps onto one to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Severity {
    /// Nothing to do. OCSF 1, Sigma `informational`.
    #[default]
    Informational = 1,
    /// Worth a look. OCSF 2, Sigma `low`.
    Low = 2,
    /// Should be looked at. OCSF 3, Sigma `medium`.
    Medium = 3,
    /// Act now. OCSF 4, Sigma `high`.
    High = 4,
    /// Act now, the scope is broad. OCSF 5, Sigma `critical`.
    Critical = 5,
}

impl Severity {
    /// Every severity, mildest first.
    pub const ALL: [Self; 5] = [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// OCSF `severity_id`.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// From an OCSF `severity_id`; `None` for the ids without a place on the scale (unknown, fatal, other).
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.id() == id)
    }

    /// Sigma's `level` word, also used in the configuration.
    #[must_use]
    pub const fn level(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// From Sigma's `level` word.
    #[must_use]
    pub fn from_level(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.level() == word)
    }

    /// Severity of RFC 5424 section 6.2.1 (0 emergency .. 7 debug).
    #[must_use]
    pub const fn syslog(self) -> u8 {
        match self {
            Self::Informational => 6,
            Self::Low => 5,
            Self::Medium => 4,
            Self::High => 3,
            Self::Critical => 2,
        }
    }
}

impl core::fmt::Display for Severity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.level())
    }
}
