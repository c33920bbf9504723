//! A file sensor whose inotify instance is taken away from under it: said once, opened again, and what changed meanwhile is told. The only
//! test of its program, for it looks for the descriptor among all.

use std::fs;
use std::os::fd::AsRawFd;
use std::time::Duration;

use defender_model::event::EventKind;
use defender_model::health::Kind;
use defender_model::time::Timestamp;
use defender_sensors::balance;
use defender_sensors::file::{FileSensor, Settings};
use defender_sensors::process::Writers;
use defender_sensors::{Observation, Outlet};
use tokio::sync::mpsc;

fn inotify() -> Option<i32> {
    let entries = fs::read_dir("/proc/self/fd").expect("procfs").flatten();
    let mut found = entries.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:inotify")
    });
    found.next()?.file_name().to_str()?.parse().ok()
}

/// What is said next: the kind of a statement and its component, or the name of a file.
async fn next(observations: &mut mpsc::Receiver<Observation>) -> String {
    let said = tokio::time::timeout(Duration::from_secs(60), observations.recv()).await;
    match said.expect("in time").expect("it runs") {
        Observation::Health(health) => format!("{} {}", health.kind.name(), health.component),
        Observation::Event(event) => {
            let EventKind::File(file) = event.kind else { panic!("{event:?}") };
            file.path.rsplit('/').next().unwrap_or_default().to_owned()
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_inotify_that_is_taken_away_is_opened_again() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().canonicalize().unwrap().join(name);
    fs::create_dir(path("watched")).unwrap();
    fs::create_dir(path("state")).unwrap();
    let (sensor, _orders) = FileSensor::new(Settings {
        paths: vec![path("watched")],
        exclude: Vec::new(),
        max_watches: 100,
        max_files: 100,
        hash_limit: 1 << 20,
        hash_rate: 100 << 20,
        events_per_second: 0,
        state_dir: path("state"),
        writers: Writers::default(),
        idle: || {},
        clock: || Timestamp(1),
    });
    let status = sensor.status();
    let (outlet, mut observations) = Outlet::channel(64);
    let task = tokio::spawn(sensor.run(outlet, std::future::pending()));
    assert_eq!(next(&mut observations).await, "changed files.baseline");
    fs::write(path("watched/before"), "").unwrap();
    assert_eq!(next(&mut observations).await, "before");

    let descriptor = inotify().expect("one");
    let null = fs::File::open("/dev/null").unwrap();
    // SAFETY: the descriptor is open. Its copy keeps the instance, and with it the news that something is to be read, for the rest of the test.
    let copy = unsafe { libc::dup(descriptor) };
    // SAFETY: both are open; the second stays so, as another file.
    assert!(copy >= 0 && unsafe { libc::dup2(null.as_raw_fd(), descriptor) } >= 0);
    fs::write(path("watched/meanwhile"), "").unwrap();
    assert_eq!(next(&mut observations).await, format!("{} files", Kind::Degraded.name()));
    assert_eq!(next(&mut observations).await, format!("{} files", Kind::Recovered.name()));
    assert_eq!(next(&mut observations).await, "meanwhile");
    assert_eq!(next(&mut observations).await, "changed files.baseline");
    fs::write(path("watched/after"), "").unwrap();
    assert_eq!(next(&mut observations).await, "after");

    // The sheet goes on where it was.
    let mut counters = Vec::new();
    for _ in 0..600 {
        counters = status.lock().unwrap().counters.clone();
        if counters.contains(&("held", 0)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (produced, became) = balance::sides(counters.iter().copied()).expect("a sheet");
    assert_eq!(produced, became, "{counters:?}");
    assert!(counters.contains(&("delivered", 3)), "{counters:?}");
    task.abort();
}
