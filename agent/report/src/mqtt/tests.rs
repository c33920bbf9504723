use std::process::{Child, Command, Stdio};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::sink::tests::record;
use crate::sink::{self, Limits, SinkHandle, State, Stats};

/// A broker of the distribution on loopback, ended with the test.
pub(super) struct Broker {
    child: Child,
    pub(super) port: u16,
    directory: tempfile::TempDir,
}

impl Broker {
    /// On `port`, or on a free one; `None` if there is no broker to be had.
    pub(super) fn start(port: Option<u16>) -> Option<Self> {
        Self::start_with(port, "")
    }

    fn start_with(port: Option<u16>, options: &str) -> Option<Self> {
        let port = port.unwrap_or_else(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
            listener.local_addr().expect("an address").port()
        });
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\nlog_dest file {}\nlog_type subscribe\n{options}",
            directory.path().join("log").display()
        );
        std::fs::write(&file, text).expect("write");
        let child = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
            Command::new(program)
                .arg("-c")
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        });
        let Some(child) = child else {
            println!("skipped: mosquitto is not installed");
            return None;
        };
        let broker = Self { child, port, directory };
        for _ in 0..500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(broker);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("mosquitto does not listen on port {port} (see {})", broker.directory.path().display());
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) fn config(port: u16) -> Config {
    Config { keep_alive: Duration::from_secs(2), ..Config::plain("127.0.0.1", port, "dev/1") }
}

pub(super) fn start(config: Config) -> (SinkHandle, JoinHandle<()>) {
    let (notices, _) = mpsc::channel(64);
    let (handle, intake) = sink::channel("sink.mqtt", Limits::default(), notices);
    (handle, tokio::spawn(run(config, intake)))
}

pub(super) async fn wait_for(handle: &SinkHandle, what: &str, mut condition: impl FnMut(&Stats) -> bool) {
    for _ in 0..2000 {
        if condition(&handle.stats()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {:?}", handle.stats());
}

/// A subscriber of the distribution that ends after so many messages.
pub(super) fn subscribe(broker: &Broker, topic: &str, count: usize) -> Option<Child> {
    let (port, count) = (broker.port.to_string(), count.to_string());
    let arguments = ["-p", &port, "-t", topic, "-q", "1", "-v", "-C", &count, "-W", "30"];
    let Ok(child) = Command::new("mosquitto_sub").args(arguments).stdout(Stdio::piped()).spawn() else {
        println!("skipped: mosquitto_sub is not installed");
        return None;
    };
    // What is published before the broker knows of it would not reach it.
    for _ in 0..2000 {
        let log = std::fs::read_to_string(broker.directory.path().join("log")).unwrap_or_default();
        if log.contains(topic) {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody subscribes to {topic}");
}

pub(super) async fn output(child: Child) -> Vec<String> {
    let output =
        tokio::task::spawn_blocking(|| child.wait_with_output()).await.expect("joined").expect("output");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn a_real_broker_gets_everything_under_its_topics() {
    let Some(broker) = Broker::start(None) else { return };
    let Some(subscriber) = subscribe(&broker, "defender/#", 502) else { return };
    let (handle, task) = start(config(broker.port));
    for sequence in 0..500 {
        handle.push(record(sequence, sequence == 7)).await;
    }
    wait_for(&handle, "acknowledgements", |stats| stats.written == 500).await;
    // Longer than the keep-alive time: pings keep the connection.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!((handle.stats().state, handle.stats().last_error), (State::Ok, None));
    assert!(handle.stats().peer.is_some_and(|peer| peer.is_loopback()));
    task.abort();
    // Aborted without a farewell: the broker publishes the last will.
    let lines = output(subscriber).await;
    assert_eq!(lines.first().map(String::as_str), Some("defender/dev_1/status online"));
    assert_eq!(lines.last().map(String::as_str), Some("defender/dev_1/status offline"));
    assert!(lines.contains(&"defender/dev_1/alerts {\"sequence\":7}".to_owned()), "{lines:?}");
    for sequence in (0..500).filter(|s| *s != 7) {
        let line = format!("defender/dev_1/events {{\"sequence\":{sequence}}}");
        assert_eq!(lines.iter().filter(|l| **l == line).count(), 1, "{line}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_broker_that_restarts_without_memory_loses_nothing() {
    let Some(mut broker) = Broker::start(None) else { return };
    let port = broker.port;
    let (handle, task) = start(config(port));
    handle.push(record(0, true)).await;
    wait_for(&handle, "the first", |stats| stats.written == 1).await;
    for round in 1..=5 {
        broker.end();
        handle.push(record(round, true)).await;
        wait_for(&handle, "the loss of the broker", |stats| stats.state == State::Retrying).await;
        broker = Broker::start(Some(port)).expect("a broker again");
        wait_for(&handle, "a delivery", |stats| stats.written == round + 1).await;
    }
    handle.close();
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("in time").expect("no panic");
    let stats = handle.stats();
    assert_eq!((stats.written, stats.dropped_alerts), (6, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_that_speaks_something_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        for answer in [&b"\0\0"[..], b"\x20\x02\x00\x05"] {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.expect("write");
            let mut rest = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
        }
    });
    let (handle, task) = start(config(port));
    let reason = |stats: &Stats| stats.last_error.clone().unwrap_or_default();
    wait_for(&handle, "the first answer", |stats| reason(stats).contains("not MQTT")).await;
    wait_for(&handle, "the second answer", |stats| {
        reason(stats).contains("refuses the login: NotAuthorized")
    })
    .await;
    handle.try_push(record(1, true));
    handle.close();
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("in time").expect("no panic");
    assert_eq!(handle.stats().dropped_alerts, 1);
    server.abort();
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "current_thread")]
async fn a_real_broker_over_tls_with_client_certificates() {
    let (authority, clients) = (crate::tls::tests::Authority::new(), crate::tls::tests::Authority::new());
    let own = authority.sign("localhost", 10);
    let options = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
        clients.file().display(),
        own.certificate_file.display(),
        own.key_file.display()
    );
    let Some(broker) = Broker::start_with(None, &options) else { return };
    let tls = crate::tls::Tls {
        ca_file: Some(authority.file()),
        client: Some(clients.sign("device", 10)),
        ..Default::default()
    };
    let with = Config { host: "localhost".to_owned(), tls: Some(tls.clone()), ..config(broker.port) };
    let (handle, task) = start(with.clone());
    for sequence in 0..100 {
        handle.push(record(sequence, false)).await;
    }
    handle.close();
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("in time").expect("no panic");
    assert_eq!((handle.stats().written, handle.stats().last_error), (100, None));

    let (handle, task) = start(Config { tls: Some(crate::tls::Tls { client: None, ..tls }), ..with });
    let reason = |stats: &Stats| stats.last_error.clone().unwrap_or_default();
    wait_for(&handle, "a refusal", |stats| reason(stats).contains("client certificate")).await;
    task.abort();
}
