//! The account sensor: one task that looks at three small files.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use defender_model::event::Event;
use defender_model::health::{Health, Kind};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;

use super::audit::Records;
use super::database::{named, Accounts};
use super::{baseline, difference};
use crate::balance::Balance;
use crate::file::Status;
use crate::process::Writers;
use crate::{file, Observation, Outlet};

/// What the sensor is called in health events.
pub const COMPONENT: &str = "accounts";
/// Name of the baseline in the state directory.
const BASELINE: &str = "account-baseline";
/// Longest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;
/// Between two looks whether a file is another.
const EVERY: Duration = Duration::from_secs(1);
/// The files have to be the same for so long before they are read: one change of an account is one of several files.
const SETTLE: Duration = Duration::from_millis(400);
/// But for no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the sensor needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the files are, usually `/etc`.
    pub etc: PathBuf,
    /// Where the baseline is kept.
    pub state_dir: PathBuf,
    /// Tells who wrote, where audit can.
    pub writers: Writers,
    /// What programs tell audit of accounts.
    pub records: Records,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
}

/// The sensor.
#[derive(Debug)]
pub struct AccountSensor {
    settings: Settings,
    known: Option<Accounts>,
    out: Vec<Observation>,
    unwritten: bool,
    balance: Balance,
    status: Arc<Mutex<Status>>,
}

/// Which version of the files there is.
type Stamp = [Option<(u64, i64, i64, u64)>; 3];

impl AccountSensor {
    /// A sensor that has not looked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let this = Self {
            settings,
            known: None,
            out: Vec::new(),
            unwritten: false,
            balance: Balance::default(),
            status: Arc::default(),
        };
        this.count();
        this
    }

    /// What the sensor is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    fn count(&self) {
        let (users, groups) = self.known.as_ref().map_or((0, 0), |now| (now.users.len(), now.groups.len()));
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.modes = vec![format!("users and groups: {}, every second", self.settings.etc.display())];
        status.counters = vec![("users", users as u64), ("groups", groups as u64)];
        status.counters.extend(self.balance.counters());
    }

    /// Runs until the pipeline is gone or `stop` is ready.
    pub async fn run(mut self, outlet: Outlet, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        self.begin();
        let mut seen = self.stamp();
        self.look();
        loop {
            self.count();
            if !outlet.send_all(&mut self.out).await {
                return;
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = self.changed(&mut seen) => {
                    self.look();
                    self.rest(Instant::now());
                }
            }
        }
    }

    /// Waits until the files are others than they were, and stay so; or until audit told of what they do not show.
    async fn changed(&self, seen: &mut Stamp) {
        let mut now = self.stamp();
        while now == *seen {
            if self.settings.records.due(Instant::now()) {
                return;
            }
            tokio::time::sleep(EVERY).await;
            now = self.stamp();
        }
        let until = Instant::now() + PATIENCE;
        loop {
            tokio::time::sleep(SETTLE).await;
            let then = std::mem::replace(&mut now, self.stamp());
            if then == now || Instant::now() >= until {
                break;
            }
        }
        *seen = now;
    }

    fn stamp(&self) -> Stamp {
        ["passwd", "group", "shadow"].map(|name| {
            let meta = fs::metadata(self.settings.etc.join(name)).ok()?;
            Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
        })
    }

    /// Takes up what an earlier run knew.
    fn begin(&mut self) {
        let file = self.settings.state_dir.join(BASELINE);
        match read(&file) {
            Ok(bytes) => {
                self.known = baseline::parse(&bytes);
                if self.known.is_none() {
                    let words = format!(
                        "what became of accounts while the agent was down cannot be told: {} is cut off or damaged; a new one is \
                         made",
                        file.display()
                    );
                    let mut health = Health::new(Kind::Lost, COMPONENT, words);
                    health.severity = Severity::High;
                    self.out.push(Observation::Health(health));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let words = format!("{}: {error}; a new one is made", file.display());
                self.out.push(Observation::Health(Health::new(Kind::Lost, COMPONENT, words)));
            }
        }
    }

    /// Compares the files with what is known.
    fn look(&mut self) {
        let etc = &self.settings.etc;
        // No file of accounts: it is being replaced, or the product has none.
        let Ok(passwd) = read(&etc.join("passwd")) else { return };
        let group = read(&etc.join("group")).unwrap_or_default();
        let shadow = read(&etc.join("shadow")).ok();
        let now = Accounts::parse(&passwd, &group, shadow.as_deref());
        let Some(before) = self.known.replace(now.clone()) else {
            let (users, groups) = (now.users.len() as u64, now.groups.len() as u64);
            let note = Health::new(Kind::Changed, COMPONENT, "first look at users and groups");
            self.out.push(Observation::Health(note.with("users", users).with("groups", groups)));
            return self.keep(&now);
        };
        if before == now {
            return;
        }
        let time = (self.settings.clock)();
        let (activities, beyond) = difference::between(&before, &now);
        self.balance.produced += activities.len() as u64 + beyond;
        self.balance.over_bound += beyond;
        for mut activity in activities {
            let file = etc.join(match activity.change {
                change if change.concerns_group() => "group",
                change if change.concerns_password() => "shadow",
                _ => "passwd",
            });
            let now = Instant::now();
            let said = self.settings.records.doer(&activity, now);
            activity.process = self.settings.writers.lately(&file, now).or(said);
            self.balance.delivered += 1;
            self.out.push(Observation::Event(Event::new(time, activity.into())));
        }
        if beyond > 0 {
            let words = "more accounts changed at once than are told";
            self.out
                .push(Observation::Health(Health::new(Kind::Lost, COMPONENT, words).with("changes", beyond)));
        }
        self.keep(&now);
    }

    /// Tells what audit told of and the files have not shown.
    fn rest(&mut self, now: Instant) {
        while let Some((time, mut activity)) = self.settings.records.next(now) {
            let users = self.known.as_ref().map_or(&[][..], |known| &known.users);
            if let (true, Some(uid)) = (activity.user.is_empty(), activity.uid) {
                let known = users.iter().find(|(_, user)| user.uid == uid);
                activity.user = known.map(|(name, _)| name.clone()).unwrap_or_default();
            }
            if let Some(user) = named(users, &activity.user) {
                activity.uid = Some(user.uid);
                activity.gid = Some(user.gid);
                activity.shell.clone_from(&user.shell);
            }
            self.out.push(Observation::Event(Event::new(time, activity.into())));
        }
        let lost = self.settings.records.lost();
        if lost > 0 {
            let words = "more was told of accounts at once than is remembered";
            self.out
                .push(Observation::Health(Health::new(Kind::Lost, COMPONENT, words).with("records", lost)));
        }
    }

    fn keep(&mut self, now: &Accounts) {
        let path = self.settings.state_dir.join(BASELINE);
        let note = match file::write(&path, &baseline::text(now)) {
            Err(error) if !std::mem::replace(&mut self.unwritten, true) => Health::new(
                Kind::Degraded,
                COMPONENT,
                format!("what accounts there are is not kept: {}: {error}", path.display()),
            ),
            Ok(()) if std::mem::take(&mut self.unwritten) => {
                Health::new(Kind::Recovered, COMPONENT, "what accounts there are is kept again")
            }
            _ => return,
        };
        self.out.push(Observation::Health(note));
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use defender_model::event::EventKind;

    use super::*;

    fn told(sensor: &mut AccountSensor) -> Vec<String> {
        let name = |observation| match observation {
            Observation::Event(Event { kind: EventKind::Account(account), .. }) => {
                format!("{} {}{}", account.change.name(), account.user, account.group)
            }
            Observation::Health(health) => health.message,
            other => panic!("{other:?}"),
        };
        std::mem::take(&mut sensor.out).into_iter().map(name).collect()
    }

    #[test]
    fn what_changes_while_the_agent_is_down_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().to_path_buf();
        let settings = Settings {
            etc: etc.clone(),
            state_dir: etc.clone(),
            writers: Writers::default(),
            records: Records::default(),
            clock: || Timestamp(1),
        };
        let start = || {
            let mut sensor = AccountSensor::new(settings.clone());
            sensor.begin();
            sensor.look();
            sensor
        };
        fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        fs::write(etc.join("group"), "root:x:0:\n").unwrap();
        assert_eq!(told(&mut start()), ["first look at users and groups"]);
        fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n").unwrap();
        fs::write(etc.join("group"), "root:x:0:toor\n").unwrap();
        let mut sensor = start();
        assert_eq!(told(&mut sensor), ["user_created toor", "member_added toorroot"]);
        sensor.look();
        assert_eq!(told(&mut sensor), [""; 0]);
        sensor.count();
        let counters = sensor.status().lock().unwrap().counters.clone();
        assert_eq!(crate::balance::sides(counters.iter().copied()), Some((2, 2)));
        assert!(counters.contains(&("users", 2)) && counters.contains(&("delivered", 2)), "{counters:?}");
        assert_eq!(told(&mut start()), [""; 0]);
        fs::write(etc.join(BASELINE), "no baseline").unwrap();
        assert!(told(&mut start())[0].contains("cut off or damaged"));
    }
}
