//! What the agent did about a finding, or was told to do.

use std::net::IpAddr;

use crate::finding::Finding;
use crate::process::Ancestor;
use crate::severity::Severity;

/// The action taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// An address was put in the drop set.
    Block,
    /// An address was taken out of it.
    Unblock,
    /// Blocks from before a restart or a reboot were put back, or the table was repaired.
    Restore,
    /// A process was killed.
    Kill,
    /// The product's own program was run.
    RunHook,
    /// Nobody but named peers was let through any more.
    Isolate,
    /// The isolation was ended before its time.
    EndIsolation,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and read back from the kernel.
    Verified,
    /// Not done because policy forbids it, such as an address on the allow-list.
    Refused(String),
    /// Tried and failed: the threat is not contained.
    Failed(String),
}

/// The agent acted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remediation {
    /// What was done.
    pub action: Action,
    /// To which address; `None` for actions on the whole table or the whole device.
    pub address: Option<IpAddr>,
    /// Which process, where it is about one.
    pub process: Option<Ancestor>,
    /// For how long, in seconds; `None` where that has no meaning.
    pub seconds: Option<u64>,
    /// How it went.
    pub outcome: Outcome,
    /// Why: the finding's title or the operator's words.
    pub reason: String,
    /// The finding that asked for it.
    pub finding: Option<String>,
}

impl Remediation {
    /// Something done, to no address or process in particular, for this reason and the finding of this id.
    #[must_use]
    pub fn new(action: Action, outcome: Outcome, reason: String, finding: Option<String>) -> Self {
        Self { action, address: None, process: None, seconds: None, outcome, reason, finding }
    }

    /// Something done for a finding.
    #[must_use]
    pub fn for_finding(finding: &Finding, action: Action, outcome: Outcome) -> Self {
        Self::new(action, outcome, finding.rule.title.clone(), Some(finding.uid.clone()))
    }

    /// Something an operator asked for.
    #[must_use]
    pub fn for_operator(action: Action, outcome: Outcome) -> Self {
        Self::new(action, outcome, "asked for by an operator".to_owned(), None)
    }

    /// A failed block is high: the operator believes in a protection that is not there.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self.outcome {
            Outcome::Verified => Severity::Informational,
            Outcome::Refused(_) => Severity::Low,
            Outcome::Failed(_) => Severity::High,
        }
    }
}
