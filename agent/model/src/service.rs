//! Services of the device: what becomes of them, and what they report themselves.

use crate::process::Actor;
use crate::severity::Severity;

/// What became of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceChange {
    /// It runs.
    Started,
    /// It no longer runs, and was told to end or had nothing left to do.
    Stopped,
    /// It ended by a fault, or could not be started.
    Failed,
    /// It was replaced by a new instance of itself.
    Restarted,
    /// It has installed an update.
    Updated,
    /// It says something of what it looks after; `detail` says what.
    Reported,
}

impl ServiceChange {
    /// Every change.
    pub const ALL: [Self; 6] =
        [Self::Started, Self::Stopped, Self::Failed, Self::Restarted, Self::Updated, Self::Reported];

    /// The word for it, in events, rules and tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Restarted => "restarted",
            Self::Updated => "updated",
            Self::Reported => "reported",
        }
    }

    /// The change of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.name() == name)
    }
}

/// Something became of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceActivity {
    /// What.
    pub change: ServiceChange,
    /// Which service: a systemd unit, a process as `process:NAME`, or the program behind a name on the bus.
    pub name: String,
    /// How, in words; empty where there is nothing to add.
    pub detail: String,
}

/// A security event that another service handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// What happened, in a few words.
    pub title: String,
    /// How bad, as the service says.
    pub severity: Severity,
    /// The service's own class of such events; empty for none.
    pub category: String,
    /// The service's own code of such events; empty for none.
    pub code: String,
    /// What happened, in a sentence; empty for none.
    pub message: String,
    /// What else it says: names and values.
    pub attributes: Vec<(String, String)>,
    /// The sender's unique name on the bus.
    pub sender: String,
    /// The sender's process and user, as the bus says.
    pub process: Option<Actor>,
}
