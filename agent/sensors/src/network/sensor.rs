//! The network sensor: one task that reads what the kernel tells of connections.

use std::collections::VecDeque;
use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use defender_model::event::{Event, EventKind};
use defender_model::health::{Health, Kind};
use defender_model::network::{Direction, Protocol};
use defender_model::process::Actor;
use defender_model::time::Timestamp;

use super::budget::Budget;
use super::conntrack::{self, Tuple};
use super::flow::Flows;
use super::interface::{Locals, Selection};
use super::listener::{listener, Change, Key, Listeners};
use super::onlooker::{Onlooker, Question};
use super::socket;
use crate::accounts::Accounts;
use crate::netlink::{acknowledgement, Batch, Socket, ERROR, NETFILTER, REQUEST_ACK};
use crate::{Observation, Outlet};

/// What the sensor is called in health events.
pub const COMPONENT: &str = "network";
/// How long the kernel may take to answer a question; it does so at once, unless a module has to be loaded.
const PATIENCE: Duration = Duration::from_secs(2);
/// Losses are reported at most this often.
const LOSS_REPORT: Duration = Duration::from_secs(60);
/// How long an event waits for word of the process behind it.
const WHO: Duration = Duration::from_millis(500);
/// Rounds of reading before others have a turn.
const ROUNDS: usize = 64;

/// What the sensor needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Report connections.
    pub flows: bool,
    /// Have the kernel count bytes and packets of connections.
    pub accounting: bool,
    /// How often the sockets that wait for connections are listed; `None` for never.
    pub listen_interval: Option<Duration>,
    /// Which interfaces are watched.
    pub interfaces: Selection,
    /// Most connections remembered between begin and end.
    pub flow_table: usize,
    /// Most events of one kind in a second; 0 for no bound.
    pub events_per_second: u32,
    /// Bytes of the kernel's buffer for what the agent has not read yet.
    pub receive_buffer: u32,
    /// Mount point of procfs, usually `/proc`.
    pub proc: PathBuf,
    /// Account database, usually `/etc/passwd`.
    pub passwd: PathBuf,
    /// The other end answers whose sockets are whose (see [`super::onlooker::look`]).
    pub onlooker: Option<Arc<UnixStream>>,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
}

/// What the sensor is doing, for `defender status`.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// How each part works, in words.
    pub modes: Vec<String>,
    /// What the kernel lacks, and what is missed for it.
    pub lacks: Vec<String>,
    /// Messages about connections read.
    pub flows_seen: u64,
    /// Events sent.
    pub sent: u64,
    /// Events that went over the bound of a second.
    pub over_bound: u64,
    /// Times that the kernel had to drop messages.
    pub overruns: u64,
    /// Connections open.
    pub open: usize,
    /// Sockets that wait for connections or datagrams.
    pub listening: usize,
    /// Connections that found no room in the table.
    pub untracked: u64,
    /// Events sent without the process that the device has behind them.
    pub unattributed: u64,
}

impl Status {
    /// The figures, with the names they have in statistics.
    #[must_use]
    pub const fn counters(&self) -> [(&'static str, u64); 8] {
        [
            ("flows_seen", self.flows_seen),
            ("sent", self.sent),
            ("over_bound", self.over_bound),
            ("overruns", self.overruns),
            ("open", self.open as u64),
            ("listening", self.listening as u64),
            ("untracked", self.untracked),
            ("unattributed", self.unattributed),
        ]
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Flow(Tuple),
    Listener(Key),
}

/// Events about one connection or socket that wait for word of the process behind it.
struct Pending {
    ticket: u64,
    subject: Subject,
    since: Instant,
    events: Vec<Event>,
}

/// The sensor, opened but not running.
pub struct NetworkSensor {
    settings: Settings,
    conntrack: Option<Socket>,
    batch: Batch,
    flows: Flows,
    locals: Locals,
    listeners: Listeners,
    compared: Option<Instant>,
    budget: Budget,
    listen_budget: Budget,
    accounts: Accounts,
    onlooker: Option<Onlooker>,
    ticket: u64,
    pending: VecDeque<Pending>,
    status: Arc<Mutex<Status>>,
    overruns: u64,
    reported: Option<(Instant, u64, u64)>,
}

impl NetworkSensor {
    /// Opens what the kernel offers. To be called while the process still has what privileges it starts with: only root can
    /// switch accounting on.
    #[must_use]
    pub fn open(settings: Settings) -> Self {
        let mut status = Status::default();
        if let Some(every) = settings.listen_interval {
            status.modes.push(format!("listening sockets: listed every {} s", every.as_secs_f32()));
        }
        let conntrack = if settings.flows { open_conntrack(&settings, &mut status) } else { None };
        Self {
            flows: Flows::new(settings.flow_table),
            listeners: Listeners::default(),
            compared: None,
            budget: Budget::new(settings.events_per_second, Instant::now()),
            listen_budget: Budget::new(settings.events_per_second, Instant::now()),
            locals: Locals::default(),
            batch: Batch::new(),
            conntrack,
            accounts: Accounts::new(settings.passwd.clone()),
            onlooker: None,
            ticket: 0,
            pending: VecDeque::new(),
            status: Arc::new(Mutex::new(status)),
            overruns: 0,
            reported: None,
            settings,
        }
    }

    /// What the sensor is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Runs until the pipeline is gone or `stop` is ready.
    pub async fn run(mut self, outlet: Outlet, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        if let Some(stream) = self.settings.onlooker.take() {
            self.onlooker = stream.try_clone().and_then(Onlooker::new).ok();
        }
        let (modes, lacks) = {
            let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            (status.modes.join("; "), status.lacks.clone())
        };
        let mut out = vec![Observation::Health(Health::new(Kind::Changed, COMPONENT, modes))];
        for (at, words) in lacks.into_iter().enumerate() {
            let component = format!("{COMPONENT}.{at}");
            out.push(Observation::Health(Health::new(Kind::Degraded, component, words)));
        }
        loop {
            for observation in out.drain(..) {
                if !outlet.send(observation).await {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = self.turn(&mut out) => {}
            }
        }
    }

    /// One turn: waits for the kernel, at most about a second, and appends what there is to say.
    async fn turn(&mut self, out: &mut Vec<Observation>) {
        let wait = if self.pending.is_empty() { Duration::from_secs(1) } else { WHO / 2 };
        let packets = async {
            match &self.conntrack {
                Some(socket) => socket.readable(wait).await,
                None => {
                    tokio::time::sleep(wait).await;
                    Ok(())
                }
            }
        };
        let answers = async {
            match &self.onlooker {
                Some(onlooker) => onlooker.readable().await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = packets => result,
            () = answers => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the socket of connection tracking cannot be waited for");
            tokio::time::sleep(wait).await;
        }
        self.locals.refresh(false);
        self.read_conntrack(out);
        self.compare_listeners(out);
        self.read_answers(out);
        self.report_loss(out);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.over_bound = self.refused();
        status.listening = self.listeners.len();
        status.overruns = self.overruns;
        status.open = self.flows.len();
        status.untracked = self.flows.untracked();
    }

    fn read_conntrack(&mut self, out: &mut Vec<Observation>) {
        let Some(socket) = self.conntrack.take() else { return };
        let mut batch = std::mem::replace(&mut self.batch, Batch::empty());
        for _ in 0..ROUNDS {
            match socket.receive(&mut batch) {
                Ok(()) => {
                    for message in batch.packed() {
                        if let Some(tracked) = conntrack::parse(message.kind, message.payload) {
                            self.tracked(&tracked, out);
                        }
                    }
                    if !batch.is_full() {
                        break;
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.overruns += 1;
                    self.flows.forget();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.batch = batch;
        self.conntrack = Some(socket);
    }

    fn tracked(&mut self, tracked: &conntrack::Tracked, out: &mut Vec<Observation>) {
        let ends = [tracked.original.source, tracked.original.destination];
        if !ends.iter().any(|end| self.locals.contains(*end)) {
            // Routed, or the device has got another address.
            self.locals.refresh(true);
        }
        if !self.locals.admits(&self.settings.interfaces, ends) {
            return;
        }
        let now = (self.settings.clock)();
        let locals = &self.locals;
        let flow = self.flows.observe(tracked, now, &|address| locals.contains(address), &|_| None);
        self.update(|status| status.flows_seen += 1);
        if !self.budget.admits(Instant::now()) {
            return;
        }
        let event = Event::new(now, flow.into());
        let question = if tracked.ended { None } else { question(tracked, &event) };
        self.attributed(Subject::Flow(tracked.original), question, Some(event), out);
    }

    /// Sends an event when it is known who is behind it: after the answer to a question, or after that to an earlier one about the
    /// same, or at once.
    fn attributed(
        &mut self,
        subject: Subject,
        question: Option<Question>,
        event: Option<Event>,
        out: &mut Vec<Observation>,
    ) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.subject == subject) {
            pending.events.extend(event);
            return;
        }
        if let (Some(mut question), Some(onlooker)) = (question, &mut self.onlooker) {
            self.ticket += 1;
            question.ticket = self.ticket;
            if onlooker.ask(&question) {
                let events = event.into_iter().collect();
                self.pending.push_back(Pending {
                    ticket: self.ticket,
                    subject,
                    since: Instant::now(),
                    events,
                });
                return;
            }
        }
        if let Some(event) = event {
            self.send(event, out);
        }
    }

    /// Sends what has got its answer, and what has waited for one too long.
    fn read_answers(&mut self, out: &mut Vec<Observation>) {
        let mut answers = Vec::new();
        if let Some(onlooker) = &mut self.onlooker {
            if let Err(error) = onlooker.answers(&mut answers) {
                self.onlooker = None;
                let words = format!(
                    "the process that tells whose a connection is has ended: {error}; a restart of the agent starts another"
                );
                let health = Health::new(Kind::Degraded, format!("{COMPONENT}.who"), words);
                out.push(Observation::Health(health));
            }
        }
        for (ticket, actor) in answers {
            let Some(at) = self.pending.iter().position(|pending| pending.ticket == ticket) else { continue };
            let Some(pending) = self.pending.remove(at) else { continue };
            self.release(pending, actor, out);
        }
        let alone = self.onlooker.is_none();
        while self.pending.front().is_some_and(|pending| alone || pending.since.elapsed() >= WHO) {
            let Some(pending) = self.pending.pop_front() else { break };
            self.release(pending, None, out);
        }
    }

    fn release(&mut self, pending: Pending, mut actor: Option<Actor>, out: &mut Vec<Observation>) {
        if let Some(actor) = &mut actor {
            actor.user = actor.uid.and_then(|uid| self.accounts.name(uid));
            match &pending.subject {
                Subject::Flow(tuple) => self.flows.attribute(tuple, actor),
                Subject::Listener(key) => self.listeners.attribute(key, actor),
            }
        }
        for mut event in pending.events {
            match &mut event.kind {
                EventKind::Network(flow) if actor.is_some() => flow.process.clone_from(&actor),
                EventKind::Listener(socket) if actor.is_some() => socket.process.clone_from(&actor),
                _ => {}
            }
            self.send(event, out);
        }
    }

    fn send(&mut self, event: Event, out: &mut Vec<Observation>) {
        let unattributed = match &event.kind {
            EventKind::Network(flow) => flow.process.is_none() && flow.direction != Direction::Unknown,
            EventKind::Listener(socket) => socket.process.is_none(),
            _ => false,
        };
        self.update(|status| {
            status.sent += 1;
            status.unattributed += u64::from(unattributed);
        });
        out.push(Observation::Event(event));
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn compare_listeners(&mut self, out: &mut Vec<Observation>) {
        let Some(every) = self.settings.listen_interval else { return };
        let now = Instant::now();
        if self.compared.is_some_and(|compared| now.saturating_duration_since(compared) < every) {
            return;
        }
        self.compared = Some(now);
        let mut sockets = Vec::new();
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let read = socket::read(&self.settings.proc, protocol);
            let admitted = |socket: &socket::Socket| {
                socket.waits(protocol) && self.locals.admits(&self.settings.interfaces, [socket.local.0; 2])
            };
            sockets.extend(read.into_iter().filter(admitted).map(|socket| (protocol, socket)));
        }
        let mut changes = Vec::new();
        self.listeners.compare(&sockets, &mut changes);
        let time = (self.settings.clock)();
        for change in changes {
            let (key, event) = match change {
                Change::Found(key) => (key, None),
                Change::Opened(key) => (key, Some(Event::new(time, listener(true, &key, None).into()))),
                Change::Closed(gone) => {
                    // What waits for a process under its name is told first.
                    let key = (gone.protocol, gone.local.address, gone.local.port.unwrap_or_default());
                    let event = Event::new(time, gone.into());
                    if self.listen_budget.admits(now) {
                        self.attributed(Subject::Listener(key), None, Some(event), out);
                    }
                    continue;
                }
            };
            if event.is_some() && !self.listen_budget.admits(now) {
                continue;
            }
            let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let remote = if key.1.is_ipv4() { nobody } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
            let question =
                Question { ticket: 0, protocol: key.0, local: (key.1, key.2), remote: (remote, 0) };
            self.attributed(Subject::Listener(key), Some(question), event, out);
        }
    }

    /// Events that went over the bound.
    fn refused(&self) -> u64 {
        self.budget.refused() + self.listen_budget.refused()
    }

    fn report_loss(&mut self, out: &mut Vec<Observation>) {
        let (overruns, refused) = (self.overruns, self.refused());
        let due = match self.reported {
            None => overruns + refused > 0,
            Some((at, old, bounded)) => (overruns, refused) != (old, bounded) && at.elapsed() >= LOSS_REPORT,
        };
        if !due {
            return;
        }
        self.reported = Some((Instant::now(), overruns, refused));
        let words = "connections were not reported: there were more of them than `network.events_per_second` allows, or than the \
                     kernel's buffer (`network.receive_buffer_kib`) could hold";
        let health =
            Health::new(Kind::Lost, COMPONENT, words).with("over_bound", refused).with("overruns", overruns);
        out.push(Observation::Health(health));
    }
}

/// Asks for the process at the device's end of a connection; nothing where there is none.
fn question(tracked: &conntrack::Tracked, event: &Event) -> Option<Question> {
    let EventKind::Network(flow) = &event.kind else { return None };
    let (original, reply) = (&tracked.original, &tracked.reply);
    if !original.has_ports() {
        return None;
    }
    // Where addresses are translated, the device's own socket has those of the answers.
    let (local, remote) = match flow.direction {
        Direction::Outbound | Direction::Local => {
            ((original.source, original.source_port), (original.destination, original.destination_port))
        }
        Direction::Inbound => {
            ((reply.source, reply.source_port), (reply.destination, reply.destination_port))
        }
        Direction::Unknown => return None,
    };
    Some(Question { ticket: 0, protocol: original.protocol, local, remote })
}

/// Subscribes to connections that begin and end.
fn open_conntrack(settings: &Settings, status: &mut Status) -> Option<Socket> {
    match subscribe(settings) {
        Ok(socket) => {
            let counted = if settings.accounting { account(&settings.proc) } else { Ok(false) };
            status.modes.push(match counted {
                Ok(true) => "connections: events of connection tracking, with bytes and packets".to_owned(),
                Ok(false) => "connections: events of connection tracking".to_owned(),
                Err(error) => {
                    status.lacks.push(format!(
                        "connections have no byte counts: net.netfilter.nf_conntrack_acct cannot be set: {error}"
                    ));
                    "connections: events of connection tracking".to_owned()
                }
            });
            Some(socket)
        }
        Err(error) => {
            let why = match error.raw_os_error() {
                Some(libc::EPROTONOSUPPORT) => ": the kernel lacks CONFIG_NETFILTER_NETLINK",
                Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT) => {
                    ": the kernel lacks CONFIG_NF_CT_NETLINK"
                }
                Some(libc::EPERM | libc::EACCES) => ": CAP_NET_ADMIN is needed",
                _ => "",
            };
            status.lacks.push(format!("connections are not seen: {error}{why}"));
            None
        }
    }
}

fn subscribe(settings: &Settings) -> io::Result<Socket> {
    // The question makes the kernel load the module where it is one, and tells whether there is any.
    let mut control = Socket::open(NETFILTER, 0)?;
    let mut answer = Ok(());
    control.request(conntrack::GET_STATS, REQUEST_ACK, &conntrack::UNSPECIFIC, PATIENCE, |message| {
        if message.kind == ERROR {
            answer = acknowledgement(message.payload);
        }
        Ok(message.kind == ERROR)
    })?;
    answer?;
    let socket = Socket::open(NETFILTER, conntrack::GROUPS)?;
    socket.set_receive_buffer(i32::try_from(settings.receive_buffer).unwrap_or(i32::MAX));
    Ok(socket)
}

/// Has the kernel count; true when it does.
fn account(proc: &Path) -> io::Result<bool> {
    let switch = |name: &str| {
        let path = proc.join("sys/net/netfilter").join(name);
        match fs::read(&path) {
            Ok(value) if value.starts_with(b"1") => Ok(()),
            _ => fs::write(&path, "1"),
        }
    };
    // Without CONFIG_NF_CONNTRACK_TIMESTAMP the agent's own clock tells when a connection began and ended.
    let _ = switch("nf_conntrack_timestamp");
    switch("nf_conntrack_acct").map(|()| true)
}
