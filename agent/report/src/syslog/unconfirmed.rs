//! What a stream was given and may still lose.
//!
//! Syslog has no acknowledgements. What the kernel took is under way, then in the peer's socket, then in the collector's memory, and a
//! connection that breaks takes what is there with it. So records are kept until the peer's TCP has acknowledged them and the
//! connection has then stood for [`SETTLE`]: time for a collector to read and write what it got. When it breaks before, they are sent
//! again. A collector may so get a record twice, with the same boot and sequence.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::record::Record;

/// How long a connection stands, after all was acknowledged, until what it was given counts as delivered.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// How often it is looked whether all is acknowledged.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of events that may be unconfirmed; then nothing is sent until some are. About a thousand events a second.
const MOST: usize = 1 << 20;

/// What was sent in one go.
struct Flight {
    records: VecDeque<Record>,
    bytes: usize,
    /// Since when the peer's TCP has it.
    arrived: Option<Instant>,
}

/// Everything under way, oldest first.
#[derive(Default)]
pub(super) struct Unconfirmed {
    flights: VecDeque<Flight>,
    bytes: usize,
}

impl Unconfirmed {
    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Nothing more is to be sent now.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MOST
    }

    pub(super) fn sent(&mut self, records: VecDeque<Record>) {
        let bytes = records.iter().map(|record| record.ocsf.len()).sum();
        self.bytes += bytes;
        self.flights.push_back(Flight { records, bytes, arrived: None });
    }

    /// The peer's TCP has all that was sent.
    pub(super) fn arrived(&mut self, now: Instant) {
        for flight in self.flights.iter_mut().rev() {
            if flight.arrived.is_some() {
                break;
            }
            flight.arrived = Some(now);
        }
    }

    /// What counts as delivered by now, if the connection still stands.
    pub(super) fn settled(&mut self, now: Instant) -> VecDeque<Record> {
        let mut settled = VecDeque::new();
        while let Some(flight) = self.flights.front() {
            if flight.arrived.is_none_or(|at| at + SETTLE > now) {
                break;
            }
            self.bytes -= flight.bytes;
            settled.extend(self.flights.pop_front().map(|flight| flight.records).into_iter().flatten());
        }
        settled
    }

    /// When to look again; `None` when nothing is under way.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let oldest = self.flights.front()?;
        let look = now + LOOK;
        Some(match (oldest.arrived, self.flights.back()?.arrived) {
            (Some(at), Some(_)) => at + SETTLE,
            (Some(at), None) => look.min(at + SETTLE),
            (None, _) => look,
        })
    }

    /// The connection is gone: everything, oldest first, to be sent again.
    pub(super) fn take_back(&mut self) -> VecDeque<Record> {
        self.bytes = 0;
        self.flights.drain(..).flat_map(|flight| flight.records).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::record;

    fn numbers(records: &VecDeque<Record>) -> Vec<u64> {
        records.iter().map(|record| record.sequence).collect()
    }

    #[test]
    fn what_has_arrived_is_settled_after_a_while_and_the_rest_is_sent_again() {
        let start = Instant::now();
        let mut under_way = Unconfirmed::default();
        assert_eq!(under_way.due(start), None);
        under_way.sent([record(1, true), record(2, true)].into());
        assert_eq!(under_way.due(start), Some(start + LOOK));
        under_way.arrived(start);
        assert_eq!(under_way.due(start), Some(start + SETTLE));
        under_way.sent([record(3, true)].into());
        assert_eq!(under_way.due(start), Some(start + LOOK));
        assert!(under_way.settled(start + SETTLE / 2).is_empty());
        assert_eq!(numbers(&under_way.settled(start + SETTLE)), [1, 2]);
        assert!(under_way.settled(start + SETTLE * 9).is_empty(), "nobody knows whether it arrived");
        assert_eq!(numbers(&under_way.take_back()), [3]);
        assert!(under_way.is_empty());
    }

    #[test]
    fn there_is_a_bound() {
        let mut under_way = Unconfirmed::default();
        let long = Record { ocsf: vec![b'x'; MOST / 2].into(), ..record(1, false) };
        under_way.sent([long.clone()].into());
        assert!(!under_way.is_full());
        under_way.sent([long].into());
        assert!(under_way.is_full());
        under_way.arrived(Instant::now());
        under_way.settled(Instant::now() + SETTLE);
        assert!(!under_way.is_full());
    }
}
