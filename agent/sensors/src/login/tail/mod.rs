//! Follows log files through everything that happens to log files.
//!
//! inotify says when to look, never what is there: after any event, and after an overflow of inotify's queue, the files are read from
//! the remembered offset. So nothing depends on the order or the number of events, and there is no polling: a line is read when the
//! kernel reports the write.
//!
//! | What happens | What is done |
//! |---|---|
//! | rotation: renamed, a new file under the name | the new one is read from its beginning, the old one too for another minute, since its daemon writes on until it is told |
//! | `copytruncate`, `> file` | seen by size and by comparing the last bytes read; read from the beginning |
//! | file, directory or link's target appears later | every directory on the way is watched; read from the beginning |
//! | last line half written | held for a second, then handed out as not whole |
//! | unreadable | reported, tried again after 1 s, 2 s, ... 60 s, and when its attributes change |
//! | a mount over a directory on the way (inotify does not tell) | paths are looked at again every half minute |
//! | restart | [`Position`]s say where to go on, also if the file was renamed meanwhile |

mod directories;
mod fault;
mod position;
mod reader;

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};
use inotify::{EventMask, WatchDescriptor, WatchMask};

use crate::inotify_queue::Queue;
use crate::reopening::Reopening;
pub(super) use fault::INOTIFY;
use fault::{AGAIN, FAILING_RECHECK};
pub use position::{BadPosition, Position};
pub use reader::Line;
use reader::{Progress, Reader};

use super::sensor::COMPONENT;

/// Read at a time.
const BUFFER: usize = 16 * 1024;
/// How long a file is read on after another took its name.
const OLD_FILE: Duration = Duration::from_secs(60);
/// Files read on at once under one path after others took the name.
const OLD_FILES: usize = 4;
/// How often paths are looked at without an event.
const RECHECK: Duration = Duration::from_secs(30);
/// How much of a file is read when the position in it is lost, from its end.
const CATCH_UP: u64 = 1024 * 1024;
/// Directory entries looked at when searching for a renamed file.
const MAX_ENTRIES: usize = 4096;

/// What [`Tail::next`] hands out.
#[derive(Debug)]
pub enum Item {
    /// A line of one of the files.
    Line(Line),
    /// What the files' user should know. Faults of a file are those of the component `login PATH`, of inotify `login inotify`.
    Note(Health),
    /// A path that was waited for leads to a file that is read now.
    Opened,
}

/// Follows a set of files.
#[derive(Debug)]
pub struct Tail {
    inotify: Queue,
    files: Vec<Followed>,
    directories: Vec<WatchDescriptor>,
    watched: HashMap<WatchDescriptor, usize>,
    buffer: Vec<u8>,
    lines: VecDeque<Line>,
    notes: VecDeque<Health>,
    /// A file was opened under a path that had none.
    opened: bool,
    /// When inotify is opened again after it failed.
    reopening: Reopening,
    recheck: Instant,
}

#[derive(Debug)]
struct Followed {
    path: PathBuf,
    current: Option<Open>,
    old: Vec<(Open, Instant)>,
    /// There may be something to read.
    dirty: bool,
    start: Start,
    /// Why it cannot be read, when to try again, and how long to wait after that.
    trouble: Option<(String, Instant, Duration)>,
    /// It is open and the last reading failed.
    unreadable: bool,
    /// It is open and changes of it are not announced.
    unwatched: bool,
}

#[derive(Debug)]
struct Open {
    reader: Reader,
    watch: Option<WatchDescriptor>,
}

/// Where reading begins.
#[derive(Debug)]
enum Start {
    /// Nothing is known yet: at the end.
    End,
    /// Where an earlier run stopped.
    At(Position),
    /// It was there, but not readable, and so long.
    Seen { identity: (u64, u64), size: u64 },
    /// It was not there: at its beginning.
    Beginning,
}

impl Tail {
    /// Follows `paths`, each from the position given for it, else from its end if it exists now, else from its beginning.
    ///
    /// # Errors
    ///
    /// Fails if inotify is not to be had (limits `fs.inotify.max_user_instances`, or a kernel without it). Files that are missing or
    /// unreadable are no error.
    pub fn new(paths: &[PathBuf], positions: &[Position]) -> io::Result<Self> {
        let mut files: Vec<Followed> = Vec::new();
        for path in paths {
            let path = std::path::absolute(path)?;
            if files.iter().any(|f| f.path == path) {
                continue;
            }
            let start = match positions.iter().find(|p| p.path == path) {
                Some(position) => Start::At(position.clone()),
                None => Start::End,
            };
            files.push(Followed {
                path,
                current: None,
                old: Vec::new(),
                dirty: false,
                start,
                trouble: None,
                unreadable: false,
                unwatched: false,
            });
        }
        let mut tail = Self {
            inotify: Queue::new()?,
            files,
            directories: Vec::new(),
            watched: HashMap::new(),
            buffer: vec![0; BUFFER],
            lines: VecDeque::new(),
            notes: VecDeque::new(),
            opened: false,
            reopening: Reopening::default(),
            recheck: Instant::now(),
        };
        tail.check_paths(Instant::now());
        tail.opened = false;
        Ok(tail)
    }

    /// The next line or note. May be dropped before it is done without losing anything.
    pub async fn next(&mut self) -> Item {
        loop {
            if let Some(item) = self.take() {
                return item;
            }
            let wake = self.wake();
            tokio::select! {
                () = tokio::time::sleep_until(wake.into()) => {}
                outcome = self.inotify.wait() => {
                    if self.waited(outcome) {
                        tokio::time::sleep(FAILING_RECHECK).await;
                    }
                }
            }
            self.read_events();
            let now = Instant::now();
            if self.reopening.is_due(now) {
                self.renew(now);
            }
        }
    }

    /// The next line or note if there is one already. Never waits.
    pub fn take(&mut self) -> Option<Item> {
        loop {
            if let Some(note) = self.notes.pop_front() {
                return Some(Item::Note(note));
            }
            if std::mem::take(&mut self.opened) {
                return Some(Item::Opened);
            }
            if let Some(line) = self.lines.pop_front() {
                return Some(Item::Line(line));
            }
            let now = Instant::now();
            let retry = self.files.iter().any(|f| f.trouble.as_ref().is_some_and(|(_, at, _)| *at <= now));
            if retry || self.recheck <= now {
                self.check_paths(now);
            }
            let had_work = self.read_one(now);
            if !had_work && self.notes.is_empty() && self.lines.is_empty() && !self.opened {
                return None;
            }
        }
    }

    /// Where reading got to, for [`Tail::new`] of a later run. Lines that [`Tail::next`] has not handed out yet do not count as read:
    /// ask when [`Tail::take`] says that there are none.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        let position = |file: &Followed| {
            let reader = &file.current.as_ref()?.reader;
            let (offset, check) = reader.position().ok()?;
            Some(Position { path: file.path.clone(), inode: reader.identity.1, offset, check })
        };
        self.files
            .iter()
            .filter_map(|file| {
                position(file).or_else(|| match &file.start {
                    Start::At(position) => Some(position.clone()),
                    _ => None,
                })
            })
            .collect()
    }

    /// The files that are open now, by configured path.
    pub fn open_files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().filter(|f| f.current.is_some()).map(|f| f.path.as_path())
    }

    /// When something is due without an event.
    fn wake(&self) -> Instant {
        let mut wake = self.recheck;
        for file in &self.files {
            let holds = file.readers().filter_map(|open| open.reader.hold_until());
            let old = file.old.iter().map(|(_, until)| *until);
            let retry = file.trouble.iter().map(|(_, at, _)| *at);
            wake = holds.chain(old).chain(retry).fold(wake, Instant::min);
        }
        wake
    }

    /// Takes what inotify has to say and marks what is to be looked at.
    fn read_events(&mut self) {
        let mut check = false;
        // An event with a name takes at most 272 bytes.
        let mut buffer = [0; 4096];
        for round in 0.. {
            let events = match self.inotify.read(&mut buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.waited(Err(error));
                    break;
                }
            };
            if round == 1024 {
                // Somebody makes events faster than they are read. The rest is not announced again: come back at once.
                self.recheck = Instant::now();
                break;
            }
            for event in events {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    let note =
                        "inotify's queue overflowed: every log file is looked at again, nothing is lost";
                    self.notes.push_back(Health::new(Kind::Changed, COMPONENT, note));
                    check = true;
                    self.files.iter_mut().for_each(|f| f.dirty = true);
                } else if event.mask.contains(EventMask::IGNORED) {
                    // The end of a watch, which says nothing of the file.
                } else if let Some(&file) = self.watched.get(&event.wd) {
                    self.files[file].dirty = true;
                    check |= !event.mask.contains(EventMask::MODIFY);
                } else {
                    check = true;
                }
            }
        }
        if check {
            self.check_paths(Instant::now());
        }
    }

    /// Reads one buffer's worth of the first file that has something; false if none has.
    fn read_one(&mut self, now: Instant) -> bool {
        for index in 0..self.files.len() {
            let file = &mut self.files[index];
            for (open, _) in &mut file.old {
                open.reader.give_up_waiting(now, &mut self.lines);
            }
            if let Some(open) = &mut file.current {
                open.reader.give_up_waiting(now, &mut self.lines);
            }
            if file.dirty {
                self.read_file(index, now);
                return true;
            }
            let mut index_old = 0;
            while index_old < self.files[index].old.len() {
                if self.files[index].old[index_old].1 <= now {
                    let (open, _) = self.files[index].old.remove(index_old);
                    self.forget(open);
                } else {
                    index_old += 1;
                }
            }
        }
        false
    }

    fn read_file(&mut self, index: usize, now: Instant) {
        let file = &mut self.files[index];
        let path = &file.path;
        let mut failed = None;
        // The old ones first: what they hold was written before.
        let readers = file.old.iter_mut().map(|(open, _)| open).chain(&mut file.current);
        for open in readers {
            match open.reader.read(&mut self.buffer, now, &mut self.lines) {
                Ok(Progress::End) => {}
                Ok(Progress::More) => return,
                Ok(Progress::Truncated(before)) => {
                    let message =
                        format!("{} was emptied or rewritten: reading it from its beginning", path.display());
                    let note =
                        Health::new(Kind::Changed, COMPONENT, message).with("bytes_read_before", before);
                    self.notes.push_back(note);
                    return;
                }
                Err(error) => failed = Some(error),
            }
        }
        file.dirty = false;
        match failed {
            Some(error) if !file.unreadable => {
                file.unreadable = true;
                let message =
                    format!("cannot read {} ({error}): trying again at the next change", path.display());
                self.notes.push_back(Health::new(Kind::Degraded, file.component(), message));
            }
            None if file.unreadable => {
                file.unreadable = false;
                self.recovered(index, "can be read again");
            }
            _ => {}
        }
    }

    /// Looks at what every path leads to now.
    fn check_paths(&mut self, now: Instant) {
        self.recheck = now + if self.is_failing() { FAILING_RECHECK } else { RECHECK };
        let mut directories = Vec::new();
        for index in 0..self.files.len() {
            let mut watches = self.inotify.watches();
            let mask = WatchMask::CREATE
                | WatchMask::MOVED_TO
                | WatchMask::MOVED_FROM
                | WatchMask::DELETE
                | WatchMask::ATTRIB
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF
                | WatchMask::ONLYDIR;
            for directory in directories::on_the_way(&self.files[index].path) {
                // What cannot be watched is looked at every half minute.
                if let Ok(watch) = watches.add(&directory, mask) {
                    if !directories.contains(&watch) {
                        directories.push(watch);
                    }
                }
            }
            self.check_path(index, now);
        }
        let mut watches = self.inotify.watches();
        for stale in self.directories.drain(..).filter(|watch| !directories.contains(watch)) {
            // Gone with its directory, if this fails.
            let _ = watches.remove(stale);
        }
        self.directories = directories;
    }

    fn check_path(&mut self, index: usize, now: Instant) {
        let file = &self.files[index];
        let meta = match file.path.metadata() {
            Ok(meta) => meta,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                // A file that is open is read on without its name.
                let file = &mut self.files[index];
                if matches!(file.start, Start::End | Start::Seen { .. }) {
                    file.start = Start::Beginning;
                }
                file.dirty = file.current.is_some();
                return self.no_trouble(index, "is gone: waiting for it to come back");
            }
            Err(error) => return self.trouble(index, error.to_string(), now),
        };
        let identity = (meta.dev(), meta.ino());
        if file.current.as_ref().is_some_and(|open| open.reader.identity == identity) {
            self.files[index].dirty = true;
            self.watch(index);
            return self.no_trouble(index, AGAIN);
        }
        if let Some(at) = file.old.iter().position(|(open, _)| open.reader.identity == identity) {
            // It was moved away and has come back.
            let file = &mut self.files[index];
            let (back, _) = file.old.remove(at);
            if let Some(old) = file.current.replace(back) {
                file.old.push((old, now + OLD_FILE));
            }
            file.dirty = true;
            self.watch(index);
            return self.no_trouble(index, AGAIN);
        }
        let alias = |f: &Followed| f.current.as_ref().is_some_and(|open| open.reader.identity == identity);
        if self.files.iter().any(alias) {
            // Another path leads to the same file: its lines are read once.
            return self.no_trouble(index, "leads to a file that is read under another name");
        }
        if !meta.is_file() {
            return self.trouble(index, "not a regular file".to_owned(), now);
        }
        // Not blocking: between the look and the opening it could become a pipe.
        match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&file.path) {
            Ok(opened) => {
                if let Err(error) = self.open(index, opened, now) {
                    self.trouble(index, error.to_string(), now);
                }
            }
            Err(error) => {
                let file = &mut self.files[index];
                if matches!(file.start, Start::End) {
                    file.start = Start::Seen { identity, size: meta.len() };
                }
                self.trouble(index, error.to_string(), now);
            }
        }
    }

    fn open(&mut self, index: usize, opened: File, now: Instant) -> io::Result<()> {
        let meta = opened.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let identity = (meta.dev(), meta.ino());
        let reader = match &self.files[index].start {
            Start::End => Reader::at_end(opened, meta.len())?,
            Start::Seen { identity: seen, size } if *seen == identity => {
                Reader::at_end(opened, meta.len().min(*size))?
            }
            Start::Beginning | Start::Seen { .. } => Reader::new(opened, 0)?,
            Start::At(position) => {
                let position = position.clone();
                self.resume(index, opened, meta.len(), &position, now)?
            }
        };
        self.files[index].start = Start::Beginning;
        let file = &mut self.files[index];
        file.dirty = true;
        let old = file.current.replace(Open { reader, watch: None });
        self.opened |= old.is_none();
        self.watch(index);
        if let Some(old) = old {
            let file = &mut self.files[index];
            file.old.push((old, now + OLD_FILE));
            if file.old.len() > OLD_FILES {
                let (oldest, _) = file.old.remove(0);
                self.forget(oldest);
            }
        }
        self.no_trouble(index, AGAIN);
        Ok(())
    }

    /// Has the changes of the path's open file announced, unless they are already.
    fn watch(&mut self, index: usize) {
        let file = &mut self.files[index];
        let Some(open) = &mut file.current else { return };
        if open.watch.is_none() {
            // The open file itself, not its name, which may lead elsewhere by now.
            let by_descriptor = format!("/proc/self/fd/{}", open.reader.descriptor());
            let mask = WatchMask::MODIFY | WatchMask::MOVE_SELF | WatchMask::DELETE_SELF;
            let mut watches = self.inotify.watches();
            match watches.add(by_descriptor, mask).or_else(|_| watches.add(&file.path, mask)) {
                Ok(watch) => {
                    self.watched.insert(watch.clone(), index);
                    open.watch = Some(watch);
                }
                Err(error) => {
                    if !file.unwatched {
                        file.unwatched = true;
                        let path = file.path.display();
                        let message =
                            format!("cannot watch {path} ({error}): it is looked at every half minute");
                        self.notes.push_back(Health::new(Kind::Degraded, file.component(), message));
                    }
                    return;
                }
            }
        }
        if file.unwatched {
            file.unwatched = false;
            self.recovered(index, "can be watched again");
        }
    }

    /// Goes on where an earlier run stopped: in this file, or first in the one that had its name then.
    fn resume(
        &mut self,
        index: usize,
        opened: File,
        size: u64,
        position: &Position,
        now: Instant,
    ) -> io::Result<Reader> {
        let fits =
            |file: &File| position::check(file, position.offset).is_ok_and(|check| check == position.check);
        if opened.metadata()?.ino() == position.inode && fits(&opened) {
            return Reader::new(opened, position.offset);
        }
        let file = &mut self.files[index];
        if let Some(renamed) = renamed(&file.path, position.inode).filter(fits) {
            let reader = Reader::new(renamed, position.offset)?;
            file.old.push((Open { reader, watch: None }, now + OLD_FILE));
            return Reader::new(opened, 0);
        }
        let skipped = size.saturating_sub(CATCH_UP);
        let message = format!(
            "{} is not the file that was read before, and that one is not to be found: reading what there is",
            file.path.display()
        );
        self.notes.push_back(Health::new(Kind::Changed, COMPONENT, message).with("bytes_skipped", skipped));
        Reader::new(opened, skipped)
    }

    fn forget(&mut self, open: Open) {
        if let Some(watch) = open.watch {
            self.watched.remove(&watch);
            // Gone with the file, if this fails.
            let _ = self.inotify.watches().remove(watch);
        }
    }
}

impl Followed {
    fn readers(&self) -> impl Iterator<Item = &Open> {
        self.old.iter().map(|(open, _)| open).chain(&self.current)
    }
}

/// The file with that inode beside `path` whose name begins like it: where a rotation put it.
fn renamed(path: &Path, inode: u64) -> Option<File> {
    let path = path.canonicalize().ok()?;
    let name = path.file_name()?.as_encoded_bytes();
    let entries = path.parent()?.read_dir().ok()?;
    let found = entries
        .take(MAX_ENTRIES)
        .flatten()
        .find(|e| e.ino() == inode && e.file_name().as_encoded_bytes().starts_with(name))?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(found.path())
        .ok()?;
    let meta = file.metadata().ok()?;
    (meta.is_file() && meta.ino() == inode).then_some(file)
}

#[cfg(test)]
mod tests;
