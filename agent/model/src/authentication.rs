//! Logins, failed or not, and logouts.

use std::net::IpAddr;

use crate::severity::Severity;

/// What was attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// A session was asked for.
    Logon,
    /// A session ended.
    Logoff,
    /// An existing session changed its user: `su`, `sudo`.
    AccountSwitch,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Let in.
    Success,
    /// Turned away.
    Failure,
}

/// Somebody logged in, failed to, or logged out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// What was attempted.
    pub activity: Activity,
    /// How it went.
    pub outcome: Outcome,
    /// Account named by the attempt. Attacker's text: it may be anything.
    pub user: Option<String>,
    /// The account exists, where the service says so.
    pub user_known: Option<bool>,
    /// The service that judged it: `sshd`, `dropbear`, `login`, `su`.
    pub service: String,
    /// How the user proved who they are: `password`, `publickey`, `none`, ...
    pub method: Option<String>,
    /// Address the attempt came from; `None` for local ones. IPv4-mapped IPv6 addresses are already IPv4.
    pub source: Option<IpAddr>,
    /// Port the attempt came from.
    pub source_port: Option<u16>,
    /// Terminal, for local attempts: `tty1`, `pts/0`, `ttyS0`.
    pub tty: Option<String>,
    /// Process id of the service's process that judged it.
    pub pid: Option<u32>,
    /// How many identical attempts this event stands for ("message repeated 3 times"); at least 1.
    pub count: u32,
    /// Of a logout: how long the session lasted, in milliseconds, where its beginning was seen.
    pub duration_ms: Option<u64>,
    /// The log line's message part, as evidence; where no line told of it, what did in words.
    pub message: String,
}

impl Authentication {
    /// Failures are low (one is nothing, many are a finding), the rest informational.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self.outcome {
            Outcome::Success => Severity::Informational,
            Outcome::Failure => Severity::Low,
        }
    }
}
