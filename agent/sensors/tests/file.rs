//! The file sensor on real directories.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use defender_model::event::EventKind;
use defender_model::file::{FileActivity, FileChange};
use defender_model::health::{Health, Kind};
use defender_model::time::Timestamp;
use defender_sensors::balance;
use defender_sensors::file::{FileSensor, Order, Settings, Status};
use defender_sensors::process::Writers;
use defender_sensors::{Observation, Outlet};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        for directory in ["etc/cron.d", "etc/ssh", "home/alice", "state"] {
            fs::create_dir_all(root.path().join(directory)).expect("mkdir");
        }
        fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("write");
        fs::write(root.path().join("etc/cron.d/daily"), "@daily root true\n").expect("write");
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().expect("a path").join(name)
    }

    fn settings(&self) -> Settings {
        let paths = ["etc/passwd", "etc/shadow", "etc/cron*", "etc/ld.so.preload", "home/*/.ssh", "boot"];
        Settings {
            paths: paths.map(|name| self.path(name)).to_vec(),
            exclude: vec![self.path("etc/cron.d/ignored")],
            max_watches: 1000,
            max_files: 1000,
            hash_limit: 1 << 20,
            hash_rate: 100 << 20,
            events_per_second: 0,
            state_dir: self.path("state"),
            idle: || {},
            writers: Writers::default(),
            clock: || Timestamp(1),
        }
    }
}

struct Running {
    observations: mpsc::Receiver<Observation>,
    orders: mpsc::Sender<Order>,
    status: Arc<Mutex<Status>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts the sensor and waits until it has looked at everything once; what it said until then.
    async fn start(settings: Settings) -> (Self, Vec<Observation>) {
        let (outlet, observations) = Outlet::channel(64);
        let (sensor, orders) = FileSensor::new(settings);
        let (stop, stopped) = oneshot::channel::<()>();
        let status = sensor.status();
        let task = tokio::spawn(sensor.run(outlet, async move {
            let _ = stopped.await;
        }));
        let mut running = Self { observations, orders, status, stop, task };
        let mut said = Vec::new();
        loop {
            said.extend(running.for_a_while(50).await);
            let status = running.status.lock().expect("status").clone();
            if status.modes.iter().any(|mode| mode.starts_with("baseline with")) {
                said.extend(running.for_a_while(50).await);
                return (running, said);
            }
        }
    }

    async fn for_a_while(&mut self, milliseconds: u64) -> Vec<Observation> {
        let mut all = Vec::new();
        let end = tokio::time::Instant::now() + Duration::from_millis(milliseconds);
        while let Ok(Some(observation)) = tokio::time::timeout_at(end, self.observations.recv()).await {
            all.push(observation);
        }
        all
    }

    /// The changes told until nothing was for a while.
    async fn changes(&mut self) -> Vec<FileActivity> {
        files(self.for_a_while(900).await)
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("it ends");
    }

    fn counter(&self, name: &str) -> u64 {
        let status = self.status.lock().expect("status");
        // A cause for which nothing was dropped is left out.
        status.counters.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }

    /// What was heard adds up, once the news that waits for more has been told; it gives what was told meanwhile.
    async fn balance(&mut self) -> Vec<Observation> {
        let mut said = Vec::new();
        for _ in 0..200 {
            let counters = self.status.lock().expect("status").counters.clone();
            let (produced, rest) = balance::sides(counters).expect("a sheet");
            assert_eq!(produced, rest, "{:?}", self.status.lock().expect("status").counters);
            if self.counter("held") == 0 {
                return said;
            }
            said.extend(self.for_a_while(50).await);
        }
        panic!("something is held for ever: {:?}", self.status.lock().expect("status").counters);
    }
}

fn files(observations: Vec<Observation>) -> Vec<FileActivity> {
    observations
        .into_iter()
        .filter_map(|observation| match observation {
            Observation::Event(event) => match event.kind {
                EventKind::File(file) => Some(*file),
                _ => None,
            },
            Observation::Health(_) => None,
        })
        .collect()
}

fn healths(observations: &[Observation]) -> Vec<&Health> {
    observations
        .iter()
        .filter_map(|observation| match observation {
            Observation::Health(health) => Some(health),
            Observation::Event(_) => None,
        })
        .collect()
}

fn told(changes: &[FileActivity], place: &Place) -> Vec<(FileChange, String)> {
    let root = place.path("");
    let short = |path: &str| Path::new(path).strip_prefix(&root).expect("below").display().to_string();
    changes.iter().map(|file| (file.change, short(&file.path))).collect()
}

#[tokio::test]
async fn one_change_is_one_event() {
    use FileChange::{Attributes, Created, Deleted, Modified, Renamed};

    let place = Place::new();
    let (mut running, said) = Running::start(place.settings()).await;
    assert!(files(said).is_empty(), "the first baseline is no news");

    fs::write(place.path("etc/shadow"), "root:!:1::::::\n").unwrap();
    let changes = running.changes().await;
    assert_eq!(told(&changes, &place), [(Created, "etc/shadow".to_owned())]);
    assert!(changes[0].sha256.is_some() && changes[0].mode.is_some() && changes[0].owner.is_some());

    fs::write(place.path("etc/shadow"), "root::1::::::\n").unwrap();
    assert_eq!(told(&running.changes().await, &place), [(Modified, "etc/shadow".to_owned())]);

    fs::set_permissions(place.path("etc/shadow"), fs::Permissions::from_mode(0o4755)).unwrap();
    let changes = running.changes().await;
    assert_eq!(told(&changes, &place), [(Attributes, "etc/shadow".to_owned())]);
    assert_eq!(changes[0].mode, Some(0o4755));

    // As passwd(1) and editors do it: a new file takes the name.
    fs::write(place.path("etc/passwd+"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::rename(place.path("etc/passwd+"), place.path("etc/passwd")).unwrap();
    let changes = running.changes().await;
    assert_eq!(told(&changes, &place), [(Renamed, "etc/passwd".to_owned())]);
    assert_eq!(changes[0].old_path.as_deref(), place.path("etc/passwd+").to_str());

    fs::remove_file(place.path("etc/shadow")).unwrap();
    assert_eq!(told(&running.changes().await, &place), [(Deleted, "etc/shadow".to_owned())]);
    running.balance().await;

    // The same content again, a touch, other files and what is excluded are no news.
    fs::write(place.path("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::File::open(place.path("etc/passwd")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::write(place.path("etc/hostname"), "device\n").unwrap();
    fs::write(place.path("etc/cron.d/ignored"), "x\n").unwrap();
    fs::read(place.path("etc/passwd")).unwrap();
    assert_eq!(told(&running.changes().await, &place), []);
    running.balance().await;
    running.stop().await;
}

#[tokio::test]
async fn a_file_that_is_never_closed_is_told() {
    use std::io::Write;

    let place = Place::new();
    let (mut running, _) = Running::start(place.settings()).await;
    let mut open = fs::OpenOptions::new().append(true).open(place.path("etc/passwd")).unwrap();
    open.write_all(b"eve::0:0::/:/bin/sh\n").unwrap();
    let changes = running.changes().await;
    assert_eq!(told(&changes, &place), [(FileChange::Modified, "etc/passwd".to_owned())]);
    drop(open);
    assert_eq!(told(&running.changes().await, &place), [], "closing it adds nothing");
    running.balance().await;
    running.stop().await;
}

#[tokio::test]
async fn new_directories_are_caught_without_a_gap() {
    let place = Place::new();
    let (mut running, _) = Running::start(place.settings()).await;
    // Deep, and full before the sensor can watch it.
    let deep = place.path("home/bob/.ssh/a/b/c");
    fs::create_dir_all(&deep).unwrap();
    for file in 0..50 {
        fs::write(deep.join(format!("key{file}")), "x").unwrap();
    }
    fs::write(place.path("home/bob/notes"), "x").unwrap();
    let mut names: Vec<String> = told(&running.changes().await, &place)
        .into_iter()
        .map(|(change, name)| {
            assert_eq!(change, FileChange::Created);
            name
        })
        .collect();
    names.sort();
    let mut expected: Vec<String> = (0..50).map(|file| format!("home/bob/.ssh/a/b/c/key{file}")).collect();
    expected.extend(["", "/a", "/a/b", "/a/b/c"].map(|below| format!("home/bob/.ssh{below}")));
    expected.sort();
    assert_eq!(names, expected, "each once");
    // It is watched from now on.
    fs::write(deep.join("key7"), "changed").unwrap();
    let changes = running.changes().await;
    assert_eq!(told(&changes, &place), [(FileChange::Modified, "home/bob/.ssh/a/b/c/key7".to_owned())]);
    running.balance().await;
    running.stop().await;
}

#[tokio::test]
async fn directories_that_move_are_followed() {
    use FileChange::{Created, Deleted, Modified, Renamed};

    let place = Place::new();
    fs::create_dir_all(place.path("boot/old")).unwrap();
    fs::write(place.path("boot/old/kernel"), "1").unwrap();
    let (mut running, _) = Running::start(place.settings()).await;

    fs::rename(place.path("boot/old"), place.path("boot/new")).unwrap();
    let changes = running.changes().await;
    let expected = [(Renamed, "boot/new/kernel".to_owned()), (Renamed, "boot/new".to_owned())];
    assert_eq!(told(&changes, &place), expected);
    assert_eq!(changes[0].old_path.as_deref(), place.path("boot/old/kernel").to_str());
    fs::write(place.path("boot/new/kernel"), "2").unwrap();
    assert_eq!(told(&running.changes().await, &place), [(Modified, "boot/new/kernel".to_owned())]);

    // Out of sight, and back.
    fs::rename(place.path("boot/new"), place.path("away")).unwrap();
    let expected = [(Deleted, "boot/new/kernel".to_owned()), (Deleted, "boot/new".to_owned())];
    assert_eq!(told(&running.changes().await, &place), expected);
    fs::write(place.path("away/kernel"), "3").unwrap();
    assert_eq!(told(&running.changes().await, &place), []);
    fs::rename(place.path("away"), place.path("boot/back")).unwrap();
    let expected = [(Renamed, "boot/back".to_owned()), (Created, "boot/back/kernel".to_owned())];
    assert_eq!(told(&running.changes().await, &place), expected);

    fs::remove_dir_all(place.path("boot")).unwrap();
    let changes = told(&running.changes().await, &place);
    assert!(changes.iter().all(|(change, _)| *change == Deleted), "{changes:?}");
    assert_eq!(changes.len(), 3);
    fs::create_dir(place.path("boot")).unwrap();
    fs::write(place.path("boot/kernel"), "4").unwrap();
    let expected = [(Created, "boot".to_owned()), (Created, "boot/kernel".to_owned())];
    assert_eq!(told(&running.changes().await, &place), expected);
    running.balance().await;
    running.stop().await;
}

#[tokio::test]
async fn what_changed_while_the_agent_was_down_is_found() {
    use FileChange::{Attributes, Created, Deleted, Modified};

    let place = Place::new();
    fs::write(place.path("etc/cron.d/weekly"), "@weekly root true\n").unwrap();
    fs::write(place.path("etc/cron.d/gone"), "").unwrap();
    let (running, _) = Running::start(place.settings()).await;
    running.stop().await;

    // With the size and the time of modification kept: only the content tells.
    let before = fs::metadata(place.path("etc/passwd")).unwrap().modified().unwrap();
    fs::write(place.path("etc/passwd"), "evil:x:0:0::/root:/bin/sh\n").unwrap();
    fs::File::options().write(true).open(place.path("etc/passwd")).unwrap().set_modified(before).unwrap();
    fs::write(place.path("etc/ld.so.preload"), "/tmp/evil.so\n").unwrap();
    fs::set_permissions(place.path("etc/cron.d/weekly"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::remove_file(place.path("etc/cron.d/gone")).unwrap();
    let (running, said) = Running::start(place.settings()).await;
    let notes = healths(&said).into_iter().map(|h| (h.kind, h.counters.clone())).collect::<Vec<_>>();
    assert_eq!(notes.len(), 1, "{notes:?}");
    let figures: Vec<u64> = notes[0].1.iter().skip(1).map(|(_, count)| *count).collect();
    assert_eq!(figures, [1, 2, 1], "added, changed, removed");
    let mut changes = told(&files(said), &place);
    changes.sort_by(|a, b| a.1.cmp(&b.1));
    let expected = [
        (Deleted, "etc/cron.d/gone"),
        (Attributes, "etc/cron.d/weekly"),
        (Created, "etc/ld.so.preload"),
        (Modified, "etc/passwd"),
    ];
    assert_eq!(changes, expected.map(|(change, name)| (change, name.to_owned())));
    running.stop().await;

    // Once said, it is known.
    let (running, said) = Running::start(place.settings()).await;
    assert!(said.is_empty(), "{said:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_baseline_is_said_and_replaced() {
    let place = Place::new();
    let (running, _) = Running::start(place.settings()).await;
    running.stop().await;
    let file = place.path("state/file-baseline");
    let text = fs::read(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    let (running, said) = Running::start(place.settings()).await;
    let lost: Vec<&Health> = healths(&said).into_iter().filter(|health| health.kind == Kind::Lost).collect();
    assert!(lost[0].message.contains("damaged"), "{lost:?}");
    running.stop().await;
    assert_eq!(fs::read(&file).unwrap().len(), text.len());
}

#[tokio::test]
async fn an_update_is_accepted_with_one_event() {
    let place = Place::new();
    let (running, _) = Running::start(place.settings()).await;
    running.orders.send(Order::AcceptAtNextStart).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.stop().await;
    for job in 0..200 {
        fs::write(place.path(&format!("etc/cron.d/job{job}")), "x").unwrap();
    }
    fs::remove_file(place.path("etc/cron.d/daily")).unwrap();
    let (mut running, said) = Running::start(place.settings()).await;
    let notes = healths(&said);
    assert_eq!(notes.len(), 1, "{notes:?}");
    let figures: Vec<u64> = notes[0].counters.iter().skip(1).map(|(_, count)| *count).collect();
    assert_eq!((figures[0], figures[2]), (200, 1), "{notes:?}");
    assert!(files(said).is_empty());

    // At once: nothing has changed, and that is said too.
    running.orders.send(Order::Accept).await.unwrap();
    let said = running.for_a_while(900).await;
    assert!(healths(&said)[0].message.contains("accepted"), "{said:?}");
    assert_eq!(
        healths(&said)[0].counters[1..],
        ["added", "changed", "removed"].map(|name| (name.to_owned(), 0))
    );
    running.stop().await;
    let (running, said) = Running::start(place.settings()).await;
    assert!(said.is_empty(), "the acceptance holds once: {said:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_first_baseline_that_was_cut_short_is_begun_again() {
    let place = Place::new();
    fs::write(place.path("etc/cron.d/long"), vec![0; 1 << 20]).unwrap();
    // So slow that it is still at it when it is stopped.
    let slow = Settings { hash_rate: 100 << 10, ..place.settings() };
    let (outlet, mut observations) = Outlet::channel(64);
    let (sensor, _orders) = FileSensor::new(slow);
    let status = sensor.status();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(sensor.run(outlet, async move {
        let _ = stopped.await;
    }));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(status.lock().unwrap().modes[1].contains("being looked at"), "{status:?}");
    stop.send(()).unwrap();
    task.await.unwrap();
    assert!(observations.try_recv().is_err() && !place.path("state/file-baseline").exists());
    let (running, said) = Running::start(place.settings()).await;
    assert!(files(said).is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_limit_on_watches_is_named_and_the_hourly_look_remains() {
    let place = Place::new();
    for directory in 0..20 {
        fs::create_dir_all(place.path(&format!("boot/{directory}"))).unwrap();
    }
    // What is above the temporary directory takes some.
    let above = place.path("").components().count();
    let (running, said) = Running::start(Settings { max_watches: above + 6, ..place.settings() }).await;
    let degraded: Vec<&Health> = healths(&said).into_iter().filter(|h| h.kind == Kind::Degraded).collect();
    assert_eq!(degraded.len(), 1, "once: {degraded:?}");
    assert!(degraded[0].component == "files.watches" && degraded[0].message.contains("max_watches"));
    assert_eq!(running.counter("watches"), above as u64 + 6);
    running.stop().await;
    let (running, said) = Running::start(Settings { max_files: 3, ..place.settings() }).await;
    assert!(
        healths(&said).iter().any(|h| h.kind == Kind::Degraded && h.message.contains("max_files")),
        "{said:?}"
    );
    assert_eq!(running.counter("files"), 3);
    running.stop().await;
}

#[tokio::test]
async fn selected_links_are_told_by_their_name() {
    let place = Place::new();
    fs::create_dir(place.path("data")).unwrap();
    fs::write(place.path("data/shadow"), "1").unwrap();
    symlink("../data/shadow", place.path("etc/shadow")).unwrap();
    let (mut running, _) = Running::start(place.settings()).await;
    fs::write(place.path("data/shadow"), "2").unwrap();
    assert_eq!(told(&running.changes().await, &place), [(FileChange::Modified, "etc/shadow".to_owned())]);
    running.stop().await;
}

/// Events are lost when nobody reads the kernel's queue: what was lost is found by a look at every file.
#[tokio::test]
async fn an_overflow_is_counted_and_made_up_for() {
    let place = Place::new();
    let (mut running, _) = Running::start(Settings { max_files: 20_000, ..place.settings() }).await;
    // The runtime has one thread, which is this one: the sensor cannot read.
    for file in 0..18_000 {
        symlink("x", place.path("etc/cron.d").join(file.to_string())).unwrap();
    }
    fs::write(place.path("etc/passwd"), "eve::0:0::/:/bin/sh\n").unwrap();
    fs::remove_file(place.path("etc/cron.d/daily")).unwrap();
    let mut changes = Vec::new();
    let mut lost = Vec::new();
    for _ in 0..300 {
        for observation in running.for_a_while(100).await {
            match observation {
                Observation::Health(health) if health.kind == Kind::Lost => lost.push(health),
                other => changes.extend(files(vec![other])),
            }
        }
        if changes.len() >= 18_002 {
            break;
        }
    }
    let mut changes = told(&changes, &place);
    changes.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(changes.len(), 18_002);
    changes.dedup();
    assert_eq!(changes.len(), 18_002, "each once");
    assert!(changes.contains(&(FileChange::Modified, "etc/passwd".to_owned())));
    assert!(changes.contains(&(FileChange::Deleted, "etc/cron.d/daily".to_owned())));
    assert_eq!(lost[0].counters[0], ("overflows".to_owned(), 1));
    assert_eq!(running.counter("overflows"), 1);
    let late = files(running.balance().await);
    assert!(late.is_empty(), "news of what a look had told already is no news: {late:?}");
    running.stop().await;
}

/// 100,000 creates, faster than they may be told: what is not told is counted, and what is there in the end is known.
#[tokio::test]
async fn a_storm_stays_bounded_and_adds_up() {
    let place = Place::new();
    let settings = Settings { events_per_second: 200, max_files: 2000, ..place.settings() };
    let (mut running, _) = Running::start(settings).await;
    let directory = place.path("etc/cron.d");
    let storm = tokio::task::spawn_blocking(move || {
        for file in 0..100_000 {
            let path = directory.join(file.to_string());
            symlink("x", &path).unwrap();
            if file % 100 != 0 {
                fs::remove_file(path).unwrap();
            }
        }
    });
    let mut events = 0;
    let mut lost = 0;
    let mut quiet = 0;
    while quiet < 2 {
        let said = running.for_a_while(500).await;
        lost += healths(&said).iter().filter(|health| health.kind == Kind::Lost).count();
        let count = files(said).len();
        events += count;
        quiet = if count == 0 && storm.is_finished() { quiet + 1 } else { 0 };
    }
    events += files(running.balance().await).len();
    let status = running.status.lock().unwrap().clone();
    assert_eq!(running.counter("delivered"), events as u64, "what was sent has arrived: {status:?}");
    assert!(running.counter("dropped_over_bound") > 10_000 && lost > 0, "{status:?}");
    if running.counter("overflows") == 0 {
        // The directory, the two files and the thousand that were left.
        assert_eq!(running.counter("files"), 1003, "{status:?}");
    }
    running.stop().await;
}
