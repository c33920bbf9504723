//! Events that wait for word of the process behind them.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use defender_model::event::{Event, EventKind};
use defender_model::process::Actor;

use super::conntrack::Tuple;
use super::onlooker::{Onlooker, Question};
use super::{listener, lookup};
use crate::accounts::Accounts;

/// How long an event waits. An answer comes within milliseconds, and under a storm when its turn has come.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Flow(Tuple),
    Listener(listener::Key),
    Lookup(lookup::Key),
}

/// Events about one subject, with what the answer was.
pub(super) struct Answered {
    pub(super) subject: Subject,
    pub(super) process: Option<Actor>,
    pub(super) events: Vec<Event>,
}

struct Waiting {
    ticket: u64,
    since: Instant,
    subject: Subject,
    events: Vec<Event>,
}

/// What waits, oldest first.
pub(super) struct Attribution {
    onlooker: Option<Onlooker>,
    accounts: Accounts,
    ticket: u64,
    waiting: VecDeque<Waiting>,
}

impl Attribution {
    /// Nobody can be asked yet. Names of users come from `passwd`.
    pub(super) fn new(passwd: PathBuf) -> Self {
        Self { onlooker: None, accounts: Accounts::new(passwd), ticket: 0, waiting: VecDeque::new() }
    }

    /// Asks the process at the other end of the stream from now on. Needs a runtime.
    pub(super) fn ask_through(&mut self, stream: UnixStream) {
        match Onlooker::new(stream) {
            Ok(onlooker) => self.onlooker = Some(onlooker),
            Err(error) => tracing::warn!(%error, "whose connections are cannot be asked"),
        }
    }

    /// Something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Events that wait.
    pub(super) fn held(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.events.len() as u64).sum()
    }

    /// Ready when there may be answers.
    pub(super) async fn readable(&self) {
        match &self.onlooker {
            Some(onlooker) => onlooker.readable().await,
            None => std::future::pending().await,
        }
    }

    /// Keeps an event until it is known who is behind it: after the answer to the question, or after that to an earlier one about the
    /// same. Gives it back when there is nothing to wait for.
    pub(super) fn hold(
        &mut self,
        subject: Subject,
        question: Option<Question>,
        event: Option<Event>,
    ) -> Option<Event> {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.subject == subject) {
            waiting.events.extend(event);
            return None;
        }
        let (Some(mut question), Some(onlooker)) = (question, &mut self.onlooker) else { return event };
        self.ticket += 1;
        question.ticket = self.ticket;
        if !onlooker.ask(&question) {
            return event;
        }
        let (ticket, since) = (self.ticket, Instant::now());
        self.waiting.push_back(Waiting { ticket, since, subject, events: event.into_iter().collect() });
        None
    }

    /// Appends what has got its answer, and what has waited for one too long.
    ///
    /// # Errors
    /// When the process that was asked is gone. From then on nobody is asked.
    pub(super) fn answers(&mut self, out: &mut Vec<Answered>) -> io::Result<()> {
        let mut answers = Vec::new();
        let result = self.onlooker.as_mut().map_or(Ok(()), |onlooker| onlooker.answers(&mut answers));
        for (ticket, process) in answers {
            let at = self.waiting.iter().position(|waiting| waiting.ticket == ticket);
            if let Some(waiting) = at.and_then(|at| self.waiting.remove(at)) {
                out.push(self.answered(waiting, process));
            }
        }
        if result.is_err() {
            self.onlooker = None;
        }
        let alone = self.onlooker.is_none();
        while self.waiting.front().is_some_and(|waiting| alone || waiting.since.elapsed() >= PATIENCE) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            out.push(self.answered(waiting, None));
        }
        result
    }

    fn answered(&mut self, waiting: Waiting, mut process: Option<Actor>) -> Answered {
        if let Some(process) = &mut process {
            process.user = process.uid.and_then(|uid| self.accounts.name(uid));
        }
        let mut events = waiting.events;
        if process.is_some() {
            for event in &mut events {
                match &mut event.kind {
                    EventKind::Network(flow) => flow.process.clone_from(&process),
                    EventKind::Listener(socket) => socket.process.clone_from(&process),
                    EventKind::Dns(dns) => dns.process.clone_from(&process),
                    _ => {}
                }
            }
        }
        Answered { subject: waiting.subject, process, events }
    }
}
