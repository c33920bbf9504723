//! Syslog over TLS: what arrives, what is refused, and whether the error says which certificate is to blame.

use std::fs;
use std::time::{Duration, Instant};

use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_report::record::Record;
use defender_report::sink::{self, Limits, SinkHandle};
use defender_report::syslog::{self, Facility, Format, Transport};
use defender_report::tls::{days_left, Client, Tls};

use super::authority::{Authority, Pair};
use super::collector::{Collector, Kind, PATIENCE};

fn record(sequence: u64) -> Record {
    Record {
        severity: Severity::High,
        alert: true,
        ocsf: b"{}"[..].into(),
        summary: format!("record {sequence}").into(),
        time: Timestamp(1_700_000_000_000),
        sequence,
        ticket: None,
    }
}

fn start(port: u16, tls: Tls) -> SinkHandle {
    let (notices, _) = tokio::sync::mpsc::channel(64);
    let (handle, intake) = sink::channel("remote_syslog", Limits::default(), notices);
    let transport = Transport::Tls { host: "localhost".to_owned(), port, tls };
    let (format, facility) = (Format::Rfc5424, Facility::DAEMON);
    let config = syslog::Config { transport, format, facility, hostname: "device".to_owned() };
    tokio::spawn(syslog::run(config, intake));
    handle
}

fn trusting(authority: &Authority, client: Option<&Pair>) -> Tls {
    let client =
        client.map(|pair| Client { certificate_file: pair.certificate.clone(), key_file: pair.key.clone() });
    Tls { ca_file: Some(authority.ca()), client, ..Tls::default() }
}

/// Sends until the sink says why it cannot. Syslog has no acknowledgements: a server that refuses late may be sent something before.
async fn refusal(handle: &SinkHandle, words: &str) {
    let until = Instant::now() + PATIENCE;
    let mut sequence = 0;
    loop {
        let error = handle.stats().last_error.unwrap_or_default();
        if error.contains(words) {
            return;
        }
        assert!(Instant::now() < until, "`{words}` is not in: {error} ({:?})", handle.stats());
        handle.try_push(record(sequence));
        sequence += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn arrival(collector: &Collector, count: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        let lines = collector.lines();
        let missing = (0..count)
            .map(|sequence| format!("device|defender|record {sequence}"))
            .find(|line| !lines.contains(line));
        let Some(missing) = missing else { return };
        assert!(Instant::now() < until, "{missing} is not in {lines:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn delivery(handle: &SinkHandle, collector: &Collector) {
    for sequence in 0..50 {
        handle.push(record(sequence)).await;
    }
    arrival(collector, 50).await;
}

async fn both_ways(kind: Kind) {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let device = clients.sign("device");
    let good = servers.sign("localhost");
    let Some(collector) = Collector::start(kind, &good, &clients) else { return };

    let handle = start(collector.port, trusting(&servers, Some(&device)));
    delivery(&handle, &collector).await;
    assert_eq!(handle.stats().last_error, None);
    handle.close();

    // The server does not take us.
    let handle = start(collector.port, trusting(&servers, None));
    refusal(&handle, "does it want a client certificate?").await;
    handle.close();
    let stranger = servers.sign("device");
    let handle = start(collector.port, trusting(&servers, Some(&stranger)));
    refusal(&handle, "does it not know our certificate's authority").await;
    handle.close();
    let expired = clients.expired("device");
    assert!(days_left(&expired.certificate).unwrap() < -1000);
    let handle = start(collector.port, trusting(&servers, Some(&expired)));
    refusal(&handle, "our certificate has expired").await;

    // The certificate is replaced on disk: the next try has it.
    fs::copy(&device.key, &expired.key).unwrap();
    fs::copy(&device.certificate, &expired.certificate).unwrap();
    delivery(&handle, &collector).await;
    handle.close();

    // We do not take the server.
    let handle = start(collector.port, trusting(&clients, Some(&device)));
    refusal(&handle, "the server's certificate is refused: unable to get local issuer certificate").await;
    handle.close();
    let mut listed = trusting(&servers, Some(&device));
    listed.crl_file = Some(servers.crl());
    let handle = start(collector.port, listed.clone());
    delivery(&handle, &collector).await;
    handle.close();
    servers.revoke(&[&good]);
    let handle = start(collector.port, listed.clone());
    refusal(&handle, "the server's certificate is refused: certificate revoked").await;
    handle.close();
    fs::remove_file(servers.crl()).unwrap();
    let handle = start(collector.port, listed);
    refusal(&handle, "cannot use the revocation list").await;
    handle.close();
    drop(collector);

    for (pair, words) in [
        (servers.sign("other.example.com"), "hostname mismatch (expected name: localhost)"),
        (servers.expired("localhost"), "the server's certificate is refused: certificate has expired"),
    ] {
        let Some(collector) = Collector::start(kind, &pair, &clients) else { return };
        let handle = start(collector.port, trusting(&servers, Some(&device)));
        refusal(&handle, words).await;
        assert!(collector.lines().is_empty());
        handle.close();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn rsyslog() {
    both_ways(Kind::Rsyslog).await;
}

#[tokio::test(flavor = "current_thread")]
async fn syslog_ng() {
    both_ways(Kind::SyslogNg).await;
}

#[tokio::test(flavor = "current_thread")]
async fn syslog_ng_refuses_a_revoked_device() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let device = clients.sign("device");
    clients.revoke(&[&device]);
    let Some(collector) = Collector::start(Kind::SyslogNg, &servers.sign("localhost"), &clients) else {
        return;
    };
    let handle = start(collector.port, trusting(&servers, Some(&device)));
    refusal(&handle, "or has it revoked it?").await;
    assert!(collector.lines().is_empty());
}
