//! What can be asked of a running agent: one list, whoever asks (command line over the control socket, D-Bus).

mod status;

use std::net::IpAddr;
use std::sync::Arc;

use defender_model::remediation::Outcome;
use defender_sensors::login::pam::Items;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::pam;
use crate::wire::{self, required, Fault, Wire as _};

pub use status::{
    EventCounts, FirewallStatus, IsolationStatus, ProcessStatus, RulesStatus, SensorStatus, SinkStatus,
    StatusReport,
};

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How the agent is.
    Status,
    /// The latest alerts, oldest first.
    Alerts {
        /// At most so many.
        limit: usize,
    },
    /// The latest events of every kind, oldest first.
    Events {
        /// At most so many.
        limit: usize,
    },
    /// Drop all packets from and to an address.
    Block {
        /// The address.
        address: IpAddr,
        /// For how long; the configured time when absent.
        seconds: Option<u64>,
        /// The operator's words, for the record.
        reason: String,
    },
    /// Let an address through again.
    Unblock {
        /// The address.
        address: IpAddr,
    },
    /// Which addresses are blocked.
    Blocked,
    /// Take over all watched files as they are, with one event for all that changed.
    AcceptBaseline {
        /// Not now: as the next start of the agent finds them.
        next_start: bool,
    },
    /// A session began or ended, says PAM. Nobody but root may.
    Pam {
        /// `open_session` or `close_session`; the others mean nothing.
        kind: String,
        /// The account.
        user: String,
        /// Where the client is.
        rhost: String,
        /// The terminal.
        tty: String,
        /// The service.
        service: String,
        /// The service's process.
        pid: u32,
    },
    /// For a time, let nobody but named peers through.
    Isolate {
        /// For how long; the configured time when absent.
        seconds: Option<u64>,
        /// The operator's words, for the record.
        reason: String,
    },
    /// End the isolation.
    EndIsolation,
}

impl Request {
    /// The request changes something or shows what only operators may see, so anybody else is refused.
    #[must_use]
    pub const fn is_privileged(&self) -> bool {
        !matches!(self, Self::Status)
    }

    /// Whether the arguments are in range; whoever takes requests from outside asks this first.
    ///
    /// # Errors
    /// A sentence that names the argument and its range.
    pub fn check(&self) -> Result<(), String> {
        let (seconds, reason, most, words) = match self {
            Self::Block { seconds, reason, .. } => (seconds, reason, MAX_BLOCK_SECONDS, "30 days"),
            Self::Isolate { seconds, reason } => (seconds, reason, MAX_ISOLATION_SECONDS, "a day"),
            Self::Pam { kind, user, rhost, tty, service, .. } => {
                let long =
                    [kind, user, rhost, tty, service].into_iter().any(|value| value.len() > pam::MAX_VALUE);
                return if long {
                    Err(format!("a value is longer than {} bytes", pam::MAX_VALUE))
                } else {
                    Ok(())
                };
            }
            _ => return Ok(()),
        };
        if seconds.is_some_and(|seconds| !(1..=most).contains(&seconds)) {
            return Err(format!("seconds must be from 1 to {most} ({words})"));
        }
        if reason.len() > MAX_REASON {
            return Err(format!("the reason is longer than {MAX_REASON} bytes"));
        }
        Ok(())
    }
}

impl Request {
    /// What PAM's items say.
    #[must_use]
    pub fn pam(items: Items) -> Self {
        let Items { kind, user, rhost, tty, service, pid } = items;
        Self::Pam { kind, user, rhost, tty, service, pid }
    }

    /// A request as one line of JSON says it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_json(line: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        Self::read(&value).map_err(|fault| fault.to_string())
    }

    fn read(value: &Value) -> Result<Self, Fault> {
        let name: String = required(value, "request")?;
        let seconds = || -> Result<Option<u64>, Fault> {
            let mut seconds = None;
            wire::object(value, &mut [("seconds", &mut seconds)])?;
            Ok(seconds)
        };
        Ok(match name.as_str() {
            "status" => Self::Status,
            "alerts" => Self::Alerts { limit: required(value, "limit")? },
            "events" => Self::Events { limit: required(value, "limit")? },
            "block" => Self::Block {
                address: wire::address(value, "address")?,
                seconds: seconds()?,
                reason: required(value, "reason")?,
            },
            "unblock" => Self::Unblock { address: wire::address(value, "address")? },
            "blocked" => Self::Blocked,
            "accept_baseline" => Self::AcceptBaseline { next_start: required(value, "next_start")? },
            "pam" => Self::Pam {
                kind: required(value, "kind")?,
                user: required(value, "user")?,
                rhost: required(value, "rhost")?,
                tty: required(value, "tty")?,
                service: required(value, "service")?,
                pid: required(value, "pid")?,
            },
            "isolate" => Self::Isolate { seconds: seconds()?, reason: required(value, "reason")? },
            "end_isolation" => Self::EndIsolation,
            other => return Err(Fault::new(format!("`{other}` is none"))),
        })
    }
}

/// Longest time an operator can block an address for, in seconds: 30 days.
pub const MAX_BLOCK_SECONDS: u64 = 30 * 24 * 3600;
/// Longest time the device can be isolated for, in seconds: a day.
pub const MAX_ISOLATION_SECONDS: u64 = defender_firewall::isolation::MAX_ISOLATION.as_secs();
/// Longest reason of a block or an isolation, in bytes.
pub const MAX_REASON: usize = 1024;

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Alerts`] and [`Request::Events`]: OCSF events, one JSON text each.
    Events {
        /// The events, oldest first.
        lines: Vec<Arc<str>>,
    },
    /// To [`Request::Blocked`].
    Blocked {
        /// The addresses, soonest to expire first.
        addresses: Vec<BlockedAddress>,
    },
    /// To [`Request::Block`], [`Request::Isolate`] and what ends these: done, and read back from the kernel.
    Done {
        /// Something was changed; false when it was so already (an unblock of an address that was not blocked).
        changed: bool,
    },
    /// The request asks for what policy forbids, such as a block of an address on the allow-list.
    Refused {
        /// Which policy, and what to do.
        error: String,
    },
    /// The request was tried, or could not be, and was not carried out.
    Failed {
        /// Why, and what to do.
        error: String,
    },
}

impl Reply {
    /// What whoever ordered something is told of how it went.
    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Verified => Self::Done { changed: true },
            Outcome::Refused(error) => Self::Refused { error: error.clone() },
            Outcome::Failed(error) => Self::Failed { error: error.clone() },
        }
    }

    /// A reply as one line of JSON says it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_json(line: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        Self::read(&value).map_err(|fault| fault.to_string())
    }

    fn read(value: &Value) -> Result<Self, Fault> {
        let name: String = required(value, "reply")?;
        Ok(match name.as_str() {
            "status" => {
                let mut report = Box::<StatusReport>::default();
                report.fill(value)?;
                Self::Status(report)
            }
            "events" => Self::Events { lines: required(value, "lines")? },
            "blocked" => {
                let Some(Value::Array(addresses)) = value.get("addresses") else {
                    return Err(Fault::new("`addresses` is missing or not a list"));
                };
                let addresses = addresses.iter().map(BlockedAddress::read).collect::<Result<_, _>>()?;
                Self::Blocked { addresses }
            }
            "done" => Self::Done { changed: required(value, "changed")? },
            "refused" => Self::Refused { error: required(value, "error")? },
            "failed" => Self::Failed { error: required(value, "error")? },
            other => return Err(Fault::new(format!("`{other}` is none"))),
        })
    }
}

/// A blocked address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockedAddress {
    /// The address.
    pub address: IpAddr,
    /// Seconds left.
    pub seconds_left: u64,
    /// Why: the finding's title or the operator's words. Empty when the agent does not know.
    pub reason: String,
}

impl BlockedAddress {
    fn read(value: &Value) -> Result<Self, Fault> {
        let mut read =
            Self { address: wire::address(value, "address")?, seconds_left: 0, reason: String::new() };
        let places: &mut [(&'static str, &mut dyn wire::Wire)] =
            &mut [("seconds_left", &mut read.seconds_left), ("reason", &mut read.reason)];
        wire::object(value, places)?;
        Ok(read)
    }
}

/// Something that watchers are told at once (D-Bus signals).
#[derive(Debug, Clone)]
pub enum Notice {
    /// An alert.
    Alert {
        /// Sigma level.
        severity: &'static str,
        /// Title of the rule.
        title: Arc<str>,
        /// The OCSF event.
        ocsf: Arc<str>,
    },
    /// An address was blocked.
    Blocked(BlockedAddress),
    /// An address was unblocked.
    Unblocked(IpAddr),
    /// The device was isolated, or is no longer.
    Isolation(Option<IsolationStatus>),
    /// The state of health changed.
    Health {
        /// `starting`, `ok` or `degraded`.
        health: &'static str,
        /// Why it is degraded.
        reasons: Vec<String>,
    },
}

/// Where requests are sent and notices heard.
#[derive(Debug, Clone)]
pub struct Desk {
    requests: mpsc::Sender<(Request, oneshot::Sender<Reply>)>,
    notices: broadcast::Sender<Notice>,
}

/// The pipeline's end of a [`Desk`].
pub type Requests = mpsc::Receiver<(Request, oneshot::Sender<Reply>)>;

impl Desk {
    /// A desk and the end that answers. Both directions are bounded: a flood of requests waits, and a watcher that does not keep
    /// up misses the oldest notices.
    #[must_use]
    pub fn open() -> (Self, Requests) {
        let (requests, receiver) = mpsc::channel(16);
        (Self { requests, notices: broadcast::Sender::new(64) }, receiver)
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self, request: Request) -> Reply {
        let (answer, answered) = oneshot::channel();
        let gone = || Reply::Failed { error: "the agent is stopping".to_owned() };
        if self.requests.send((request, answer)).await.is_err() {
            return gone();
        }
        answered.await.unwrap_or_else(|_| gone())
    }

    /// Tells every watcher.
    pub fn announce(&self, notice: Notice) {
        // Nobody watching is not an error.
        let _ = self.notices.send(notice);
    }

    /// Hears every notice from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(request: &Request) -> Result<Request, String> {
        Request::from_json(&serde_json::to_vec(request).unwrap())
    }

    #[test]
    fn every_request_is_read_as_it_was_written() {
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        for request in [
            Request::Status,
            Request::Alerts { limit: 7 },
            Request::Events { limit: 0 },
            Request::Block { address, seconds: None, reason: "why".into() },
            Request::Block { address, seconds: Some(9), reason: String::new() },
            Request::Unblock { address },
            Request::Blocked,
            Request::AcceptBaseline { next_start: true },
            Request::pam(Items { kind: "open_session".into(), user: "u".into(), pid: 9, ..Items::default() }),
            Request::Isolate { seconds: Some(1), reason: "why".into() },
            Request::EndIsolation,
        ] {
            assert_eq!(again(&request), Ok(request));
        }
        for (line, words) in [
            ("{", "EOF"),
            ("[]", "`request` is missing"),
            ("{\"request\":\"reboot\"}", "`reboot` is none"),
            ("{\"request\":\"alerts\"}", "`limit` is missing"),
            ("{\"request\":\"alerts\",\"limit\":-1}", "`limit` is not a whole number"),
            ("{\"request\":\"unblock\",\"address\":\"x\"}", "`address` is not an IPv4"),
        ] {
            let error = Request::from_json(line.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn every_reply_is_read_as_it_was_written() {
        let sink = SinkStatus {
            name: "mqtt".into(),
            state: "ok".into(),
            handed: 9,
            waiting: 6,
            written: 1,
            dropped: 2,
            spooled: 3,
            lag_s: 4,
            next_try_s: 5,
            last_error: "e".into(),
        };
        let part = |mode: &str| SensorStatus {
            modes: vec![mode.into()],
            lacks: vec!["l".into()],
            counters: vec![("c".into(), u64::MAX)],
        };
        let report = StatusReport {
            version: "v".into(),
            health: "ok".into(),
            armed: true,
            armed_after_ms: 4,
            uptime_s: 5,
            device: "d".into(),
            boot: "b".into(),
            degraded: vec!["x".into(), "y".into()],
            process: ProcessStatus {
                source: "audit".into(),
                detail: "d".into(),
                declined: vec!["w".into()],
                lost: 6,
                table: 7,
                counters: vec![("produced".into(), 1)],
            },
            logins: part("l"),
            network: part("n"),
            files: part("f"),
            peripherals: part("p"),
            packet_filter: part("q"),
            modules: part("m"),
            services: part("s"),
            submissions: part("u"),
            accounts: part("a"),
            inventory: part("i"),
            events: EventCounts {
                process: 1,
                authentication: 2,
                network: 3,
                files: 4,
                peripherals: 9,
                findings: 5,
                remediations: 6,
                health: 7,
                dropped: 8,
                received: 10,
                emitted: 11,
            },
            rules: RulesStatus { loaded: 252, errors: vec!["r".into()] },
            firewall: FirewallStatus {
                ready: true,
                error: "e".into(),
                isolation: Some(IsolationStatus { seconds_left: 8, reason: "i".into() }),
            },
            sinks: vec![sink.clone(), sink],
            confinement: vec!["seccomp: on".into()],
        };
        let blocked =
            BlockedAddress { address: "192.0.2.1".parse().unwrap(), seconds_left: 9, reason: "b".into() };
        for reply in [
            Reply::Status(Box::new(report)),
            Reply::Status(Box::default()),
            Reply::Events { lines: vec!["{}".into(), "x".into()] },
            Reply::Blocked { addresses: vec![blocked] },
            Reply::Done { changed: true },
            Reply::Refused { error: "no".into() },
            Reply::Failed { error: "how".into() },
        ] {
            assert_eq!(Reply::from_json(&serde_json::to_vec(&reply).unwrap()), Ok(reply));
        }
        assert!(Reply::from_json(b"{\"reply\":\"status\",\"armed\":1}").unwrap_err().contains("`armed`"));
    }
}
