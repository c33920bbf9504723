//! Isolation of the device, as the firewall's task carries it out: who may order it, for how long, and what is said of it.
//!
//! A rule that is wrong must not take a device off the network for good. So what a rule asks for is never made longer by the
//! next alert, and after its end the device is reachable for at least as long before a rule can isolate it again. The kernel
//! keeps both times, so they outlive the agent. An operator is not bound by either.

use std::net::IpAddr;
use std::time::Duration;

use defender_firewall::isolation::Check;
use defender_firewall::{Cidr, Config, Isolation};
use defender_model::health::{Health, Kind};
use defender_model::remediation::{Action, Outcome, Remediation};
use defender_model::severity::Severity;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::responder::Done;
use crate::request::{IsolationStatus, Reply};

/// How often the table is looked at while the device is isolated: an intruder may be at work.
const CHECK: Duration = Duration::from_secs(5);
/// After the kernel's time-out, so that it has happened.
const AFTER: Duration = Duration::from_secs(1);

/// Isolate the device.
#[derive(Debug)]
pub(super) struct IsolateOrder {
    pub(super) seconds: u64,
    pub(super) reason: String,
    /// The finding that asks for it; `None` when an operator does.
    pub(super) finding: Option<String>,
    /// Addresses of sinks, which are let through as well.
    pub(super) sinks: Vec<IpAddr>,
    /// Who waits for the outcome.
    pub(super) answer: Option<oneshot::Sender<Reply>>,
}

/// Keeps the isolation.
#[derive(Debug)]
pub(super) struct Isolator {
    isolation: Isolation,
    /// Peers of the configuration.
    allow: Vec<Cidr>,
    reason: String,
    failing: bool,
}

impl Isolator {
    pub(super) fn new(config: &Config, allow: Vec<Cidr>) -> Self {
        Self { isolation: Isolation::new(config), allow, reason: String::new(), failing: false }
    }

    /// Takes over what an earlier run of the agent left.
    pub(super) async fn begin(&mut self) -> Vec<Done> {
        match self.isolation.adopt(&self.allow).await {
            Ok(false) => Vec::new(),
            Ok(true) => {
                "ordered before the agent was restarted".clone_into(&mut self.reason);
                let words = "the device is still isolated, by order of before the agent was restarted";
                vec![self.state(), Done::Health(note(Kind::Changed, Severity::Medium, words))]
            }
            // Whatever stands in the way of nft, the firewall has said so.
            Err(_) => Vec::new(),
        }
    }

    /// Carries out an order; what came of it.
    pub(super) async fn isolate(&mut self, order: IsolateOrder) -> Vec<Done> {
        let IsolateOrder { mut seconds, reason, finding, sinks, answer } = order;
        let by_rule = finding.is_some();
        let done = if by_rule && self.isolation.left().is_some() {
            self.isolation.check().await.map(|_| self.isolation.left().unwrap_or_default())
        } else if let Some(why) = self.refusal().filter(|_| by_rule) {
            return vec![isolation(seconds, Outcome::Refused(why), reason, finding)];
        } else {
            let sinks = sinks.into_iter().map(Cidr::host);
            let peers: Vec<Cidr> = self.allow.iter().copied().chain(sinks).collect();
            let duration = Duration::from_secs(seconds);
            let pause = if by_rule { duration } else { Duration::ZERO };
            self.reason.clone_from(&reason);
            self.isolation.isolate(&peers, duration, pause).await
        };
        let outcome = match done {
            Ok(left) => {
                self.failing = false;
                seconds = whole(left);
                Outcome::Verified
            }
            Err(error) => Outcome::Failed(error.to_string()),
        };
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _ = answer.send(Reply::of(&outcome));
        }
        vec![self.state(), isolation(seconds, outcome, reason, finding)]
    }

    /// Why a rule may not isolate the device now.
    fn refusal(&self) -> Option<String> {
        let left = self.isolation.pause_left()?;
        Some(format!(
            "the last isolation is not long over; for {} s more only an operator can isolate the device again",
            left.as_secs()
        ))
    }

    /// Ends the isolation and answers.
    pub(super) async fn end(&mut self, answer: oneshot::Sender<Reply>) -> Vec<Done> {
        let (reply, outcome) = match self.isolation.end().await {
            Ok(changed) => (Reply::Done { changed }, changed.then_some(Outcome::Verified)),
            Err(error) => {
                let error = error.to_string();
                (Reply::Failed { error: error.clone() }, Some(Outcome::Failed(error)))
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(reply);
        let Some(outcome) = outcome else { return vec![self.state()] };
        vec![self.state(), Done::Remediation(Remediation::for_operator(Action::EndIsolation, outcome))]
    }

    /// Looks after the table.
    pub(super) async fn check(&mut self) -> Vec<Done> {
        match self.isolation.check().await {
            Ok(Check::Idle | Check::Holds) => {
                self.failing = false;
                Vec::new()
            }
            Ok(Check::Repaired) => {
                self.failing = false;
                let words =
                    "table inet defender_isolation had been altered by another program and was put right";
                vec![Done::Health(note(Kind::Changed, Severity::High, words))]
            }
            Ok(Check::Ended) => {
                let words = "the time of the isolation is over: the device is reachable again";
                vec![self.state(), Done::Health(note(Kind::Changed, Severity::Informational, words))]
            }
            Err(_) if self.failing => Vec::new(),
            Err(error) => {
                self.failing = true;
                let words = format!("the device may not be isolated as it should be: {error}");
                vec![Done::Health(note(Kind::Changed, Severity::High, &words))]
            }
        }
    }

    /// When [`check`](Self::check) is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let left = self.isolation.left()?;
        Some(Instant::now() + (left + AFTER).min(CHECK))
    }

    fn state(&self) -> Done {
        Done::Isolation(
            self.isolation
                .left()
                .map(|left| IsolationStatus { seconds_left: whole(left), reason: self.reason.clone() }),
        )
    }
}

/// Seconds, rounded up.
fn whole(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn note(kind: Kind, severity: Severity, words: &str) -> Health {
    let mut health = Health::new(kind, "isolation", words);
    health.severity = severity;
    health
}

fn isolation(seconds: u64, outcome: Outcome, reason: String, finding: Option<String>) -> Done {
    let done = Remediation::new(Action::Isolate, outcome, reason, finding);
    Done::Remediation(Remediation { seconds: Some(seconds), ..done })
}
