//! The queue in front of a sink, its figures and its health.
//!
//! Two bounded queues, so that telemetry never takes an alert's place. When the telemetry queue is full its oldest record goes: the
//! newest says most about now. When the alert queue is full the new one takes the place of a milder one, and is left out where there is none:
//! whoever floods the agent with alerts gets rid neither of the first ones nor of graver ones. Either way the loss is counted and reported.
//!
//! | Module | Holds |
//! |---|---|
//! | here | the queues and their figures |
//! | `handle` | the pipeline's end |
//! | `intake` | the end of the sink's task |

mod handle;
mod intake;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use defender_model::health::Health;
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use tokio::sync::{mpsc, Notify};

use crate::pace::{Pace, Schedule};
use crate::record::Record;
use crate::spool::Seat;

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
    /// Records handed to it: by now written, lost, queued or in hand.
    pub handed: u64,
    /// Records that the sink's task has taken and not settled.
    pub in_hand: usize,
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
    /// Gives up the newest record that is milder than this; false when there is none.
    fn give_way(&mut self, severity: Severity) -> bool {
        let milder = self.records.iter().rposition(|record| record.severity < severity);
        let Some(record) = milder.and_then(|at| self.records.remove(at)) else { return false };
        self.bytes -= record.ocsf.len();
        true
    }

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

    /// The record's queue takes it without pushing another out.
    fn has_room(&self, limits: &Limits, record: &Record) -> bool {
        let (queue, records) =
            if record.alert { (&self.alerts, limits.alerts) } else { (&self.telemetry, limits.telemetry) };
        queue.has_room(records, limits.bytes, record.ocsf.len())
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

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use defender_model::health::Kind;

    use super::*;
    use crate::error::Error;

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
        intake.delivered([&record(0, true), &record(2, true)]);
        intake.lost([&record(5, false)]);
        intake.unsent([&record(7, false)]);
        let stats = handle.stats();
        assert_eq!((stats.handed, stats.written, stats.queued, stats.in_hand), (10, 2, 0, 1));
        assert_eq!((stats.dropped_alerts, stats.dropped), (3, 4));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_graver_alert_takes_the_place_of_a_milder_one() {
        let (handle, mut intake, _health) = pair(Limits { alerts: 3, ..Limits::default() });
        for (sequence, severity) in [
            Severity::Medium,
            Severity::High,
            Severity::Medium,
            Severity::Critical,
            Severity::High,
            Severity::High,
        ]
        .into_iter()
        .enumerate()
        {
            handle.try_push(Record { severity, ..record(sequence as u64, true) });
        }
        assert_eq!(handle.stats().dropped_alerts, 3);
        assert_eq!(sequences(&mut intake), [1, 3, 4]);
        let stats = handle.stats();
        assert_eq!((stats.handed, stats.in_hand), (6, 3));
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
    async fn losses_are_told_also_when_nothing_is_delivered_any_more() {
        let (handle, mut intake, mut health) = pair(Limits { telemetry: 1, ..Limits::default() });
        handle.try_push(record(1, false));
        handle.try_push(record(2, false));
        assert_eq!(sequences(&mut intake), [2]);
        intake.delivered([&record(2, false)]);
        let mut told = Vec::new();
        told.push(health.recv().await.expect("a notice").counters);
        handle.count_lost(false, 7);
        handle.count_lost(true, 1);
        // It has nothing to do but to wait.
        let waiting = tokio::spawn(async move { intake.wait().await });
        let next = tokio::time::timeout(Duration::from_secs(30), health.recv()).await;
        told.push(next.expect("in time").expect("a notice").counters);
        let counts =
            |alerts, others| vec![("alerts".to_owned(), alerts), ("other_records".to_owned(), others)];
        assert_eq!(told, [counts(0, 1), counts(1, 7)]);
        handle.close();
        assert!(!waiting.await.expect("no panic"));
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
