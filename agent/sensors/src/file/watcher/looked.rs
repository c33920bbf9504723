//! What looks at directories find: of new ones at once, and of everything in a pass.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use defender_model::health::{Health, Kind};

use super::{Compared, Todo, Watcher, COMPONENT, FILES, WATCHES};
use crate::file::entry::Entry;
use crate::file::pass::Item;
use crate::file::pending::News;
use crate::file::selection::Place;
use crate::file::tree::Watching;
use crate::Observation;

impl Watcher {
    /// Begins a look at everything; `thorough` also reads what looks as it did.
    pub(in crate::file) fn begin(&mut self, thorough: bool) {
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
    pub(in crate::file) fn found(&mut self) -> Option<Vec<Item>> {
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
    pub(in crate::file) fn vanished(&mut self) -> Vec<PathBuf> {
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
    pub(in crate::file) fn compare(&mut self, path: &Path, entry: Entry) -> Compared {
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

    /// Watches a directory and looks at what is in it: in this order, so that nothing can appear in between.
    pub(super) fn look_into(&mut self, todo: &Todo, now: Instant) {
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
}
