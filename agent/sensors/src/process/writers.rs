//! Who wrote: from system calls that audit tells of to changes that inotify tells of.
//!
//! audit says which process opened, renamed or removed something under a path; inotify says what became of which file. Neither knows
//! the other's words, and either may come first. A change belongs to the program whose calls came since the last change of the place. Where
//! two programs touched it, or one opened something there long ago and did not write to it yet, nobody can say which of them it was: an
//! honest "unknown" is better than the wrong name.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use defender_model::file::FileChange;
use defender_model::process::Actor;

use super::audit::arch::Effect;

/// Calls remembered.
const CALLS: usize = 256;
/// How far a call and the change it made may be apart.
const WINDOW: Duration = Duration::from_secs(1);

/// The same for a file that is looked at now and then.
const LATELY: Duration = Duration::from_secs(4);

#[derive(Debug)]
struct Call {
    watch: usize,
    effect: Effect,
    at: Instant,
    by: Actor,
    /// A change was laid to it.
    used: bool,
}

#[derive(Debug, Default)]
struct Log {
    /// By the number of their rule.
    paths: Vec<PathBuf>,
    calls: VecDeque<Call>,
    live: bool,
}

/// What is known of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    /// It was this process.
    Process(Actor),
    /// Nothing was heard of yet, or nothing new: worth asking again a little later.
    NotYet(Option<Actor>),
    /// More than one program was at it, or nobody tells.
    Unknown,
}

/// The calls that were heard of lately, shared by who hears and who asks.
#[derive(Debug, Clone, Default)]
pub struct Writers(Arc<Mutex<Log>>);

impl Writers {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the rule about a path; `None` when there are `most` already.
    pub(crate) fn number(&self, path: &Path, most: usize) -> Option<usize> {
        let mut log = self.log();
        if let Some(known) = log.paths.iter().position(|known| known == path) {
            return Some(known);
        }
        (log.paths.len() < most).then(|| {
            log.paths.push(path.to_path_buf());
            log.paths.len() - 1
        })
    }

    /// Whether calls are heard of at all.
    pub(crate) fn set_live(&self, live: bool) {
        self.log().live = live;
    }

    /// A process touched what the rule with this number is about.
    pub(crate) fn heard(&self, watch: usize, effect: Effect, by: Actor, at: Instant) {
        let mut log = self.log();
        if log.calls.len() >= CALLS {
            log.calls.pop_front();
        }
        log.calls.push_back(Call { watch, effect, at, by, used: false });
    }

    /// How many rules there are; 0 where nobody tells.
    #[must_use]
    pub fn rules(&self) -> usize {
        let log = self.log();
        if log.live {
            log.paths.len()
        } else {
            0
        }
    }

    /// The one program that touched a file in the last seconds; `None` where there were several, or nobody tells.
    pub(crate) fn lately(&self, path: &Path, now: Instant) -> Option<Actor> {
        let log = self.log();
        let mut latest: Option<&Actor> = None;
        for call in log.calls.iter().filter(|call| {
            now.saturating_duration_since(call.at) <= LATELY
                && log.paths.get(call.watch).is_some_and(|rule| path.starts_with(rule))
        }) {
            if latest.is_some_and(|other| other.executable != call.by.executable) {
                return None;
            }
            latest = Some(&call.by);
        }
        latest.cloned()
    }

    /// It may be told who writes to this file.
    pub(crate) fn concern(&self, path: &Path) -> bool {
        let log = self.log();
        log.live && log.paths.iter().any(|rule| path.starts_with(rule))
    }

    /// Who made a change that is told now. `runs` says whether a process is still there.
    #[must_use]
    pub fn of(
        &self,
        path: &Path,
        change: FileChange,
        directory: bool,
        now: Instant,
        runs: impl Fn(u32) -> bool,
    ) -> Writer {
        let mut log = self.log();
        let Log { paths, calls, live } = &mut *log;
        if !*live {
            return Writer::Unknown;
        }
        let (mut new, mut old): (Option<&Actor>, Option<&Actor>) = (None, None);
        let (mut several_new, mut several_old) = (false, false);
        for call in calls.iter_mut() {
            let may = match call.effect {
                Effect::Directory => directory && change == FileChange::Created,
                Effect::Removal => change == FileChange::Deleted,
                Effect::Attributes => change == FileChange::Attributes,
                Effect::Any => true,
            };
            if !may || !paths.get(call.watch).is_some_and(|rule| path.starts_with(rule)) {
                continue;
            }
            let recent = now.saturating_duration_since(call.at) <= WINDOW;
            // What was opened long ago and not written to yet may have been written to now.
            if !recent && (call.used || !runs(call.by.pid)) {
                continue;
            }
            let (several, latest) = if std::mem::replace(&mut call.used, true) {
                (&mut several_old, &mut old)
            } else {
                (&mut several_new, &mut new)
            };
            *several |= latest.is_some_and(|other| other.executable != call.by.executable);
            *latest = Some(&call.by);
        }
        match new {
            Some(_) if several_new => Writer::Unknown,
            Some(actor) => Writer::Process(actor.clone()),
            None => Writer::NotYet(old.filter(|_| !several_old).cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(pid: u32, executable: &str) -> Actor {
        Actor { pid, executable: executable.into(), ..Actor::default() }
    }

    fn writers() -> Writers {
        let writers = Writers::default();
        for path in ["/etc/passwd", "/etc/cron.d"] {
            writers.number(Path::new(path), 8).unwrap();
        }
        writers.set_live(true);
        writers
    }

    #[test]
    fn the_one_program_at_the_place_it_was() {
        let (writers, now) = (writers(), Instant::now());
        let ask = |path: &str, after: u64| {
            let then = now + Duration::from_millis(after);
            writers.of(Path::new(path), FileChange::Modified, false, then, |_| false)
        };
        assert_eq!(ask("/etc/passwd", 0), Writer::NotYet(None));
        writers.heard(0, Effect::Any, actor(5, "/bin/passwd"), now);
        writers.heard(1, Effect::Any, actor(6, "/bin/sh"), now);
        assert_eq!(ask("/etc/passwd", 10), Writer::Process(actor(5, "/bin/passwd")));
        assert_eq!(ask("/etc/cron.d/job", 10), Writer::Process(actor(6, "/bin/sh")));
        // A second change by the same call: perhaps another process did it, of which nothing was heard yet.
        assert_eq!(ask("/etc/passwd", 20), Writer::NotYet(Some(actor(5, "/bin/passwd"))));
        assert_eq!(ask("/etc/passwd", 1500), Writer::NotYet(None));
        assert!(writers.concern(Path::new("/etc/cron.d")) && !writers.concern(Path::new("/etc/shadow")));
        writers.set_live(false);
        assert_eq!(ask("/etc/passwd", 10), Writer::Unknown);
    }

    #[test]
    fn two_programs_at_a_place_are_nobody() {
        let (writers, now) = (writers(), Instant::now());
        writers.heard(0, Effect::Any, actor(5, "/bin/passwd"), now);
        writers.heard(0, Effect::Any, actor(6, "/bin/sh"), now);
        assert_eq!(
            writers.of(Path::new("/etc/passwd"), FileChange::Modified, false, now, |_| false),
            Writer::Unknown
        );
    }

    #[test]
    fn what_a_call_cannot_have_done_is_not_laid_to_it() {
        let (writers, now) = (writers(), Instant::now());
        writers.heard(1, Effect::Directory, actor(5, "/bin/mkdir"), now);
        writers.heard(1, Effect::Any, actor(6, "/bin/sh"), now);
        writers.heard(1, Effect::Attributes, actor(7, "/bin/chmod"), now);
        writers.heard(1, Effect::Removal, actor(8, "/bin/rm"), now);
        let path = Path::new("/etc/cron.d/job");
        let by = |change| writers.of(path, change, false, now, |_| false);
        assert_eq!(by(FileChange::Created), Writer::Process(actor(6, "/bin/sh")));
        assert_eq!(by(FileChange::Attributes), Writer::Process(actor(7, "/bin/chmod")));
        assert_eq!(by(FileChange::Deleted), Writer::Process(actor(8, "/bin/rm")));
    }

    #[test]
    fn a_file_held_open_is_remembered_against_its_holder() {
        let (writers, now) = (writers(), Instant::now());
        writers.heard(0, Effect::Any, actor(6, "/tmp/sleeper"), now);
        let later = now + Duration::from_secs(60);
        writers.heard(0, Effect::Any, actor(5, "/bin/passwd"), later);
        assert_eq!(
            writers.of(Path::new("/etc/passwd"), FileChange::Modified, false, later, |pid| pid == 6),
            Writer::Unknown
        );
        let (writers, now) = (self::writers(), Instant::now());
        writers.heard(0, Effect::Any, actor(6, "/tmp/gone"), now);
        writers.heard(0, Effect::Any, actor(5, "/bin/passwd"), later);
        assert_eq!(
            writers.of(Path::new("/etc/passwd"), FileChange::Modified, false, later, |_| false),
            Writer::Process(actor(5, "/bin/passwd"))
        );
    }

    #[test]
    fn the_log_is_bounded() {
        let (writers, now) = (writers(), Instant::now());
        for pid in 0..CALLS as u32 * 2 {
            writers.heard(0, Effect::Any, actor(pid, "/bin/a"), now);
        }
        assert_eq!(writers.log().calls.len(), CALLS);
        assert_eq!(writers.number(Path::new("/new"), 2), None);
    }
}
