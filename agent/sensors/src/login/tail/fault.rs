//! What goes wrong with files and inotify, and when it is over: each is told once when it begins and once when it ends.

use std::io;
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};

use super::{Followed, Tail};
use crate::inotify_queue::Queue;
use crate::login::sensor::COMPONENT;

/// Longest time between two tries of an unreadable file.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// How often paths are looked at while inotify fails.
pub(super) const FAILING_RECHECK: Duration = Duration::from_secs(1);
/// The component that faults of inotify are reported of.
pub(in crate::login) const INOTIFY: &str = "login inotify";
/// How the trouble with a path ends.
pub(super) const AGAIN: &str = "can be read again";

impl Tail {
    /// Takes note of how the waiting for inotify, or reading from it, ended; true while it fails.
    pub(super) fn waited(&mut self, outcome: io::Result<()>) -> bool {
        if let Err(error) = outcome {
            let now = Instant::now();
            self.recheck = self.recheck.min(now + FAILING_RECHECK);
            // One failure makes all tries fail until inotify is opened again.
            if !self.is_failing() && self.reopening.failed(now) {
                let message = format!(
                    "inotify failed ({error}): log files are looked at every second until it can be opened again"
                );
                self.notes.push_back(Health::new(Kind::Degraded, INOTIFY, message));
            }
        }
        self.is_failing()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.reopening.wake().is_some()
    }

    /// Opens inotify again after it failed, and looks at everything.
    pub(super) fn renew(&mut self, now: Instant) {
        match Queue::new() {
            Ok(queue) => self.inotify = queue,
            Err(_) => {
                self.reopening.failed(now);
                return;
            }
        }
        self.directories.clear();
        self.watched.clear();
        for file in &mut self.files {
            file.dirty = true;
            for open in file.current.iter_mut().chain(file.old.iter_mut().map(|(open, _)| open)) {
                open.watch = None;
            }
        }
        self.notes.extend(self.reopening.mended(now, INOTIFY, "inotify"));
        self.check_paths(now);
    }

    /// A path cannot be read: tells it once, and when to try again.
    pub(super) fn trouble(&mut self, index: usize, why: String, now: Instant) {
        let file = &mut self.files[index];
        let wait = match &file.trouble {
            // Still waiting for the next try.
            Some((_, at, wait)) if *at > now => return file.trouble = Some((why, *at, *wait)),
            Some((_, _, wait)) => (*wait * 2).min(MAX_BACKOFF),
            None => {
                let message = format!("cannot read {} ({why}): trying again", file.path.display());
                self.notes.push_back(Health::new(Kind::Degraded, file.component(), message));
                Duration::from_secs(1)
            }
        };
        file.trouble = Some((why, now + wait, wait));
    }

    /// What kept a path from being read is over.
    pub(super) fn no_trouble(&mut self, index: usize, how: &str) {
        if let Some((why, ..)) = self.files[index].trouble.take() {
            self.recovered(index, &format!("{how} (was: {why})"));
        }
    }

    /// One fault of a file is over. Its component has recovered when that was the last one.
    pub(super) fn recovered(&mut self, index: usize, how: &str) {
        let file = &self.files[index];
        if file.trouble.is_none() && !file.unreadable && !file.unwatched {
            let message = format!("{} {how}", file.path.display());
            self.notes.push_back(Health::new(Kind::Recovered, file.component(), message));
        }
    }
}

impl Followed {
    /// What its faults are reported of.
    pub(super) fn component(&self) -> String {
        format!("{COMPONENT} {}", self.path.display())
    }
}
