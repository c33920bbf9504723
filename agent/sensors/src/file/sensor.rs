//! The file sensor: one task that hears of changes at once, and looks at every file at start, after losses and from time to time.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use defender_model::file::FileChange;
use defender_model::health::{Health, Kind};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use tokio::sync::mpsc;

use super::baseline::{self, Files, Unusable};
use super::bound::Counts;
use super::digest;
use super::entry::Entry;
use super::pass::{self, Item, Pace};
use super::watcher::{Compared, Watcher};
use crate::budget::Budget;
use crate::process::Writers;
use crate::reopening::Reopening;
use crate::{Observation, Outlet};

/// What the sensor is called in health events.
pub const COMPONENT: &str = "files";
/// Name of the baseline in the state directory.
const BASELINE: &str = "file-baseline";
/// A file of this name beside the baseline: the next start takes over what it finds.
const ACCEPT: &str = "file-baseline.accept";
/// How often everything is looked at without a reason: mounts over watched directories are not announced.
const ROUND: Duration = Duration::from_secs(3600);
/// Time between two looks at everything, whatever the kernel loses.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a change waits to be written to the baseline: flash wears.
const WRITE_AFTER: Duration = Duration::from_secs(30);
/// Losses are reported at most this often.
const LOSS_REPORT: Duration = Duration::from_secs(60);
/// What it listens to.
const WHAT: &str = "changes of files by inotify";

/// What the sensor needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Files, and directories with everything below them; `*` in a name stands for any characters.
    pub paths: Vec<PathBuf>,
    /// What is left out of them.
    pub exclude: Vec<PathBuf>,
    /// Most directories that are watched.
    pub max_watches: usize,
    /// Most files that the baseline holds.
    pub max_files: usize,
    /// Bytes; longer files have no digest. 0 for no digests at all.
    pub hash_limit: u64,
    /// Bytes that are read within a second for digests.
    pub hash_rate: u64,
    /// Most events in a second; 0 for no bound.
    pub events_per_second: u32,
    /// Where the baseline is kept.
    pub state_dir: PathBuf,
    /// Tells who wrote, where audit can.
    pub writers: Writers,
    /// Puts the calling thread last in line for processor and disk.
    pub idle: fn(),
    /// Wall clock.
    pub clock: fn() -> Timestamp,
}

/// What an operator may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Take over all files as they are now.
    Accept,
    /// Take over all files as the next start finds them: for updates that take effect by a reboot.
    AcceptAtNextStart,
}

/// What the sensor is doing, for `defender status`.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// How it works, in words.
    pub modes: Vec<String>,
    /// What it has to do without.
    pub lacks: Vec<String>,
    /// The figures, with the names they have in statistics.
    pub counters: Vec<(&'static str, u64)>,
}

/// The sensor.
pub struct FileSensor {
    settings: Settings,
    orders: mpsc::Receiver<Order>,
    status: Arc<Mutex<Status>>,
}

/// What a look at everything is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Differences are reported.
    Compare,
    /// They are taken over and counted, with these words in front.
    Adopt(&'static str),
    /// A few long files are read whose change was reported already.
    Digests,
}

/// A look at everything, or at a few files, that goes on.
struct Pass {
    results: mpsc::Receiver<(PathBuf, Entry)>,
    purpose: Purpose,
    added: u64,
    changed: u64,
}

impl FileSensor {
    /// A sensor and the end that orders are sent by.
    #[must_use]
    pub fn new(settings: Settings) -> (Self, mpsc::Sender<Order>) {
        let (send, orders) = mpsc::channel(4);
        (Self { settings, orders, status: Arc::default() }, send)
    }

    /// What the sensor is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Runs until the pipeline is gone or `stop` is ready. inotify that fails is opened anew.
    pub async fn run(mut self, outlet: Outlet, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let file = self.settings.state_dir.join(BASELINE);
        let read = baseline::read(&file, self.settings.max_files);
        let (mut files, mut purpose, note) = self.start(read);
        if let Some(note) = note {
            if !outlet.send(Observation::Health(note)).await {
                return;
            }
        }
        let mut reopening = Reopening::default();
        let mut counts = Counts::default();
        loop {
            let error = match Watcher::new(self.settings.clone(), std::mem::take(&mut files), Instant::now())
            {
                Err(error) => error,
                Ok(mut watcher) => {
                    watcher.counts = counts;
                    if let Some(note) = reopening.mended(Instant::now(), COMPONENT, WHAT) {
                        outlet.send(Observation::Health(note)).await;
                    }
                    let mut run = Run {
                        budget: Budget::new(self.settings.events_per_second, Instant::now()),
                        watcher,
                        file: file.clone(),
                        pass: None,
                        wanted: Some(purpose),
                        adopt: None,
                        thorough: true,
                        next_round: Instant::now() + ROUND,
                        not_before: Instant::now(),
                        write_at: None,
                        reported: (Instant::now(), 0, 0),
                        written: Arc::default(),
                        unwritten: false,
                    };
                    let outcome = run.run(&mut self, &outlet, stop.as_mut()).await;
                    purpose = run.adopting().unwrap_or(Purpose::Compare);
                    if purpose == Purpose::Compare {
                        run.write_now();
                    } else {
                        // Half a baseline would make the other half news.
                        let marker = self.settings.state_dir.join(ACCEPT);
                        if let Err(error) = std::fs::write(&marker, "") {
                            tracing::warn!(%error, file = %marker.display(), "the next start does not know of the order");
                        }
                    }
                    let Err(error) = outcome else { return };
                    run.watcher.give_up();
                    outlet.send_all(&mut run.watcher.out).await;
                    (files, counts) = (run.watcher.files, run.watcher.counts);
                    error
                }
            };
            let words = format!("{error} (the kernel may lack CONFIG_INOTIFY_USER, or fs.inotify.max_user_instances is reached)");
            if let Some(note) = reopening.broke(Instant::now(), COMPONENT, WHAT, &words) {
                self.set_status(|status| status.modes = vec![note.message.clone()]);
                if !outlet.send(Observation::Health(note)).await {
                    return;
                }
            }
            let again = reopening.wake().unwrap_or_else(Instant::now);
            tokio::select! {
                () = stop.as_mut() => return,
                () = tokio::time::sleep_until(again.into()) => {}
            }
        }
    }

    /// What the baseline of an earlier run means for this one.
    fn start(&self, read: Result<Files, Unusable>) -> (Files, Purpose, Option<Health>) {
        let marker = self.settings.state_dir.join(ACCEPT);
        let accept = std::fs::remove_file(&marker).is_ok();
        match read {
            Ok(files) if accept => (files, Purpose::Adopt("baseline accepted by the operator"), None),
            Ok(files) => (files, Purpose::Compare, None),
            Err(Unusable::Missing) => (Files::new(), Purpose::Adopt("first baseline"), None),
            Err(reason) => {
                let file = self.settings.state_dir.join(BASELINE);
                let words = format!(
                    "what changed while the agent was down cannot be told: {}: {reason}; a new baseline is taken",
                    file.display()
                );
                let mut health = Health::new(Kind::Lost, format!("{COMPONENT}.baseline"), words);
                health.severity = Severity::High;
                (Files::new(), Purpose::Adopt("new baseline"), Some(health))
            }
        }
    }

    fn set_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One life of the inotify instance.
struct Run {
    watcher: Watcher,
    file: PathBuf,
    pass: Option<Pass>,
    /// A look at everything that is under way but not read yet.
    wanted: Option<Purpose>,
    /// An order that waits for a pass to end.
    adopt: Option<Purpose>,
    thorough: bool,
    next_round: Instant,
    not_before: Instant,
    write_at: Option<Instant>,
    reported: (Instant, u64, u64),
    /// How the last write of the baseline went, where it was not said yet.
    written: Arc<Mutex<Option<Result<(), String>>>>,
    /// It was said that the baseline is not kept.
    unwritten: bool,
    budget: Budget,
}

impl Run {
    async fn run(
        &mut self,
        sensor: &mut FileSensor,
        outlet: &Outlet,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> std::io::Result<()> {
        self.watcher.begin(true);
        loop {
            let now = Instant::now();
            self.watcher.turn(now);
            if let Some(error) = self.watcher.failed.take() {
                return Err(error);
            }
            self.advance(sensor, now);
            self.report_losses(now);
            sensor.set_status(|status| self.describe(status, &sensor.settings));
            if !outlet.send_all(&mut self.watcher.out).await {
                return Ok(());
            }
            let room = self.budget.has_room(Instant::now());
            let wake = self.wake(room);
            tokio::select! {
                biased;
                () = stop.as_mut() => {
                    self.watcher.let_go();
                    outlet.send_all(&mut self.watcher.out).await;
                    return Ok(());
                }
                Some(order) = sensor.orders.recv() => self.order(order, sensor),
                heard = self.watcher.wait() => heard?,
                result = next(&mut self.pass), if room => match result {
                    Some((path, entry)) => self.compare(&path, entry),
                    None => self.finish(),
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    fn wake(&self, room: bool) -> Instant {
        let mut wake = self.next_round;
        if !room {
            wake = wake.min(Instant::now() + Duration::from_millis(50));
        }
        if self.watcher.overflowed {
            wake = wake.min(self.not_before);
        }
        wake.min(self.watcher.wake().unwrap_or(wake)).min(self.write_at.unwrap_or(wake))
    }

    /// Says how the baseline is kept, when that changed.
    fn report_writing(&mut self) {
        let outcome = self.written.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (kind, words) = match outcome {
            Some(Err(error)) => {
                // Another try after the usual time.
                self.watcher.dirty = true;
                if std::mem::replace(&mut self.unwritten, true) {
                    return;
                }
                (Kind::Degraded, format!("the baseline of files is not kept: {error}"))
            }
            Some(Ok(())) if std::mem::take(&mut self.unwritten) => {
                (Kind::Recovered, "the baseline of files is kept again".to_owned())
            }
            _ => return,
        };
        let note = Health::new(kind, format!("{COMPONENT}.baseline"), words);
        self.watcher.out.push(Observation::Health(note));
    }

    /// A baseline is being taken over, or will be.
    fn adopting(&self) -> Option<Purpose> {
        let now = self.wanted.or(self.pass.as_ref().map(|pass| pass.purpose));
        now.into_iter().chain(self.adopt).find(|purpose| matches!(purpose, Purpose::Adopt(_)))
    }

    /// Begins what is due.
    fn advance(&mut self, sensor: &FileSensor, now: Instant) {
        self.report_writing();
        if let Some(items) = self.watcher.found() {
            let purpose = self.wanted.take().unwrap_or(Purpose::Compare);
            self.start_pass(items, purpose, &sensor.settings);
        }
        if self.pass.is_none() && self.wanted.is_none() {
            let overflowed = self.watcher.overflowed && self.not_before <= now;
            if let Some(purpose) = self.adopt.take() {
                self.begin(purpose, true, now);
            } else if overflowed || self.next_round <= now {
                self.begin(Purpose::Compare, false, now);
            } else if !self.watcher.later.is_empty() {
                let later = std::mem::take(&mut self.watcher.later);
                let items = later.into_iter().map(|path| Item { path, known: None }).collect();
                self.start_pass(items, Purpose::Digests, &sensor.settings);
            }
        }
        if self.watcher.dirty && self.write_at.is_none() && self.pass.is_none() && self.wanted.is_none() {
            self.write_at = Some(now + WRITE_AFTER);
        }
        if self.write_at.is_some_and(|at| at <= now) {
            self.write_at = None;
            self.write();
        }
    }

    fn begin(&mut self, purpose: Purpose, thorough: bool, now: Instant) {
        self.wanted = Some(purpose);
        self.thorough = thorough;
        self.next_round = now + ROUND;
        self.not_before = now + PAUSE;
        self.watcher.begin(thorough);
    }

    fn start_pass(&mut self, items: Vec<Item>, purpose: Purpose, settings: &Settings) {
        let pace = Pace { limit: settings.hash_limit, rate: settings.hash_rate, idle: settings.idle };
        match pass::start(items, pace) {
            Ok(results) => self.pass = Some(Pass { results, purpose, added: 0, changed: 0 }),
            Err(error) => {
                let words =
                    format!("files are not looked at: no thread for it: {error}; tried again in an hour");
                let note = Health::new(Kind::Lost, format!("{COMPONENT}.baseline"), words);
                self.watcher.out.push(Observation::Health(note));
            }
        }
    }

    /// One file of the pass.
    fn compare(&mut self, path: &Path, entry: Entry) {
        let compared = self.watcher.compare(path, entry);
        let Some(pass) = &mut self.pass else { return };
        let change = match compared {
            Compared::Same => return,
            Compared::Added => {
                pass.added += 1;
                FileChange::Created
            }
            Compared::Changed(change) => {
                pass.changed += 1;
                change
            }
        };
        if pass.purpose == Purpose::Compare {
            self.budget.admits(Instant::now());
            self.watcher.report(change, path);
        }
    }

    /// The pass is through.
    fn finish(&mut self) {
        let Some(pass) = self.pass.take() else { return };
        if pass.purpose == Purpose::Digests {
            return;
        }
        let vanished = self.watcher.vanished();
        let removed = vanished.len() as u64;
        if pass.purpose == Purpose::Compare {
            for path in vanished {
                self.watcher.report(FileChange::Deleted, &path);
            }
        }
        let files = self.watcher.files.len() as u64;
        let words = match pass.purpose {
            Purpose::Adopt(words) => words,
            _ if pass.added + pass.changed + removed > 0 => {
                "files changed that nobody saw change: each has an event"
            }
            _ => "",
        };
        if !words.is_empty() {
            let note = Health::new(Kind::Changed, format!("{COMPONENT}.baseline"), words)
                .with("files", files)
                .with("added", pass.added)
                .with("changed", pass.changed)
                .with("removed", removed);
            self.watcher.out.push(Observation::Health(note));
        }
        // A first or accepted baseline is not to be taken twice because power was lost.
        if matches!(pass.purpose, Purpose::Adopt(_)) {
            self.write_at = None;
            self.write();
        }
    }

    fn order(&mut self, order: Order, sensor: &FileSensor) {
        match order {
            Order::Accept => self.adopt = Some(Purpose::Adopt("baseline accepted by the operator")),
            Order::AcceptAtNextStart => {
                let marker = sensor.settings.state_dir.join(ACCEPT);
                let (kind, words) = match std::fs::write(&marker, "") {
                    Ok(()) => (
                        Kind::Changed,
                        "the operator wants the files taken over as the next start finds them".to_owned(),
                    ),
                    Err(error) => (Kind::Lost, format!("{}: {error}", marker.display())),
                };
                let note = Health::new(kind, format!("{COMPONENT}.baseline"), words);
                self.watcher.out.push(Observation::Health(note));
            }
        }
    }

    /// Writes the baseline in a thread: flash takes its time.
    fn write(&mut self) {
        if !self.watcher.dirty {
            return;
        }
        if self.is_writing() {
            self.write_at = Some(Instant::now() + Duration::from_secs(1));
            return;
        }
        self.watcher.dirty = false;
        let (file, text) = (self.file.clone(), baseline::text(&self.watcher.files));
        let written = Arc::clone(&self.written);
        let work = move || {
            let outcome =
                baseline::write(&file, &text).map_err(|error| format!("{}: {error}", file.display()));
            *written.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        };
        // No thread: the next change tries again, or the stop of the agent.
        self.watcher.dirty = std::thread::Builder::new().name("baseline".to_owned()).spawn(work).is_err();
    }

    /// The thread that writes has not ended: it holds its end of what it has to say.
    fn is_writing(&self) -> bool {
        Arc::strong_count(&self.written) > 1
    }

    fn write_now(&mut self) {
        // Flash that hangs is not waited for.
        for _ in 0..100 {
            if !self.is_writing() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // A pass that did not end has not met every file: what it did not come to stays as it was.
        if std::mem::take(&mut self.watcher.dirty) {
            if let Err(error) = baseline::write(&self.file, &baseline::text(&self.watcher.files)) {
                tracing::warn!(%error, file = %self.file.display(), "the baseline of files is not kept");
            }
        }
    }

    fn report_losses(&mut self, now: Instant) {
        let (since, overflows, over_bound) = self.reported;
        let counts = self.watcher.counts;
        if (overflows, over_bound) == (counts.overflows, counts.over_bound) || now < since {
            return;
        }
        self.reported = (now + LOSS_REPORT, counts.overflows, counts.over_bound);
        let words = "more happened to files than could be told: overflows of inotify's queue are made up for by a look at every \
                     file; what went over the bound of a second is counted only";
        let note = Health::new(Kind::Lost, COMPONENT, words)
            .with("overflows", counts.overflows - overflows)
            .with("over_bound", counts.over_bound - over_bound);
        self.watcher.out.push(Observation::Health(note));
    }

    fn describe(&self, status: &mut Status, settings: &Settings) {
        let counts = self.watcher.counts;
        status.counters = vec![
            ("watches", self.watcher.watches() as u64),
            ("files", self.watcher.files.len() as u64),
            ("overflows", counts.overflows),
            ("unrecorded", counts.unrecorded),
        ];
        status.counters.extend(self.watcher.balance().counters());
        let baseline = match (&self.pass, settings.hash_limit) {
            (Some(_), _) => "baseline: files are being looked at",
            (None, 0) => "baseline without digests (files.hash_max_kib is 0)",
            _ if !digest::is_available() => {
                "baseline without digests (the agent was built without a crypto library)"
            }
            _ => "baseline with SHA-256",
        };
        let who = match settings.writers.rules() {
            0 => "who writes is not known (it takes audit)",
            _ => "who writes: from audit",
        };
        if status.modes.get(1).map(String::as_str) != Some(baseline)
            || status.modes.last().map(String::as_str) != Some(who)
        {
            status.modes = vec!["inotify".to_owned(), baseline.to_owned(), who.to_owned()];
        }
    }
}

/// The next result; never, where nothing goes on.
async fn next(pass: &mut Option<Pass>) -> Option<(PathBuf, Entry)> {
    match pass {
        Some(pass) => pass.results.recv().await,
        None => std::future::pending().await,
    }
}
