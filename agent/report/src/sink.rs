//! The queue in front of a sink, its figures and its health.
//!
//! Two bounded queues, so that telemetry never takes an alert's place. When the telemetry queue is full its oldest record goes: the
//! newest says most about now. When the alert queue is full the new one is left out: whoever floods the agent with alerts does not get
//! rid of the first ones. Either way the loss is counted and reported.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use tokio::sync::futures::Notified;
use tokio::sync::{mpsc, Notify};

use crate::error::Error;
use crate::pace::{Pace, Schedule};
use crate::record::Record;
use crate::spool::Seat;

/// Losses of a working sink are reported at most this often.
const LOSS_REPORT: Duration = Duration::from_secs(10);

/// What a sink takes and how much of it may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Telemetry below this is not for the sink. Alerts always are.
    pub minimum: Severity,
    /// Alerts waiting, at most.
    pub alerts: usize,
    /// Other records waiting, at most.
    pub telemetry: usize,
    /// Encoded bytes waiting, at most, in each of the two queues. They are shared among sinks.
    pub bytes: usize,
    /// When it may send.
    pub schedule: Schedule,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            minimum: Severity::Informational,
            alerts: 1024,
            telemetry: 4096,
            bytes: 1024 * 1024,
            schedule: Schedule::default(),
        }
    }
}

/// How a sink is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// It delivers, or has had nothing to deliver yet.
    #[default]
    Ok,
    /// It failed and tries again.
    Retrying,
}

impl State {
    /// The word in status output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retrying => "retrying",
        }
    }
}

/// A sink's figures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records delivered: written, sent, or acknowledged where the protocol has that.
    pub written: u64,
    /// Alerts lost.
    pub dropped_alerts: u64,
    /// Other records lost.
    pub dropped: u64,
    /// Records waiting.
    pub queued: usize,
    /// How it is doing.
    pub state: State,
    /// Why it failed last, even if it works again.
    pub last_error: Option<String>,
    /// When it tries again, while it waits to.
    pub next_try: Option<Instant>,
    /// When the oldest record happened that waits in memory.
    pub oldest: Option<Timestamp>,
    /// Who it was last connected to; `None` when nobody, or when it stays on the device.
    pub peer: Option<IpAddr>,
}

impl Stats {
    fn lose(&mut self, record: &Record) {
        *if record.alert { &mut self.dropped_alerts } else { &mut self.dropped } += 1;
    }
}

/// The pipeline's end of a sink.
#[derive(Debug, Clone)]
pub struct SinkHandle {
    shared: Arc<Shared>,
}

/// The sink's end: what is left to its task.
#[derive(Debug)]
pub struct Intake {
    shared: Arc<Shared>,
    notices: mpsc::Sender<Health>,
    /// Where its records come from, if not from the pipeline alone.
    seat: Option<Seat>,
    pace: Pace,
    /// Lost alerts and other records that have been reported, and when.
    reported: (u64, u64),
    reported_at: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    limits: Limits,
    inner: Mutex<Inner>,
    /// The task waits for records.
    filled: Notify,
    /// The pipeline waits for room.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    alerts: Queue,
    telemetry: Queue,
    stats: Stats,
    waiting: Waiting,
    /// Alerts, other records may not be sent now.
    held: [bool; 2],
    /// The task is asked to end.
    closed: bool,
    /// The task has ended.
    ended: bool,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    bytes: usize,
}

/// What the task waits for, so that it is not woken for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Waiting {
    #[default]
    Nothing,
    Anything,
    /// An alert, or as many bytes of telemetry.
    Urgent(usize),
}

/// A sink's two ends. `name` is the component in health statements (`sink.file`); those go to `notices`, which drops none that
/// matter if it has a little room: they come when the sink's state changes.
#[must_use]
pub fn channel(
    name: impl Into<String>,
    limits: Limits,
    notices: mpsc::Sender<Health>,
) -> (SinkHandle, Intake) {
    let shared = Arc::new(Shared {
        name: name.into(),
        limits,
        inner: Mutex::default(),
        filled: Notify::new(),
        emptied: Notify::new(),
    });
    let intake = Intake {
        shared: Arc::clone(&shared),
        notices,
        seat: None,
        pace: Pace::new(limits.schedule, Instant::now()),
        reported: (0, 0),
        reported_at: None,
    };
    (SinkHandle { shared }, intake)
}

impl Queue {
    fn has_room(&self, records: usize, bytes: usize, size: usize) -> bool {
        self.records.len() < records && (self.records.is_empty() || self.bytes + size <= bytes)
    }

    fn push(&mut self, record: Record) {
        self.bytes += record.ocsf.len();
        self.records.push_back(record);
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.bytes -= record.ocsf.len();
        Some(record)
    }
}

impl Inner {
    fn empty(&self) -> [bool; 2] {
        [self.alerts.records.is_empty(), self.telemetry.records.is_empty()]
    }

    /// Nothing waits that may be sent.
    fn is_idle(&self) -> bool {
        let [alerts, telemetry] = self.empty();
        (alerts || self.held[0]) && (telemetry || self.held[1])
    }

    fn is_urgent(&self, bytes: usize) -> bool {
        let alerts = !self.held[0] && !self.alerts.records.is_empty();
        self.closed || alerts || !self.held[1] && self.telemetry.bytes >= bytes
    }

    /// The next record that may be sent, alerts first.
    fn pop(&mut self) -> Option<Record> {
        let alert = if self.held[0] { None } else { self.alerts.pop() };
        match alert {
            None if !self.held[1] => self.telemetry.pop(),
            other => other,
        }
    }
}

impl Shared {
    /// A panic while the lock is held cannot leave the figures in a state that is unsafe to read.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SinkHandle {
    /// The sink's name: `sink.file`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Hands a record over without waiting. What there is no room for is counted as dropped; what the sink is not for is not.
    pub fn try_push(&self, record: Record) {
        if !self.wants(&record) {
            return;
        }
        let limits = &self.shared.limits;
        let mut inner = self.shared.lock();
        let size = record.ocsf.len();
        if record.alert {
            if inner.ended || !inner.alerts.has_room(limits.alerts, limits.bytes, size) {
                inner.stats.dropped_alerts += 1;
                return;
            }
            inner.alerts.push(record);
        } else if inner.ended {
            inner.stats.dropped += 1;
            return;
        } else {
            while !inner.telemetry.has_room(limits.telemetry, limits.bytes, size) {
                if inner.telemetry.pop().is_none() {
                    break;
                }
                inner.stats.dropped += 1;
            }
            inner.telemetry.push(record);
        }
        let wake = match inner.waiting {
            Waiting::Nothing => false,
            Waiting::Anything => !inner.is_idle(),
            Waiting::Urgent(bytes) => inner.is_urgent(bytes),
        };
        if wake {
            inner.waiting = Waiting::Nothing;
            drop(inner);
            self.shared.filled.notify_one();
        }
    }

    /// Hands a record over, waiting for room as long as the sink works: a burst then slows the pipeline instead of losing
    /// records. A sink that fails is not waited for.
    pub async fn push(&self, record: Record) {
        if !self.wants(&record) {
            return;
        }
        loop {
            let emptied = self.shared.emptied.notified();
            {
                let limits = &self.shared.limits;
                let inner = self.shared.lock();
                let (queue, records) = if record.alert {
                    (&inner.alerts, limits.alerts)
                } else {
                    (&inner.telemetry, limits.telemetry)
                };
                if inner.stats.state != State::Ok
                    || inner.closed
                    || queue.has_room(records, limits.bytes, record.ocsf.len())
                {
                    break;
                }
            }
            emptied.await;
        }
        self.try_push(record);
    }

    /// The sink's figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.shared.lock();
        let queued = inner.alerts.records.len() + inner.telemetry.records.len();
        let first = |queue: &Queue| queue.records.front().map(|record| record.time);
        let oldest = [&inner.alerts, &inner.telemetry].into_iter().filter_map(first).min();
        Stats { queued, oldest, ..inner.stats.clone() }
    }

    /// Asks the task to end after it has tried once to deliver what waits.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        self.shared.emptied.notify_waiters();
    }

    fn wants(&self, record: &Record) -> bool {
        record.alert || record.severity >= self.shared.limits.minimum
    }

    /// Telemetry below this is not for the sink.
    pub(crate) fn minimum(&self) -> Severity {
        self.shared.limits.minimum
    }

    /// Both are ends of one sink.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The sink is asked to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Records that wait in memory: alerts, or the others.
    pub(crate) fn queued(&self, alerts: bool) -> usize {
        let inner = self.shared.lock();
        if alerts { &inner.alerts } else { &inner.telemetry }.records.len()
    }

    /// A record would find room without pushing another out.
    pub(crate) fn has_room(&self, record: &Record) -> bool {
        let (limits, inner) = (&self.shared.limits, self.shared.lock());
        let (queue, records) =
            if record.alert { (&inner.alerts, limits.alerts) } else { (&inner.telemetry, limits.telemetry) };
        !inner.ended && queue.has_room(records, limits.bytes, record.ocsf.len())
    }

    /// Hands a record over if there is room for it.
    pub(crate) fn offer(&self, record: &Record) -> bool {
        let room = self.has_room(record);
        if room {
            self.try_push(record.clone());
        }
        room
    }

    /// Records for the sink are lost that it has not seen.
    pub(crate) fn count_lost(&self, alerts: bool, records: u64) {
        let stats = &mut self.shared.lock().stats;
        *if alerts { &mut stats.dropped_alerts } else { &mut stats.dropped } += records;
    }

    /// Alerts, other records wait for their time.
    #[cfg(test)]
    pub(crate) fn held(&self) -> [bool; 2] {
        self.shared.lock().held
    }

    /// Waits until the sink takes what waits in memory.
    pub(crate) fn emptied(&self) -> Notified<'_> {
        self.shared.emptied.notified()
    }
}

impl Intake {
    /// Waits for a record; false when the sink is closed and there is none.
    pub(crate) async fn wait(&mut self) -> bool {
        loop {
            let empty = self.shared.lock().empty();
            self.pace.turn(Instant::now(), empty);
            self.spend(0);
            {
                let mut inner = self.shared.lock();
                inner.held = self.pace.held();
                if inner.closed && self.seat.is_none() {
                    // It is now or never.
                    inner.held = [false; 2];
                }
                if !inner.is_idle() {
                    return true;
                }
                if inner.closed {
                    return false;
                }
                inner.waiting = Waiting::Anything;
            }
            match self.pace.due() {
                None => self.shared.filled.notified().await,
                // Either way it is looked again.
                Some(due) => drop(tokio::time::timeout_at(due.into(), self.shared.filled.notified()).await),
            }
        }
    }

    /// Waits for company for the records there are: until `limit` has passed, an alert is there, so many bytes are, or the sink is
    /// closed.
    pub(crate) async fn gather(&mut self, limit: Duration, bytes: usize) {
        let until = tokio::time::Instant::now() + limit;
        loop {
            {
                let mut inner = self.shared.lock();
                if inner.is_urgent(bytes) {
                    return;
                }
                inner.waiting = Waiting::Urgent(bytes);
            }
            if tokio::time::timeout_at(until, self.shared.filled.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Appends what waits to `batch`, alerts first, up to so many records and bytes (but at least one record), each kind in its
    /// order.
    pub(crate) fn take(&mut self, batch: &mut VecDeque<Record>, records: usize, bytes: usize) {
        let mut inner = self.shared.lock();
        let mut size: usize = batch.iter().map(|r| r.ocsf.len()).sum();
        while batch.is_empty() || (batch.len() < records && size < bytes) {
            let Some(record) = inner.pop() else { break };
            size += record.ocsf.len();
            batch.push_back(record);
        }
        drop(inner);
        self.shared.emptied.notify_waiters();
    }

    /// So many bytes were sent, as the protocol has them: without what TLS and TCP add.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.pace.spend(bytes as u64);
        let Some((kind, words)) = self.pace.news(Instant::now()) else { return };
        self.shared.lock().held = self.pace.held();
        self.notify(Health::new(kind, format!("{}.budget", self.shared.name), words));
    }

    /// New periods of alerts and of other records.
    #[cfg(feature = "mqtt")]
    pub(crate) fn reschedule(&mut self, periods: [Duration; 2]) {
        self.pace.reschedule(periods, Instant::now());
    }

    /// Takes note of who is at the other end.
    pub(crate) fn connected(&mut self, peer: Option<IpAddr>) {
        if peer.is_some() {
            self.shared.lock().stats.peer = peer;
        }
    }

    /// The sink is asked to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Waits, less if the sink is asked to end; true if it is.
    pub(crate) async fn pause(&mut self, delay: Duration) -> bool {
        let until = tokio::time::Instant::now() + delay;
        self.shared.lock().stats.next_try = Some(until.into_std());
        loop {
            if self.is_closed() {
                return true;
            }
            if tokio::time::timeout_at(until, self.shared.filled.notified()).await.is_err() {
                self.shared.lock().stats.next_try = None;
                return self.is_closed();
            }
        }
    }

    /// These records were delivered: the sink works.
    pub(crate) fn delivered<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        let mut delivered = 0;
        self.give_back(records.into_iter().inspect(|_| delivered += 1));
        if delivered > 0 {
            self.settle(delivered);
        }
    }

    /// The spool need not keep these any longer.
    fn give_back<'a>(&self, records: impl Iterator<Item = &'a Record>) {
        let tickets = records.filter_map(|record| record.ticket);
        match &self.seat {
            Some(seat) => seat.settled(tickets),
            None => tickets.for_each(drop),
        }
    }

    /// From now on its records come from a spool, and go back to it when they are not delivered.
    pub(crate) fn sit(&mut self, seat: Seat) {
        self.seat = Some(seat);
    }

    /// The sink works, though it has delivered nothing yet.
    #[cfg(feature = "mqtt")]
    pub(crate) fn works(&mut self) {
        self.settle(0);
    }

    fn settle(&mut self, records: usize) {
        let mut inner = self.shared.lock();
        inner.stats.written += records as u64;
        let recovered = std::mem::take(&mut inner.stats.state) == State::Retrying;
        let dropped = (inner.stats.dropped_alerts, inner.stats.dropped);
        drop(inner);
        if recovered {
            self.notify(Health::new(Kind::Recovered, &self.shared.name, "delivers again"));
        }
        let now = Instant::now();
        let soon = self.reported_at.is_some_and(|at| now.duration_since(at) < LOSS_REPORT);
        if dropped != self.reported && (recovered || !soon) {
            let why =
                if recovered { "while it could not deliver" } else { "that came faster than it delivers" };
            self.notify(
                Health::new(Kind::Lost, &self.shared.name, format!("lost records {why}"))
                    .with("alerts", dropped.0 - self.reported.0)
                    .with("other_records", dropped.1 - self.reported.1),
            );
            (self.reported, self.reported_at) = (dropped, Some(now));
        }
    }

    /// Delivery failed and will be tried again.
    pub(crate) fn failed(&mut self, error: &Error) {
        let message = error.to_string();
        let mut inner = self.shared.lock();
        let news = inner.stats.state == State::Ok || inner.stats.last_error.as_ref() != Some(&message);
        inner.stats.state = State::Retrying;
        inner.stats.last_error = Some(message.clone());
        drop(inner);
        // Nobody waits for a sink that fails.
        self.shared.emptied.notify_waiters();
        if news {
            let place = if self.seat.is_some() { "in the spool" } else { "in memory" };
            let message = format!("{message}; trying again, records wait {place}");
            self.notify(Health::new(Kind::Degraded, &self.shared.name, message));
        }
    }

    /// These records cannot be delivered, now or ever.
    pub(crate) fn lost<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        let stats = &self.shared;
        self.give_back(records.into_iter().inspect(|record| stats.lock().stats.lose(record)));
    }

    /// The sink ends before it delivered these. What came from a spool is still there.
    pub(crate) fn unsent<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        let mut inner = self.shared.lock();
        for record in records.into_iter().filter(|record| record.ticket.is_none()) {
            inner.stats.lose(record);
        }
    }

    fn notify(&self, health: Health) {
        // A full channel means that nobody listens; the figures have it all the same.
        let _ = self.notices.try_send(health);
    }
}

/// The task ends, however it ends: what is left has not been delivered.
impl Drop for Intake {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        (inner.closed, inner.ended) = (true, true);
        while let Some(record) = inner.alerts.pop().or_else(|| inner.telemetry.pop()) {
            // What came from a spool is still there.
            if record.ticket.is_none() {
                inner.stats.lose(&record);
            }
        }
        drop(inner);
        self.shared.emptied.notify_waiters();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(sequence: u64, alert: bool) -> Record {
        Record {
            severity: if alert { Severity::High } else { Severity::Informational },
            alert,
            ocsf: format!("{{\"sequence\":{sequence}}}").into_bytes().into(),
            summary: format!("record {sequence}").into(),
            time: Timestamp(1_700_000_000_000),
            sequence,
            ticket: None,
        }
    }

    fn pair(limits: Limits) -> (SinkHandle, Intake, mpsc::Receiver<Health>) {
        let (notices, health) = mpsc::channel(8);
        let (handle, intake) = channel("sink.test", limits, notices);
        (handle, intake, health)
    }

    fn sequences(intake: &mut Intake) -> Vec<u64> {
        let mut batch = VecDeque::new();
        intake.take(&mut batch, usize::MAX, usize::MAX);
        batch.iter().map(|r| r.sequence).collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn telemetry_never_displaces_an_alert() {
        let limits = Limits { alerts: 2, telemetry: 3, ..Limits::default() };
        let (handle, mut intake, _health) = pair(limits);
        for sequence in 0..10 {
            handle.try_push(record(sequence, sequence % 2 == 0));
        }
        let stats = handle.stats();
        assert_eq!((stats.queued, stats.dropped_alerts, stats.dropped), (5, 3, 2));
        assert_eq!(sequences(&mut intake), [0, 2, 5, 7, 9]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_are_bounded_too_but_one_record_always_fits() {
        let (handle, mut intake, _health) = pair(Limits { bytes: 30, ..Limits::default() });
        for sequence in 0..5 {
            handle.try_push(record(sequence, false));
        }
        assert_eq!(sequences(&mut intake), [3, 4]);
        handle.try_push(Record { ocsf: vec![b'x'; 100].into(), ..record(6, false) });
        assert_eq!(sequences(&mut intake), [6]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_sink_is_not_for_is_no_loss() {
        let (handle, mut intake, _health) = pair(Limits { minimum: Severity::Medium, ..Limits::default() });
        handle.try_push(record(1, false));
        handle.try_push(Record { severity: Severity::Low, ..record(2, true) });
        handle.push(record(3, false)).await;
        handle.push(Record { severity: Severity::Medium, ..record(4, false) }).await;
        assert_eq!(handle.stats().dropped, 0);
        assert_eq!(sequences(&mut intake), [2, 4]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_working_sink_slows_the_pipeline_and_a_failing_one_does_not() {
        let (handle, mut intake, mut health) = pair(Limits { telemetry: 1, ..Limits::default() });
        handle.push(record(1, false)).await;
        let second = tokio::spawn({
            let handle = handle.clone();
            async move { handle.push(record(2, false)).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!second.is_finished());
        assert_eq!(sequences(&mut intake), [1]);
        second.await.expect("the second fits now");
        intake.failed(&Error::Closed { target: "x".to_owned() });
        handle.push(record(3, false)).await;
        assert_eq!((handle.stats().dropped, handle.stats().state), (1, State::Retrying));
        assert_eq!(health.recv().await.expect("a notice").kind, Kind::Degraded);
        intake.delivered([&record(1, false)]);
        assert_eq!(health.recv().await.expect("a notice").kind, Kind::Recovered);
        let lost = health.recv().await.expect("a notice");
        assert_eq!(lost.counters, [("alerts".to_owned(), 0), ("other_records".to_owned(), 1)]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_next_try_is_told_while_it_is_waited_for() {
        let (handle, mut intake, _health) = pair(Limits::default());
        handle.try_push(record(1, true));
        assert_eq!((handle.stats().next_try, handle.stats().oldest), (None, Some(record(1, true).time)));
        let pausing = tokio::spawn(async move { intake.pause(Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        let wait = handle.stats().next_try.expect("a time").saturating_duration_since(Instant::now());
        assert!(wait > Duration::from_secs(30) && wait <= Duration::from_secs(60), "{wait:?}");
        handle.close();
        assert!(pausing.await.expect("no panic"), "asked to end");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_end_is_counted() {
        let (handle, mut intake, _health) = pair(Limits::default());
        handle.try_push(record(1, true));
        handle.try_push(record(2, false));
        handle.close();
        assert!(intake.wait().await);
        drop(intake);
        let stats = handle.stats();
        assert_eq!((stats.queued, stats.dropped_alerts, stats.dropped), (0, 1, 1));
        tokio::time::timeout(Duration::from_secs(1), handle.push(record(3, false)))
            .await
            .expect("nobody is waited for");
        assert_eq!(handle.stats().dropped, 2);
    }
}
