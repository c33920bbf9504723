//! The spool's files: two lanes of numbered segments, each appended to until it is full.
//!
//! When all of it is larger than it may be, the oldest telemetry goes first; alerts go when no telemetry is left.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use defender_model::order;

use super::frame::{self, Found};
use crate::error::Error;
use crate::record::Record;

/// What a record is to the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Alerts,
    Telemetry,
}

impl Lane {
    /// Both, the more important first.
    pub(super) const ALL: [Self; 2] = [Self::Alerts, Self::Telemetry];

    pub(super) const fn of(record: &Record) -> Self {
        if record.alert {
            Self::Alerts
        } else {
            Self::Telemetry
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Alerts => "alerts",
            Self::Telemetry => "telemetry",
        }
    }
}

/// A place between two records of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    /// Number of the segment.
    pub(super) segment: u64,
    /// Bytes from its start.
    pub(super) offset: u64,
}

/// Sizes of a spool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Bytes of all segments, but for a single longer record.
    pub(super) most: u64,
    /// Bytes after which a new segment is begun.
    pub(super) segment: u64,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Files {
    segments: VecDeque<Segment>,
    /// The last segment, while it is written to.
    out: Option<File>,
    /// Number of the next segment.
    next: u64,
}

/// A segment that had to go, and what it held from a place on.
#[derive(Debug)]
pub(super) struct Evicted {
    pub(super) lane: Lane,
    pub(super) segment: u64,
    pub(super) content: Vec<u8>,
}

/// What was read at a place.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Records, each with the place behind it.
    pub(super) records: Vec<(Record, Position)>,
    /// Where to go on.
    pub(super) next: Position,
    /// A segment was damaged there; what is behind the damage was left out.
    pub(super) damaged: bool,
}

/// The files.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    sizes: Sizes,
    lanes: [Files; 2],
}

impl Store {
    /// Opens a spool, or makes one. A record that was cut off at the end of a lane is taken away.
    pub(super) fn open(directory: &Path, sizes: Sizes) -> Result<Self, Error> {
        let fault = |action| move |source| Error::File { path: directory.to_owned(), action, source };
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fault("make")(error)),
            _ => {}
        }
        let mut lanes = [Files::default(), Files::default()];
        for entry in fs::read_dir(directory).map_err(fault("list"))? {
            let entry = entry.map_err(fault("list"))?;
            let name = entry.file_name();
            let Some((lane, number)) = name.to_str().and_then(parse) else { continue };
            let bytes = entry.metadata().map_err(fault("look into"))?.len();
            lanes[lane as usize].segments.push_back(Segment { number, bytes });
        }
        let mut store = Self { directory: directory.to_owned(), sizes, lanes };
        for lane in Lane::ALL {
            store.mend(lane)?;
        }
        Ok(store)
    }

    /// Puts a lane's segments in order and cuts off what is not a whole record at its end.
    fn mend(&mut self, lane: Lane) -> Result<(), Error> {
        let files = &mut self.lanes[lane as usize];
        order::sort_by_key(files.segments.make_contiguous(), |segment| segment.number);
        files.next = files.segments.back().map_or(1, |last| last.number + 1);
        let Some(last) = files.segments.back().copied() else { return Ok(()) };
        let content = self.content(lane, last.number)?;
        let whole = frame::whole(&content) as u64;
        if whole < last.bytes {
            let path = self.path(lane, last.number);
            let cut = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(whole));
            cut.map_err(|source| Error::File { path, action: "cut", source })?;
        }
        if let Some(last) = self.lanes[lane as usize].segments.back_mut() {
            last.bytes = whole;
        }
        Ok(())
    }

    fn path(&self, lane: Lane, number: u64) -> PathBuf {
        self.directory.join(format!("{}.{number:010}", lane.name()))
    }

    /// All that a segment holds.
    fn content(&self, lane: Lane, number: u64) -> Result<Vec<u8>, Error> {
        // A segment is as long as its size and one record; what is longer is none of ours.
        self.part(lane, number, 0, self.sizes.segment + frame::LONGEST as u64 + 64)
    }

    /// At most `most` bytes of a segment from an offset on.
    fn part(&self, lane: Lane, number: u64, offset: u64, most: u64) -> Result<Vec<u8>, Error> {
        let path = self.path(lane, number);
        let mut content = Vec::new();
        let read = File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.take(most).read_to_end(&mut content)
        });
        read.map_err(|source| Error::File { path, action: "read", source })?;
        Ok(content)
    }

    /// Appends records to a lane; `kept` grows by how many of them are done with, and `refused` by those of them that are too long for a
    /// spool.
    ///
    /// # Errors
    /// A lane cannot be written to; what was written of it is taken back, and records after the first `kept` are not there.
    pub(super) fn append<'r>(
        &mut self,
        lane: Lane,
        records: impl IntoIterator<Item = &'r Record>,
        kept: &mut usize,
        refused: &mut Vec<&'r Record>,
    ) -> Result<(), Error> {
        let (mut buffer, mut buffered, mut too_long) = (Vec::new(), 0, Vec::new());
        for record in records {
            if buffer.len() as u64 >= self.sizes.segment {
                self.write(lane, &std::mem::take(&mut buffer))?;
                *kept += std::mem::take(&mut buffered);
                refused.append(&mut too_long);
            }
            buffered += 1;
            if !frame::encode(record, &mut buffer) {
                too_long.push(record);
            }
        }
        if !buffer.is_empty() {
            self.write(lane, &buffer)?;
        }
        *kept += buffered;
        refused.append(&mut too_long);
        Ok(())
    }

    fn write(&mut self, lane: Lane, bytes: &[u8]) -> Result<(), Error> {
        let full = self.lanes[lane as usize]
            .segments
            .back()
            .is_none_or(|last| last.bytes > 0 && last.bytes + bytes.len() as u64 > self.sizes.segment);
        if full {
            self.begin(lane)?;
        }
        let number = self.lanes[lane as usize].segments.back().map_or(0, |last| last.number);
        let path = self.path(lane, number);
        let fault = |source| Error::File { path: path.clone(), action: "write to", source };
        let files = &mut self.lanes[lane as usize];
        let Some(last) = files.segments.back_mut() else { return Ok(()) };
        if files.out.is_none() {
            files.out = Some(OpenOptions::new().append(true).open(&path).map_err(fault)?);
        }
        let Some(out) = &mut files.out else { return Ok(()) };
        if let Err(error) = out.write_all(bytes) {
            // Half a batch would hide what is written behind it.
            let taken_back = out.set_len(last.bytes);
            files.out = None;
            if taken_back.is_err() {
                // Whole frames of it count; the next batch goes to a segment of its own.
                self.begin(lane)?;
            }
            return Err(fault(error));
        }
        last.bytes += bytes.len() as u64;
        Ok(())
    }

    fn begin(&mut self, lane: Lane) -> Result<(), Error> {
        let number = self.lanes[lane as usize].next;
        let path = self.path(lane, number);
        // O_EXCL: nothing is written through a link that somebody else laid.
        let out = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let out = out.map_err(|source| Error::File { path, action: "begin", source })?;
        let files = &mut self.lanes[lane as usize];
        files.out = Some(out);
        files.next = number + 1;
        files.segments.push_back(Segment { number, bytes: 0 });
        Ok(())
    }

    /// The files of a lane from a segment on, to be brought to the medium, and the number of the newest.
    pub(super) fn since(&self, lane: Lane, number: u64) -> (Vec<File>, u64) {
        let segments = &self.lanes[lane as usize].segments;
        let later = segments.iter().filter(|segment| segment.number >= number);
        let files = later.filter_map(|segment| File::open(self.path(lane, segment.number)).ok()).collect();
        (files, segments.back().map_or(number, |newest| newest.number))
    }

    /// Lets segments go until the rest is small enough, least important and oldest first.
    pub(super) fn evict(&mut self) -> Vec<Evicted> {
        let mut gone = Vec::new();
        while self.bytes() > self.sizes.most {
            let more_than_one = |lane: &Lane| self.lanes[*lane as usize].segments.len() > 1;
            let by_importance = [Lane::Telemetry, Lane::Alerts];
            let Some(lane) = by_importance.into_iter().find(more_than_one) else { break };
            let Some(oldest) = self.evict_oldest(lane) else { break };
            gone.push(oldest);
        }
        gone
    }

    /// Lets the oldest segment go that is no more important than a record of `lane`. Of telemetry that makes room for alerts even the
    /// one that is being written.
    pub(super) fn evict_for(&mut self, lane: Lane) -> Option<Evicted> {
        let from = |this: &Self, lane: Lane, least: usize| this.lanes[lane as usize].segments.len() > least;
        match lane {
            Lane::Alerts if from(self, Lane::Telemetry, 0) => self.evict_oldest(Lane::Telemetry),
            _ if from(self, lane, 1) => self.evict_oldest(lane),
            _ => None,
        }
    }

    fn evict_oldest(&mut self, lane: Lane) -> Option<Evicted> {
        let oldest = self.lanes[lane as usize].segments.front().copied()?;
        let content = self.content(lane, oldest.number).unwrap_or_default();
        self.remove_oldest(lane);
        Some(Evicted { lane, segment: oldest.number, content })
    }

    /// Records of a lane's last two segments with a higher sequence number. What one batch holds lies within two.
    pub(super) fn newer(&self, lane: Lane, than: u64) -> u64 {
        let mut newer = 0;
        for segment in self.lanes[lane as usize].segments.iter().rev().take(2) {
            let content = self.content(lane, segment.number).unwrap_or_default();
            let mut rest = &content[..];
            while let Found::Whole(record, length) = frame::decode(rest) {
                newer += u64::from(record.sequence > than);
                rest = &rest[length..];
            }
        }
        newer
    }

    /// Lets go of segments before a place that everybody has passed.
    pub(super) fn forget(&mut self, lane: Lane, before: Position) {
        while let Some(oldest) = self.lanes[lane as usize].segments.front().copied() {
            let passed = oldest.number < before.segment
                || oldest.number == before.segment
                    && before.offset >= oldest.bytes
                    && oldest.bytes >= self.sizes.segment / 4;
            if !passed {
                break;
            }
            self.remove_oldest(lane);
        }
    }

    fn remove_oldest(&mut self, lane: Lane) {
        let Some(oldest) = self.lanes[lane as usize].segments.pop_front() else { return };
        let path = self.path(lane, oldest.number);
        if self.lanes[lane as usize].segments.is_empty() {
            self.lanes[lane as usize].out = None;
        }
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, file = %path.display(), "cannot remove a segment of the spool");
        }
    }

    /// A place that a reader remembers, or the nearest there is. Numbers of segments before it are not given out again.
    pub(super) fn settle(&mut self, lane: Lane, at: Position) -> Position {
        let files = &mut self.lanes[lane as usize];
        files.next = files.next.max(at.segment + 1);
        let here = files.segments.iter().find(|segment| segment.number == at.segment);
        Position { offset: here.map_or(0, |segment| at.offset.min(segment.bytes)), ..at }
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.lanes.iter().flat_map(|files| &files.segments).map(|segment| segment.bytes).sum()
    }

    /// Bytes of a lane behind a place.
    pub(super) fn behind(&self, lane: Lane, at: Position) -> u64 {
        let segments = &self.lanes[lane as usize].segments;
        let later = segments.iter().filter(|segment| segment.number >= at.segment);
        later
            .map(|segment| {
                segment.bytes.saturating_sub(if segment.number == at.segment { at.offset } else { 0 })
            })
            .sum()
    }

    /// Reads from a place on, at most so many records and (but for one record) so many bytes, within one segment.
    pub(super) fn read(
        &self,
        lane: Lane,
        at: Position,
        records: usize,
        bytes: usize,
    ) -> Result<Reading, Error> {
        let mut reading = Reading { next: at, ..Reading::default() };
        let segments = &self.lanes[lane as usize].segments;
        let here = segments.iter().find(|segment| {
            segment.number > at.segment || segment.number == at.segment && at.offset < segment.bytes
        });
        let Some(here) = here else { return Ok(reading) };
        let mut place =
            Position { segment: here.number, offset: if here.number == at.segment { at.offset } else { 0 } };
        // What is being written behind the last whole batch is not there yet.
        let rest = here.bytes - place.offset;
        let begin = place.offset;
        let read = |most: u64| match self.part(lane, here.number, begin, most.min(rest)) {
            // Somebody removed it.
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        };
        let mut content = read(bytes as u64)?;
        let mut cut = (content.len() as u64) < rest;
        if content.is_empty() {
            let next = Position { offset: here.bytes, ..place };
            return Ok(Reading { damaged: true, next, ..reading });
        }
        let mut used = 0;
        while used < content.len() && reading.records.len() < records && (used == 0 || used < bytes) {
            let Found::Whole(record, length) = frame::decode(&content[used..]) else {
                if cut && used > 0 {
                    // The end of what was read, not of the record: it is the first of the next reading.
                    break;
                }
                if cut {
                    // The first may be longer than what is wanted at once.
                    content = read(rest)?;
                    cut = false;
                    continue;
                }
                reading.damaged = true;
                place.offset = here.bytes;
                break;
            };
            used += length;
            place.offset += length as u64;
            reading.records.push((record, place));
        }
        reading.next = place;
        Ok(reading)
    }
}

/// Lane and number of a file name.
fn parse(name: &str) -> Option<(Lane, u64)> {
    let (lane, number) = name.split_once('.')?;
    let lane = Lane::ALL.into_iter().find(|known| known.name() == lane)?;
    (number.len() >= 10 && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    Some((lane, number.parse().ok()?))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
