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
use super::owners::{Owners, ON_ITS_WAY};
use super::{listener, lookup};
use crate::accounts::Accounts;

/// How long an event waits. An answer comes within milliseconds, and under a storm when its turn has come.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long the kernel's word of who opened or accepted a connection is waited for before the onlooker is asked too: it comes when the other
/// side answers, or when the process takes it from the queue.
const FIRST: Duration = Duration::from_millis(50);
/// Most that waits for that word without a question to the onlooker.
const UNASKED: usize = 1024;

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
    /// 0 while the onlooker was not asked.
    ticket: u64,
    since: Instant,
    subject: Subject,
    question: Question,
    /// The device's end spoke first.
    opened: bool,
    events: Vec<Event>,
}

/// What waits, oldest first.
pub(super) struct Attribution {
    pub(super) owners: Owners,
    onlooker: Option<Onlooker>,
    accounts: Accounts,
    ticket: u64,
    waiting: VecDeque<Waiting>,
}

impl Attribution {
    /// Nobody can be asked yet. Names of users come from `passwd`.
    pub(super) fn new(passwd: PathBuf) -> Self {
        let (owners, accounts) = (Owners::default(), Accounts::new(passwd));
        Self { owners, onlooker: None, accounts, ticket: 0, waiting: VecDeque::new() }
    }

    /// Asks the process at the other end of the stream from now on. Needs a runtime.
    pub(super) fn ask_through(&mut self, stream: UnixStream) {
        match Onlooker::new(stream) {
            Ok(onlooker) => self.onlooker = Some(onlooker),
            Err(error) => tracing::warn!(%error, "whose connections are cannot be asked"),
        }
    }

    /// How long it may be until something is due; `None` where nothing waits.
    pub(super) fn wait(&self) -> Option<Duration> {
        let unasked = self.waiting.iter().any(|waiting| waiting.ticket == 0);
        (!self.waiting.is_empty()).then_some(if unasked { FIRST / 2 } else { PATIENCE / 4 })
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
    /// same. `opened` says that the device's end spoke first, so that the kernel may have told who it was. Gives the event back when there
    /// is nothing to wait for.
    pub(super) fn hold(
        &mut self,
        subject: Subject,
        question: Option<Question>,
        opened: bool,
        event: Option<Event>,
    ) -> Option<Event> {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.subject == subject) {
            waiting.events.extend(event);
            return None;
        }
        let Some(question) = question else { return event };
        let told = self.waiting.len() < UNASKED && self.owners.is_live();
        let word = self.has_word(subject, question, opened);
        let ticket = if told && word { 0 } else { self.ask(question) };
        if ticket == 0 && !told {
            return event;
        }
        let (since, events) = (Instant::now(), event.into_iter().collect());
        self.waiting.push_back(Waiting { ticket, since, subject, question, opened, events });
        None
    }

    /// Whether the kernel tells who is at the device's end: who opened it, or who accepts it.
    fn has_word(&self, subject: Subject, question: Question, opened: bool) -> bool {
        opened || matches!(subject, Subject::Flow(_)) && self.owners.accepts(question.protocol)
    }

    /// Asks the onlooker; the number that its answer will have, or 0.
    fn ask(&mut self, mut question: Question) -> u64 {
        let Some(onlooker) = &mut self.onlooker else { return 0 };
        question.ticket = self.ticket + 1;
        if !onlooker.ask(&question) {
            return 0;
        }
        self.ticket += 1;
        self.ticket
    }

    /// Appends what has got its answer, and what has waited for one too long.
    ///
    /// # Errors
    /// When the process that was asked is gone. From then on it is not asked.
    pub(super) fn answers(&mut self, out: &mut Vec<Answered>) -> io::Result<()> {
        let live = self.owners.is_live();
        if live {
            self.told(out);
        }
        let mut answers = Vec::new();
        let result = self.onlooker.as_mut().map_or(Ok(()), |onlooker| onlooker.answers(&mut answers));
        for (ticket, process) in answers {
            let at = self.waiting.iter().position(|waiting| waiting.ticket == ticket);
            // Who opened it may have ended before the onlooker looked; the kernel's word is on its way.
            let wait = |waiting: &Waiting| process.is_none() && live && waiting.opened;
            if let Some(waiting) =
                at.filter(|at| !wait(&self.waiting[*at])).and_then(|at| self.waiting.remove(at))
            {
                out.push(self.answered(waiting, process));
            }
        }
        if result.is_err() {
            self.onlooker = None;
        }
        let alone = self.onlooker.is_none() && !live;
        while self.waiting.front().is_some_and(|waiting| alone || waiting.since.elapsed() >= PATIENCE) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            out.push(self.answered(waiting, None));
        }
        result
    }

    /// Takes the kernel's word; what goes without for a while is asked of the onlooker.
    fn told(&mut self, out: &mut Vec<Answered>) {
        let mut at = 0;
        while let Some(Waiting { ticket, since, subject, question, opened, .. }) = self.waiting.get(at) {
            let (ticket, since, question) = (*ticket, *since, *question);
            let word = self.has_word(*subject, question, *opened);
            let process = match word {
                true => self.owners.of(question.protocol, question.local, question.remote, since),
                false => None,
            };
            // Otherwise who waits for what comes in was told, if it is at all, or is being told at this moment.
            if process.is_some() || !word && ticket == 0 && since.elapsed() >= ON_ITS_WAY {
                if let Some(waiting) = self.waiting.remove(at) {
                    out.push(self.answered(waiting, process));
                }
                continue;
            }
            if ticket == 0 && since.elapsed() >= FIRST {
                self.waiting[at].ticket = self.ask(question);
            }
            at += 1;
        }
    }

    fn answered(&mut self, waiting: Waiting, mut process: Option<Actor>) -> Answered {
        if process.is_none() && !waiting.opened && self.owners.is_live() {
            // Nobody holds the socket any more, or the one that listens has ended.
            process = self.owners.listener(waiting.question.protocol, waiting.question.local);
        }
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

#[cfg(all(test, ebpf))]
mod tests {
    use defender_model::network::Protocol;

    use super::*;

    /// What comes in belongs to who accepts it where that is told; elsewhere to who listens, if nobody can be asked.
    #[test]
    fn who_accepts_is_waited_for() {
        let (here, there) = (("192.0.2.1".parse().unwrap(), 22), ("198.51.100.7".parse().unwrap(), 40_000));
        let tuple = Tuple {
            protocol: Protocol::TCP,
            source: there.0,
            source_port: there.1,
            destination: here.0,
            destination_port: here.1,
            echo: 0,
        };
        let question = Question { ticket: 0, protocol: Protocol::TCP, local: here, remote: there };
        let none = ("::".parse().unwrap(), 0);
        let actor = |pid| Actor { pid, ..Actor::default() };
        let told = |accepts: bool, subject: Subject| {
            let mut attribution = Attribution::new("/nonexistent".into());
            attribution.owners.set_live(true, accepts);
            attribution.owners.tell(Protocol::TCP, here, none, true, actor(1));
            assert!(attribution.hold(subject, Some(question), false, None).is_none());
            attribution.owners.tell(Protocol::TCP, here, there, false, actor(2));
            let mut answers = Vec::new();
            let held = Instant::now();
            while answers.is_empty() && held.elapsed() < PATIENCE {
                attribution.answers(&mut answers).unwrap();
            }
            answers.first().and_then(|answer| answer.process.as_ref()).map(|by| by.pid)
        };
        assert_eq!(told(true, Subject::Flow(tuple)), Some(2));
        assert_eq!(told(false, Subject::Flow(tuple)), Some(1));
        let listener = Subject::Listener((Protocol::TCP, here.0, here.1));
        assert_eq!(told(true, listener), Some(1));
    }

    /// A socket may be in the list before the word of who listens there has come.
    #[test]
    fn who_listens_may_be_told_a_moment_later() {
        let here = ("192.0.2.1".parse().unwrap(), 22);
        let question = Question { ticket: 0, protocol: Protocol::TCP, local: here, remote: here };
        let mut attribution = Attribution::new("/nonexistent".into());
        attribution.owners.set_live(true, false);
        let subject = Subject::Listener((Protocol::TCP, here.0, here.1));
        assert!(attribution.hold(subject, Some(question), false, None).is_none());
        let (mut answers, held) = (Vec::new(), Instant::now());
        attribution.answers(&mut answers).unwrap();
        if held.elapsed() >= ON_ITS_WAY {
            println!("skipped: the machine was held up, so that nothing is waited for any more");
            return;
        }
        assert!(answers.is_empty());
        let by = Actor { pid: 1, ..Actor::default() };
        attribution.owners.tell(Protocol::TCP, here, ("::".parse().unwrap(), 0), true, by);
        while answers.is_empty() && held.elapsed() < PATIENCE {
            attribution.answers(&mut answers).unwrap();
        }
        let who = answers.first().and_then(|answer| answer.process.as_ref()).map(|by| by.pid);
        assert_eq!(who, Some(1));
    }
}
