//! What the agent says of itself.

use crate::severity::Severity;

/// The kind of a health event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The daemon began to start.
    Started,
    /// Every enabled sensor runs, detection and response are ready.
    Armed,
    /// The daemon was told to stop.
    Stopping,
    /// A part changed how it works (a sensor's source, for instance) without losing anything.
    Changed,
    /// A part works less well than configured, or not at all.
    Degraded,
    /// A part that was degraded works again.
    Recovered,
    /// Something was lost; `counters` say how much.
    Lost,
    /// Periodic figures.
    Statistics,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Started,
        Self::Armed,
        Self::Stopping,
        Self::Changed,
        Self::Degraded,
        Self::Recovered,
        Self::Lost,
        Self::Statistics,
    ];

    /// The word in events and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Armed => "armed",
            Self::Stopping => "stopping",
            Self::Changed => "changed",
            Self::Degraded => "degraded",
            Self::Recovered => "recovered",
            Self::Lost => "lost",
            Self::Statistics => "statistics",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// The agent speaks of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What kind of statement.
    pub kind: Kind,
    /// The part it is about: `agent`, `config`, `process`, `login`, `rules`, `firewall`, `sink.file`, ...
    pub component: String,
    /// How bad.
    pub severity: Severity,
    /// One sentence: what, why, what follows.
    pub message: String,
    /// Named figures, in a fixed order.
    pub counters: Vec<(String, u64)>,
}

impl Health {
    /// A statement without counters, of the severity that its kind has by default.
    pub fn new(kind: Kind, component: impl Into<String>, message: impl Into<String>) -> Self {
        let severity = match kind {
            Kind::Degraded => Severity::Medium,
            Kind::Lost => Severity::Medium,
            _ => Severity::Informational,
        };
        Self { kind, component: component.into(), severity, message: message.into(), counters: Vec::new() }
    }

    /// The same with one more figure.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: u64) -> Self {
        self.counters.push((name.into(), value));
        self
    }
}
