use std::io::Write;
use std::time::Duration;

use defender_model::authentication::{Authentication, Outcome};
use defender_model::event::EventKind;
use tokio::sync::mpsc;

use super::*;
use crate::login::accounting::record::Layout;
use crate::login::report::Reports;

fn clock() -> Timestamp {
    Timestamp(42)
}

fn start(config: Config) -> (mpsc::Receiver<Observation>, watch::Receiver<Vec<Position>>) {
    let (outlet, observations) = Outlet::channel(64);
    let (sender, positions) = watch::channel(Vec::new());
    tokio::spawn(run(config, clock, outlet, sender));
    (observations, positions)
}

async fn next(observations: &mut mpsc::Receiver<Observation>) -> Observation {
    tokio::time::timeout(Duration::from_secs(10), observations.recv())
        .await
        .expect("in time")
        .expect("the sensor runs")
}

async fn authentication(observations: &mut mpsc::Receiver<Observation>) -> Authentication {
    loop {
        if let Observation::Event(Event { time, sequence: 0, kind: EventKind::Authentication(found) }) =
            next(observations).await
        {
            assert_eq!(time, clock());
            return *found;
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_file_to_events_and_positions() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("auth.log");
    let mut log = std::fs::File::create(&path).expect("a file");
    writeln!(log, "Nov  3 20:50:50 h sshd[1]: Failed password for old from 192.0.2.1 port 1 ssh2")
        .expect("write");
    let missing = directory.path().join("secure");
    let config = Config { files: vec![path.clone(), missing.clone()], ..Config::default() };
    let (mut observations, mut positions) = start(config);
    let Observation::Health(summary) = next(&mut observations).await else { panic!("a summary first") };
    assert_eq!(summary.message, format!("reading {}; waiting for {}", path.display(), missing.display()));

    writeln!(log, "Nov  3 20:50:52 h sshd[7]: Failed password for root from 192.0.2.7 port 40022 ssh2")
        .expect("write");
    writeln!(log, "Nov  3 20:50:52 h last message repeated 2 times").expect("write");
    writeln!(log, "Nov  3 20:50:53 h sshd[7]: Connection closed by authenticating user root 192.0.2.7 port 40022 [preauth]")
        .expect("write");
    writeln!(log, "Nov  3 20:50:54 h sshd[8]: Accepted password for root from 192.0.2.7 port 40023 ssh2")
        .expect("write");
    let first = authentication(&mut observations).await;
    assert_eq!((first.user.as_deref(), first.pid, first.count), (Some("root"), Some(7), 1));
    assert_eq!(first.source, "192.0.2.7".parse().ok());
    let again = authentication(&mut observations).await;
    assert_eq!((again.pid, again.count), (Some(7), 2));
    assert_eq!(authentication(&mut observations).await.pid, Some(8));

    tokio::time::timeout(
        Duration::from_secs(10),
        positions
            .wait_for(|p| p.first().is_some_and(|p| p.offset == log.metadata().expect("a length").len())),
    )
    .await
    .expect("in time")
    .expect("the sensor runs");
}

#[tokio::test(flavor = "current_thread")]
async fn the_first_file_that_appears_ends_the_fault_of_reading_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, other) = (directory.path().join("auth.log"), directory.path().join("secure"));
    let config = Config { files: vec![path.clone(), other.clone()], ..Config::default() };
    let (mut observations, _positions) = start(config);
    let Observation::Health(first) = next(&mut observations).await else { panic!("a summary first") };
    assert_eq!((first.kind, first.component.as_str()), (Kind::Degraded, "login"));
    assert!(first.message.starts_with("reading nothing; waiting for "), "{}", first.message);
    // Empty: the file counts, not its first line.
    std::fs::write(&path, "").expect("write");
    let Observation::Health(second) = next(&mut observations).await else { panic!("health") };
    assert_eq!((second.kind, second.component.as_str()), (Kind::Recovered, "login"));
    assert_eq!(second.message, format!("reading {}; waiting for {}", path.display(), other.display()));
    // Once is enough.
    std::fs::write(
        &other,
        "Nov  3 20:50:52 h sshd[7]: Failed password for root from 192.0.2.7 port 40022 ssh2\n",
    )
    .expect("write");
    assert!(matches!(next(&mut observations).await, Observation::Event(_)));
}

#[tokio::test(flavor = "current_thread")]
async fn datagrams_to_events_but_only_roots_addresses_count() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let socket = UnixDatagram::bind(&path).expect("bind");
    let (mut observations, _positions) =
        start(Config { datagrams: Some((socket, path.clone())), ..Config::default() });
    let sender = UnixDatagram::unbound().expect("a socket");
    sender
        .send_to(
            b"<38>Nov  3 20:50:52 dropbear[9]: Bad password attempt for 'root' from 192.0.2.7:40022\0",
            &path,
        )
        .expect("send");
    let found = authentication(&mut observations).await;
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("proc")) == 0;
    assert_eq!(found.source, if root { "192.0.2.7".parse().ok() } else { None });
}

/// A record of wtmp as this machine's C library writes it (see `accounting::record`).
fn record(kind: i16, pid: i32, line: &str, user: &str, address: [u8; 4]) -> Vec<u8> {
    let layout = Layout::NATIVE;
    let (seconds, source) = if layout == Layout::Time32 { (340, 348) } else { (344, 360) };
    let mut bytes = vec![0; layout.size()];
    let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    put(0, &kind.to_ne_bytes());
    put(4, &pid.to_ne_bytes());
    put(8, line.as_bytes());
    put(44, user.as_bytes());
    put(source, &address);
    if layout == Layout::Time32 {
        put(seconds, &1_700_000_000_u32.to_ne_bytes());
    } else {
        put(seconds, &1_700_000_000_i64.to_ne_bytes());
    }
    bytes
}

#[tokio::test(flavor = "current_thread")]
async fn one_login_in_log_wtmp_and_by_report_is_one_event_and_its_end_has_a_duration() {
    let directory = tempfile::tempdir().expect("a directory");
    let [log, wtmp, btmp] = ["auth.log", "wtmp", "btmp"].map(|name| directory.path().join(name));
    std::fs::write(&log, "").expect("write");
    std::fs::write(&wtmp, "").expect("write");
    let status = Arc::<Mutex<Status>>::default();
    let (sender, reports) = Reports::channel(4);
    let config = Config {
        files: vec![log.clone()],
        accounting: vec![wtmp.clone(), btmp.clone()],
        reports: Some(reports),
        status: status.clone(),
        ..Config::default()
    };
    let (mut observations, _positions) = start(config);
    assert!(matches!(next(&mut observations).await, Observation::Health(_)));
    let append = |path: &PathBuf, bytes: &[u8]| {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(bytes)).expect("write");
    };
    append(&log, b"Nov  3 20:50:54 h sshd[8]: Accepted password for root from 192.0.2.7 port 40023 ssh2\n");
    append(&wtmp, &record(7, 30, "pts/0", "root", [192, 0, 2, 7]));
    let first = authentication(&mut observations).await;
    assert_eq!((first.activity, first.pid), (Activity::Logon, Some(8)));
    assert!(sender.tell(Report::new(Teller::Pam, Authentication { pid: None, tty: None, ..first })));
    // What became of the others shows in the counters; nothing else tells that they came.
    let counted = |name: &str| {
        let status = status.lock().expect("whole");
        status.counters.iter().find(|(counter, _)| *counter == name).map_or(0, |(_, count)| *count)
    };
    let patience = Instant::now() + Duration::from_secs(20);
    while counted("merged") < 2 {
        assert!(Instant::now() < patience, "{:?}", status.lock());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(counted("sessions"), 1);
    // A failure in btmp alone comes after a moment, and does not wait for anything else to happen.
    append(&btmp, &record(6, 31, "ssh:notty", "admin", [192, 0, 2, 8]));
    let failed = authentication(&mut observations).await;
    assert_eq!((failed.outcome, failed.user.as_deref()), (Outcome::Failure, Some("admin")));
    assert_eq!(failed.source, "192.0.2.8".parse().ok());
    append(&wtmp, &record(8, 30, "pts/0", "", [0; 4]));
    let last = authentication(&mut observations).await;
    assert_eq!(
        (last.activity, last.user.as_deref(), last.service.as_str()),
        (Activity::Logoff, Some("root"), "sshd")
    );
    assert!(last.duration_ms.is_some() && last.source == "192.0.2.7".parse().ok(), "{last:?}");
    // Told by log, wtmp, PAM, btmp, wtmp; three events.
    while counted("delivered") < 3 {
        assert!(Instant::now() < patience, "{:?}", status.lock());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((counted("produced"), counted("aggregated"), counted("held")), (5, 2, 0));
}
