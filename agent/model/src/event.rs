//! One thing that happened.

use crate::authentication::{Activity, Authentication, Outcome};
use crate::finding::Finding;
use crate::health::Health;
use crate::process::{Change, ExitReason, ProcessActivity};
use crate::remediation::{self, Action, Remediation};
use crate::severity::Severity;
use crate::text::{printable, truncate};
use crate::time::Timestamp;

/// Longest attacker-supplied text in a one-line summary, in bytes.
const SUMMARY_TEXT: usize = 200;

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

impl core::fmt::Display for Event {
    /// One line for people and for syslog: bounded, and free of control characters whatever the event holds.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let safe = |text: &str| printable(truncate(text, SUMMARY_TEXT)).into_owned();
        match &self.kind {
            EventKind::Process(activity) => {
                let process = &activity.process;
                match activity.change {
                    Change::Exec { .. } => write!(f, "exec pid={} ", process.pid)?,
                    Change::Exit(ExitReason::Code(code)) => {
                        write!(f, "exit pid={} code={code} ", process.pid)?;
                    }
                    Change::Exit(ExitReason::Signal(signal)) => {
                        write!(f, "exit pid={} signal={signal} ", process.pid)?;
                    }
                    Change::Exit(ExitReason::Unknown) => write!(f, "exit pid={} ", process.pid)?,
                }
                write!(f, "{}: {}", safe(&process.executable), safe(&process.command_line()))
            }
            EventKind::Authentication(login) => {
                let what = match (login.activity, login.outcome) {
                    (Activity::Logon, Outcome::Success) => "login",
                    (Activity::Logon, Outcome::Failure) => "failed login",
                    (Activity::Logoff, _) => "logout",
                    (Activity::AccountSwitch, Outcome::Success) => "account switch",
                    (Activity::AccountSwitch, Outcome::Failure) => "failed account switch",
                };
                write!(
                    f,
                    "{what} {} user={}",
                    safe(&login.service),
                    safe(login.user.as_deref().unwrap_or("-"))
                )?;
                match (login.source, &login.tty) {
                    (Some(source), _) => write!(f, " from={source}"),
                    (None, Some(tty)) => write!(f, " tty={}", safe(tty)),
                    (None, None) => Ok(()),
                }
            }
            EventKind::Finding(finding) => {
                write!(f, "ALERT {} [{}] ", finding.severity, finding.rule.id)?;
                // Most messages begin with the title already.
                if !finding.message.starts_with(&finding.rule.title) {
                    write!(f, "{}: ", safe(&finding.rule.title))?;
                }
                f.write_str(&safe(&finding.message))
            }
            EventKind::Remediation(done) => {
                let action = match done.action {
                    Action::Block => "block",
                    Action::Unblock => "unblock",
                    Action::Restore => "restore",
                };
                write!(f, "{action}")?;
                if let Some(address) = done.address {
                    write!(f, " {address}")?;
                }
                if let Some(seconds) = done.seconds {
                    write!(f, " for {seconds} s")?;
                }
                match &done.outcome {
                    remediation::Outcome::Verified => write!(f, " verified")?,
                    remediation::Outcome::Refused(why) => write!(f, " refused ({})", safe(why))?,
                    remediation::Outcome::Failed(why) => write!(f, " FAILED ({})", safe(why))?,
                }
                write!(f, ": {}", safe(&done.reason))
            }
            EventKind::Health(said) => {
                write!(f, "{} {}: {}", said.component, said.kind.name(), safe(&said.message))?;
                for (name, value) in &said.counters {
                    write!(f, " {name}={value}")?;
                }
                Ok(())
            }
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
