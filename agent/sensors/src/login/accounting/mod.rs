//! utmp, wtmp and btmp: who is logged in, who was, and who was turned away, as C libraries keep it in files of records.
//!
//! | File | What it is | Read |
//! |---|---|---|
//! | utmp | a table, overwritten in place | whole, and compared with what it was |
//! | wtmp | a list that grows: logins and their ends | what is new |
//! | btmp | the same of failures | what is new |
//!
//! A file is known by its name's beginning: `utmp`, `btmp`, anything else is a wtmp. inotify says when to look. What was written while
//! no agent ran is not read: the files know who is logged in now, and that is remembered for the length of those sessions.
//!
//! | Module | Holds |
//! |---|---|
//! | [`record`] | one record's bytes |

pub mod record;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::health::Health;
use inotify::WatchMask;
use record::{kind, Layout, Record};

use super::report::{Report, Teller};
use crate::inotify_queue::Queue;
use crate::reopening::Reopening;

/// Read at a time: a whole number of records in both layouts.
const CHUNK: usize = 9600;
/// Most of a utmp that is read, in bytes: some thousand terminals.
const TABLE: usize = 100 * CHUNK;
/// Records after which others get their turn.
const TURN: usize = 256;
/// How often files are looked at without an event, for directories that appear and mounts.
const RECHECK: Duration = Duration::from_secs(30);

/// Follows accounting files.
#[derive(Debug)]
pub struct Accounting {
    inotify: Queue,
    files: Vec<Followed>,
    recheck: Instant,
    /// There is more to read.
    more: bool,
    /// When inotify is opened again after it failed.
    reopening: Reopening,
    /// What is to be said of that.
    note: Option<Health>,
}

/// What is said of the way here is of this component.
const COMPONENT: &str = "login accounting";
const WHAT: &str = "changes of utmp, wtmp and btmp by inotify";

#[derive(Debug)]
struct Followed {
    path: PathBuf,
    teller: Teller,
    open: Option<Open>,
    /// It has been looked for before: what appears now is new.
    looked: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    offset: u64,
    layout: Option<Layout>,
    /// utmp: what each place of the table held.
    table: Vec<Option<Record>>,
    /// utmp: nothing has been read yet; what is there is no news.
    fresh: bool,
}

impl Accounting {
    /// Follows `paths` from their ends; those that are missing are waited for.
    ///
    /// # Errors
    /// When inotify is not to be had.
    pub fn new(paths: &[PathBuf]) -> io::Result<Self> {
        let files = paths
            .iter()
            .map(|path| Followed { path: path.clone(), teller: teller(path), open: None, looked: false })
            .collect();
        Ok(Self {
            inotify: Queue::new()?,
            files,
            recheck: Instant::now(),
            more: true,
            reopening: Reopening::default(),
            note: None,
        })
    }

    /// What is to be said of the files, once.
    pub fn note(&mut self) -> Option<Health> {
        self.note.take()
    }

    /// Files that are open.
    pub fn open_files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().filter(|file| file.open.is_some()).map(|file| file.path.as_path())
    }

    /// Waits until there may be something to read or to say. May be dropped before it is done.
    pub async fn changed(&mut self) {
        while !self.more && self.note.is_none() && Instant::now() < self.recheck {
            if let Some(again) = self.reopening.wake() {
                // Files are looked at by the clock until then.
                tokio::time::sleep_until(again.min(self.recheck).into()).await;
                self.renew();
                continue;
            }
            let waited = tokio::select! {
                result = self.inotify.wait() => result,
                () = tokio::time::sleep_until(self.recheck.into()) => Ok(()),
            };
            if let Err(error) = waited.and_then(|()| self.hear()) {
                self.note = self.reopening.broke(Instant::now(), COMPONENT, WHAT, &error);
            }
        }
    }

    fn hear(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.inotify.read(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        // An event of a file has no name, one of a directory that of the new file.
                        self.more |= event.name.is_none_or(|name| {
                            self.files.iter().any(|file| file.path.file_name() == Some(name))
                        });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens inotify again after it failed. Directories are watched anew by the next reading.
    fn renew(&mut self) {
        let now = Instant::now();
        if !self.reopening.is_due(now) {
            return;
        }
        match Queue::new() {
            Ok(queue) => self.inotify = queue,
            Err(_) => {
                self.reopening.failed(now);
                return;
            }
        }
        for file in self.files.iter().filter(|file| file.open.is_some()) {
            let _ = self.inotify.watches().add(&file.path, WatchMask::MODIFY);
        }
        self.note = self.reopening.mended(now, COMPONENT, WHAT);
        self.recheck = now;
    }

    /// Appends what is new. Reads a bounded part; [`Accounting::changed`] is ready at once when there is more.
    pub fn read(&mut self, reports: &mut Vec<Report>) {
        self.more = false;
        self.recheck = Instant::now() + RECHECK;
        for index in 0..self.files.len() {
            self.look(index, reports);
            let file = &mut self.files[index];
            if let Some(open) = &mut file.open {
                // An error is one of the medium; the next change tries again.
                self.more |= open.read(file.teller, reports).unwrap_or(false);
            }
        }
    }

    /// Opens what the path leads to now, and has its changes announced.
    fn look(&mut self, index: usize, reports: &mut Vec<Report>) {
        let file = &mut self.files[index];
        let mut watches = self.inotify.watches();
        if let Some(directory) = file.path.parent() {
            // What cannot be watched is looked at every half minute.
            let _ = watches.add(directory, WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR);
        }
        let looked = std::mem::replace(&mut file.looked, true);
        let Ok(meta) = file.path.metadata() else { return };
        let identity = (meta.dev(), meta.ino());
        if !meta.is_file()
            || self.files.iter().any(|f| f.open.as_ref().is_some_and(|o| o.identity == identity))
        {
            return;
        }
        let file = &mut self.files[index];
        let options =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&file.path);
        let Ok(opened) = options else { return };
        let _ = watches.add(&file.path, WatchMask::MODIFY);
        if let Some(old) = &mut file.open {
            // What was written to the old one before it was rotated away.
            while file.teller != Teller::Utmp && old.read(file.teller, reports).unwrap_or(false) {}
        }
        let offset = if looked { 0 } else { meta.len() };
        file.open =
            Some(Open { file: opened, identity, offset, layout: None, table: Vec::new(), fresh: !looked });
    }
}

fn teller(path: &Path) -> Teller {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    match name {
        _ if name.starts_with(b"utmp") => Teller::Utmp,
        _ if name.starts_with(b"btmp") => Teller::Btmp,
        _ => Teller::Wtmp,
    }
}

impl Open {
    /// Reads what is new; true when there may be more.
    fn read(&mut self, teller: Teller, reports: &mut Vec<Report>) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        let mut chunk = vec![0; CHUNK];
        if self.layout.is_none() || length < self.offset {
            let read = self.file.read_at(&mut chunk, 0)?;
            self.layout = Layout::of(&chunk[..read], length);
        }
        let Some(layout) = self.layout else { return Ok(false) };
        if teller == Teller::Utmp {
            self.compare(layout, reports)?;
            return Ok(false);
        }
        if length < self.offset {
            // Emptied and written anew.
            self.offset = 0;
        }
        // A start in the middle of a record goes on with the next one.
        let size = layout.size() as u64;
        self.offset = self.offset.div_ceil(size) * size;
        let mut records = 0;
        while records < TURN {
            let read = self.file.read_at(&mut chunk, self.offset)?;
            let whole = read / layout.size() * layout.size();
            if whole == 0 {
                return Ok(false);
            }
            self.offset += whole as u64;
            records += whole / layout.size();
            let parsed =
                chunk[..whole].chunks(layout.size()).filter_map(|bytes| Record::parse(layout, bytes));
            reports.extend(parsed.filter_map(|record| listed(teller, &record)));
        }
        Ok(true)
    }

    /// Reads the whole table and tells how it differs from what it was.
    fn compare(&mut self, layout: Layout, reports: &mut Vec<Report>) -> io::Result<()> {
        let fresh = std::mem::take(&mut self.fresh);
        let mut chunk = vec![0; CHUNK];
        let mut index = 0;
        for round in 0..TABLE / CHUNK {
            let read = self.file.read_at(&mut chunk, (round * CHUNK) as u64)?;
            for bytes in chunk[..read].chunks_exact(layout.size()) {
                if index == self.table.len() {
                    self.table.push(None);
                }
                let record = Record::parse(layout, bytes);
                let before = std::mem::replace(&mut self.table[index], record.clone());
                index += 1;
                if before == record {
                    continue;
                }
                let user = |record: &Option<Record>| record.as_ref().is_some_and(|r| r.kind == kind::USER);
                if user(&before) {
                    reports.extend(before.map(|before| ended(Teller::Utmp, &before)));
                }
                if let Some(record) = record.filter(|_| user(&self.table[index - 1])) {
                    let mut began = began(Teller::Utmp, &record);
                    began.since = fresh.then_some(record.seconds);
                    reports.push(began);
                }
            }
            if read < CHUNK {
                break;
            }
        }
        self.table.truncate(index);
        Ok(())
    }
}

/// What a record says that was appended to a list.
fn listed(teller: Teller, record: &Record) -> Option<Report> {
    match record.kind {
        _ if teller == Teller::Btmp => Some(report(teller, record, Activity::Logon, Outcome::Failure)),
        kind::USER => Some(began(teller, record)),
        kind::INIT | kind::LOGIN | kind::DEAD => Some(ended(teller, record)),
        _ => None,
    }
}

fn began(teller: Teller, record: &Record) -> Report {
    report(teller, record, Activity::Logon, Outcome::Success)
}

/// That nobody is logged in at a terminal (any more): the record names neither user nor address then.
fn ended(teller: Teller, record: &Record) -> Report {
    let bare = Record { user: None, source: None, ..record.clone() };
    report(teller, &bare, Activity::Logoff, Outcome::Success)
}

fn report(teller: Teller, record: &Record, activity: Activity, outcome: Outcome) -> Report {
    let name = match teller {
        Teller::Btmp => "btmp",
        Teller::Utmp => "utmp",
        _ => "wtmp",
    };
    let login = Authentication {
        activity,
        outcome,
        user: record.user.clone(),
        user_known: (outcome == Outcome::Success).then_some(true),
        service: Teller::ACCOUNTING.to_owned(),
        method: None,
        source: record.source,
        source_port: None,
        tty: record.line.clone(),
        pid: record.pid,
        count: 1,
        duration_ms: None,
        message: format!("record of type {} in {name}", record.kind),
    };
    Report::new(teller, login)
}

#[cfg(test)]
mod tests;
