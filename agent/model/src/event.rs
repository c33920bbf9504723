//! One thing that happened.

use crate::authentication::Authentication;
use crate::finding::Finding;
use crate::health::Health;
use crate::process::ProcessActivity;
use crate::remediation::Remediation;
use crate::severity::Severity;
use crate::time::Timestamp;

/// One thing that happened on the device, or that the agent concluded or did.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it happened, as near to the source as can be known (the kernel's stamp, the log line's arrival).
    pub time: Timestamp,
    /// Position in this boot's stream, from 1, without gaps; 0 until the pipeline has numbered the event.
    pub sequence: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// A program was started or ended.
    Process(Box<ProcessActivity>),
    /// Somebody logged in, failed to, or logged out.
    Authentication(Box<Authentication>),
    /// Detection concluded something.
    Finding(Box<Finding>),
    /// The agent acted.
    Remediation(Box<Remediation>),
    /// The agent speaks of itself.
    Health(Box<Health>),
}

impl Event {
    /// An event that the pipeline has not numbered yet.
    #[must_use]
    pub fn new(time: Timestamp, kind: EventKind) -> Self {
        Self { time, sequence: 0, kind }
    }

    /// How bad the event is by itself.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match &self.kind {
            EventKind::Process(_) => Severity::Informational,
            EventKind::Authentication(a) => a.severity(),
            EventKind::Finding(f) => f.severity,
            EventKind::Remediation(r) => r.severity(),
            EventKind::Health(h) => h.severity,
        }
    }
}

impl From<ProcessActivity> for EventKind {
    fn from(value: ProcessActivity) -> Self {
        Self::Process(Box::new(value))
    }
}

impl From<Authentication> for EventKind {
    fn from(value: Authentication) -> Self {
        Self::Authentication(Box::new(value))
    }
}

impl From<Finding> for EventKind {
    fn from(value: Finding) -> Self {
        Self::Finding(Box::new(value))
    }
}

impl From<Remediation> for EventKind {
    fn from(value: Remediation) -> Self {
        Self::Remediation(Box::new(value))
    }
}

impl From<Health> for EventKind {
    fn from(value: Health) -> Self {
        Self::Health(Box::new(value))
    }
}
