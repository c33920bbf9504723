//! What detection concluded: an alert.

use std::net::IpAddr;
use std::sync::Arc;

use crate::authentication::Authentication;
use crate::event::EventKind;
use crate::process::{Ancestor, Process};
use crate::severity::Severity;
use crate::time::Timestamp;

/// The rule behind a finding: what stays the same from finding to finding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleInfo {
    /// The rule's UUID.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its description.
    pub description: String,
    /// ATT&CK technique ids (`T1110.001`) from the rule's tags.
    pub techniques: Vec<String>,
    /// ATT&CK tactic names (`credential-access`) from the rule's tags.
    pub tactics: Vec<String>,
    /// A correlation over several events rather than a single-event rule.
    pub correlation: bool,
    /// Identifiers of the alerts of other products that it stands for, such as `IoT_ReverseShell` of Microsoft's micro agent.
    pub replaces: Vec<String>,
}

/// Something the agent can do about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Response {
    /// Drop all packets from and to the source address of the events.
    BlockSource,
    /// Drop all packets from and to the address that the device itself talks to.
    BlockDestination,
    /// Kill the process that the finding rests on.
    KillProcess,
    /// Start the product's own program with the finding.
    RunHook,
    /// For a time, let nobody but named peers through.
    Isolate,
}

impl Response {
    /// Every response.
    pub const ALL: [Self; 5] =
        [Self::BlockSource, Self::BlockDestination, Self::KillProcess, Self::RunHook, Self::Isolate];

    /// The word used in rules (`defender: {response: block_source}`) and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BlockSource => "block_source",
            Self::BlockDestination => "block_destination",
            Self::KillProcess => "kill_process",
            Self::RunHook => "run_hook",
            Self::Isolate => "isolate",
        }
    }

    /// The response of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// What the agent is to do about a finding: any number of responses, mostly none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Responses(u8);

impl Responses {
    /// Report only.
    pub const NONE: Self = Self(0);

    /// These.
    #[must_use]
    pub const fn of(responses: &[Response]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < responses.len() {
            bits |= 1 << responses[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Reads names; `none` stands for nothing.
    ///
    /// # Errors
    /// The first name that is no response.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.into_iter().try_fold(Self::NONE, |all, name| match Response::from_name(name) {
            Some(response) => Ok(Self(all.0 | Self::of(&[response]).0)),
            None if name == "none" => Ok(all),
            None => Err(name),
        })
    }

    /// Nothing is to be done.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// This is among them.
    #[must_use]
    pub const fn contains(self, response: Response) -> bool {
        self.0 & (1 << response as u8) != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Response> {
        Response::ALL.into_iter().filter(move |response| self.contains(*response))
    }
}

impl core::fmt::Display for Responses {
    /// `none`, or the names with commas between them.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (number, response) in self.iter().enumerate() {
            write!(f, "{}{}", if number > 0 { "," } else { "" }, response.name())?;
        }
        Ok(())
    }
}

/// One thing a finding rests on.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// A process, with its parent.
    Process(Box<Process>),
    /// A login attempt.
    Authentication(Box<Authentication>),
    /// Any other thing observed: a connection, a file, a device. Never a finding, a remediation or a health event.
    Observed(Box<EventKind>),
}

/// Detection concluded something.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Unique in this boot and stable in a replay: rule id and a number.
    pub uid: String,
    /// The rule that fired.
    pub rule: Arc<RuleInfo>,
    /// How bad.
    pub severity: Severity,
    /// One sentence a person can act on, with the particulars (`8 failed logins from 198.51.100.7 in 41 s`).
    pub message: String,
    /// Events the finding stands for.
    pub count: u32,
    /// Time of the first of them.
    pub first_seen: Timestamp,
    /// Time of the last of them.
    pub last_seen: Timestamp,
    /// What the correlation grouped by, as name and value; empty for single-event rules.
    pub group: Vec<(String, String)>,
    /// Address the activity came from, when there is one.
    pub source: Option<IpAddr>,
    /// Address the activity went to, when the device itself opened the connection.
    pub destination: Option<IpAddr>,
    /// What it rests on: the event that completed it, bounded.
    pub evidence: Vec<Evidence>,
    /// What the agent is asked to do.
    pub response: Responses,
    /// A later report of a finding that was sent already, with the same `uid`: its count and times are those of all so far.
    pub update: bool,
}

impl Finding {
    /// The parent of the process that it rests on, and through it those further up.
    #[must_use]
    pub fn ancestors(&self) -> Option<&Ancestor> {
        self.evidence.iter().find_map(|evidence| match evidence {
            Evidence::Process(process) => process.parent.as_deref(),
            Evidence::Observed(kind) => kind.actor().and_then(|actor| actor.parent.as_deref()),
            Evidence::Authentication(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn an_alert_for_people_tells_where_the_process_came_from_and_is_bounded() {
        let mut above: Option<Arc<Ancestor>> = None;
        for pid in 1..=20 {
            let executable = format!("/usr/bin/{}\x1b[2J", "x".repeat(400)).into();
            let ancestor = Ancestor { pid, executable, command_line: "".into(), parent: above };
            above = Some(Arc::new(ancestor));
        }
        let shell = Ancestor {
            pid: 21,
            executable: "/bin/sh".into(),
            command_line: "sh -c evil".into(),
            parent: above,
        };
        let process = Process { pid: 22, parent: Some(Arc::new(shell)), ..Process::default() };
        let finding = Finding {
            uid: "r-1".into(),
            rule: Arc::new(RuleInfo { id: "r".into(), title: "Dropper".into(), ..RuleInfo::default() }),
            severity: Severity::High,
            message: format!("Dropper: {}", "y".repeat(5000)),
            count: 1,
            first_seen: Timestamp(0),
            last_seen: Timestamp(0),
            group: Vec::new(),
            source: None,
            destination: None,
            evidence: vec![Evidence::Process(Box::new(process))],
            response: Responses::NONE,
            update: false,
        };
        let text = Event::new(Timestamp(0), finding.clone().into()).to_string();
        assert!(text.contains(" [from sh(21) < xxx") && text.ends_with("(14)]"), "{text}");
        assert!(text.len() < 1200 && !text.contains('\u{1b}'), "{} bytes: {text}", text.len());
        let finding = Finding { evidence: Vec::new(), ..finding };
        assert!(!Event::new(Timestamp(0), finding.into()).to_string().contains("[from"));
    }
}
