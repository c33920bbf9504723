//! From the kernel's events, and from looks at files, to changes that are reported.
//!
//! Whatever the kernel says, a file is compared with what is known of it before it is reported: so nothing depends on the number of
//! events, a file that was written anew with the same content is no news, and a look at a directory may come to a file before or after
//! its event does.
//!
//! | Module | Holds |
//! |---|---|
//! | `heard` | what the kernel's events say |
//! | `looked` | what looks at directories find |
//! | `held` | what waits for the name of who did it |
//! | here | what is told of it |

mod heard;
mod held;
mod looked;

use std::collections::VecDeque;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use defender_model::file::{FileActivity, FileChange, FileType};
use defender_model::health::{Health, Kind};
use defender_model::text;
use defender_model::time::Timestamp;

use super::baseline::{Files, Known};
use super::bound::{Bound, Counts};
use super::entry::Entry;
use super::pass::Item;
use super::pending::{Moves, News, Pending};
use super::selection::{Place, Selection};
use super::sensor::{Settings, COMPONENT};
use super::tree::Tree;
use crate::balance::Balance;
use crate::budget::Budget;
use crate::Observation;
use held::Held;

/// Files up to this size are read as soon as they change; longer ones in their own time.
const AT_ONCE: u64 = 256 << 10;
/// Files that wait to be read in their own time.
const LATER: usize = 1024;
/// Directories looked at in one turn.
const DIRECTORIES: usize = 16;

/// Parts that are degraded when a bound is reached.
const WATCHES: &str = "watches";
const FILES: &str = "number";

/// A directory that is to be looked at.
#[derive(Debug)]
struct Todo {
    path: PathBuf,
    /// For a pass over everything; else what is found is news.
    pass: bool,
}

pub(super) struct Watcher {
    settings: Settings,
    selection: Selection,
    tree: Tree,
    pending: Pending,
    moves: Moves,
    todo: VecDeque<Todo>,
    /// What the pass in the making will look at.
    items: Vec<Item>,
    passing: bool,
    /// Read files even if they look as they did.
    thorough: bool,
    round: u32,
    pub(super) files: Files,
    /// Files that changed and are longer than what is read at once.
    pub(super) later: Vec<PathBuf>,
    budget: Budget,
    /// Until when reading at once has used what may be read in a second.
    read_until: Instant,
    pub(super) counts: Counts,
    pub(super) out: Vec<Observation>,
    held: Held,
    /// The files differ from what was written last.
    pub(super) dirty: bool,
    /// Events were left in the queue.
    pub(super) more: bool,
    /// Why the queue is of no use any more.
    pub(super) failed: Option<io::Error>,
    /// A pass over everything is wanted.
    pub(super) overflowed: bool,
    /// Bounds that were reached in the last look at everything.
    full: Bound,
    too_many: Bound,
}

/// What came of comparing one file of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    Same,
    Added,
    Changed(FileChange),
}

impl Watcher {
    pub(super) fn new(settings: Settings, files: Files, now: Instant) -> io::Result<Self> {
        Ok(Self {
            selection: Selection::new(&settings.paths, &settings.exclude),
            tree: Tree::new(settings.max_watches)?,
            pending: Pending::default(),
            moves: Moves::default(),
            todo: VecDeque::new(),
            items: Vec::new(),
            passing: false,
            thorough: false,
            round: 0,
            files,
            later: Vec::new(),
            budget: Budget::new(settings.events_per_second, now),
            read_until: now,
            counts: Counts::default(),
            out: Vec::new(),
            held: Held::new(settings.writers.clone()),
            dirty: false,
            more: false,
            failed: None,
            overflowed: false,
            full: Bound::default(),
            too_many: Bound::default(),
            settings,
        })
    }

    /// Reports what a pass found. The caller has seen to it that the bound of a second holds.
    pub(super) fn report(&mut self, change: FileChange, path: &Path) {
        self.counts.seen += 1;
        self.counts.sent += 1;
        let entry = self.files.get(path).map(|known| known.entry.clone());
        let activity = self.activity(change, path, None, entry.as_ref());
        self.held.push(None, activity, Instant::now());
        self.held.release(Instant::now(), &mut self.out);
    }

    /// What became of what was seen.
    pub(super) fn balance(&self) -> Balance {
        let Counts { seen, sent, joined, unchanged, over_bound, .. } = self.counts;
        Balance {
            produced: seen,
            delivered: sent - self.held.len() as u64,
            aggregated: joined,
            unchanged,
            held: (self.pending.len() + self.held.len()) as u64,
            over_bound,
            ..Balance::default()
        }
    }

    /// How many directories are watched.
    pub(super) fn watches(&self) -> usize {
        self.tree.len()
    }

    /// Waits for the kernel.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        self.tree.queue.wait().await
    }

    /// When there is something to do without an event.
    pub(super) fn wake(&self) -> Option<Instant> {
        if self.more || !self.todo.is_empty() {
            return Some(Instant::now());
        }
        self.pending.wake().into_iter().chain(self.moves.wake()).chain(self.held.wake()).min()
    }

    /// Does what there is to do.
    pub(super) fn turn(&mut self, now: Instant) {
        self.read(now);
        for _ in 0..DIRECTORIES {
            let Some(todo) = self.todo.pop_front() else { break };
            self.look_into(&todo, now);
        }
        while let Some(left) = self.moves.gone(now) {
            self.left_for_good(&left, now);
        }
        while let Some((path, news)) = self.pending.due(now) {
            self.tell(&path, &news, now);
        }
        self.held.release(now, &mut self.out);
    }

    /// Lets out what waits for the name of who did it: nothing more will come.
    pub(super) fn let_go(&mut self) {
        self.held.let_go(&mut self.out);
    }

    /// The end of a queue that failed: what is pending is found, and told, by a look at every file.
    pub(super) fn give_up(&mut self) {
        self.let_go();
        self.counts.joined += self.pending.len() as u64;
    }

    /// Tells what became of a file.
    fn tell(&mut self, path: &Path, news: &News, now: Instant) {
        let before = self.files.get(path).map(|known| &known.entry);
        let quick = !news.written && !news.created && news.renamed.is_none();
        let budget = self.read_until <= now + Duration::from_secs(1);
        let limit =
            if quick && before.is_some() || !budget { 0 } else { AT_ONCE.min(self.settings.hash_limit) };
        let mut read = 0;
        let Ok(mut entry) = Entry::look(path, limit, |length| read += length as u64) else {
            if news.created {
                self.deliver(FileChange::Created, path, None, None, now);
            } else {
                // Its end makes an event of its own.
                self.counts.joined += 1;
            }
            return;
        };
        let spent = Duration::from_secs_f64(read as f64 / self.settings.hash_rate.max(1) as f64);
        self.read_until = self.read_until.max(now) + spent;
        if let (true, Some(before)) = (quick, before) {
            if before.file_type == entry.file_type && before.size == entry.size {
                entry.sha256 = before.sha256;
            }
        }
        let old = news.renamed.clone().flatten();
        let from_inside = old.as_ref().is_some_and(|old| self.selection.place(old).is_reported());
        let change = match before {
            _ if from_inside => Some(FileChange::Renamed),
            None if news.renamed.is_some() => Some(FileChange::Renamed),
            None if news.created => Some(FileChange::Created),
            None if news.written => Some(FileChange::Modified),
            None => Some(FileChange::Attributes),
            Some(before) => match entry.change_since(before) {
                Some(FileChange::Modified) if quick && entry.sha256.is_none() => {
                    entry.attributes_differ(before).then_some(FileChange::Attributes)
                }
                Some(_) if news.renamed.is_some() => Some(FileChange::Renamed),
                change => change,
            },
        };
        let unread = entry.sha256.is_none()
            && entry.file_type == FileType::Regular
            && entry.size <= self.settings.hash_limit
            && self.settings.hash_limit > 0;
        if unread && self.later.len() < LATER {
            self.later.push(path.to_path_buf());
        }
        match change {
            Some(change) => self.deliver(change, path, old.as_deref(), Some(&entry), now),
            None => self.counts.unchanged += 1,
        }
        if entry.file_type == FileType::Link && self.selection.place(path) == Place::Selected {
            // It may lead elsewhere now.
            self.selection = Selection::new(&self.settings.paths, &self.settings.exclude);
            self.overflowed = true;
        }
        self.record(path, entry, true);
    }

    /// Takes over what is known of a file; false if there is no room.
    fn record(&mut self, path: &Path, entry: Entry, live: bool) -> bool {
        if let Some(known) = self.files.get_mut(path) {
            self.dirty |= known.entry != entry;
            known.entry = entry;
            known.live |= live;
            return true;
        }
        if self.files.len() >= self.settings.max_files {
            self.unrecorded();
            return false;
        }
        self.dirty = true;
        self.files.insert(path.into(), Known { entry, round: self.round, live });
        true
    }

    fn unrecorded(&mut self) {
        self.counts.unrecorded += 1;
        if self.too_many.reach() {
            let words = format!(
                "more than {} files are selected: of some, changes while the agent is down are not seen; raise files.max_files \
                 or narrow files.paths",
                self.settings.max_files
            );
            let component = format!("{COMPONENT}.{FILES}");
            self.out.push(Observation::Health(Health::new(Kind::Degraded, component, words)));
        }
    }

    /// Sends an event, unless it goes over the bound of a second.
    fn deliver(
        &mut self,
        change: FileChange,
        path: &Path,
        old: Option<&Path>,
        entry: Option<&Entry>,
        now: Instant,
    ) {
        if self.budget.admits(now) {
            self.counts.sent += 1;
            let activity = self.activity(change, path, old, entry);
            self.held.push(Some(path), activity, now);
        } else {
            self.counts.over_bound += 1;
        }
    }

    fn activity(
        &self,
        change: FileChange,
        path: &Path,
        old: Option<&Path>,
        entry: Option<&Entry>,
    ) -> (Timestamp, FileActivity) {
        let name = |path: &Path| text::from_bytes(self.selection.name(path).as_os_str().as_bytes());
        let gone = change == FileChange::Deleted;
        let activity = FileActivity {
            change,
            path: name(path),
            old_path: old.map(name),
            file_type: entry.map(|entry| entry.file_type).unwrap_or_default(),
            mode: entry.filter(|_| !gone).map(|entry| entry.mode),
            owner: entry.filter(|_| !gone).map(|entry| entry.owner),
            sha256: entry.filter(|entry| entry.file_type == FileType::Regular).and_then(|entry| entry.sha256),
            process: None,
        };
        ((self.settings.clock)(), activity)
    }
}
