//! The spool: what is to leave the device waits here, on flash, until it has.
//!
//! ```text
//! pipeline ──► run ──► segments (alerts │ telemetry) ──► feed, one per sink ──► the sink's queue ──► the sink
//! ```
//!
//! Every record goes to a file first, an alert as soon as it is numbered ([`Spool::take`]), others by way of a queue; each sink has a cursor of its own, which moves on when the sink has delivered. So what waits
//! survives a crash, a SIGKILL and a reboot, and a sink that was away for days goes on where it was. Delivery is *at least once*: after
//! a crash the records since the cursor was last saved (at most [`SAVE`]) are sent again, with the same sequence numbers.
//!
//! | What happens | What is done |
//! |---|---|
//! | power is lost | alerts were brought to the medium at once, telemetry as far as the system had written it; a record cut off at the end is taken away |
//! | the spool is full | the oldest telemetry goes, then the oldest alerts; each sink counts and reports what it had not got yet |
//! | the disk is full | as if the spool were; telemetry makes room for alerts |
//! | it cannot be written to | reported; records go to the sinks' queues in memory as without a spool |
//! | the agent is killed | what it had not written yet is counted by its next run |
//! | a segment was damaged | what is behind the damage in it is left out, and said |
//!
//! | Module | Holds |
//! |---|---|
//! | `frame` | one record in a file |
//! | `store` | the files of the two lanes |
//! | `cursor` | how far a sink has come |
//! | `ledger` | what is on its way into the files, for the run after a SIGKILL |

mod cursor;
mod frame;
mod ledger;
mod store;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use tokio::sync::Notify;

use crate::error::Error;
use crate::record::Record;
use crate::sink::{Intake, SinkHandle};
use cursor::Cursor;
pub use cursor::Ticket;
use frame::Found;
use ledger::Ledger;
use store::{Evicted, Lane, Position, Sizes, Store};

/// Records and bytes that are handed to a sink ahead of delivery, in each lane.
const AHEAD: usize = 64;
const AHEAD_BYTES: usize = 64 << 10;
/// Bytes that nearly every record fits into.
const GLANCE: usize = 4 << 10;
/// How long telemetry waits for company before it is written.
const GATHER: Duration = Duration::from_millis(50);
/// So many bytes are company enough.
const ENOUGH: usize = 32 << 10;
/// Cursors are saved so often.
pub const SAVE: Duration = Duration::from_secs(5);

/// Where a spool lies and how large it may become.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its directory; made when it is not there. The directory above must exist.
    pub directory: PathBuf,
    /// Bytes of all records together.
    pub max_size: u64,
    /// Alerts are brought to the medium at once.
    pub sync_alerts: bool,
    /// File, in a directory that every boot empties, that counts what is on its way into the spool.
    pub ledger: Option<PathBuf>,
}

/// A spool, shared by who writes it and the sinks that read it.
#[derive(Debug)]
pub struct Spool {
    config: Config,
    inner: Mutex<Inner>,
    /// Something was written.
    filled: Notify,
    /// Alerts were, which are to be brought to the medium.
    sync_due: Notify,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    ledger: Ledger,
    /// Alerts and other records that the last run had and did not write.
    missing: [u64; 2],
    told: Told,
    /// Alerts in segments before this number are on the medium.
    synced: u64,
    /// Alerts and other records that were taken in by this run.
    taken: [u64; 2],
    readers: Vec<Reader>,
}

/// Whether it is known that records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Told {
    #[default]
    No,
    /// By one of the records that are handed over next.
    Next,
    /// By an alert of at most this sequence number.
    By(u64),
}

#[derive(Debug)]
struct Reader {
    handle: SinkHandle,
    minimum: Severity,
    cursor: Cursor,
    file: PathBuf,
}

/// A sink's place at a spool.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    spool: Arc<Spool>,
    reader: usize,
}

impl Spool {
    /// Opens a spool, or makes one.
    ///
    /// # Errors
    /// Its directory cannot be made, listed or read.
    pub fn open(config: Config) -> Result<Self, Error> {
        // Small segments let the spool forget early; large ones spare directory entries.
        let segment = (config.max_size / 16).clamp(16 << 10, 256 << 10);
        let store = Store::open(&config.directory, Sizes { most: config.max_size, segment })?;
        let (mut ledger, mut missing) = (Ledger::default(), [0; 2]);
        match config.ledger.as_deref().map(Ledger::open) {
            None => {}
            Some(Ok((open, left))) => {
                ledger = open;
                for lane in Lane::ALL {
                    let written = store.newer(lane, left.newest[lane as usize]);
                    let lost = left.missing[lane as usize].saturating_sub(written);
                    missing[lane as usize] = lost.saturating_add(left.owed[lane as usize]);
                }
                ledger.owe(missing);
            }
            Some(Err(error)) => tracing::warn!(%error, "what a crash takes is not counted"),
        }
        let inner = Inner {
            store,
            ledger,
            missing,
            synced: 0,
            told: Told::default(),
            taken: [0; 2],
            readers: Vec::new(),
        };
        Ok(Self { config, inner: Mutex::new(inner), filled: Notify::new(), sync_due: Notify::new() })
    }

    /// Alerts and other records that earlier runs of the agent had numbered and not written when they were killed.
    #[must_use]
    pub fn missing(&self) -> [u64; 2] {
        self.lock().missing
    }

    /// An alert that tells of them is among the records [`Spool::expect`] hears of next. When it is in the files, nobody else need tell.
    pub fn told_missing(&self) {
        self.lock().told = Told::Next;
    }

    /// Writes an alert to the files at once, past `writer`, the queue in front of them, so that from here on no crash takes it. What cannot
    /// be written now comes back as false and belongs into the queue.
    pub fn take(&self, writer: &SinkHandle, alert: &Record) -> bool {
        // Behind what waits for a file system that fails.
        if !writer.is_ok() {
            return false;
        }
        let (mut kept, mut refused) = (0, Vec::new());
        let inner = &mut *self.lock();
        inner.ledger.hand([1, 0]);
        if inner.store.append(Lane::Alerts, [alert], &mut kept, &mut refused).is_err() || !refused.is_empty()
        {
            inner.ledger.take_back_alert();
            return false;
        }
        inner.taken[Lane::Alerts as usize] += 1;
        inner.ledger.arrive_alert(alert.sequence);
        let evicted = inner.store.evict();
        inner.miss(&evicted);
        writer.count_written();
        self.filled.notify_waiters();
        self.sync_due.notify_one();
        true
    }

    /// Says which records `writer` is handed next: what a crash then takes is known. `taken` says which alerts [`Spool::take`] has taken.
    pub fn expect<'r>(
        &self,
        writer: &SinkHandle,
        records: impl IntoIterator<Item = &'r Record>,
        taken: impl Fn(&Record) -> bool,
    ) {
        let (mut handed, mut newest) = ([0; 2], None);
        for record in records.into_iter().filter(|record| writer.wants(record)) {
            handed[Lane::of(record) as usize] += u64::from(!taken(record));
            newest = if record.alert { Some(record.sequence) } else { newest };
        }
        let inner = &mut *self.lock();
        if let (Told::Next, Some(newest)) = (inner.told, newest) {
            inner.told = Told::By(newest);
            inner.settle_debt();
        }
        if handed != [0; 2] {
            inner.ledger.hand(handed);
        }
    }

    /// A panic while the lock is held cannot leave more than a record sent twice.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a sink read from where it last was. `intake` is the sink's end of `handle`.
    pub fn seat(self: &Arc<Self>, handle: &SinkHandle, intake: &mut Intake) {
        let file = self.config.directory.join(format!("{}.cursor", handle.name()));
        let saved = cursor::load(&file).unwrap_or_default();
        let mut inner = self.lock();
        let places = Lane::ALL.map(|lane| inner.store.settle(lane, saved[lane as usize]));
        intake.sit(Seat { spool: Arc::clone(self), reader: inner.readers.len() });
        inner.readers.push(Reader {
            handle: handle.clone(),
            minimum: handle.minimum(),
            cursor: Cursor::new(places),
            file,
        });
    }

    /// Bytes in the files that a sink has not delivered.
    #[must_use]
    pub fn behind(&self, handle: &SinkHandle) -> u64 {
        let inner = self.lock();
        let Some(reader) = inner.readers.iter().find(|reader| reader.handle.is(handle)) else { return 0 };
        Lane::ALL.into_iter().map(|lane| inner.store.behind(lane, reader.cursor.delivered(lane))).sum()
    }

    /// When the oldest record happened that a sink has not delivered.
    #[must_use]
    pub fn oldest(&self, handle: &SinkHandle) -> Option<Timestamp> {
        let inner = self.lock();
        let reader = inner.readers.iter().find(|reader| reader.handle.is(handle))?;
        let first = |lane| {
            let reading = inner.store.read(lane, reader.cursor.delivered(lane), 1, GLANCE).ok()?;
            reading.records.first().map(|(record, _)| record.time)
        };
        Lane::ALL.into_iter().filter_map(first).min()
    }

    /// Takes a batch in. What cannot be written goes past the files; `lost` were counted as lost before they came here.
    fn append(&self, batch: &VecDeque<Record>, lost: [u64; 2]) -> Result<(), Error> {
        let mut inner = self.lock();
        let mut outcome = Ok(());
        let mut past: Vec<Record> = Vec::new();
        // Too long for a spool, but not for a connection.
        let mut refused = Vec::new();
        let mut newest = [None; 2];
        for lane in Lane::ALL {
            let records = || batch.iter().filter(move |record| Lane::of(record) == lane);
            let mut kept = 0;
            loop {
                match inner.store.append(lane, records().skip(kept), &mut kept, &mut refused) {
                    Ok(()) => break,
                    // A disk that others have filled is as good as a full spool.
                    Err(error) if error.is_full() && inner.make_room(lane) => {}
                    Err(error) => {
                        past.extend(records().skip(kept).cloned());
                        outcome = Err(error);
                        break;
                    }
                }
            }
            inner.taken[lane as usize] += records().count() as u64;
            newest[lane as usize] = records().map(|record| record.sequence).max();
        }
        let arrived = [inner.taken[0] + lost[0], inner.taken[1] + lost[1]];
        inner.ledger.arrive(arrived, newest);
        inner.settle_debt();
        let evicted = inner.store.evict();
        inner.miss(&evicted);
        drop(inner);
        self.bypass(refused.into_iter().chain(&past));
        self.filled.notify_waiters();
        outcome
    }

    /// Past the files, into the sinks' queues.
    fn bypass<'r>(&self, records: impl IntoIterator<Item = &'r Record>) {
        let inner = self.lock();
        for record in records {
            for reader in inner.readers.iter().filter(|reader| reader.wants(record)) {
                // What came from the files is not pushed out for it: its place in the spool is no longer known then.
                if !reader.handle.offer(record) {
                    reader.handle.count_lost(record.alert, 1);
                }
            }
        }
    }

    /// Hands a sink what it has room for; false when nothing could be handed over.
    fn hand(&self, reader: usize) -> Result<bool, Error> {
        let inner = &mut *self.lock();
        let Some(reader) = inner.readers.get_mut(reader) else { return Ok(false) };
        let mut moved = false;
        for lane in Lane::ALL {
            let room = AHEAD.saturating_sub(reader.handle.queued(lane == Lane::Alerts));
            if room == 0 {
                continue;
            }
            let at = reader.cursor.read(lane);
            let reading = inner.store.read(lane, at, room, AHEAD_BYTES)?;
            let mut all = true;
            for (mut record, behind) in reading.records {
                if !reader.wants(&record) {
                    reader.cursor.skip(lane, behind);
                    continue;
                }
                if !reader.handle.has_room(&record) {
                    all = false;
                    break;
                }
                record.ticket = Some(reader.cursor.took(lane, behind));
                reader.handle.try_push(record);
            }
            if all {
                if reading.damaged {
                    reader.handle.count_lost(lane == Lane::Alerts, 1);
                }
                reader.cursor.skip(lane, reading.next);
            }
            moved |= reader.cursor.read(lane) != at;
        }
        Ok(moved)
    }

    /// Saves the cursors that moved and lets go of what every sink has delivered.
    pub fn save(&self) {
        let inner = &mut *self.lock();
        for reader in inner.readers.iter_mut().filter(|reader| reader.cursor.moved) {
            if let Err(error) = reader.cursor.save(&reader.file) {
                tracing::debug!(%error, file = %reader.file.display(), "cannot save a cursor of the spool");
            }
        }
        for lane in Lane::ALL {
            let passed = inner.readers.iter().map(|reader| reader.cursor.delivered(lane)).min();
            if let Some(passed) = passed {
                inner.store.forget(lane, passed);
            }
        }
    }
}

impl Inner {
    /// Once the alert is in the files that tells of what is missing from before, nobody else need tell.
    fn settle_debt(&mut self) {
        if matches!(self.told, Told::By(teller) if self.ledger.newest_alert() >= teller) {
            self.told = Told::No;
            self.ledger.owe([0; 2]);
        }
    }

    /// Lets the oldest segment go that is no more important than what is to be written; false when there is none.
    fn make_room(&mut self, lane: Lane) -> bool {
        let evicted = self.store.evict_for(lane);
        self.miss(&evicted);
        evicted.is_some()
    }

    fn miss<'e>(&mut self, evicted: impl IntoIterator<Item = &'e Evicted>) {
        for gone in evicted {
            for reader in &mut self.readers {
                reader.miss(gone);
            }
        }
    }
}

impl Reader {
    fn wants(&self, record: &Record) -> bool {
        record.alert || record.severity >= self.minimum
    }

    /// A segment is gone: what the sink had not read of it is lost to it.
    fn miss(&mut self, gone: &Evicted) {
        let at = self.cursor.read(gone.lane);
        if at.segment > gone.segment {
            return;
        }
        let from =
            if at.segment == gone.segment { usize::try_from(at.offset).unwrap_or(usize::MAX) } else { 0 };
        let mut rest = gone.content.get(from..).unwrap_or_default();
        let mut lost = 0;
        while let Found::Whole((severity, alert), length) = frame::peek(rest) {
            lost += u64::from(alert || severity >= self.minimum);
            rest = &rest[length..];
        }
        self.handle.count_lost(gone.lane == Lane::Alerts, lost);
        self.cursor.skip(gone.lane, Position { segment: gone.segment + 1, offset: 0 });
    }
}

impl Seat {
    /// A record was delivered, or cannot ever be.
    pub(crate) fn settled(&self, tickets: impl IntoIterator<Item = Ticket>) {
        let mut inner = self.spool.lock();
        let Some(reader) = inner.readers.get_mut(self.reader) else { return };
        for ticket in tickets {
            reader.cursor.settled(ticket);
        }
    }
}

/// Writes records until the intake is closed, alerts at once, telemetry together with what else came.
pub async fn run(spool: Arc<Spool>, mut intake: Intake) {
    // Beside the writing: what a file has got survives a SIGKILL, and need not wait in memory until a medium has what came before.
    let syncing = tokio::spawn(keep_synced(Arc::clone(&spool)));
    let mut batch = VecDeque::new();
    while intake.wait().await {
        intake.gather(GATHER, ENOUGH).await;
        intake.take(&mut batch, usize::MAX, ENOUGH);
        match spool.append(&batch, intake.lost_before()) {
            Ok(()) => {
                if batch.iter().any(|record| record.alert) {
                    spool.sync_due.notify_one();
                }
                intake.delivered(&batch);
            }
            Err(error) => {
                intake.passed_on(batch.len());
                intake.failed(&error);
            }
        }
        batch.clear();
    }
    syncing.abort();
    if spool.config.sync_alerts {
        sync(&spool).await;
    }
}

/// Brings alerts to the medium whenever it is due; what comes meanwhile is due together.
async fn keep_synced(spool: Arc<Spool>) {
    loop {
        spool.sync_due.notified().await;
        if spool.config.sync_alerts {
            sync(&spool).await;
        }
    }
}

/// On a thread of its own, since a slow medium can take long. Sinks send meanwhile.
async fn sync(spool: &Spool) {
    let files = {
        let inner = &mut *spool.lock();
        let (files, newest) = inner.store.since(Lane::Alerts, inner.synced);
        // What is appended to it from here on is the next turn's, and so it is looked at again.
        inner.synced = newest;
        files
    };
    // What a medium refuses to take shows when it is next written to.
    let _ = tokio::task::spawn_blocking(move || files.iter().for_each(|file| drop(file.sync_data()))).await;
}

/// Hands a sink its records as it has room for them, until it is dropped.
pub async fn feed(spool: Arc<Spool>, handle: SinkHandle) {
    let reader = spool.lock().readers.iter().position(|reader| reader.handle.is(&handle));
    let Some(reader) = reader else { return };
    let mut saved = tokio::time::Instant::now();
    while !handle.is_closed() {
        if saved.elapsed() >= SAVE {
            saved = tokio::time::Instant::now();
            spool.save();
        }
        let (filled, emptied) = (spool.filled.notified(), handle.emptied());
        tokio::pin!(filled, emptied);
        // From here on nothing is missed: looked first, waited then.
        filled.as_mut().enable();
        emptied.as_mut().enable();
        match spool.hand(reader) {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the spool cannot be read; trying again"),
        }
        tokio::select! {
            () = filled => {}
            () = emptied => {}
            () = tokio::time::sleep(SAVE) => {}
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::frame::{decode, encode, whole, Found};

    pub(crate) fn segment(bytes: &[u8]) {
        let end = whole(bytes);
        let (mut at, mut again) = (0, Vec::new());
        while let Found::Whole(record, used) = decode(&bytes[at..]) {
            assert!(encode(&record, &mut again), "what was read can be written");
            at += used;
        }
        assert!(at <= end && end <= bytes.len());
    }
}
