//! The network sensor: one task that reads what the kernel tells of connections, names and sockets.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use defender_model::event::{Event, EventKind};
use defender_model::health::{Health, Kind};
use defender_model::network::{Direction, FlowChange, Protocol};

use super::attribution::{Attribution, Subject};
use super::flow::{self, Flows};
use super::interface::Locals;
use super::listener::{listener, Change, Listeners};
use super::lookup::{self, Asked, Lookups};
use super::names::Names;
use super::nflog::Logged;
use super::onlooker::Question;
use super::owners::Owners;
use super::settings::{Settings, Status};
use super::{conntrack, dns, nflog, packet, socket, source};
use crate::budget::Budget;
use crate::netlink::{Batch, Drops, Message, Socket};
use crate::reopening::Reopening;
use crate::{Observation, Outlet};

/// What the sensor is called in health events.
pub const COMPONENT: &str = "network";
/// The kernel's sockets, their components in health events and what they tell.
const CONNECTIONS: usize = 0;
const PACKETS: usize = 1;
const SOURCES: [(&str, &str); 2] = [
    ("network.connections", "events of connection tracking"),
    ("network.packets", "look-ups of names and dropped packets by NFLOG"),
];
/// Losses are reported at most this often.
const LOSS_REPORT: Duration = Duration::from_secs(60);
/// Rounds of reading before others have a turn.
const ROUNDS: usize = 64;

/// The sensor, opened but not running.
pub struct NetworkSensor {
    settings: Settings,
    /// Of connection tracking, and of packets.
    sockets: [Option<Socket>; 2],
    reopening: [Reopening; 2],
    batch: Batch,
    flows: Flows,
    names: Names,
    lookups: Lookups,
    locals: Locals,
    listeners: Listeners,
    compared: Option<Instant>,
    attribution: Attribution,
    budgets: Budgets,
    status: Arc<Mutex<Status>>,
    overruns: u64,
    drops: [Drops; 2],
    reported: Option<(Instant, u64, u64)>,
}

/// One for each kind of event, so that a flood of one leaves the others.
struct Budgets {
    flows: Budget,
    listeners: Budget,
    dns: Budget,
    denied: Budget,
}

impl Budgets {
    const fn refused(&self) -> u64 {
        self.flows.refused() + self.listeners.refused() + self.dns.refused() + self.denied.refused()
    }
}

impl NetworkSensor {
    /// Opens what the kernel offers. To be called while the process still has what privileges it starts with: only root can
    /// switch accounting on.
    #[must_use]
    pub fn open(settings: Settings) -> Self {
        let mut status = Status::default();
        let conntrack = if settings.flows { source::connections(&settings, &mut status) } else { None };
        let packets = source::packets(&settings, &mut status);
        if let Some(every) = settings.listen_interval {
            status.modes.push(format!("listening sockets: listed every {} s", every.as_secs_f32()));
        }
        let budget = || Budget::new(settings.events_per_second, Instant::now());
        Self {
            flows: Flows::new(settings.flow_table),
            names: Names::new(settings.dns_table),
            lookups: Lookups::new(settings.dns_table),
            listeners: Listeners::default(),
            compared: None,
            budgets: Budgets { flows: budget(), listeners: budget(), dns: budget(), denied: budget() },
            locals: Locals::default(),
            batch: Batch::new(),
            sockets: [conntrack, packets],
            reopening: [Reopening::default(); 2],
            attribution: Attribution::new(settings.passwd.clone()),
            status: Arc::new(Mutex::new(status)),
            overruns: 0,
            drops: [Drops::default(); 2],
            reported: None,
            settings,
        }
    }

    /// What the sensor is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Takes the process sensor's word of whose connections are.
    pub fn hear(&mut self, owners: Owners) {
        self.attribution.owners = owners;
    }

    /// Runs until the pipeline is gone or `stop` is ready.
    pub async fn run(mut self, outlet: Outlet, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        if let Some(Ok(stream)) = self.settings.onlooker.take().map(|stream| stream.try_clone()) {
            self.attribution.ask_through(stream);
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
            if !outlet.send_all(&mut out).await {
                return;
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
        let wait = self.attribution.wait().unwrap_or(Duration::from_secs(1));
        let wait = self.until_listeners().map_or(wait, |until| wait.min(until));
        let result = tokio::select! {
            result = readable(self.sockets[PACKETS].as_ref(), wait) => result,
            result = readable(self.sockets[CONNECTIONS].as_ref(), wait) => result,
            () = self.attribution.readable() => Ok(()),
            () = self.attribution.owners.changed() => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the kernel's sockets cannot be waited for");
            tokio::time::sleep(wait).await;
        }
        self.locals.refresh(false);
        // An answer of the domain name system comes before the connection that is made by it.
        self.reopen(PACKETS, out);
        self.drain(PACKETS, Self::logged, out);
        // What ended meanwhile is not told of any more.
        let gap = self.reopen(CONNECTIONS, out);
        if self.drain(CONNECTIONS, Self::tracked, out) || gap {
            self.flows.forget();
        }
        self.compare_listeners(out);
        self.tell_unanswered(out);
        self.read_answers(out);
        self.report_loss(out);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let balance = &mut status.balance;
        balance.over_bound = self.budgets.refused();
        balance.kernel = self.drops.iter().map(|drops| drops.total()).sum();
        balance.held = self.attribution.held() + self.lookups.len();
        status.listening = self.listeners.len();
        status.names = self.names.len();
        status.overruns = self.overruns;
        status.open = self.flows.len();
        status.untracked = self.flows.untracked();
    }

    /// Hands what waits to `each`. True when the kernel had to drop some of it.
    fn drain(
        &mut self,
        which: usize,
        each: fn(&mut Self, Message<'_>, &mut Vec<Observation>),
        out: &mut Vec<Observation>,
    ) -> bool {
        let Some(socket) = self.sockets[which].take() else { return false };
        let mut batch = std::mem::replace(&mut self.batch, Batch::empty());
        let drained = socket.drain(&mut batch, ROUNDS, &mut |batch| {
            batch.packed().for_each(|message| each(self, message, out));
        });
        self.batch = batch;
        let lost = drained.as_ref().is_ok_and(|overruns| *overruns > 0);
        self.drops[which].look(&socket, lost);
        match drained {
            Ok(overruns) => {
                self.overruns += overruns;
                self.sockets[which] = Some(socket);
            }
            Err(error) => {
                let (component, what) = SOURCES[which];
                let said = self.reopening[which].broke(Instant::now(), component, what, &error);
                if let Some(health) = said {
                    self.update(|status| status.lacks.push(health.message.clone()));
                    out.push(Observation::Health(health));
                }
            }
        }
        lost
    }

    /// Opens what failed again. True when it could be.
    fn reopen(&mut self, which: usize, out: &mut Vec<Observation>) -> bool {
        let now = Instant::now();
        if !self.reopening[which].is_due(now) {
            return false;
        }
        let mut status = Status::default();
        let open = if which == PACKETS { source::packets } else { source::connections };
        self.sockets[which] = open(&self.settings, &mut status);
        if self.sockets[which].is_none() {
            self.reopening[which].failed(now);
            return false;
        }
        self.drops[which].renew();
        let (component, what) = SOURCES[which];
        self.update(|status| status.lacks.retain(|lack| !lack.starts_with(what)));
        out.extend(self.reopening[which].mended(now, component, what).map(Observation::Health));
        true
    }

    fn tracked(&mut self, message: Message<'_>, out: &mut Vec<Observation>) {
        let Some(tracked) = conntrack::parse(message.kind, message.payload) else { return };
        let ends = [tracked.original.source, tracked.original.destination];
        if !ends.iter().any(|end| self.locals.contains(*end)) {
            // Routed, or the device has got another address.
            self.locals.refresh(true);
        }
        if !self.locals.admits(&self.settings.interfaces, ends) {
            return;
        }
        let (now, monotonic) = ((self.settings.clock)(), Instant::now());
        let (locals, names) = (&self.locals, &self.names);
        let name = |address| names.get(address, monotonic).map(|name| name.to_string());
        let flow = self.flows.observe(&tracked, now, &|address| locals.contains(address), &name);
        self.update(|status| status.flows_seen += 1);
        if !self.budgets.flows.admits(monotonic) {
            return;
        }
        let event = Event::new(now, flow.into());
        let (question, opened) = if tracked.ended { None } else { question(&tracked, &event) }.unzip();
        self.attributed(Subject::Flow(tracked.original), question, opened == Some(true), Some(event), out);
    }

    fn logged(&mut self, message: Message<'_>, out: &mut Vec<Observation>) {
        let Some(logged) = nflog::parse(message.kind, message.payload) else { return };
        if self.settings.dns_group == Some(logged.group) && self.name_looked_up(&logged, out).is_none() {
            self.update(|status| status.balance.unreadable += 1);
        }
        if self.settings.denied_group == Some(logged.group) {
            self.denied(&logged, out);
        }
    }

    fn denied(&mut self, logged: &Logged<'_>, out: &mut Vec<Observation>) {
        let Some(packet) = packet::parse(logged.packet) else {
            return self.update(|status| status.balance.unreadable += 1);
        };
        if !self.locals.admits(&self.settings.interfaces, [packet.source, packet.destination]) {
            return;
        }
        self.update(|status| status.denied_seen += 1);
        if self.budgets.denied.admits(Instant::now()) {
            let flow = flow::denied(&packet, logged.prefix, &|address| self.locals.contains(address));
            self.send(Event::new((self.settings.clock)(), flow.into()), out);
        }
    }

    /// A question or an answer; `None` for what is neither.
    fn name_looked_up(&mut self, logged: &Logged<'_>, out: &mut Vec<Observation>) -> Option<()> {
        let packet = packet::parse(logged.packet)?;
        let (source, destination) = packet.ports?;
        if packet.protocol == Protocol::TCP && packet.payload.is_empty() {
            // Part of the handshake.
            return Some(());
        }
        let message = match packet.protocol {
            Protocol::TCP => dns::parse_segment(packet.payload)?,
            _ => dns::parse(packet.payload)?,
        };
        let answered = source == dns::PORT;
        if message.response != answered {
            return None;
        }
        self.update(|status| status.dns_seen += 1);
        let (server, client) = match answered {
            true => (packet.source, (packet.destination, destination)),
            false => (packet.destination, (packet.source, source)),
        };
        let key = lookup::Key { protocol: packet.protocol, client, server, id: message.id };
        let now = Instant::now();
        if !answered {
            let asked = self.lookups.question(key, message, now);
            self.update(|status| match asked {
                // It waits for its answer.
                Asked::First => {}
                Asked::Again => status.balance.aggregated += 1,
                Asked::NoRoom => status.balance.no_room += 1,
            });
            if asked == Asked::First {
                let remote = (server, destination);
                let question = Question { ticket: 0, protocol: packet.protocol, local: client, remote };
                self.attributed(Subject::Lookup(key), Some(question), true, None, out);
            }
            return Some(());
        }
        if message.rcode == 0 {
            self.names.learn(&message.name, &message.addresses, now);
        }
        let waiting = self.lookups.len();
        let dns = self.lookups.answer(&key, message);
        let answered = waiting - self.lookups.len();
        self.update(|status| status.balance.aggregated += answered);
        if self.budgets.dns.admits(now) {
            let event = Event::new((self.settings.clock)(), dns.into());
            self.attributed(Subject::Lookup(key), None, true, Some(event), out);
        }
        Some(())
    }

    /// Questions that nobody answered.
    fn tell_unanswered(&mut self, out: &mut Vec<Observation>) {
        let now = Instant::now();
        for dns in self.lookups.overdue(now) {
            if self.budgets.dns.admits(now) {
                self.send(Event::new((self.settings.clock)(), dns.into()), out);
            }
        }
    }

    /// Sends an event when it is known who is behind it.
    fn attributed(
        &mut self,
        subject: Subject,
        question: Option<Question>,
        opened: bool,
        event: Option<Event>,
        out: &mut Vec<Observation>,
    ) {
        if let Some(event) = self.attribution.hold(subject, question, opened, event) {
            self.send(event, out);
        }
    }

    fn read_answers(&mut self, out: &mut Vec<Observation>) {
        let mut answered = Vec::new();
        if let Err(error) = self.attribution.answers(&mut answered) {
            let words = format!(
                "the process that tells whose a connection is has ended: {error}; a restart of the agent starts another"
            );
            out.push(Observation::Health(Health::new(Kind::Degraded, format!("{COMPONENT}.who"), words)));
        }
        for answered in answered {
            if let Some(process) = &answered.process {
                match &answered.subject {
                    Subject::Flow(tuple) => self.flows.attribute(tuple, process),
                    Subject::Listener(key) => self.listeners.attribute(key, process),
                    Subject::Lookup(key) => self.lookups.attribute(key, process),
                }
            }
            for event in answered.events {
                self.send(event, out);
            }
        }
    }

    fn send(&mut self, event: Event, out: &mut Vec<Observation>) {
        let unattributed = match &event.kind {
            EventKind::Network(flow) => {
                let ours = flow.direction != Direction::Unknown && flow.change != FlowChange::Denied;
                ours && flow.process.is_none()
            }
            EventKind::Listener(socket) => socket.process.is_none(),
            EventKind::Dns(dns) => dns.process.is_none(),
            _ => false,
        };
        self.update(|status| {
            status.balance.delivered += 1;
            status.unattributed += u64::from(unattributed);
        });
        out.push(Observation::Event(event));
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How long it is until sockets that listen are looked for; `None` where they are not.
    fn until_listeners(&self) -> Option<Duration> {
        let every = self.settings.listen_interval?;
        // The kernel told that there is something to find.
        let every = self.attribution.owners.news().map_or(every, |soon| every.min(soon));
        Some(self.compared.map_or(Duration::ZERO, |compared| every.saturating_sub(compared.elapsed())))
    }

    fn compare_listeners(&mut self, out: &mut Vec<Observation>) {
        if self.until_listeners() != Some(Duration::ZERO) {
            return;
        }
        let now = Instant::now();
        self.compared = Some(now);
        self.attribution.owners.looked();
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
            let news = !matches!(change, Change::Found(_));
            self.update(|status| status.listeners_seen += u64::from(news));
            let (key, event) = match change {
                Change::Found(key) => (key, None),
                Change::Opened(key) => (key, Some(Event::new(time, listener(true, &key, None).into()))),
                Change::Closed(gone) => {
                    // What waits for a process under its name is told first.
                    let key = (gone.protocol, gone.local.address, gone.local.port.unwrap_or_default());
                    let event = Event::new(time, gone.into());
                    if self.budgets.listeners.admits(now) {
                        self.attributed(Subject::Listener(key), None, false, Some(event), out);
                    }
                    continue;
                }
            };
            if event.is_some() && !self.budgets.listeners.admits(now) {
                continue;
            }
            let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let remote = if key.1.is_ipv4() { nobody } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
            let question =
                Question { ticket: 0, protocol: key.0, local: (key.1, key.2), remote: (remote, 0) };
            self.attributed(Subject::Listener(key), Some(question), false, event, out);
        }
    }

    fn report_loss(&mut self, out: &mut Vec<Observation>) {
        let (overruns, refused) = (self.overruns, self.budgets.refused());
        let due = match self.reported {
            None => overruns + refused > 0,
            Some((at, old, bounded)) => (overruns, refused) != (old, bounded) && at.elapsed() >= LOSS_REPORT,
        };
        if !due {
            return;
        }
        self.reported = Some((Instant::now(), overruns, refused));
        let words = "events were not reported: there were more of them than `network.events_per_second` allows, or than the \
                     kernel's buffer (`network.receive_buffer_kib`) could hold";
        let health = Health::new(Kind::Lost, COMPONENT, words)
            .with("over_bound", refused)
            .with("kernel", self.drops.iter().map(|drops| drops.total()).sum())
            .with("overruns", overruns);
        out.push(Observation::Health(health));
    }
}

/// Asks for the process at the device's end of a connection, and says whether that end spoke first; nothing where there is none.
fn question(tracked: &conntrack::Tracked, event: &Event) -> Option<(Question, bool)> {
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
    let opened = flow.direction != Direction::Inbound;
    Some((Question { ticket: 0, protocol: original.protocol, local, remote }, opened))
}

/// Waits for a socket, or for the time to pass where there is none.
async fn readable(socket: Option<&Socket>, wait: Duration) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable(wait).await,
        None => {
            tokio::time::sleep(wait).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::interface::Selection;

    #[tokio::test(flavor = "current_thread")]
    async fn sockets_that_are_taken_away_are_opened_again() {
        // SAFETY: unshare(2) takes flags; the network namespace is this thread's alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return println!("skipped: needs root for a network namespace of its own");
        }
        let mut sensor = NetworkSensor::open(Settings {
            flows: true,
            accounting: false,
            listen_interval: None,
            dns_group: Some(53),
            denied_group: None,
            dns_table: 10,
            interfaces: Selection::default(),
            flow_table: 10,
            events_per_second: 0,
            receive_buffer: 1 << 16,
            proc: "/proc".into(),
            passwd: "/etc/passwd".into(),
            onlooker: None,
            clock: || defender_model::time::Timestamp(1),
        });
        let open: Vec<usize> = (0..2).filter(|which| sensor.sockets[*which].is_some()).collect();
        if open.is_empty() {
            return println!("skipped: this kernel tells nothing of connections and packets");
        }
        sensor.sockets.iter().flatten().for_each(Socket::injure);
        let mut said = Vec::new();
        let end = Instant::now() + Duration::from_secs(60);
        while said.len() < 2 * open.len() {
            assert!(Instant::now() < end, "{said:?}");
            let mut out = Vec::new();
            sensor.turn(&mut out).await;
            for observation in out {
                let Observation::Health(health) = observation else { panic!("{observation:?}") };
                said.push((health.kind, health.component));
            }
        }
        for which in open {
            let of = |kind| said.iter().position(|known| *known == (kind, SOURCES[which].0.to_owned()));
            assert!(of(Kind::Degraded).unwrap() < of(Kind::Recovered).unwrap(), "{said:?}");
            assert!(sensor.sockets[which].is_some());
        }
        assert!(sensor
            .status
            .lock()
            .unwrap()
            .lacks
            .iter()
            .all(|lack| !SOURCES.iter().any(|(_, what)| lack.starts_with(what))));
    }
}
