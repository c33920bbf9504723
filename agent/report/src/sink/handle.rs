//! The pipeline's end of a sink.

use std::sync::{Arc, MutexGuard};

use defender_model::severity::Severity;
use tokio::sync::futures::Notified;

use super::{Inner, Queue, SinkHandle, State, Stats, Waiting};
use crate::record::Record;

impl SinkHandle {
    /// The sink's name: `sink.file`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Hands a record over without waiting. What there is no room for is counted as dropped; what the sink is not for is not.
    pub fn try_push(&self, record: Record) {
        if self.wants(&record) {
            let mut inner = self.shared.lock();
            self.put(&mut inner, record);
            self.wake(inner);
        }
    }

    /// Hands over records from the front as long as there is room, all at once. How many are done with: what the sink is not for is too.
    pub fn fill(&self, records: &[Record]) -> usize {
        let limits = &self.shared.limits;
        let mut inner = self.shared.lock();
        let mut done = 0;
        for record in records {
            if self.wants(record) {
                if inner.ended || !inner.has_room(limits, record) {
                    break;
                }
                self.put(&mut inner, record.clone());
            }
            done += 1;
        }
        self.wake(inner);
        done
    }

    fn put(&self, inner: &mut Inner, record: Record) {
        let limits = &self.shared.limits;
        let size = record.ocsf.len();
        inner.stats.handed += 1;
        if record.alert {
            while inner.ended || !inner.alerts.has_room(limits.alerts, limits.bytes, size) {
                inner.stats.dropped_alerts += 1;
                if inner.ended || !inner.alerts.give_way(record.severity) {
                    return;
                }
            }
            inner.alerts.push(record);
        } else if inner.ended {
            inner.stats.dropped += 1;
        } else {
            while !inner.telemetry.has_room(limits.telemetry, limits.bytes, size) {
                if inner.telemetry.pop().is_none() {
                    break;
                }
                inner.stats.dropped += 1;
            }
            inner.telemetry.push(record);
        }
    }

    /// Wakes the sink's task if this is what it waits for.
    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
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
                if inner.stats.state != State::Ok || inner.closed || inner.has_room(limits, &record) {
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

    pub(crate) fn wants(&self, record: &Record) -> bool {
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
        !inner.ended && inner.has_room(limits, record)
    }

    /// Hands a record over if there is room for it.
    pub(crate) fn offer(&self, record: &Record) -> bool {
        let room = self.has_room(record);
        if room {
            self.try_push(record.clone());
        }
        room
    }

    /// Records for the sink are lost that it has not seen; they count as handed to it.
    pub(crate) fn count_lost(&self, alerts: bool, records: u64) {
        let stats = &mut self.shared.lock().stats;
        stats.handed += records;
        *if alerts { &mut stats.dropped_alerts } else { &mut stats.dropped } += records;
    }

    /// A record reached its place without this queue; it counts as handed over and written.
    pub(crate) fn count_written(&self) {
        let stats = &mut self.shared.lock().stats;
        stats.handed += 1;
        stats.written += 1;
    }

    /// The sink works, as far as it has said.
    pub(crate) fn is_ok(&self) -> bool {
        self.shared.lock().stats.state == State::Ok
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
