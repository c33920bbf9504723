use std::os::unix::net::UnixDatagram;
use std::path::Path;

use defender_model::health::Health;
use defender_model::severity::Severity;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::pace::Schedule;
use crate::record::Record;
use crate::sink::tests::record;
use crate::sink::{self, Limits, SinkHandle, State, Stats};

pub(super) fn start(transport: Transport) -> (SinkHandle, JoinHandle<()>) {
    start_with(transport, Format::Rfc5424)
}

pub(super) fn start_with(transport: Transport, format: Format) -> (SinkHandle, JoinHandle<()>) {
    let limits = Limits { minimum: Severity::Medium, ..Limits::default() };
    start_within(transport, format, limits, mpsc::channel(64).0)
}

fn start_within(
    transport: Transport,
    format: Format,
    limits: Limits,
    notices: mpsc::Sender<Health>,
) -> (SinkHandle, JoinHandle<()>) {
    let (handle, intake) = sink::channel("sink.syslog", limits, notices);
    let facility = Facility::AUTHPRIV;
    let config = Config { transport, format, facility, hostname: "device".to_owned() };
    (handle, tokio::spawn(run(config, intake)))
}

pub(super) async fn wait_for(handle: &SinkHandle, what: &str, mut condition: impl FnMut(&Stats) -> bool) {
    for _ in 0..1000 {
        if condition(&handle.stats()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {:?}", handle.stats());
}

fn bind(path: &Path) -> tokio::net::UnixDatagram {
    let _ = std::fs::remove_file(path);
    let socket = UnixDatagram::bind(path).expect("bind");
    socket.set_nonblocking(true).expect("non-blocking");
    tokio::net::UnixDatagram::from_std(socket).expect("a socket")
}

async fn receive(socket: &tokio::net::UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length =
        tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.expect("in time");
    String::from_utf8(buffer[..length.expect("a datagram")].to_vec()).expect("text")
}

#[tokio::test(flavor = "current_thread")]
async fn the_local_daemon_starts_late_and_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let (handle, task) = start(Transport::Local { path: path.clone() });
    handle.try_push(record(1, true));
    wait_for(&handle, "no daemon yet", |stats| stats.state == State::Retrying).await;
    assert!(handle.stats().last_error.expect("a reason").contains("No such file"));
    let daemon = bind(&path);
    assert!(receive(&daemon).await.ends_with(": record 1"));
    for restart in 0..20 {
        handle.try_push(record(100 + restart, true));
        assert!(receive(&daemon).await.ends_with(&format!(": record {}", 100 + restart)));
    }
    let mut daemon = daemon;
    for restart in 0..10 {
        drop(daemon);
        handle.try_push(record(200 + restart, true));
        wait_for(&handle, "refused", |stats| stats.state == State::Retrying).await;
        daemon = bind(&path);
        assert!(receive(&daemon).await.ends_with(&format!(": record {}", 200 + restart)));
    }
    // Telemetry is not for this sink.
    handle.try_push(record(300, false));
    handle.try_push(record(301, true));
    assert!(receive(&daemon).await.ends_with(": record 301"));
    handle.close();
    task.await.expect("no panic");
    assert_eq!((handle.stats().written, handle.stats().dropped_alerts), (32, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn a_daemon_that_does_not_read_slows_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let daemon = bind(&path);
    let (handle, task) = start(Transport::Local { path });
    // Far more than net.unix.max_dgram_qlen, which is 512 at most by default.
    for sequence in 0..1000 {
        handle.try_push(record(sequence, true));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(handle.stats().written < 1000);
    for sequence in 0..1000 {
        assert!(receive(&daemon).await.ends_with(&format!(": record {sequence}")));
    }
    handle.close();
    task.await.expect("no panic");
    assert_eq!(handle.stats().written, 1000);
}

#[tokio::test(flavor = "current_thread")]
async fn udp() {
    let collector = UdpSocket::bind("[::1]:0").await.expect("bind");
    let port = collector.local_addr().expect("an address").port();
    let (handle, task) = start(Transport::Udp { host: "::1".to_owned(), port });
    handle.try_push(record(1, true));
    let mut buffer = [0; 4096];
    let received =
        tokio::time::timeout(Duration::from_secs(10), collector.recv(&mut buffer)).await.expect("in time");
    let line = String::from_utf8(buffer[..received.expect("a datagram")].to_vec()).expect("text");
    assert!(line.starts_with("<83>1 ") && line.ends_with("] record 1"), "{line}");
    handle.close();
    task.await.expect("no panic");
    assert_eq!(handle.stats().peer, Some("::1".parse().expect("an address")));
}

/// One frame of RFC 6587 section 3.4.1.
async fn frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let read = async {
        let mut length = String::new();
        loop {
            match stream.read_u8().await.expect("a byte") {
                b' ' => break,
                digit => length.push(digit as char),
            }
        }
        let mut line = vec![0; length.parse().expect("a length")];
        stream.read_exact(&mut line).await.expect("a frame");
        String::from_utf8(line).expect("text")
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time")
}

#[tokio::test(flavor = "current_thread")]
async fn tcp_reconnects_when_the_collector_restarts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let (handle, task) = start(Transport::Tcp { host: "127.0.0.1".to_owned(), port });
    handle.try_push(record(1, true));
    handle.try_push(record(2, true));
    let (mut stream, _) = listener.accept().await.expect("a connection");
    assert!(frame(&mut stream).await.ends_with("] record 1"));
    assert!(frame(&mut stream).await.ends_with("] record 2"));
    // Closed while nothing is under way: the next record goes to a new connection.
    wait_for(&handle, "confirmed", |stats| stats.written == 2).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(20)).await;
    handle.try_push(record(3, true));
    let (mut stream, _) = tokio::time::timeout(Duration::from_secs(10), listener.accept())
        .await
        .expect("in time")
        .expect("a connection");
    assert!(frame(&mut stream).await.ends_with("] record 3"));
    // Gone for a while.
    wait_for(&handle, "confirmed", |stats| stats.written == 3).await;
    drop((stream, listener));
    tokio::time::sleep(Duration::from_millis(20)).await;
    handle.try_push(record(4, true));
    wait_for(&handle, "refused", |stats| stats.state == State::Retrying).await;
    assert!(handle.stats().last_error.expect("a reason").contains("Connection refused"));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("bind again");
    let (mut stream, _) = listener.accept().await.expect("a connection");
    assert!(frame(&mut stream).await.ends_with("] record 4"));
    // Taken and not read: what was sent last goes to the next connection again.
    wait_for(&handle, "confirmed", |stats| stats.written == 4).await;
    handle.try_push(record(5, true));
    tokio::time::timeout(Duration::from_secs(10), stream.readable()).await.expect("in time").expect("bytes");
    assert_eq!(handle.stats().written, 4, "nobody has read it");
    drop(stream);
    let (mut stream, _) = tokio::time::timeout(Duration::from_secs(10), listener.accept())
        .await
        .expect("in time")
        .expect("a connection");
    assert!(frame(&mut stream).await.ends_with("] record 5"));
    handle.close();
    // The collector has read everything and closes its end: that is an answer.
    drop(stream);
    task.await.expect("no panic");
    assert_eq!(handle.stats().written, 5);
    assert_eq!(handle.stats().peer, Some("127.0.0.1".parse().expect("an address")));
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "current_thread")]
async fn tls() {
    use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod};

    let authority = crate::tls::tests::Authority::new();
    let own = authority.sign("localhost", 10);
    let mut builder = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server()).expect("a server");
    builder.set_certificate_chain_file(&own.certificate_file).expect("a certificate");
    builder.set_private_key_file(&own.key_file, SslFiletype::PEM).expect("a key");
    let acceptor = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let tls = crate::tls::Tls { ca_file: Some(authority.file()), ..Default::default() };
    let (handle, task) = start(Transport::Tls { host: "localhost".to_owned(), port, tls });
    for sequence in 1..=2 {
        handle.try_push(record(sequence, true));
        let (tcp, _) = tokio::time::timeout(Duration::from_secs(10), listener.accept())
            .await
            .expect("in time")
            .expect("tcp");
        let ssl = Ssl::new(acceptor.context()).expect("a session");
        let mut stream = tokio_openssl::SslStream::new(ssl, tcp).expect("a session");
        std::pin::Pin::new(&mut stream).accept().await.expect("a handshake");
        assert!(frame(&mut stream).await.ends_with(&format!("] record {sequence}")));
        // Closed by the collector: the second record goes to a new connection.
        wait_for(&handle, "confirmed", |stats| stats.written == sequence).await;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("closed");
        drop(stream);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    handle.close();
    task.await.expect("no panic");
    assert_eq!(handle.stats().written, 2);
}

/// What comes in on one connection, while it does.
async fn read_some(stream: &mut tokio::net::TcpStream, until: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(until) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer));
        let length = read.await.expect("in time").expect("read");
        assert!(length > 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&buffer[..length]).expect("text"));
    }
    text
}

#[tokio::test(flavor = "current_thread")]
async fn telemetry_waits_for_its_period_and_alerts_do_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let transport = Transport::Tcp { host: "127.0.0.1".to_owned(), port };
    let schedule = Schedule { telemetry: Duration::from_secs(3), ..Schedule::default() };
    let limits = Limits { schedule, ..Limits::default() };
    let (handle, _task) = start_within(transport, Format::Rfc3164, limits, mpsc::channel(64).0);
    // The first period begins when there is nothing left of what waited at start.
    handle.push(record(0, false)).await;
    let (mut stream, _) = listener.accept().await.expect("a connection");
    read_some(&mut stream, "record 0").await;
    wait_for(&handle, "the end of the first delivery", |_| handle.held() == [false, true]).await;
    let pushed = Instant::now();
    for sequence in 1..10 {
        handle.push(record(sequence, false)).await;
    }
    handle.push(record(10, true)).await;
    let first = read_some(&mut stream, "record 10").await;
    if pushed.elapsed() < Duration::from_secs(1) {
        assert!(!first.contains("record 1:") && first.matches("record").count() == 1, "{first}");
        assert_eq!(handle.stats().queued, 9);
    }
    // All that waited comes together.
    let rest = read_some(&mut stream, "record 9").await;
    assert_eq!(rest.matches("record").count(), 9, "{rest}");
    handle.close();
}

#[tokio::test(flavor = "current_thread")]
async fn over_its_budget_a_sink_keeps_what_it_has_and_says_so() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let port = socket.local_addr().expect("an address").port();
    let transport = Transport::Udp { host: "127.0.0.1".to_owned(), port };
    let schedule = Schedule { daily_bytes: 2048, ..Schedule::default() };
    let (notices, mut health) = mpsc::channel(64);
    let limits = Limits { schedule, ..Limits::default() };
    let (handle, _task) = start_within(transport, Format::Rfc3164, limits, notices);
    let long = "x".repeat(500);
    for sequence in 0..6 {
        handle.push(Record { summary: long.as_str().into(), ..record(sequence, false) }).await;
        // Three are three quarters of the budget.
        wait_for(&handle, "sent", |stats| stats.written == (sequence + 1).min(3)).await;
    }
    let said = tokio::time::timeout(Duration::from_secs(20), health.recv()).await.expect("in time");
    let said = said.expect("a notice");
    assert_eq!(said.component, "sink.syslog.budget");
    assert!(said.message.contains("all but alerts waits"), "{}", said.message);
    // An alert still goes, until all is used.
    let before = handle.stats();
    assert_eq!((before.written, before.queued), (3, 3));
    handle.push(record(7, true)).await;
    wait_for(&handle, "the alert", |stats| stats.written > before.written).await;
    assert_eq!((handle.stats().dropped, handle.stats().dropped_alerts), (0, 0));
}
