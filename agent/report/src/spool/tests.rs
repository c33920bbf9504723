//! Sinks behind a spool: they come and go, and nothing is lost uncounted.

use std::collections::BTreeSet;
use std::fs;

use defender_model::health::Health;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::sink::{channel, tests::record, Limits};

/// An agent: a spool and its writer, and one sink whose records the test takes itself.
struct Agent {
    spool: Arc<Spool>,
    writer: SinkHandle,
    writing: JoinHandle<()>,
    sink: SinkHandle,
    intake: Intake,
    feeding: JoinHandle<()>,
    health: mpsc::Receiver<Health>,
}

impl Agent {
    fn start(directory: &std::path::Path, max_size: u64, minimum: Severity) -> Self {
        let (notices, health) = mpsc::channel(64);
        let ledger = Some(directory.with_extension("ledger"));
        let config = Config { directory: directory.to_owned(), max_size, sync_alerts: true, ledger };
        let spool = Arc::new(Spool::open(config).unwrap());
        let (writer, taking) = channel("spool", Limits::default(), notices.clone());
        let writing = tokio::spawn(run(Arc::clone(&spool), taking));
        let (sink, mut intake) = channel("sink.test", Limits { minimum, ..Limits::default() }, notices);
        spool.seat(&sink, &mut intake);
        let feeding = tokio::spawn(feed(Arc::clone(&spool), sink.clone()));
        Self { spool, writer, writing, sink, intake, feeding, health }
    }

    async fn push(&self, sequences: std::ops::Range<u64>, alert: bool) {
        for sequence in sequences {
            self.writer.push(record(sequence, alert)).await;
        }
        // Written, and so in the files.
        while self.writer.stats().queued > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(80)).await;
    }

    /// What the sink gets until nothing comes any more.
    async fn take(&mut self) -> Vec<Record> {
        let mut all = Vec::new();
        while tokio::time::timeout(Duration::from_millis(300), self.intake.wait()).await.is_ok() {
            let mut batch = VecDeque::new();
            self.intake.take(&mut batch, 10, usize::MAX);
            all.extend(batch);
        }
        all
    }

    /// SIGKILL: nothing is saved.
    fn kill(self) {
        self.writing.abort();
        self.feeding.abort();
    }

    async fn stop(self) {
        self.writer.close();
        self.writing.await.unwrap();
        self.feeding.abort();
        self.spool.save();
    }
}

fn sequences(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.sequence).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn a_sink_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path(), 1 << 20, Severity::Informational);
    agent.push(0..100, false).await;
    agent.push(100..110, true).await;
    let taken = agent.take().await;
    assert_eq!(taken.len(), 110);
    assert_eq!(agent.sink.stats().written, 0);
    agent.intake.delivered(taken.iter().filter(|record| record.sequence < 60 || record.alert));
    agent.stop().await;

    // After a stop: what was not delivered, no more and no less.
    let mut agent = Agent::start(directory.path(), 1 << 20, Severity::Informational);
    let taken = agent.take().await;
    assert_eq!(sequences(&taken), (60..100).collect::<Vec<_>>());
    agent.intake.delivered(&taken);
    agent.push(110..120, false).await;
    agent.kill();

    // After a SIGKILL: everything since the cursor was saved, some of it twice.
    let mut agent = Agent::start(directory.path(), 1 << 20, Severity::Informational);
    let taken: BTreeSet<u64> = agent.take().await.iter().map(|record| record.sequence).collect();
    assert!((110..120).all(|sequence| taken.contains(&sequence)), "{taken:?}");
    assert!(taken.iter().all(|sequence| *sequence >= 60), "{taken:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn what_did_not_fit_is_counted_to_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path(), 256 << 10, Severity::Informational);
    agent.push(0..20, true).await;
    agent.push(20..6000, false).await;
    assert_eq!(agent.spool.oldest(&agent.sink), Some(record(0, true).time));
    let taken = agent.take().await;
    let stats = agent.sink.stats();
    assert!(stats.dropped > 0, "{stats:?}");
    assert_eq!(taken.len() as u64 + stats.dropped, 6000);
    assert_eq!(stats.dropped_alerts, 0);
    assert_eq!(taken.iter().filter(|record| record.alert).count(), 20);
    let telemetry: Vec<u64> =
        taken.iter().filter(|record| !record.alert).map(|record| record.sequence).collect();
    assert!(telemetry.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(telemetry.last(), Some(&5999));
    // The loss is said when the sink works.
    agent.intake.delivered(&taken);
    let said = agent.health.recv().await.unwrap();
    assert!(said.counters.contains(&("other_records".to_owned(), stats.dropped)), "{said:?}");
    assert_eq!((agent.spool.behind(&agent.sink), agent.spool.oldest(&agent.sink)), (0, None));
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_sink_is_not_for_does_not_hold_it_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path(), 1 << 20, Severity::High);
    agent.push(0..200, false).await;
    agent.push(200..203, true).await;
    let taken = agent.take().await;
    assert_eq!(sequences(&taken), [200, 201, 202]);
    agent.intake.delivered(&taken);
    assert_eq!((agent.spool.behind(&agent.sink), agent.sink.stats().dropped), (0, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn without_a_disk_records_go_through_memory() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("spool");
    let mut agent = Agent::start(&place, 1 << 20, Severity::Informational);
    fs::remove_dir_all(&place).unwrap();
    agent.push(0..50, true).await;
    agent.push(50..60, false).await;
    let taken = agent.take().await;
    assert_eq!(sequences(&taken), (0..60).collect::<Vec<_>>());
    assert!(taken.iter().all(|record| record.ticket.is_none()));
    let said = agent.health.recv().await.unwrap();
    assert!(said.message.contains("cannot begin"), "{said:?}");
    // It comes back.
    fs::create_dir(&place).unwrap();
    agent.push(60..70, true).await;
    let taken = agent.take().await;
    assert_eq!(sequences(&taken), (60..70).collect::<Vec<_>>());
    assert!(taken.iter().all(|record| record.ticket.is_some()));
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_kill_finds_on_its_way_is_counted_by_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("spool");
    let agent = Agent::start(&place, 1 << 20, Severity::Informational);
    assert_eq!(agent.spool.missing(), [0, 0]);
    let records = |sequences: std::ops::Range<u64>| -> Vec<Record> {
        sequences.map(|sequence| record(sequence, sequence % 5 == 0)).collect()
    };
    let first = records(0..10);
    agent.spool.expect(&agent.writer, &first, |_| false);
    for record in first {
        agent.writer.push(record).await;
    }
    // In the files: nothing of it is missing.
    agent.push(0..0, false).await;
    // Announced, in the queue, and the agent is gone before the writer's turn.
    let second = records(10..20);
    agent.spool.expect(&agent.writer, &second, |_| false);
    for record in second {
        agent.writer.push(record).await;
    }
    agent.kill();
    let mut agent = Agent::start(&place, 1 << 20, Severity::Informational);
    assert_eq!(agent.spool.missing(), [2, 8]);
    assert_eq!(agent.take().await.len(), 10);
    agent.stop().await;
    // Nobody has told so far.
    let agent = Agent::start(&place, 1 << 20, Severity::Informational);
    assert_eq!(agent.spool.missing(), [2, 8]);
    agent.spool.told_missing();
    agent.spool.expect(&agent.writer, [&record(100, true)], |_| false);
    agent.push(100..101, true).await;
    agent.kill();
    let agent = Agent::start(&place, 1 << 20, Severity::Informational);
    assert_eq!(agent.spool.missing(), [0, 0], "said once");
    // Written, and killed before that could be written down.
    let third = records(120..124);
    agent.spool.expect(&agent.writer, &third, |_| false);
    for record in &third {
        agent.spool.lock().store.append(Lane::of(record), [record], &mut 0, &mut Vec::new()).unwrap();
    }
    agent.kill();
    assert_eq!(Agent::start(&place, 1 << 20, Severity::Informational).spool.missing(), [0, 0]);
}

#[tokio::test(flavor = "current_thread")]
async fn no_kill_takes_an_alert() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("spool");
    let agent = Agent::start(&place, 1 << 20, Severity::Informational);
    let lost: Vec<Record> = vec![record(1, false)];
    agent.spool.expect(&agent.writer, &lost, |_| false);
    // No other task has its turn from here to the kill.
    for sequence in 2..20 {
        assert!(agent.spool.take(&agent.writer, &record(sequence, true)));
    }
    let stats = agent.writer.stats();
    assert_eq!((stats.handed, stats.written, stats.queued), (18, 18, 0));
    agent.kill();
    let mut agent = Agent::start(&place, 1 << 20, Severity::Informational);
    assert_eq!(agent.spool.missing(), [0, 1]);
    assert_eq!(sequences(&agent.take().await), (2..20).collect::<Vec<_>>());
    // That one is missing is told by an alert, which is in the files as soon as it is said.
    agent.spool.told_missing();
    let teller = record(20, true);
    assert!(agent.spool.take(&agent.writer, &teller));
    agent.spool.expect(&agent.writer, [&teller], |_| true);
    agent.kill();
    assert_eq!(Agent::start(&place, 1 << 20, Severity::Informational).spool.missing(), [0, 0], "said once");
}

/// On a file system of 256 KiB, where only root can make one.
#[tokio::test(flavor = "current_thread")]
async fn on_a_full_disk_telemetry_makes_room_for_alerts() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("disk");
    fs::create_dir(&place).unwrap();
    let mount = |arguments: &[&str]| {
        std::process::Command::new(arguments[0]).args(&arguments[1..]).arg(&place).status()
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=256k", "none"]).is_ok_and(|status| status.success()) {
        println!("skipped: needs root and mount(8)");
        return;
    }
    let mut agent = Agent::start(&place.join("spool"), 1 << 20, Severity::Informational);
    agent.push(0..10, true).await;
    agent.push(10..6000, false).await;
    agent.push(6000..6100, true).await;
    let taken = agent.take().await;
    let stats = agent.sink.stats();
    agent.kill();
    assert!(mount(&["umount", "-l"]).unwrap().success());
    let alerts: BTreeSet<u64> =
        taken.iter().filter(|record| record.alert).map(|record| record.sequence).collect();
    assert_eq!(alerts, (0..10).chain(6000..6100).collect());
    assert!(stats.dropped > 0, "{stats:?}");
    let others = taken.iter().filter(|record| !record.alert).count() as u64;
    assert_eq!((others + stats.dropped, stats.dropped_alerts), (5990, 0));
}

/// Over MQTT, with a broker that hangs up and an agent that is killed, again and again.
#[cfg(feature = "mqtt")]
mod faults {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::BytesMut;
    use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::mqtt;

    const RECORDS: u64 = 20_000;
    const KILLS: u64 = 50;

    /// What a broker has seen.
    #[derive(Debug, Default)]
    struct Seen {
        /// Sequence numbers that it has acknowledged, or been about to.
        published: Mutex<BTreeSet<u64>>,
        messages: AtomicUsize,
        hung_up: AtomicUsize,
    }

    /// One connection, until the device goes or `until` messages have come: the last of those is taken and not acknowledged.
    async fn connection(mut stream: TcpStream, seen: &Seen, until: usize) -> std::io::Result<()> {
        let (mut incoming, mut messages) = (BytesMut::new(), 0);
        loop {
            let mut answer = BytesMut::new();
            while let Ok(packet) = Packet::read(&mut incoming, 1 << 20) {
                match packet {
                    Packet::Connect(_) => {
                        ConnAck::new(ConnectReturnCode::Success, false).write(&mut answer).unwrap();
                    }
                    Packet::Publish(publish) if publish.topic.ends_with("/status") => {}
                    Packet::Publish(publish) => {
                        let text = std::str::from_utf8(&publish.payload).unwrap();
                        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                        seen.published.lock().unwrap().insert(digits.parse().unwrap());
                        seen.messages.fetch_add(1, Ordering::Relaxed);
                        messages += 1;
                        if messages == until {
                            seen.hung_up.fetch_add(1, Ordering::Relaxed);
                            return Ok(());
                        }
                        PubAck::new(publish.pkid).write(&mut answer).unwrap();
                    }
                    Packet::PingReq => answer.extend([0xd0, 0]),
                    _ => {}
                }
            }
            stream.write_all(&answer).await?;
            if stream.read_buf(&mut incoming).await? == 0 {
                return Ok(());
            }
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn every_record_reaches_a_broker_that_hangs_up_from_an_agent_that_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let broker = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                for turn in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    // Some at once, some after a while.
                    let _ = connection(stream, &seen, [1, 700, 33, 1500][turn % 4]).await;
                }
            }
        });
        let mut pushed = 0;
        for _ in 0..KILLS {
            let (notices, _health) = mpsc::channel(64);
            let config = Config {
                directory: directory.path().to_owned(),
                max_size: 8 << 20,
                sync_alerts: false,
                ledger: None,
            };
            let spool = Arc::new(Spool::open(config).unwrap());
            let (writer, taking) = channel("spool", Limits::default(), notices.clone());
            let writing = tokio::spawn(run(Arc::clone(&spool), taking));
            let (sink, mut intake) = channel("sink.mqtt", Limits::default(), notices);
            spool.seat(&sink, &mut intake);
            let feeding = tokio::spawn(feed(Arc::clone(&spool), sink.clone()));
            let sending = tokio::spawn(mqtt::run(mqtt::Config::plain("127.0.0.1", port, "dev"), intake));
            let from = pushed;
            while pushed < from + RECORDS / KILLS {
                writer.push(record(pushed, pushed % 10 == 0)).await;
                pushed += 1;
            }
            // Written is what SIGKILL cannot take; what still waits for company is gone, at most 50 ms of telemetry.
            while writer.stats().written < RECORDS / KILLS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if pushed < RECORDS {
                spool.save();
                tokio::time::sleep(Duration::from_millis(pushed % 7 * 10)).await;
                for task in [writing, feeding, sending] {
                    task.abort();
                    let _ = task.await;
                }
                continue;
            }
            let end = tokio::time::Instant::now() + Duration::from_secs(60);
            while spool.behind(&sink) > 0 {
                assert!(tokio::time::Instant::now() < end, "{:?}", sink.stats());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let stats = sink.stats();
            assert_eq!((stats.dropped, stats.dropped_alerts), (0, 0));
        }
        broker.abort();
        let published = seen.published.lock().unwrap();
        let missing: Vec<u64> = (0..RECORDS).filter(|sequence| !published.contains(sequence)).collect();
        assert!(
            missing.is_empty(),
            "{} missing, such as {:?}",
            missing.len(),
            &missing[..missing.len().min(9)]
        );
        let (messages, hung_up) =
            (seen.messages.load(Ordering::Relaxed), seen.hung_up.load(Ordering::Relaxed));
        println!(
            "{RECORDS} records, {messages} messages, the broker hung up {hung_up} times, {KILLS} agents"
        );
        assert!(hung_up > 5, "{hung_up}");
    }
}
