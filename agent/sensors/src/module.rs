//! Kernel modules that are loaded and removed: what audit tells of, with the process, and by comparing `/proc/modules`, which is right on
//! every kernel, whatever loads them, and does not say who it was. Source: proc(5), kernel/module/procfs.c.

use std::collections::HashSet;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use defender_model::event::Event;
use defender_model::health::{Health, Kind};
use defender_model::kernel::ModuleActivity;
use defender_model::process::Actor;
use defender_model::text;
use defender_model::time::Timestamp;
use tokio::sync::mpsc;

use crate::balance::Balance;
use crate::budget::Budget;
use crate::file::Status;
use crate::{Observation, Outlet};

/// What the sensor is called in health events.
pub const COMPONENT: &str = "module";
/// Longest list read, in bytes: some 20,000 modules.
const LIMIT: u64 = 2 << 20;
/// Most modules remembered.
const MODULES: usize = 4096;
/// Events within a second; a boot loads dozens at once.
const EVENTS_PER_SECOND: u32 = 50;

/// How long a difference waits for audit to tell of it.
const AUDIT_MAY_TAKE: Duration = Duration::from_millis(250);

/// What audit tells of a module.
#[derive(Debug)]
pub struct Told {
    /// When, by the kernel's clock.
    pub time: Timestamp,
    /// It was loaded, not removed.
    pub loaded: bool,
    /// Its name, as `/proc/modules` has it.
    pub name: String,
    /// The file it came from, where the process was started with it as an argument.
    pub path: Option<String>,
    /// The process that did it.
    pub process: Actor,
}

/// What the sensor needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Pause between two looks.
    pub interval: Duration,
    /// Mount point of procfs, usually `/proc`.
    pub proc: PathBuf,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
}

/// The sensor, opened but not running.
pub struct ModuleSensor {
    settings: Settings,
    /// Names of the modules there; `None` where the kernel has none.
    known: Option<HashSet<Box<[u8]>>>,
    /// From audit; `None` once there is nobody.
    told: Option<mpsc::Receiver<Told>>,
    budget: Budget,
    seen: u64,
    sent: u64,
    status: Arc<Mutex<Status>>,
}

impl ModuleSensor {
    /// Takes stock: what is loaded now is no news.
    #[must_use]
    pub fn open(settings: Settings) -> Self {
        let this = Self {
            known: read(&settings),
            told: None,
            budget: Budget::new(EVENTS_PER_SECOND, Instant::now()),
            seen: 0,
            sent: 0,
            status: Arc::default(),
            settings,
        };
        this.update_status();
        this
    }

    /// The end by which audit's word comes in.
    #[must_use]
    pub fn teller(&mut self) -> mpsc::Sender<Told> {
        let (send, told) = mpsc::channel(MODULES / 64);
        self.told = Some(told);
        send
    }

    /// What the sensor is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Runs until the pipeline is gone or `stop` is ready.
    pub async fn run(mut self, outlet: Outlet, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let words = self.mode();
        let mut out = vec![Observation::Health(Health::new(Kind::Changed, COMPONENT, words))];
        let mut look = Instant::now() + self.settings.interval;
        loop {
            if !outlet.send_all(&mut out).await {
                return;
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                told = next(&mut self.told) => match told {
                    Some(told) => self.take(told, &mut out),
                    None => self.told = None,
                },
                () = tokio::time::sleep_until(look.into()) => {
                    look = Instant::now() + self.settings.interval;
                    let Some(now) = read(&self.settings) else { continue };
                    if self.known.as_ref() == Some(&now) {
                        continue;
                    }
                    // Audit may be about to tell the same, and more.
                    tokio::time::sleep(AUDIT_MAY_TAKE).await;
                    let newer = self.hear(&mut out);
                    self.compare(now, &newer, &mut out);
                }
            }
        }
    }

    fn mode(&self) -> String {
        match &self.known {
            Some(_) => format!("/proc/modules, every {} s", self.settings.interval.as_secs()),
            None => "none: the kernel loads no modules (CONFIG_MODULES)".to_owned(),
        }
    }

    /// Takes what audit has told until now, and returns the names.
    fn hear(&mut self, out: &mut Vec<Observation>) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(told) = self.told.as_mut().and_then(|told| told.try_recv().ok()) {
            names.push(told.name.clone());
            self.take(told, out);
        }
        names
    }

    fn take(&mut self, told: Told, out: &mut Vec<Observation>) {
        let Told { time, loaded, name, path, process } = told;
        let known = self.known.get_or_insert_with(HashSet::new);
        let news = if loaded {
            known.len() < MODULES && known.insert(name.as_bytes().into())
        } else {
            known.remove(name.as_bytes())
        };
        if news {
            let activity =
                ModuleActivity { loaded, name, program: None, path, sha256: None, process: Some(process) };
            self.send(time, activity, out);
        }
        self.update_status();
    }

    /// Tells what a look at the list found, but for the names that were heard of since.
    fn compare(&mut self, mut now: HashSet<Box<[u8]>>, newer: &[String], out: &mut Vec<Observation>) {
        let before = self.known.take().unwrap_or_default();
        for name in newer.iter().map(String::as_bytes) {
            if before.contains(name) {
                now.insert(name.into());
            } else {
                now.remove(name);
            }
        }
        let time = (self.settings.clock)();
        let loaded = now.difference(&before).map(|name| (true, name));
        for (loaded, name) in loaded.chain(before.difference(&now).map(|name| (false, name))) {
            let name = text::from_bytes(name);
            self.send(
                time,
                ModuleActivity { loaded, name, program: None, path: None, sha256: None, process: None },
                out,
            );
        }
        self.known = Some(now);
        self.update_status();
    }

    fn send(&mut self, time: Timestamp, activity: ModuleActivity, out: &mut Vec<Observation>) {
        self.seen += 1;
        if self.budget.admits(Instant::now()) {
            self.sent += 1;
            out.push(Observation::Event(Event::new(time, activity.into())));
        }
    }

    fn update_status(&self) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.modes = vec![self.mode()];
        let loaded = self.known.as_ref().map_or(0, HashSet::len) as u64;
        let (delivered, over_bound) = (self.sent, self.budget.refused());
        let balance = Balance { produced: self.seen, delivered, over_bound, ..Balance::default() };
        status.counters = vec![("loaded", loaded)];
        status.counters.extend(balance.counters());
    }
}

/// The next word of audit; never, where there is nobody.
async fn next(told: &mut Option<mpsc::Receiver<Told>>) -> Option<Told> {
    match told {
        Some(told) => told.recv().await,
        None => std::future::pending().await,
    }
}

/// The names of the modules; `None` where there is no list.
fn read(settings: &Settings) -> Option<HashSet<Box<[u8]>>> {
    let mut content = Vec::new();
    File::open(settings.proc.join("modules")).ok()?.take(LIMIT).read_to_end(&mut content).ok()?;
    Some(parse(&content))
}

/// `NAME SIZE USES USERS STATE ADDRESS` lines. One that comes or goes at this moment (`Loading`, `Unloading`) is not there: a load
/// may fail yet.
fn parse(content: &[u8]) -> HashSet<Box<[u8]>> {
    let mut names = HashSet::new();
    for line in content.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(name), Some(state)) = (fields.next(), fields.nth(3)) else { continue };
        if !name.is_empty() && state == b"Live" && names.len() < MODULES {
            names.insert(name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::fs;

    use defender_model::event::EventKind;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_comes_and_goes_is_told_once() {
        let proc = tempfile::tempdir().unwrap();
        let list = |content: &str| fs::write(proc.path().join("modules"), content).unwrap();
        list("dm_crypt 65536 0 - Live 0x0000000000000000\nhalf 1 0 - Loading 0x0\n");
        let settings =
            Settings { interval: Duration::from_secs(1), proc: proc.path().into(), clock: || Timestamp(1) };
        let mut sensor = ModuleSensor::open(settings);
        let mut compare = || {
            let mut out = Vec::new();
            if let Some(now) = read(&sensor.settings) {
                sensor.compare(now, &[], &mut out);
            }
            let mut seen = Vec::new();
            for observation in out {
                let Observation::Event(event) = observation else { panic!("{observation:?}") };
                let EventKind::Module(module) = event.kind else { panic!("{event:?}") };
                seen.push((module.loaded, module.name));
            }
            seen
        };
        assert_eq!(compare(), []);
        list("dm_crypt 65536 2 a,b, Live 0x0000000000000000\nhalf 1 0 - Live 0x0 (OE)\n");
        assert_eq!(compare(), [(true, "half".to_owned())]);
        assert_eq!(compare(), []);
        list("half 1 0 - Live 0x0 (OE)\n");
        assert_eq!(compare(), [(false, "dm_crypt".to_owned())]);
        fs::remove_file(proc.path().join("modules")).unwrap();
        assert_eq!(compare(), [], "a list that cannot be read says nothing");
    }

    #[test]
    fn what_audit_tells_is_not_found_a_second_time() {
        let proc = tempfile::tempdir().unwrap();
        let list = |content: &str| fs::write(proc.path().join("modules"), content).unwrap();
        list("");
        let settings =
            Settings { interval: Duration::from_secs(1), proc: proc.path().into(), clock: || Timestamp(1) };
        let mut sensor = ModuleSensor::open(settings);
        let teller = sensor.teller();
        let tell = |loaded| {
            let process = Actor { pid: 7, ..Actor::default() };
            let path = Some("/tmp/x.ko".to_owned());
            teller.try_send(Told { time: Timestamp(5), loaded, name: "x".into(), path, process }).unwrap();
        };
        list("x 1 0 - Live 0x0\ny 1 0 - Live 0x0\n");
        let found = read(&sensor.settings).unwrap();
        tell(true);
        // And it is gone again before the list that has it is compared.
        tell(false);
        let mut out = Vec::new();
        let newer = sensor.hear(&mut out);
        sensor.compare(found, &newer, &mut out);
        let told: Vec<_> = out
            .into_iter()
            .map(|observation| {
                let Observation::Event(Event { kind: EventKind::Module(module), .. }) = observation else {
                    panic!()
                };
                (module.loaded, module.name.clone(), module.process.map(|process| process.pid))
            })
            .collect();
        assert_eq!(
            told,
            [(true, "x".into(), Some(7)), (false, "x".into(), Some(7)), (true, "y".into(), None)]
        );
    }

    #[test]
    fn a_kernel_without_modules_says_so() {
        let proc = tempfile::tempdir().unwrap();
        let settings =
            Settings { interval: Duration::from_secs(1), proc: proc.path().into(), clock: || Timestamp(1) };
        let sensor = ModuleSensor::open(settings);
        assert_eq!(
            sensor.status().lock().unwrap().modes,
            ["none: the kernel loads no modules (CONFIG_MODULES)"]
        );
    }

    proptest! {
        #[test]
        fn arbitrary_lists_never_panic(content in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&content);
        }
    }
}
