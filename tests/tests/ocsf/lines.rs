//! One line of every format of syslog for every kind of event, as they come over the wire, read by parsers that are not ours.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use defender_model::event::Event;
use defender_model::ocsf;
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_report::record::Record;
use defender_report::sink::{self, Limits};
use defender_report::syslog::{self, Facility, Format, Transport};
use defender_validation::python::environment;
use serde_json::{json, Value};

pub(super) fn records() -> Vec<Record> {
    let mut records = Vec::new();
    for (sequence, kind) in (1..).zip(super::samples()) {
        let event = Event { time: Timestamp(1_700_000_000_000), sequence, kind };
        let mut line = Vec::new();
        ocsf::encode(&event, &super::device(), &mut line);
        records.push(Record {
            severity: event.severity(),
            alert: true,
            ocsf: line.into(),
            summary: event.to_string().into(),
            time: event.time,
            sequence,
            ticket: None,
        });
    }
    records
}

/// What a collector receives of these records.
fn captured(records: &[Record], format: Format) -> Vec<String> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let transport = Transport::Udp { host: "127.0.0.1".into(), port: socket.local_addr().unwrap().port() };
    let config = syslog::Config { transport, format, facility: Facility::DAEMON, hostname: "camera".into() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut lines = Vec::new();
    runtime.block_on(async {
        let (notices, _keep) = tokio::sync::mpsc::channel(16);
        let limits = Limits { minimum: Severity::Informational, ..Limits::default() };
        let (handle, intake) = sink::channel("sink.test", limits, notices);
        let task = tokio::spawn(syslog::run(config, intake));
        let mut buffer = vec![0; 65_536];
        for record in records {
            handle.push(record.clone()).await;
            // One at a time: a socket's buffer is small and a datagram that does not fit is gone.
            while handle.stats().queued > 0 || handle.stats().written < lines.len() as u64 + 1 {
                assert_eq!(handle.stats().last_error, None);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let length = socket.recv(&mut buffer).unwrap();
            lines.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        handle.close();
        task.await.unwrap();
    });
    lines
}

/// What a Python program makes of each line: one JSON value each.
fn parsed(name: &str, package: &str, program: &str, lines: &[String]) -> Option<Vec<Value>> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let python = environment(directory, name, &[package])?;
    let file = directory.join(format!("{name}.lines"));
    fs::write(&file, lines.join("\n")).unwrap();
    let output = Command::new(python).arg("-c").arg(program).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), lines.len());
    Some(values)
}

#[test]
fn rfc_5424_is_read_by_a_parser_that_is_not_ours() {
    const PROGRAM: &str = "import json, sys\nfrom syslog_rfc5424_parser import SyslogMessage\n\
        for line in open(sys.argv[1], encoding='utf-8').read().split('\\n'):\n    \
        print(json.dumps(SyslogMessage.parse(line).as_dict()))";
    let records = records();
    let lines = captured(&records, Format::Rfc5424);
    let Some(values) = parsed("rfc5424", "syslog-rfc5424-parser==0.3.2", PROGRAM, &lines) else { return };
    for (record, value) in records.iter().zip(values) {
        let event: Value = serde_json::from_slice(&record.ocsf).unwrap();
        let data = &value["sd"]["defender@32473"];
        assert_eq!(data["sequence"], json!(record.sequence.to_string()));
        assert_eq!((&data["device"], &data["boot"]), (&json!("device-1"), &json!("b0a7")));
        assert_eq!(data.get("finding"), event["finding_info"].get("uid"), "{event}");
        assert_eq!((&value["appname"], &value["hostname"]), (&json!("defender"), &json!("camera")));
        assert_eq!(value["msgid"], json!(event["class_uid"].to_string()));
        assert_eq!(value["timestamp"], json!("2023-11-14T22:13:20.000Z"));
        assert_eq!((&value["facility"], &value["version"]), (&json!("daemon"), &json!(1)));
        assert!(value["msg"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

#[test]
fn cef_is_read_by_a_parser_that_is_not_ours() {
    const PROGRAM: &str = "import json, sys, pycef\n\
        for line in open(sys.argv[1], encoding='utf-8').read().split('\\n'):\n    \
        print(json.dumps(pycef.parse(line)))";
    let records = records();
    let lines = captured(&records, Format::Cef);
    let Some(values) = parsed("cef", "pycef==1.11", PROGRAM, &lines) else { return };
    for ((record, value), line) in records.iter().zip(values).zip(&lines) {
        let event: Value = serde_json::from_slice(&record.ocsf).unwrap();
        assert_eq!(
            (&value["CEFVersion"], &value["DeviceProduct"]),
            (&json!("0"), &json!("defender")),
            "{line}"
        );
        let title = &event["finding_info"]["title"];
        assert!(title.is_null() || value["Name"] == *title, "{line}");
        // Every class has a name of its own.
        assert_ne!(value["Name"], json!("event"), "{line}");
        // It takes the label of a field for its name.
        assert_eq!(value["sequence"], json!(record.sequence.to_string()), "{line}");
        assert_eq!((&value["boot_uid"], &value["dvchost"]), (&json!("b0a7"), &json!("camera")), "{line}");
        assert_eq!(value["rt"], json!("1700000000000"), "{line}");
        assert!(value["msg"].as_str().is_some_and(|text| !text.is_empty()), "{line}");
        let own =
            |place: &str| event.pointer(place).or_else(|| event.pointer(&format!("/evidences/0{place}")));
        for (place, v4, v6) in [
            ("/src_endpoint/ip", "src", "Source IPv6 Address"),
            ("/dst_endpoint/ip", "dst", "Destination IPv6 Address"),
        ] {
            if let Some(address) = own(place) {
                let key = if address.as_str().unwrap().contains(':') { v6 } else { v4 };
                assert_eq!(value[key], *address, "{line}");
            }
        }
        for (place, key) in [("/file/path", "filePath"), ("/query/hostname", "destinationDnsDomain")] {
            if let Some(text) = own(place) {
                assert_eq!(value[key], *text, "{line}");
            }
        }
    }
}
