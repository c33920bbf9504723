//! How many records are on their way into the spool, in a file in memory that outlives the agent.
//!
//! Alerts are written to the files as they are numbered. What else a SIGKILL finds between the pipeline and the spool's files is lost, and
//! nobody is left to count it. So the pipeline says beforehand what it hands over, the spool says afterwards what it has, and the next run
//! of the agent tells the difference. The file lies in the run directory, which every boot empties: with the boot its sequence numbers end
//! too.
//!
//! Eight numbers of eight bytes, little endian, always of alerts and of other records: handed over, arrived, the highest sequence number
//! that arrived, and missing from earlier runs. It is one short write, which a SIGKILL does not cut.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const LENGTH: usize = 64;

/// The account of this run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    file: Option<File>,
    /// Alerts and other records that the pipeline has handed over.
    handed: [u64; 2],
    /// Of these, what is in the files or was counted as lost.
    arrived: [u64; 2],
    /// Sequence number of the newest in the files.
    newest: [u64; 2],
    /// What is missing from before.
    owed: [u64; 2],
}

/// What the account of the last run says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Left {
    /// Alerts and other records that were handed over and not written down as arrived.
    pub(super) missing: [u64; 2],
    /// Records with higher numbers are in the files all the same: they were not written down any more.
    pub(super) newest: [u64; 2],
    /// What was missing before that run, and it had not told.
    pub(super) owed: [u64; 2],
}

impl Ledger {
    /// Reads what the last run left and begins anew, with [`Ledger::owe`].
    pub(super) fn open(path: &Path) -> io::Result<(Self, Left)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = [0; LENGTH];
        // A file that is shorter is a new one.
        let left = file.read_exact_at(&mut bytes, 0).map_or_else(|_| Left::default(), |()| read(&bytes));
        Ok((Self { file: Some(file), ..Self::default() }, left))
    }

    /// So many alerts and other records are missing from before. They are owed until it has arrived that they are: a run that is killed
    /// before that leaves them to the next one.
    pub(super) fn owe(&mut self, missing: [u64; 2]) {
        self.owed = missing;
        self.write();
    }

    /// So many alerts and other records are handed over next.
    pub(super) fn hand(&mut self, records: [u64; 2]) {
        for (sum, more) in self.handed.iter_mut().zip(records) {
            *sum += more;
        }
        self.write();
    }

    /// So many alerts and other records have arrived in all; the newest number of each.
    pub(super) fn arrive(&mut self, arrived: [u64; 2], newest: [Option<u64>; 2]) {
        self.arrived = arrived;
        for (known, newest) in self.newest.iter_mut().zip(newest) {
            *known = newest.map_or(*known, |newest| newest.max(*known));
        }
        self.write();
    }

    /// One alert, handed over last, has arrived.
    pub(super) fn arrive_alert(&mut self, sequence: u64) {
        self.arrived[0] += 1;
        self.newest[0] = self.newest[0].max(sequence);
        self.write();
    }

    /// One alert, handed over last, has to be handed over again.
    pub(super) fn take_back_alert(&mut self) {
        self.handed[0] -= 1;
        self.write();
    }

    /// Sequence number of the newest alert in the files.
    pub(super) const fn newest_alert(&self) -> u64 {
        self.newest[0]
    }

    fn write(&self) {
        let Some(file) = &self.file else { return };
        let mut bytes = [0; LENGTH];
        let numbers = [self.handed, self.arrived, self.newest, self.owed];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers.iter().flatten()) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        // Without it the next run cannot count; this one goes on.
        let _ = file.write_all_at(&bytes, 0);
    }
}

fn read(bytes: &[u8; LENGTH]) -> Left {
    let mut numbers = [0u64; 8];
    for (number, place) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = place.try_into().map_or(0, u64::from_le_bytes);
    }
    let [alerts, others, alerts_arrived, others_arrived, alert, other, alerts_owed, others_owed] = numbers;
    let missing = [alerts.saturating_sub(alerts_arrived), others.saturating_sub(others_arrived)];
    Left { missing, newest: [alert, other], owed: [alerts_owed, others_owed] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_knows_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool-ledger");
        let (mut ledger, left) = Ledger::open(&path).unwrap();
        assert_eq!(left, Left::default());
        ledger.hand([1, 5]);
        ledger.arrive([1, 2], [Some(7), Some(4)]);
        ledger.hand([2, 0]);
        drop(ledger);
        let (mut ledger, left) = Ledger::open(&path).unwrap();
        assert_eq!(left, Left { missing: [2, 3], newest: [7, 4], owed: [0, 0] });
        ledger.owe([2, 3]);
        ledger.hand([1, 1]);
        let (mut ledger, left) = Ledger::open(&path).unwrap();
        assert_eq!(left, Left { missing: [1, 1], newest: [0, 0], owed: [2, 3] });
        ledger.owe([3, 4]);
        ledger.owe([0, 0]);
        assert_eq!(Ledger::open(&path).unwrap().1, Left::default(), "said once");
    }

    #[test]
    fn any_content_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool-ledger");
        std::fs::write(&path, [0xff; 63]).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().1, Left::default());
        std::fs::write(&path, [0xff; 64]).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().1.missing, [0, 0]);
    }
}
