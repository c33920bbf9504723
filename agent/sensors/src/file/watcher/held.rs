//! Changes that wait, for a moment and in their order, for the name of who made them: the kernel may tell of the system call after it told
//! of the change.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use defender_model::event::Event;
use defender_model::file::{FileActivity, FileType};
use defender_model::process::Actor;
use defender_model::time::Timestamp;

use crate::process::{Writer, Writers};
use crate::Observation;

/// How long a change waits at most. Audit's records are read within some milliseconds, unless the device is very busy.
const PATIENCE: Duration = Duration::from_millis(200);
/// And at least, for what audit tells of first need not be all there is to tell.
const PRUDENCE: Duration = Duration::from_millis(20);
/// Between two questions.
const AGAIN: Duration = Duration::from_millis(10);
/// Changes that wait at most.
const CHANGES: usize = 512;

#[derive(Debug)]
struct Change {
    /// Where it was seen; `None` where nobody saw it happen.
    path: Option<PathBuf>,
    time: Timestamp,
    activity: FileActivity,
    since: Instant,
    /// Who it was, unless somebody else turns up.
    perhaps: Option<Actor>,
}

/// Changes in their order.
#[derive(Debug)]
pub(super) struct Held {
    writers: Writers,
    changes: VecDeque<Change>,
}

impl Held {
    pub(super) fn new(writers: Writers) -> Self {
        Self { writers, changes: VecDeque::new() }
    }

    pub(super) fn push(
        &mut self,
        path: Option<&Path>,
        (time, activity): (Timestamp, FileActivity),
        now: Instant,
    ) {
        let path = path.map(Path::to_path_buf);
        self.changes.push_back(Change { path, time, activity, since: now, perhaps: None });
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// When there is to be asked again.
    pub(super) fn wake(&self) -> Option<Instant> {
        (!self.changes.is_empty()).then(|| Instant::now() + AGAIN)
    }

    /// Hands out what is known by now, and what has waited long enough.
    pub(super) fn release(&mut self, now: Instant, out: &mut Vec<Observation>) {
        loop {
            let room = self.changes.len() <= CHANGES;
            let Some(first) = self.changes.front_mut() else { return };
            let waited = now.saturating_duration_since(first.since);
            let writer = match &first.path {
                Some(path) if self.writers.concern(path) => {
                    if waited < PRUDENCE && room {
                        return;
                    }
                    let (change, directory) =
                        (first.activity.change, first.activity.file_type == FileType::Directory);
                    self.writers.of(path, change, directory, now, runs)
                }
                _ => Writer::Unknown,
            };
            let process = match writer {
                Writer::Process(actor) => Some(actor),
                Writer::Unknown => None,
                Writer::NotYet(actor) => {
                    first.perhaps = actor.or(first.perhaps.take());
                    if waited < PATIENCE && room {
                        return;
                    }
                    first.perhaps.take()
                }
            };
            self.hand_out(process, out);
        }
    }

    /// Hands all out as it is.
    pub(super) fn let_go(&mut self, out: &mut Vec<Observation>) {
        while let Some(first) = self.changes.front_mut() {
            let perhaps = first.perhaps.take();
            self.hand_out(perhaps, out);
        }
    }

    fn hand_out(&mut self, process: Option<Actor>, out: &mut Vec<Observation>) {
        let Some(Change { time, mut activity, .. }) = self.changes.pop_front() else { return };
        activity.process = process;
        out.push(Observation::Event(Event::new(time, activity.into())));
    }
}

fn runs(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
