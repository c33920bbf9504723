//! How far a sink has come, and the small file that remembers it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;

use super::frame::check;
use super::store::{Lane, Position};

/// What a spool knows a record by between its reading and its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    lane: u8,
    number: u64,
}

/// The state of one sink.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    lanes: [Progress; 2],
    last_ticket: u64,
    /// Something was delivered since it was last saved.
    pub(super) moved: bool,
}

#[derive(Debug, Default)]
struct Progress {
    /// Everything before it is delivered.
    delivered: Position,
    /// Everything before it has been read.
    read: Position,
    /// Read and not all delivered: ticket, place behind the record, delivered.
    waiting: VecDeque<(u64, Position, bool)>,
}

impl Cursor {
    pub(super) fn new(at: [Position; 2]) -> Self {
        let progress = |at| Progress { delivered: at, read: at, waiting: VecDeque::new() };
        Self { lanes: at.map(progress), ..Self::default() }
    }

    /// Where to read on.
    pub(super) fn read(&self, lane: Lane) -> Position {
        self.lanes[lane as usize].read
    }

    /// Everything before it is delivered.
    pub(super) fn delivered(&self, lane: Lane) -> Position {
        self.lanes[lane as usize].delivered
    }

    /// A record was read; the place is behind it.
    pub(super) fn took(&mut self, lane: Lane, behind: Position) -> Ticket {
        self.last_ticket += 1;
        let progress = &mut self.lanes[lane as usize];
        progress.waiting.push_back((self.last_ticket, behind, false));
        progress.read = behind;
        Ticket { lane: lane as u8, number: self.last_ticket }
    }

    /// What stands before a place is not for this sink, or is gone.
    pub(super) fn skip(&mut self, lane: Lane, to: Position) {
        let progress = &mut self.lanes[lane as usize];
        progress.read = progress.read.max(to);
        if progress.waiting.is_empty() {
            self.moved |= progress.delivered < progress.read;
            progress.delivered = progress.read;
        }
    }

    /// A record was delivered, or given up.
    pub(super) fn settled(&mut self, ticket: Ticket) {
        let Some(progress) = self.lanes.get_mut(usize::from(ticket.lane)) else { return };
        // Tickets of a lane ascend.
        let Ok(at) = progress.waiting.binary_search_by_key(&ticket.number, |(number, ..)| *number) else {
            return;
        };
        progress.waiting[at].2 = true;
        while let Some((_, behind, true)) = progress.waiting.front() {
            progress.delivered = *behind;
            progress.waiting.pop_front();
            self.moved = true;
        }
        if progress.waiting.is_empty() {
            progress.delivered = progress.read;
        }
    }

    /// Writes how far the sink has come. A crash in between leaves the old state: records then come twice, with the same numbers.
    pub(super) fn save(&mut self, file: &Path) -> io::Result<()> {
        let [alerts, telemetry] = [self.delivered(Lane::Alerts), self.delivered(Lane::Telemetry)];
        let places =
            format!("{} {} {} {}", alerts.segment, alerts.offset, telemetry.segment, telemetry.offset);
        let new = file.with_extension("new");
        fs::write(&new, format!("{places} {}\n", check(places.as_bytes())))?;
        fs::rename(&new, file)?;
        self.moved = false;
        Ok(())
    }
}

/// Reads what [`Cursor::save`] wrote; `None` when it is not there or not whole: the sink then begins with the oldest record.
pub(super) fn load(file: &Path) -> Option<[Position; 2]> {
    let text = fs::read_to_string(file).ok()?;
    let (places, sum) = text.trim_end().rsplit_once(' ')?;
    (sum.parse() == Ok(check(places.as_bytes()))).then_some(())?;
    let mut numbers = places.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let alerts = Position { segment: next()?, offset: next()? };
    Some([alerts, Position { segment: next()?, offset: next()? }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position { segment: 1, offset }
    }

    #[test]
    fn delivered_is_what_has_no_gap_before_it() {
        let mut cursor = Cursor::new([Position::default(); 2]);
        let tickets: Vec<Ticket> =
            [10, 20, 30].map(|offset| cursor.took(Lane::Telemetry, at(offset))).to_vec();
        cursor.settled(tickets[1]);
        assert_eq!(cursor.delivered(Lane::Telemetry), Position::default());
        assert!(!cursor.moved);
        cursor.settled(tickets[0]);
        assert_eq!(cursor.delivered(Lane::Telemetry), at(20));
        cursor.skip(Lane::Telemetry, at(40));
        assert_eq!(cursor.delivered(Lane::Telemetry), at(20), "the third still waits");
        cursor.settled(tickets[2]);
        cursor.settled(tickets[2]);
        assert_eq!((cursor.delivered(Lane::Telemetry), cursor.read(Lane::Telemetry)), (at(40), at(40)));
        assert_eq!(cursor.delivered(Lane::Alerts), Position::default());
    }

    #[test]
    fn what_is_saved_is_loaded_and_what_is_broken_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mqtt.cursor");
        assert_eq!(load(&file), None);
        let places = [at(7), Position { segment: 3, offset: 9 }];
        let mut cursor = Cursor::new(places);
        cursor.save(&file).unwrap();
        assert_eq!(load(&file), Some(places));
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() - 1 {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(load(&file), None, "{length}");
        }
    }
}
