//! What the kernel's events say, joined to news of files.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use defender_model::file::FileChange;
use inotify::{EventMask, WatchDescriptor};

use super::{Todo, Watcher};
use crate::file::entry::Entry;
use crate::file::pending::{Left, News};
use crate::file::selection::Place;

/// Rounds of reading before others have a turn.
const ROUNDS: usize = 32;

impl Watcher {
    pub(super) fn read(&mut self, now: Instant) {
        // An event with a name takes at most 272 bytes.
        let mut buffer = [0; 4096];
        self.more = false;
        for _ in 0..ROUNDS {
            let mut heard: Vec<(WatchDescriptor, EventMask, u32, Option<OsString>)> = Vec::new();
            {
                let events = match self.tree.queue.read(&mut buffer) {
                    Ok(events) => events,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(error) => {
                        self.failed = Some(error);
                        return;
                    }
                };
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

    pub(super) fn news(&mut self, path: &Path, news: News, now: Instant) {
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
    pub(super) fn left_for_good(&mut self, left: &Left, now: Instant) {
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
}
