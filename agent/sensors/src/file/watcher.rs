//! From the kernel's events, and from looks at files, to changes that are reported.
//!
//! Whatever the kernel says, a file is compared with what is known of it before it is reported: so nothing depends on the number of
//! events, a file that was written anew with the same content is no news, and a look at a directory may come to a file before or after
//! its event does.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use defender_model::event::Event;
use defender_model::file::{FileActivity, FileChange, FileType};
use defender_model::health::{Health, Kind};
use defender_model::text;
use inotify::{EventMask, WatchDescriptor};

use super::baseline::{Files, Known};
use super::bound::{Bound, Counts};
use super::entry::Entry;
use super::pass::Item;
use super::pending::{Left, Moves, News, Pending};
use super::selection::{Place, Selection};
use super::sensor::{Settings, COMPONENT};
use super::tree::{Tree, Watching};
use crate::budget::Budget;
use crate::Observation;

/// Files up to this size are read as soon as they change; longer ones in their own time.
const AT_ONCE: u64 = 256 << 10;
/// Files that wait to be read in their own time.
const LATER: usize = 1024;
/// Rounds of reading before others have a turn.
const ROUNDS: usize = 32;
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
    /// The files differ from what was written last.
    pub(super) dirty: bool,
    /// Events were left in the queue.
    pub(super) more: bool,
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
            dirty: false,
            more: false,
            overflowed: false,
            full: Bound::default(),
            too_many: Bound::default(),
            settings,
        })
    }

    /// Begins a look at everything; `thorough` also reads what looks as it did.
    pub(super) fn begin(&mut self, thorough: bool) {
        self.round = self.round.wrapping_add(1);
        self.thorough = thorough;
        self.items.clear();
        self.passing = true;
        // What events say from here on is newer than what the pass finds.
        self.files.values_mut().for_each(|known| known.live = false);
        self.todo.retain(|todo| !todo.pass);
        self.todo.push_back(Todo { path: "/".into(), pass: true });
        self.overflowed = false;
        self.full.reached = false;
        self.too_many.reached = false;
    }

    /// What a look at everything has found, once it is through; after that, what is gone can be told.
    pub(super) fn found(&mut self) -> Option<Vec<Item>> {
        if !self.passing || self.todo.iter().any(|todo| todo.pass) {
            return None;
        }
        self.passing = false;
        for (over, part) in [(self.full.is_over(), WATCHES), (self.too_many.is_over(), FILES)] {
            if over {
                let words = "the bound is not reached any more";
                let note = Health::new(Kind::Recovered, format!("{COMPONENT}.{part}"), words);
                self.out.push(Observation::Health(note));
            }
        }
        Some(std::mem::take(&mut self.items))
    }

    /// Files that were not met in the last look and are indeed not there.
    pub(super) fn vanished(&mut self) -> Vec<PathBuf> {
        let unmet = self.files.iter().filter(|(_, known)| known.round != self.round);
        let gone: Vec<PathBuf> = unmet.map(|(path, _)| path.to_path_buf()).collect();
        let mut reported = Vec::new();
        for path in gone {
            let outside = !self.selection.place(&path).is_reported();
            let missing = path.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            // What cannot be looked at is not gone.
            if outside || missing {
                self.files.remove(&*path);
                self.dirty = true;
            }
            if missing && !outside {
                reported.push(path);
            }
        }
        reported
    }

    /// Compares what a pass found of a file with what is known, and takes it over.
    pub(super) fn compare(&mut self, path: &Path, entry: Entry) -> Compared {
        let Some(known) = self.files.get_mut(path) else {
            return if self.record(path, entry, false) { Compared::Added } else { Compared::Same };
        };
        if known.live && entry.changed < known.entry.changed {
            return Compared::Same;
        }
        let change = entry.change_since(&known.entry);
        if known.entry != entry {
            known.entry = entry;
            self.dirty = true;
        }
        change.map_or(Compared::Same, Compared::Changed)
    }

    /// Reports what a pass found. The caller has seen to it that the bound of a second holds.
    pub(super) fn report(&mut self, change: FileChange, path: &Path) {
        self.counts.seen += 1;
        self.counts.sent += 1;
        let entry = self.files.get(path).map(|known| known.entry.clone());
        self.send(change, path, None, entry.as_ref());
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
        self.pending.wake().into_iter().chain(self.moves.wake()).min()
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
    }

    fn read(&mut self, now: Instant) {
        // An event with a name takes at most 272 bytes.
        let mut buffer = [0; 4096];
        self.more = false;
        for _ in 0..ROUNDS {
            let mut heard: Vec<(WatchDescriptor, EventMask, u32, Option<OsString>)> = Vec::new();
            {
                let Ok(events) = self.tree.queue.read(&mut buffer) else { return };
                heard.extend(events.map(|e| (e.wd, e.mask, e.cookie, e.name.map(ToOwned::to_owned))));
            }
            for (watch, mask, cookie, name) in heard {
                self.hear(&watch, mask, cookie, name, now);
            }
        }
        self.more = true;
    }

    fn hear(
        &mut self,
        watch: &WatchDescriptor,
        mask: EventMask,
        cookie: u32,
        name: Option<OsString>,
        now: Instant,
    ) {
        if mask.contains(EventMask::Q_OVERFLOW) {
            self.counts.overflows += 1;
            self.overflowed = true;
            return;
        }
        let Some(directory) = self.tree.path(watch) else { return };
        let Some(name) = name else {
            // Of the directory itself. It may have been replaced, or uncovered by the end of a mount.
            let path = directory.to_path_buf();
            if mask.contains(EventMask::IGNORED) {
                self.tree.ended(watch);
            }
            if mask.intersects(EventMask::IGNORED | EventMask::MOVE_SELF | EventMask::UNMOUNT) {
                self.todo.push_back(Todo { path, pass: false });
            }
            return;
        };
        let path = directory.join(name);
        let is_directory = mask.contains(EventMask::ISDIR);
        let place = self.selection.place(&path);
        if place.is_reported() {
            self.counts.seen += 1;
        }
        if mask.contains(EventMask::MOVED_FROM) {
            if place.is_reported() {
                // It is counted where it is told: with its new path, or as gone.
                self.counts.seen -= 1;
            }
            self.moves.left(cookie, path, is_directory, now);
        } else if mask.contains(EventMask::MOVED_TO) {
            self.arrived(cookie, &path, is_directory, now);
        } else if mask.contains(EventMask::DELETE) {
            if is_directory && place != Place::Outside {
                self.tree.forget(&path);
            }
            if place.is_reported() {
                if let Some(news) = self.pending.take(&path) {
                    if news.created {
                        self.deliver(FileChange::Created, &path, None, None, now);
                    } else {
                        self.counts.joined += 1;
                    }
                }
                // It is counted where it is told.
                self.counts.seen -= 1;
                self.delete(&path, now);
            }
        } else {
            let created = mask.contains(EventMask::CREATE);
            if created && place != Place::Outside && is_directory {
                self.todo.push_back(Todo { path: path.clone(), pass: false });
            }
            if place.is_reported() {
                let closed = mask.contains(EventMask::CLOSE_WRITE);
                let written = closed || mask.contains(EventMask::MODIFY);
                self.news(&path, News { created, written, renamed: None }, now);
                if closed || (created && is_directory) {
                    if let Some(news) = self.pending.take(&path) {
                        self.tell(&path, &news, now);
                    }
                }
            }
        }
    }

    fn news(&mut self, path: &Path, news: News, now: Instant) {
        if self.pending.add(path, news, now) {
            self.counts.joined += 1;
        }
        while let Some((path, news)) = self.pending.due(now) {
            self.tell(&path, &news, now);
        }
    }

    /// Something has this path by a rename.
    fn arrived(&mut self, cookie: u32, path: &Path, is_directory: bool, now: Instant) {
        let place = self.selection.place(path);
        let left = self.moves.arrived(cookie);
        let known = left.as_ref().is_some_and(|left| self.selection.place(&left.path) != Place::Outside);
        if is_directory {
            match &left {
                Some(left) if known && place != Place::Outside => self.rename_below(&left.path, path, now),
                Some(left) if known => self.tree.forget(&left.path),
                _ => {}
            }
            if place != Place::Outside {
                self.todo.push_back(Todo { path: path.to_path_buf(), pass: false });
            }
        }
        let from = left.map(|left| left.path);
        if let Some(from) = &from {
            if self.pending.take(from).is_some() {
                self.counts.joined += 1;
            }
            if place.is_reported() {
                self.dirty |= self.files.remove(&**from).is_some();
            } else {
                self.delete(from, now);
            }
        }
        if place.is_reported() {
            self.news(path, News { renamed: Some(from), ..News::default() }, now);
            if let Some(news) = self.pending.take(path) {
                self.tell(path, &news, now);
            }
        }
    }

    /// Something left the watched directories.
    fn left_for_good(&mut self, left: &Left, now: Instant) {
        if left.directory {
            self.tree.forget(&left.path);
        }
        if self.pending.take(&left.path).is_some() {
            self.counts.joined += 1;
        }
        self.delete(&left.path, now);
    }

    /// A path is gone, and everything below it.
    fn delete(&mut self, path: &Path, now: Instant) {
        for path in self.below(path) {
            self.deleted(&path, now);
        }
        if self.selection.place(path).is_reported() {
            self.deleted(path, now);
        }
    }

    fn deleted(&mut self, path: &Path, now: Instant) {
        let before = self.files.remove(path).map(|known| Entry { sha256: None, ..known.entry });
        self.dirty |= before.is_some();
        self.counts.seen += 1;
        self.deliver(FileChange::Deleted, path, None, before.as_ref(), now);
    }

    /// A directory has a new path: so has all below it.
    fn rename_below(&mut self, from: &Path, to: &Path, now: Instant) {
        self.tree.renamed(from, to);
        for old in self.below(from) {
            let Some(known) = self.files.remove(&*old) else { continue };
            let Ok(rest) = old.strip_prefix(from) else { continue };
            let new = to.join(rest);
            self.dirty = true;
            self.counts.seen += 1;
            if self.selection.place(&new).is_reported() {
                self.deliver(FileChange::Renamed, &new, Some(&old), Some(&known.entry), now);
                self.files.insert(new.into(), known);
            } else {
                self.deliver(FileChange::Deleted, &old, None, None, now);
            }
        }
    }

    fn below(&self, directory: &Path) -> Vec<PathBuf> {
        let begins =
            self.files.range::<Path, _>((std::ops::Bound::Excluded(directory), std::ops::Bound::Unbounded));
        begins
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(directory))
            .map(|p| p.to_path_buf())
            .collect()
    }

    /// Watches a directory and looks at what is in it: in this order, so that nothing can appear in between.
    fn look_into(&mut self, todo: &Todo, now: Instant) {
        let directory = &todo.path;
        let place = self.selection.place(directory);
        let Ok(meta) = directory.symlink_metadata() else { return };
        if place == Place::Outside || !meta.is_dir() {
            return;
        }
        match self.tree.watch(directory) {
            Watching::Yes => {}
            // Its files are told by the other name.
            Watching::Elsewhere => return,
            Watching::Full(why) => {
                if self.full.reach() {
                    let words = format!(
                        "{why}: changes in {} and other directories are seen only when they are looked at, hourly",
                        directory.display()
                    );
                    let component = format!("{COMPONENT}.{WATCHES}");
                    self.out.push(Observation::Health(Health::new(Kind::Degraded, component, words)));
                }
            }
            Watching::No(error) => {
                tracing::debug!(%error, directory = %directory.display(), "not watched");
            }
        }
        let listed = if place == Place::OnTheWay { self.selection.names_in(directory) } else { None };
        let paths: Vec<PathBuf> = match listed {
            Some(names) => names.into_iter().map(|name| directory.join(name)).collect(),
            None => {
                let Ok(entries) = directory.read_dir() else { return };
                let room = self.settings.max_files.saturating_mul(2);
                entries.take(room).flatten().map(|entry| entry.path()).collect()
            }
        };
        for path in paths {
            let place = self.selection.place(&path);
            if place == Place::Outside {
                continue;
            }
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                self.todo.push_back(Todo { path: path.clone(), pass: todo.pass });
            }
            if place.is_reported() {
                self.meet(path, todo.pass, now);
            }
        }
    }

    /// A look at a directory met a file.
    fn meet(&mut self, path: PathBuf, pass: bool, now: Instant) {
        let thorough = self.thorough;
        if pass {
            let known = self.files.get_mut(&*path).map(|known| {
                known.round = self.round;
                (known.entry.size, known.entry.changed)
            });
            if known.is_none() && self.items.len() >= self.settings.max_files {
                self.unrecorded();
                return;
            }
            let known = known.filter(|_| !thorough);
            self.items.push(Item { path, known });
        } else if !self.files.contains_key(&*path) {
            self.counts.seen += 1;
            self.news(&path, News { created: true, ..News::default() }, now);
        }
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
            self.send(change, path, old, entry);
        } else {
            self.counts.over_bound += 1;
        }
    }

    fn send(&mut self, change: FileChange, path: &Path, old: Option<&Path>, entry: Option<&Entry>) {
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
        self.out.push(Observation::Event(Event::new((self.settings.clock)(), activity.into())));
    }
}
