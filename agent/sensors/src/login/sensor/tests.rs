use std::io::Write;
use std::time::Duration;

use defender_model::authentication::Authentication;
use defender_model::event::EventKind;
use tokio::sync::mpsc;

use super::*;

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
    let (mut observations, _positions) = start(Config { datagrams: Some(socket), ..Config::default() });
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
