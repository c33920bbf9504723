//! The end of a sink's task: batches, what became of them, health.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};

use super::{Intake, State, Waiting};
use crate::error::Error;
use crate::record::Record;
use crate::spool::Seat;

/// Losses of a working sink are reported at most this often.
const LOSS_REPORT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

impl Intake {
    /// Waits for a record; false when the sink is closed and there is none.
    pub(crate) async fn wait(&mut self) -> bool {
        loop {
            let empty = self.shared.lock().empty();
            self.pace.turn(Instant::now(), empty);
            self.spend(0);
            let losses_due = self.losses_due();
            if losses_due.is_some_and(|due| due <= Instant::now()) {
                self.settle(0);
            }
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
            // Losses are told in their time, also when nothing is delivered any more.
            match [self.pace.due(), losses_due.filter(|due| *due > Instant::now())]
                .into_iter()
                .flatten()
                .min()
            {
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
            inner.stats.in_hand += 1;
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

    /// Alerts and other records that found no room in the queue.
    pub(crate) fn lost_before(&self) -> [u64; 2] {
        let inner = self.shared.lock();
        [inner.stats.dropped_alerts, inner.stats.dropped]
    }

    /// Says something about a part of the sink.
    #[cfg(feature = "mqtt")]
    pub(crate) fn say(&self, kind: Kind, part: &str, words: String) {
        self.notify(Health::new(kind, format!("{}.{part}", self.shared.name), words));
    }

    /// Takes note of who is at the other end.
    pub(crate) fn connected(&mut self, peer: Option<IpAddr>) {
        if peer.is_some() {
            self.shared.lock().stats.peer = peer;
        }
    }

    /// Records delivered so far.
    #[cfg(feature = "mqtt")]
    pub(crate) fn written(&self) -> u64 {
        self.shared.lock().stats.written
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

    /// These records went another way; what became of them there is counted there.
    pub(crate) fn passed_on(&mut self, records: usize) {
        let stats = &mut self.shared.lock().stats;
        stats.in_hand -= records;
        stats.written += records as u64;
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
        inner.stats.in_hand -= records;
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

    /// When losses of a working sink are to be told; `None` when there are none.
    fn losses_due(&self) -> Option<Instant> {
        let inner = self.shared.lock();
        let dropped = (inner.stats.dropped_alerts, inner.stats.dropped);
        (inner.stats.state == State::Ok && dropped != self.reported)
            .then(|| self.reported_at.map_or_else(Instant::now, |at| at + LOSS_REPORT))
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
        self.give_back(records.into_iter().inspect(|record| {
            let stats = &mut stats.lock().stats;
            stats.in_hand -= 1;
            stats.lose(record);
        }));
    }

    /// The sink ends before it delivered these. What came from a spool is still there.
    pub(crate) fn unsent<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        let mut inner = self.shared.lock();
        for record in records {
            inner.stats.in_hand -= 1;
            if record.ticket.is_none() {
                inner.stats.lose(record);
            } else {
                // It will be handed over again.
                inner.stats.handed -= 1;
            }
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
            } else {
                inner.stats.handed -= 1;
            }
        }
        drop(inner);
        self.shared.emptied.notify_waiters();
    }
}
