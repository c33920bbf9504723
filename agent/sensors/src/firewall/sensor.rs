//! The task that reads the kernel's messages and tells what others did to the packet filter.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use defender_model::event::Event;
use defender_model::health::{Health, Kind};
use defender_model::kernel::{effect, FirewallChange, RuleChange};
use defender_model::text;
use defender_model::time::Timestamp;

use super::effect::{add_word, Effect};
use super::message::{self, parse, Message, Object, What};
use super::reading;
use super::ruleset::{Ruleset, Table};
use super::transaction::Transaction;
use crate::balance::Balance;
use crate::budget::Budget;
use crate::file::Status;
use crate::netlink::{Batch, Drops, Socket};
use crate::process::Directory;
use crate::reopening::Reopening;
use crate::{Observation, Outlet};

/// What the sensor is called in health events.
pub const COMPONENT: &str = "firewall.monitor";
/// What it listens to.
const WHAT: &str = "changes of the packet filter";
/// How long an event waits for word of the program behind it, which another sensor may hear a little later, and how often it is asked.
const UNDER_WAY: Duration = Duration::from_millis(300);
const ASK: Duration = Duration::from_millis(20);
/// Events that may wait.
const WAITING: usize = 64;
/// Changes of the elements of a table's sets are one event for so long.
const ELEMENTS_WINDOW: Duration = Duration::from_secs(10);
/// Programs and tables whose elements are counted apart.
const ELEMENTS: usize = 32;
/// How often a kernel that could not be listened to is tried again.
const RETRY: Duration = Duration::from_secs(600);
/// Losses are reported, and a ruleset that cannot be read is read again, at most this often.
const LOSS_REPORT: Duration = Duration::from_secs(60);
const REREAD: Duration = Duration::from_secs(1);
/// Rounds of reading before others have a turn.
const ROUNDS: usize = 64;
/// `NFPROTO_INET`, the family of the agent's tables.
const INET: u8 = 1;

/// What the sensor needs to know.
pub struct Settings {
    /// Names of the agent's tables, of family `inet`.
    pub own_tables: &'static [&'static str],
    /// Whether a process is one that the agent changes them with.
    pub own_process: fn(u32) -> bool,
    /// Called when another program changed a table of the agent.
    pub disturbed: Box<dyn Fn() + Send>,
    /// Who a process is.
    pub directory: Directory,
    /// Bytes of the kernel's buffer for what the agent has not read yet.
    pub receive_buffer: u32,
    /// Most events in a second; as many again that come to something grave. 0 for no bound.
    pub events_per_second: u32,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
}

/// An event that waits for word of the program behind it.
struct Waiting {
    time: Timestamp,
    change: FirewallChange,
    pid: u32,
    name: Box<[u8]>,
    until: Instant,
}

/// Changes of elements, counted together.
struct Elements {
    table: (u8, Box<[u8]>),
    name: Box<[u8]>,
    pid: u32,
    sum: Transaction,
    transactions: u32,
    until: Instant,
}

#[derive(Default)]
struct Counters {
    transactions: u64,
    own: u64,
    sent: u64,
    aggregated: u64,
    /// Changes of elements by more programs at once than are told apart.
    crowded: u64,
    /// Changes found by reading everything anew.
    found: u64,
    overruns: u64,
}

/// The sensor, opened but not running.
pub struct FirewallSensor {
    settings: Settings,
    socket: Option<Socket>,
    /// When a kernel that could not be listened to at the start is tried again.
    retry: Instant,
    reopening: Reopening,
    batch: Batch,
    ruleset: Ruleset,
    /// Number of what `ruleset` holds. Messages up to it are in there already.
    generation: u32,
    /// The ruleset before the transaction under way.
    before: Option<Ruleset>,
    transaction: Transaction,
    waiting: VecDeque<Waiting>,
    elements: Vec<Elements>,
    ordinary: Budget,
    grave: Budget,
    counters: Counters,
    drops: Drops,
    reread: Option<Instant>,
    reported: Option<(Instant, u64)>,
    lack: Option<String>,
    status: Arc<Mutex<Status>>,
}

impl FirewallSensor {
    /// Opens what the kernel offers. Needs CAP_NET_ADMIN.
    #[must_use]
    pub fn open(settings: Settings) -> Self {
        let now = Instant::now();
        let mut this = Self {
            socket: None,
            retry: now,
            reopening: Reopening::default(),
            batch: Batch::new(),
            ruleset: Ruleset::default(),
            generation: 0,
            before: None,
            transaction: Transaction::default(),
            waiting: VecDeque::new(),
            elements: Vec::new(),
            ordinary: Budget::new(settings.events_per_second, now),
            grave: Budget::new(settings.events_per_second, now),
            counters: Counters::default(),
            drops: Drops::default(),
            reread: None,
            reported: None,
            lack: None,
            status: Arc::default(),
            settings,
        };
        this.connect();
        this.update_status();
        this
    }

    /// What the sensor is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Runs until the pipeline is gone or `stop` is ready.
    pub async fn run(mut self, outlet: Outlet, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut out = vec![self.standing()];
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

    /// What is to be said of the sensor itself.
    fn standing(&self) -> Observation {
        Observation::Health(match &self.lack {
            None => {
                Health::new(Kind::Changed, COMPONENT, "changes of the packet filter are told by nf_tables")
            }
            Some(lack) => Health::new(Kind::Degraded, COMPONENT, lack.clone()),
        })
    }

    fn connect(&mut self) {
        self.retry = Instant::now() + RETRY;
        let opened = reading::subscribe(self.settings.receive_buffer).and_then(|socket| {
            let read = reading::read();
            read.map(|read| (socket, read))
                .map_err(|error| format!("the packet filter cannot be read: {error}"))
        });
        match opened {
            Ok((socket, (ruleset, generation))) => {
                (self.ruleset, self.generation) = (ruleset, generation);
                (self.socket, self.lack) = (Some(socket), None);
                self.drops.renew();
            }
            Err(lack) => self.lack = Some(lack),
        }
    }

    /// One turn: waits for the kernel, at most about a second, and appends what there is to say.
    async fn turn(&mut self, out: &mut Vec<Observation>) {
        let wait = if self.waiting.is_empty() { Duration::from_secs(1) } else { ASK };
        match &self.socket {
            Some(socket) => {
                if let Err(error) = socket.readable(wait).await {
                    self.lose(&error, out);
                }
            }
            None => {
                tokio::time::sleep(wait).await;
                let now = Instant::now();
                if self.reopening.is_due(now) {
                    self.reopen(now, out);
                } else if self.reopening.wake().is_none() && now >= self.retry {
                    self.connect();
                    if self.socket.is_some() {
                        let words = "changes of the packet filter are told by nf_tables";
                        out.push(Observation::Health(Health::new(Kind::Recovered, COMPONENT, words)));
                    }
                }
            }
        }
        self.drain(out);
        if self.ruleset.is_stale() && self.transaction.is_empty() {
            self.reread.get_or_insert_with(Instant::now);
        }
        if self.reread.is_some_and(|at| at <= Instant::now()) {
            self.read_anew(out);
        }
        self.tell_elements(out);
        self.tell_waiting(out);
        self.report_loss(out);
        self.update_status();
    }

    /// The socket is of no use any more.
    fn lose(&mut self, error: &io::Error, out: &mut Vec<Observation>) {
        self.socket = None;
        self.transaction = Transaction::default();
        if let Some(health) = self.reopening.broke(Instant::now(), COMPONENT, WHAT, error) {
            self.lack = Some(health.message.clone());
            out.push(Observation::Health(health));
        }
    }

    /// Opens a socket that failed again, and tells what the ruleset came to meanwhile.
    fn reopen(&mut self, now: Instant, out: &mut Vec<Observation>) {
        match reading::subscribe(self.settings.receive_buffer) {
            Ok(socket) => {
                (self.socket, self.lack) = (Some(socket), None);
                self.drops.renew();
                out.extend(self.reopening.mended(now, COMPONENT, WHAT).map(Observation::Health));
                self.read_anew(out);
            }
            Err(_) => {
                self.reopening.failed(now);
            }
        }
    }

    fn drain(&mut self, out: &mut Vec<Observation>) {
        let Some(socket) = self.socket.take() else { return };
        let mut batch = std::mem::replace(&mut self.batch, Batch::empty());
        let drained = socket.drain(&mut batch, ROUNDS, &mut |batch| {
            let messages = batch.packed().filter_map(|message| parse(message.kind, message.payload));
            messages.for_each(|message| match message {
                Message::Object(object) => self.object(&object),
                Message::Generation { id, pid, name } => self.finish(id, pid, name),
            });
        });
        self.batch = batch;
        match drained {
            Ok(0) => {}
            Ok(overruns) => {
                self.counters.overruns += overruns;
                self.drops.look(&socket, true);
                self.transaction = Transaction::default();
                self.reread.get_or_insert_with(Instant::now);
            }
            Err(error) => return self.lose(&error, out),
        }
        self.socket = Some(socket);
    }

    fn is_ours(&self, family: u8, table: &[u8]) -> bool {
        family == INET && self.settings.own_tables.iter().any(|own| own.as_bytes() == table)
    }

    /// A message of this transaction: if another one is under way, its end was lost.
    fn begin(&mut self, generation: u16) {
        if self.transaction.generation != generation {
            if !self.transaction.is_empty() {
                self.reread.get_or_insert_with(Instant::now);
            }
            self.transaction = Transaction::default();
            self.transaction.generation = generation;
        }
    }

    fn object(&mut self, object: &Object<'_>) {
        self.begin(object.generation);
        let ours = self.is_ours(object.family, object.table);
        self.transaction.ours |= ours;
        self.transaction.foreign |= !ours;
        let counted = matches!(object.what, What::Table { .. } | What::Chain { .. } | What::Rule(_));
        let newer = (object.generation.wrapping_sub(self.generation as u16) as i16) > 0;
        let mut replaced = false;
        if counted && newer {
            if self.before.is_none() {
                self.before = Some(self.ruleset.clone());
            }
            replaced = self.ruleset.apply(object);
        }
        self.transaction.touch(object, replaced);
    }

    /// A transaction is complete.
    fn finish(&mut self, id: u32, pid: Option<u32>, name: &[u8]) {
        self.begin(id as u16);
        // What a ruleset that is not as it should be comes to is told by the comparison with what is read anew.
        let before = if self.ruleset.is_stale() { None } else { self.before.take() };
        let transaction = std::mem::take(&mut self.transaction);
        if (id.wrapping_sub(self.generation) as i32) > 0 {
            self.generation = id;
        }
        if transaction.is_empty() {
            return;
        }
        self.counters.transactions += 1;
        // An id that was the agent's may be somebody else's by now; the agent touches no table but its own.
        if !transaction.foreign && pid.is_some_and(self.settings.own_process) {
            self.counters.own += 1;
            return;
        }
        if transaction.ours {
            (self.settings.disturbed)();
        }
        if transaction.is_elements_alone() {
            self.count_elements(transaction, pid.unwrap_or_default(), name);
            return;
        }
        let mut effect = before.map_or_else(Effect::default, |before| {
            Effect::of(&before, &self.ruleset, &|family, table| self.is_ours(family, table))
        });
        if transaction.ours {
            add_word(&mut effect.words, effect::OWN_TABLE);
        }
        self.keep(&transaction, effect, pid.unwrap_or_default(), name);
    }

    /// Keeps an event until it is known who is behind it, as far as the bounds allow.
    fn keep(&mut self, transaction: &Transaction, effect: Effect, pid: u32, name: &[u8]) {
        let now = Instant::now();
        let budget = if effect.words.is_empty() { &mut self.ordinary } else { &mut self.grave };
        if !budget.admits(now) {
            return;
        }
        let (family, table) = effect
            .table
            .or_else(|| {
                let others = transaction.busiest(|family, table| !self.is_ours(family, table));
                let one = others.or_else(|| transaction.busiest(|_, _| true))?;
                Some((one.0, one.1.into()))
            })
            .unwrap_or_default();
        let change = FirewallChange {
            change: transaction.change(),
            family: message::family(family).to_owned(),
            table: text::from_bytes(&table),
            operation: transaction.operation().to_owned(),
            entries: Some(transaction.touched()),
            effect: effect.words,
            summary: effect.summary,
            process: None,
        };
        let time = (self.settings.clock)();
        let mut until = now + UNDER_WAY;
        if self.waiting.len() >= WAITING {
            // The oldest has waited longest.
            if let Some(oldest) = self.waiting.front_mut() {
                oldest.until = now;
            }
            until = now;
        }
        self.waiting.push_back(Waiting { time, change, pid, name: name.into(), until });
    }

    /// Sends what waits, in its order, as soon as the program is known or the time is over.
    fn tell_waiting(&mut self, out: &mut Vec<Observation>) {
        let now = Instant::now();
        while let Some(first) = self.waiting.front() {
            let directory = &self.settings.directory;
            let mut process = directory.certain(first.pid, &first.name);
            if process.is_none() {
                if first.until > now && self.waiting.len() <= WAITING {
                    return;
                }
                process = (first.pid != 0).then(|| directory.likely(first.pid, &first.name));
            }
            let Some(first) = self.waiting.pop_front() else { return };
            self.counters.sent += 1;
            let change = FirewallChange { process, ..first.change };
            out.push(Observation::Event(Event::new(first.time, change.into())));
        }
    }

    fn count_elements(&mut self, transaction: Transaction, pid: u32, name: &[u8]) {
        let Some((family, table)) = transaction.busiest(|_, _| true) else { return };
        let same = |known: &&mut Elements| {
            known.table.0 == family && *known.table.1 == *table && *known.name == *name
        };
        if let Some(known) = self.elements.iter_mut().find(same) {
            known.sum.join(&transaction);
            known.transactions = known.transactions.saturating_add(1);
            self.counters.aggregated += 1;
            return;
        }
        let now = Instant::now();
        if self.elements.len() == ELEMENTS {
            self.elements[0].until = now;
            // More programs at once than are told apart: the rest is a number.
            self.counters.crowded += 1;
            return;
        }
        self.elements.push(Elements {
            table: (family, table.into()),
            name: name.into(),
            pid,
            transactions: 1,
            until: now + ELEMENTS_WINDOW,
            sum: transaction,
        });
    }

    /// Sends what was counted of elements when its time is over.
    fn tell_elements(&mut self, out: &mut Vec<Observation>) {
        let now = Instant::now();
        while let Some(at) = self.elements.iter().position(|counted| counted.until <= now) {
            let counted = self.elements.remove(at);
            if !self.ordinary.admits(now) {
                continue;
            }
            let ours = if counted.sum.ours { effect::OWN_TABLE } else { "" };
            let change = FirewallChange {
                change: counted.sum.change(),
                family: message::family(counted.table.0).to_owned(),
                table: text::from_bytes(&counted.table.1),
                operation: counted.sum.operation().to_owned(),
                entries: Some(counted.sum.touched()),
                effect: ours.to_owned(),
                summary: format!("elements of sets, in {} transactions", counted.transactions),
                process: (counted.pid != 0)
                    .then(|| self.settings.directory.likely(counted.pid, &counted.name)),
            };
            self.counters.sent += 1;
            out.push(Observation::Event(Event::new((self.settings.clock)(), change.into())));
        }
    }

    /// Reads the ruleset as it is, and tells what became of it when messages were lost.
    fn read_anew(&mut self, out: &mut Vec<Observation>) {
        let Ok((ruleset, generation)) = reading::read() else {
            self.reread = Some(Instant::now() + REREAD);
            return;
        };
        self.reread = None;
        let old = std::mem::replace(&mut self.ruleset, ruleset);
        let old = self.before.take().unwrap_or(old);
        self.generation = generation;
        // What was lost may have been about the agent's own tables.
        (self.settings.disturbed)();
        let mut effect = Effect::of(&old, &self.ruleset, &|family, table| self.is_ours(family, table));
        let differs = |one: &Ruleset, other: &Ruleset| {
            let new = |table: &&Table| {
                !self.is_ours(table.family, &table.name)
                    && other.table(table.family, &table.name) != Some(table)
            };
            one.tables.iter().find(new).map(|table| (table.family, table.name.clone()))
        };
        let Some(first) = differs(&self.ruleset, &old).or_else(|| differs(&old, &self.ruleset)) else {
            return;
        };
        self.counters.found += 1;
        effect.summary.push_str("; told by reading everything anew");
        let (family, table) = effect.table.unwrap_or(first);
        let change = FirewallChange {
            change: RuleChange::Changed,
            family: message::family(family).to_owned(),
            table: text::from_bytes(&table),
            operation: String::new(),
            entries: None,
            effect: effect.words,
            summary: effect.summary,
            process: None,
        };
        self.counters.sent += 1;
        out.push(Observation::Event(Event::new((self.settings.clock)(), change.into())));
    }

    fn report_loss(&mut self, out: &mut Vec<Observation>) {
        let refused = self.ordinary.refused() + self.grave.refused() + self.counters.crowded;
        let lost = self.counters.overruns + refused;
        let due = match self.reported {
            None => lost > 0,
            Some((at, before)) => lost != before && at.elapsed() >= LOSS_REPORT,
        };
        if !due {
            return;
        }
        self.reported = Some((Instant::now(), lost));
        let words = "changes of the packet filter were not reported one by one: there were more of them than \
                     `firewall.events_per_second` allows, or than the kernel's buffer could hold; what they came to was read anew";
        let health = Health::new(Kind::Lost, COMPONENT, words)
            .with("over_bound", refused)
            .with("overruns", self.counters.overruns);
        out.push(Observation::Health(health));
    }

    fn update_status(&self) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.modes.clear();
        status.lacks.clear();
        match &self.lack {
            None => status.modes.push("changes of the packet filter: nf_tables, with the process".to_owned()),
            Some(lack) => status.lacks.push(lack.clone()),
        }
        let counters = &self.counters;
        let balance = Balance {
            produced: counters.transactions + counters.found + self.drops.total(),
            delivered: counters.sent,
            aggregated: counters.aggregated,
            unchanged: counters.own,
            held: (self.waiting.len() + self.elements.len()) as u64,
            over_bound: self.ordinary.refused() + self.grave.refused(),
            kernel: self.drops.total(),
            unreadable: 0,
            no_room: counters.crowded,
        };
        status.counters.clear();
        status.counters.extend([
            ("transactions", counters.transactions),
            ("own", counters.own),
            ("overruns", counters.overruns),
        ]);
        status.counters.extend(balance.counters());
    }
}

#[cfg(test)]
mod tests {
    use defender_model::event::EventKind;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn what_changes_while_the_socket_is_gone_is_told_when_it_is_back() {
        // SAFETY: unshare(2) takes flags; the network namespace is this thread's alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return println!("skipped: needs root for a network namespace of its own");
        }
        let mut sensor = FirewallSensor::open(Settings {
            own_tables: &["defender"],
            own_process: |_| false,
            disturbed: Box::new(|| ()),
            directory: Directory::of_proc("/proc".into()),
            receive_buffer: 1 << 16,
            events_per_second: 0,
            clock: || Timestamp(1),
        });
        let Some(socket) = &sensor.socket else {
            return println!("skipped: no nf_tables: {:?}", sensor.lack);
        };
        socket.injure();
        let (mut said, mut made, end) = (Vec::new(), false, Instant::now() + Duration::from_secs(60));
        while said.len() < 3 {
            assert!(Instant::now() < end, "{said:?}");
            let mut out = Vec::new();
            sensor.turn(&mut out).await;
            if !std::mem::replace(&mut made, true) {
                let nft = std::process::Command::new("nft").args(["add", "table", "inet", "other"]).status();
                assert!(nft.is_ok_and(|status| status.success()), "nft is needed");
            }
            said.extend(out.into_iter().map(|observation| match observation {
                Observation::Health(health) => health.kind.name().to_owned(),
                Observation::Event(event) => match event.kind {
                    EventKind::Firewall(change) => change.table,
                    other => panic!("{other:?}"),
                },
            }));
        }
        assert_eq!(said, ["degraded", "recovered", "other"]);
    }
}
