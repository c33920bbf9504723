//! What each sink costs: events a second, processor time and bytes on the wire per event, sent one by one and in bursts.
//!
//! For `tests/bench report`, which starts it in a network namespace of its own, so that the counters of `lo` are its traffic alone:
//! headers and acknowledgements are in the bytes, in both directions.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_report::record::Record;
use defender_report::sink::{self, Intake, Limits};
use defender_report::syslog::{self, Facility, Format, Transport};
use defender_report::tls::Tls;
use defender_report::{file, mqtt};
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

/// A program start, as the agent reports it.
const EVENT: &str = r#"{"class_uid":1007,"category_uid":1,"activity_id":1,"type_uid":100701,"severity_id":1,"time":1700000000000,"actor":{"process":{"pid":700,"file":{"path":"/bin/sh","name":"sh","type_id":1},"cmd_line":"/bin/sh /etc/init.d/S50check status"}},"process":{"pid":4242,"name":"busybox","file":{"path":"/bin/busybox","name":"busybox","type_id":1},"cmd_line":"grep -q running /run/check/state","working_directory":"/","user":{"uid":"0","name":"root"},"euid":0,"group":{"uid":"0"},"auid":4294967295},"metadata":{"version":"1.8.0","profiles":["host","linux/linux_users"],"sequence":1234567,"log_provider":"audit","product":{"name":"defender","vendor_name":"defender project","version":"0.1.0"}},"device":{"type_id":7,"uid":"6fd5c1f2-5f0e-4f7c-9a53-0b7f1c2d3e4f","hostname":"camera","boot_uid":"0c5a1f6e-98b1-4a3e-8f1d-2f6a7b8c9d0e"}}"#;
const SUMMARY: &str = "exec pid=4242 /bin/busybox: grep -q running /run/check/state";

fn record(sequence: u64, alert: bool) -> Record {
    Record {
        severity: Severity::Informational,
        alert,
        ocsf: EVENT.as_bytes().into(),
        summary: SUMMARY.into(),
        time: Timestamp(1_700_000_000_000),
        sequence,
        ticket: None,
    }
}

/// Processor time of this thread, on which the sink's task runs.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Bytes that have gone through `lo`.
fn wire() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let counters = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).unwrap();
    // Eight of what was received come first.
    counters.split_ascii_whitespace().nth(8).unwrap().parse().unwrap()
}

/// Sends `count` records, waiting for each or for all, and prints a row.
fn measure<F>(name: &str, count: u64, one_by_one: bool, run: impl FnOnce(Intake) -> F)
where
    F: std::future::Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (notices, _keep) = tokio::sync::mpsc::channel(64);
        let (handle, intake) = sink::channel("bench", Limits::default(), notices);
        let task = tokio::spawn(run(intake));
        let delivered = |wanted: u64| {
            let handle = handle.clone();
            async move {
                let until = Instant::now() + Duration::from_secs(300);
                while handle.stats().written < wanted {
                    assert!(Instant::now() < until, "{:?}", handle.stats());
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
        };
        let taken = || {
            let handle = handle.clone();
            async move {
                let until = Instant::now() + Duration::from_secs(300);
                while handle.stats().queued > 0 {
                    assert!(Instant::now() < until, "{:?}", handle.stats());
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
        };
        // Connected before anything is counted.
        handle.push(record(0, true)).await;
        delivered(1).await;
        let (began, bytes, time) = (Instant::now(), wire(), processor());
        for sequence in 1..=count {
            // An alert does not wait for company.
            handle.push(record(sequence, one_by_one)).await;
            if one_by_one {
                // Taken, and so sent; syslog over a connection counts it as delivered only a second later.
                taken().await;
            }
        }
        delivered(count + 1).await;
        let (took, time) = (began.elapsed(), processor() - time);
        // What was acknowledged last is under way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let each = (wire() - bytes) as f64 / count as f64;
        if one_by_one {
            // Rate and time would be those of the waiting.
            println!("| {name} | one by one | – | – | {each:.0} |");
        } else {
            let rate = count as f64 / took.as_secs_f64();
            let cost = time.as_secs_f64() * 1e6 / count as f64;
            println!("| {name} | bursts | {rate:.0} | {cost:.1} | {each:.0} |");
        }
        handle.close();
        task.await.unwrap();
    });
}

/// A collector that reads and forgets; with a certificate it speaks TLS.
fn collector(tls: Option<&Path>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tls.map(|directory| {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_certificate_chain_file(directory.join("server.pem")).unwrap();
        builder.set_private_key_file(directory.join("server.key"), SslFiletype::PEM).unwrap();
        builder.build()
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut stream: Box<dyn Read> = match &acceptor {
                Some(acceptor) => Box::new(acceptor.accept(stream).unwrap()),
                None => Box::new(stream),
            };
            let mut buffer = [0; 65_536];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    });
    port
}

fn broker(directory: &Path) -> Option<(Child, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = directory.join("mosquitto.conf");
    let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("mosquitto");
    let child = command.arg("-c").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    for _ in 0..1000 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some((child, port));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

fn main() {
    let count: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(path("server.key"))
        .arg("-out")
        .arg(path("server.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    println!("One event is {} bytes of OCSF, its summary {}.\n", EVENT.len(), SUMMARY.len());
    println!("| Sink | Sent | Events a second | Processor µs per event | Bytes on the wire per event |");
    println!("|---|---|---|---|---|");
    let broker = broker(directory.path());
    for one_by_one in [true, false] {
        let count = if one_by_one { count / 10 } else { count };
        let path = path("events.jsonl");
        let config = file::Config { path, max_size: 4 << 20, keep: 1, sync_alerts: false };
        measure("file", count, one_by_one, |intake| file::run(config, intake));
        let host = || "localhost".to_owned();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_port = udp.local_addr().unwrap().port();
        std::thread::spawn(move || while udp.recv(&mut [0; 65_536]).is_ok() {});
        let tls = Tls { ca_file: Some(directory.path().join("server.pem")), ..Tls::default() };
        let (tcp_port, tls_port) = (collector(None), collector(Some(directory.path())));
        let udp = || Transport::Udp { host: "127.0.0.1".to_owned(), port: udp_port };
        let tls = || Transport::Tls { host: host(), port: tls_port, tls: tls.clone() };
        for (name, transport, format) in [
            ("syslog, UDP, RFC 5424", udp(), Format::Rfc5424),
            ("syslog, UDP, CEF", udp(), Format::Cef),
            ("syslog, TCP, RFC 5424", Transport::Tcp { host: host(), port: tcp_port }, Format::Rfc5424),
            ("syslog, TLS, RFC 5424", tls(), Format::Rfc5424),
            ("syslog, TLS, CEF", tls(), Format::Cef),
        ] {
            let facility = Facility::DAEMON;
            let config = syslog::Config { transport, format, facility, hostname: "camera".to_owned() };
            measure(name, count, one_by_one, |intake| syslog::run(config, intake));
        }
        let Some((_, port)) = &broker else { continue };
        let config = mqtt::Config::plain("127.0.0.1", *port, "camera");
        measure("MQTT, OCSF", count, one_by_one, |intake| mqtt::run(config, intake));
    }
    if let Some((mut child, _)) = broker {
        let _ = child.kill();
        let _ = child.wait();
    }
}
