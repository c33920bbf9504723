//! Kernel modules that are loaded and removed, by comparing `/proc/modules`: right on every kernel, whatever loads them. Who it was is not
//! told there. Source: proc(5), kernel/module/procfs.c.

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
use defender_model::text;
use defender_model::time::Timestamp;

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
    budget: Budget,
    sent: u64,
    status: Arc<Mutex<Status>>,
}

impl ModuleSensor {
    /// Takes stock: what is loaded now is no news.
    #[must_use]
    pub fn open(settings: Settings) -> Self {
        let this = Self {
            known: read(&settings),
            budget: Budget::new(EVENTS_PER_SECOND, Instant::now()),
            sent: 0,
            status: Arc::default(),
            settings,
        };
        this.update_status();
        this
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
        loop {
            if !outlet.send_all(&mut out).await {
                return;
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(self.settings.interval) => self.compare(&mut out),
            }
        }
    }

    fn mode(&self) -> String {
        match &self.known {
            Some(_) => format!("/proc/modules, every {} s", self.settings.interval.as_secs()),
            None => "none: the kernel loads no modules".to_owned(),
        }
    }

    fn compare(&mut self, out: &mut Vec<Observation>) {
        let Some(now) = read(&self.settings) else { return };
        let before = self.known.replace(now).unwrap_or_default();
        let empty = HashSet::new();
        let now = self.known.as_ref().unwrap_or(&empty);
        let loaded = now.difference(&before).map(|name| (true, name));
        let removed = before.difference(now).map(|name| (false, name));
        let time = (self.settings.clock)();
        for (loaded, name) in loaded.chain(removed) {
            if !self.budget.admits(Instant::now()) {
                continue;
            }
            self.sent += 1;
            let name = text::from_bytes(name);
            let activity = ModuleActivity { loaded, name, path: None, sha256: None, process: None };
            out.push(Observation::Event(Event::new(time, activity.into())));
        }
        self.update_status();
    }

    fn update_status(&self) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.modes = vec![self.mode()];
        let loaded = self.known.as_ref().map_or(0, HashSet::len) as u64;
        status.counters =
            vec![("loaded", loaded), ("sent", self.sent), ("over_bound", self.budget.refused())];
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
            sensor.compare(&mut out);
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
    fn a_kernel_without_modules_says_so() {
        let proc = tempfile::tempdir().unwrap();
        let settings =
            Settings { interval: Duration::from_secs(1), proc: proc.path().into(), clock: || Timestamp(1) };
        let sensor = ModuleSensor::open(settings);
        assert_eq!(sensor.status().lock().unwrap().modes, ["none: the kernel loads no modules"]);
    }

    proptest! {
        #[test]
        fn arbitrary_lists_never_panic(content in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&content);
        }
    }
}
