//! Many devices in one process: each with an identity, a certificate, a spool and a sink of its own, which are the agent's.
//!
//! `fleet EVENTS DIRECTORY DEVICES COUNT mqtt|syslog PORT`: EVENTS holds events of a real agent, one a line; DIRECTORY has `ca.pem` and for
//! each device a directory of its name (`device-0001`) with `device.pem` and `device.key`. Each device reports COUNT events over TLS to
//! localhost and all end when everything is delivered.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_report::mqtt;
use defender_report::record::Record;
use defender_report::sink::{self, Limits, SinkHandle};
use defender_report::spool::{self, Spool};
use defender_report::syslog::{self, Facility, Format, Transport};
use defender_report::tls::{Client, Tls};
use serde_json::Value;
use tokio::task::JoinHandle;

/// How long the servers may take to take everything.
const PATIENCE: Duration = Duration::from_secs(600);

/// An event as a device has told it.
struct Told {
    line: String,
    event: Value,
}

struct Device {
    name: String,
    boot: String,
    spool: SinkHandle,
    sink: SinkHandle,
    tasks: [JoinHandle<()>; 3],
}

impl Told {
    fn text(&self, place: &str) -> &str {
        self.event.pointer(place).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, place: &str) -> u64 {
        self.event.pointer(place).and_then(Value::as_u64).unwrap_or_default()
    }

    /// The same event, told by another device.
    fn by(&self, device: &Device, sequence: u64) -> Record {
        let ours = [
            (format!("\"uid\":\"{}\"", self.text("/device/uid")), format!("\"uid\":\"{}\"", device.name)),
            (self.text("/device/boot_uid").to_owned(), device.boot.clone()),
            (
                format!("\"hostname\":\"{}\"", self.text("/device/hostname")),
                format!("\"hostname\":\"{}\"", device.name),
            ),
            (
                format!("\"sequence\":{}", self.number("/metadata/sequence")),
                format!("\"sequence\":{sequence}"),
            ),
        ];
        let line = ours.iter().fold(self.line.clone(), |line, (theirs, ours)| line.replace(theirs, ours));
        // Logins are telemetry, findings and health are alerts.
        let alert = self.number("/class_uid") != 3002;
        let message = if self.text("/message").is_empty() { "failed login" } else { self.text("/message") };
        Record {
            severity: Severity::from_id(u8::try_from(self.number("/severity_id")).unwrap()).unwrap(),
            alert,
            summary: message.into(),
            time: Timestamp(i64::try_from(self.number("/time")).unwrap()),
            sequence,
            ticket: None,
            ocsf: line.into_bytes().into(),
        }
    }
}

fn device(directory: &Path, number: usize, over_mqtt: bool, port: u16) -> Device {
    let name = format!("device-{number:04}");
    let own = directory.join(&name);
    let client = Client { certificate_file: own.join("device.pem"), key_file: own.join("device.key") };
    let tls = Tls { ca_file: Some(directory.join("ca.pem")), client: Some(client), ..Tls::default() };
    let kind = if over_mqtt { "mqtt" } else { "syslog" };
    let config = spool::Config {
        directory: own.join(format!("spool-{kind}")),
        max_size: 4 << 20,
        sync_alerts: true,
        ledger: None,
    };
    let spool = Arc::new(Spool::open(config).unwrap());
    let (notices, _) = tokio::sync::mpsc::channel(1);
    let (writer, taking) = sink::channel("spool", Limits::default(), notices.clone());
    let (handle, mut intake) = sink::channel(kind, Limits::default(), notices);
    spool.seat(&handle, &mut intake);
    let writing = tokio::spawn(spool::run(Arc::clone(&spool), taking));
    let feeding = tokio::spawn(spool::feed(spool, handle.clone()));
    let sending = if over_mqtt {
        tokio::spawn(mqtt::run(
            mqtt::Config { tls: Some(tls), ..mqtt::Config::plain("localhost", port, &name) },
            intake,
        ))
    } else {
        let transport = Transport::Tls { host: "localhost".to_owned(), port, tls };
        let (format, facility) = (Format::Rfc5424, Facility::DAEMON);
        let config = syslog::Config { transport, format, facility, hostname: name.clone() };
        tokio::spawn(syslog::run(config, intake))
    };
    let boot = format!("00000000-0000-4000-8000-{number:012}");
    Device { name, boot, spool: writer, sink: handle, tasks: [writing, feeding, sending] }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [events, directory, devices, count, kind, port] = &arguments[..] else {
        panic!("usage: fleet EVENTS DIRECTORY DEVICES COUNT mqtt|syslog PORT");
    };
    let text = std::fs::read_to_string(events).unwrap();
    let told: Vec<Told> = text
        .lines()
        .map(|line| Told { line: line.to_owned(), event: serde_json::from_str(line).unwrap() })
        .collect();
    let (directory, count) = (PathBuf::from(directory), count.parse::<u64>().unwrap());
    let (over_mqtt, port) = (kind == "mqtt", port.parse().unwrap());
    let devices: Vec<Device> =
        (1..=devices.parse().unwrap()).map(|number| device(&directory, number, over_mqtt, port)).collect();
    let began = Instant::now();
    for sequence in 1..=count {
        let event = &told[usize::try_from(sequence).unwrap() % told.len()];
        for device in &devices {
            device.spool.push(event.by(device, sequence)).await;
        }
    }
    let written = |device: &Device| device.sink.stats().written;
    while devices.iter().any(|device| written(device) < count) {
        assert!(
            began.elapsed() < PATIENCE,
            "{:?}",
            devices.iter().map(|device| device.sink.stats()).find(|stats| stats.written < count)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed().as_secs_f64();
    let all = devices.iter().map(written).sum::<u64>();
    let lost: u64 = devices
        .iter()
        .map(|device| device.sink.stats())
        .map(|stats| stats.dropped + stats.dropped_alerts)
        .sum();
    println!("{all} {lost} {took:.3}");
    for device in devices {
        device.sink.close();
        device.tasks.iter().for_each(JoinHandle::abort);
    }
}
