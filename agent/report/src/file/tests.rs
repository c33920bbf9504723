use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use defender_model::health::{Health, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::record::Record;
use crate::sink::tests::record;
use crate::sink::{self, Limits, SinkHandle, State};

struct Running {
    handle: SinkHandle,
    health: mpsc::Receiver<Health>,
    task: JoinHandle<()>,
}

fn start(path: &Path, max_size: u64, keep: u32) -> Running {
    start_limited(path, max_size, keep, Limits::default())
}

fn start_limited(path: &Path, max_size: u64, keep: u32, limits: Limits) -> Running {
    let (notices, health) = mpsc::channel(64);
    let (handle, intake) = sink::channel("sink.file", limits, notices);
    let config = Config { path: path.to_owned(), max_size, keep, sync_alerts: true };
    let task = tokio::spawn(run(config, intake));
    Running { handle, health, task }
}

impl Running {
    async fn end(self) -> sink::Stats {
        self.handle.close();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("in time").expect("no panic");
        self.handle.stats()
    }

    async fn wait_for(&self, what: &str, mut condition: impl FnMut(&sink::Stats) -> bool) {
        for _ in 0..1000 {
            if condition(&self.handle.stats()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", self.handle.stats());
    }
}

fn sequences(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).expect("a file");
    text.lines()
        .map(|line| {
            let number = line.strip_prefix("{\"sequence\":").and_then(|l| l.strip_suffix('}'));
            number.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("a torn line: {line}"))
        })
        .collect()
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    format!("{}.{number}", path.display()).into()
}

#[tokio::test(flavor = "current_thread")]
async fn twenty_thousand_records_exactly_once_through_rotations() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.jsonl");
    let running = start(&path, 50_000, 20);
    for sequence in 0..20_000 {
        running.handle.push(record(sequence, sequence % 1000 == 0)).await;
    }
    let stats = running.end().await;
    assert_eq!((stats.written, stats.dropped, stats.dropped_alerts), (20_000, 0, 0));
    let mut all = Vec::new();
    for number in (1..=20).rev() {
        if numbered(&path, number).exists() {
            assert!(fs::metadata(numbered(&path, number)).expect("a file").len() <= 50_000);
            all.extend(sequences(&numbered(&path, number)));
        }
    }
    all.extend(sequences(&path));
    all.sort_unstable();
    assert_eq!(all, (0..20_000).collect::<Vec<u64>>());
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o640);
}

#[tokio::test(flavor = "current_thread")]
async fn rotation_boundaries() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.jsonl");
    let line = record(0, false).ocsf.len() as u64 + 1;
    // Exactly three records fit.
    let running = start(&path, 3 * line, 2);
    for sequence in 0..10 {
        running.handle.push(record(sequence, false)).await;
    }
    assert_eq!(running.end().await.written, 10);
    assert_eq!(sequences(&path), [9]);
    assert_eq!(sequences(&numbered(&path, 1)), [6, 7, 8]);
    assert_eq!(sequences(&numbered(&path, 2)), [3, 4, 5]);
    assert!(!numbered(&path, 3).exists());

    // A record longer than a file has a file of its own; nothing is kept.
    let path = directory.path().join("small.jsonl");
    let running = start(&path, 1, 0);
    for sequence in 0..3 {
        running.handle.push(record(sequence, false)).await;
    }
    assert_eq!(running.end().await.written, 3);
    assert_eq!(sequences(&path), [2]);
    assert!(!numbered(&path, 1).exists());
}

#[tokio::test(flavor = "current_thread")]
async fn alerts_do_not_wait_and_telemetry_comes_together() {
    // Whether something waits for 50 ms shows only while this machine is not slower than that: it may be, for a while.
    for _ in 0..50 {
        if an_alert_overtakes_telemetry_at_once().await {
            return;
        }
    }
    panic!("alerts wait as telemetry does, or telemetry does not wait");
}

async fn an_alert_overtakes_telemetry_at_once() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.jsonl");
    let running = start(&path, 1_000_000, 1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    running.handle.try_push(record(1, false));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let waited = !path.exists();
    let begun = std::time::Instant::now();
    running.handle.try_push(record(2, true));
    running.wait_for("both are written", |stats| stats.written == 2).await;
    let at_once = begun.elapsed() < GATHER;
    let order = sequences(&path);
    running.handle.try_push(record(3, false));
    running.wait_for("telemetry alone", |stats| stats.written == 3).await;
    waited && at_once && order == [2, 1]
}

#[tokio::test(flavor = "current_thread")]
async fn a_torn_last_line_is_ended_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.jsonl");
    fs::write(&path, "{\"sequence\":1}\n{\"sequ").expect("write");
    let running = start(&path, 1_000_000, 1);
    running.handle.push(record(2, true)).await;
    running.end().await;
    assert_eq!(fs::read_to_string(&path).expect("a file"), "{\"sequence\":1}\n{\"sequ\n{\"sequence\":2}\n");
}

#[tokio::test(flavor = "current_thread")]
async fn a_deleted_and_a_replaced_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.jsonl");
    let running = start(&path, 1_000_000, 1);
    running.handle.push(record(1, true)).await;
    running.wait_for("the first", |stats| stats.written == 1).await;
    fs::remove_file(&path).expect("remove");
    running.handle.push(record(2, true)).await;
    running.wait_for("the second", |stats| stats.written == 2).await;
    assert_eq!(sequences(&path), [2]);
    fs::rename(&path, directory.path().join("moved")).expect("rename");
    fs::write(&path, "{\"sequence\":100}\n").expect("write");
    running.handle.push(record(3, true)).await;
    running.wait_for("the third", |stats| stats.written == 3).await;
    assert_eq!(sequences(&path), [100, 3]);
    running.end().await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_cannot_be_opened_is_reported_kept_and_written_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("later/events.jsonl");
    let mut running = start_limited(&path, 1_000_000, 1, Limits { telemetry: 2, ..Limits::default() });
    running.handle.try_push(record(1, true));
    let notice = running.health.recv().await.expect("a notice");
    assert_eq!((notice.kind, notice.component.as_str()), (Kind::Degraded, "sink.file"));
    assert!(
        notice.message.contains("cannot open") && notice.message.contains("No such file"),
        "{}",
        notice.message
    );
    for sequence in 2..6 {
        running.handle.try_push(record(sequence, false));
    }
    assert_eq!((running.handle.stats().state, running.handle.stats().dropped), (State::Retrying, 2));
    fs::create_dir(directory.path().join("later")).expect("mkdir");
    running.wait_for("all that was kept", |stats| stats.written == 3).await;
    assert_eq!(sequences(&path), [1, 4, 5]);
    assert_eq!(running.health.recv().await.expect("a notice").kind, Kind::Recovered);
    let lost = running.health.recv().await.expect("a notice");
    assert_eq!((lost.kind, lost.counters[1].1), (Kind::Lost, 2));
    // Links are not followed: whoever may write the directory could point it at another file.
    let elsewhere = directory.path().join("elsewhere");
    fs::remove_file(&path).expect("remove");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("link");
    running.handle.try_push(record(6, true));
    assert_eq!(running.health.recv().await.expect("a notice").kind, Kind::Degraded);
    assert!(!elsewhere.exists());
    let stats = running.end().await;
    assert_eq!(stats.dropped_alerts, 1);
}

/// A file system of 64 KiB, unmounted at the end.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().ok()?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "defender-test"])
            .arg(directory.path())
            .output()
            .ok()?;
        done.status.success().then_some(Self(directory))
    }

    fn remount(&self, option: &str) {
        let done =
            Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.0.path()).status();
        assert!(done.expect("mount runs").success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_full_and_a_read_only_file_system() {
    let Some(small) = Small::mount() else {
        println!("skipped: cannot mount a tmpfs (needs root)");
        return;
    };
    let path = small.0.path().join("events.jsonl");
    let ballast = small.0.path().join("ballast");
    let mut running = start(&path, 1_000_000, 1);
    running.handle.push(record(0, true)).await;
    running.wait_for("the first", |stats| stats.written == 1).await;
    // Half a page is left: some records fit, one is torn.
    fs::write(&ballast, vec![0; 60 * 1024 - 4096]).expect("ballast");
    for sequence in 1..2000 {
        running.handle.try_push(record(sequence, false));
    }
    running.wait_for("the end of the space", |stats| stats.state == State::Retrying).await;
    let notice = running.health.recv().await.expect("a notice");
    assert!(notice.message.contains("No space left"), "{}", notice.message);
    let before = running.handle.stats().written;
    assert!(before > 1 && before < 2000, "{before}");
    fs::remove_file(&ballast).expect("remove");
    running.wait_for("everything", |stats| stats.written == 2000).await;
    assert_eq!(sequences(&path), (0..2000).collect::<Vec<u64>>());

    running.end().await;

    small.remount("ro");
    let running = start(&path, 1_000_000, 1);
    running.handle.try_push(record(2000, true));
    running.wait_for("the refusal", |stats| stats.state == State::Retrying).await;
    let error = running.handle.stats().last_error.expect("a reason");
    assert!(error.contains("Read-only"), "{error}");
    small.remount("rw");
    running.wait_for("the alert", |stats| stats.written == 1).await;
    assert_eq!(sequences(&path), (0..2001).collect::<Vec<u64>>());
    running.end().await;
}

#[test]
fn a_batch_is_written_as_far_as_it_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.jsonl");
    let config = Config { path: path.clone(), max_size: 40, keep: 1, sync_alerts: false };
    let mut writer = Writer::new(config);
    let batch: VecDeque<Record> = (0..5).map(|sequence| record(sequence, false)).collect();
    let (written, outcome) = writer.write(&batch);
    outcome.expect("written");
    assert_eq!(written, 5);
    assert_eq!(sequences(&path), [4]);
    assert_eq!(sequences(&numbered(&path, 1)), [2, 3]);
}
