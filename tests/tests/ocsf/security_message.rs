//! Security messages of Azure Security Center for IoT as they come over MQTT, held against a schema by a validator that is not ours.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use defender_report::mqtt::{self, Format};
use defender_report::record::Record;
use defender_report::sink::{self, Limits};
use defender_validation::python::environment;
use serde_json::Value;

/// One packet of MQTT 3.1.1: its first byte and what follows the length.
fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    let (first, mut length, mut shift) = (byte[0], 0, 0);
    loop {
        stream.read_exact(&mut byte).ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((first, body))
}

/// A broker for one client: takes everything, keeps topics and payloads of what is acknowledged.
fn broker(listener: &TcpListener) -> Vec<(String, String)> {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut published = Vec::new();
    while let Some((first, body)) = packet(&mut stream) {
        match first >> 4 {
            1 => stream.write_all(&[0x20, 2, 0, 0]).unwrap(),
            3 if first & 6 == 2 => {
                let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                published.push((text(&body[2..topic_end]), text(&body[topic_end + 2..])));
                stream.write_all(&[0x40, 2, body[topic_end], body[topic_end + 1]]).unwrap();
            }
            12 => stream.write_all(&[0xd0, 0]).unwrap(),
            14 => break,
            _ => {}
        }
    }
    published
}

/// What a broker, or a hub, gets of these records.
fn captured(records: &[Record], connection_string: Option<&Path>) -> Vec<(String, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = mqtt::Config {
        format: Format::SecurityMessage,
        iot_hub: connection_string.map(|file| mqtt::Hub::ConnectionString(file.to_owned())),
        ..mqtt::Config::plain("127.0.0.1", port, "device-1")
    };
    let receiving = std::thread::spawn(move || broker(&listener));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (notices, _keep) = tokio::sync::mpsc::channel(16);
        let (handle, intake) = sink::channel("sink.test", Limits::default(), notices);
        let task = tokio::spawn(mqtt::run(config, intake));
        for record in records {
            handle.push(record.clone()).await;
        }
        handle.close();
        task.await.unwrap();
        assert_eq!(handle.stats().written, records.len() as u64);
    });
    receiving.join().unwrap()
}

#[test]
fn security_messages_are_valid_and_the_rest_is_ocsf() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let records = super::lines::records();
    let published: Vec<_> =
        captured(&records, None).into_iter().filter(|(_, body)| body != "online").collect();
    assert_eq!(published.len(), records.len());
    let mut messages = String::new();
    for (topic, body) in &published {
        let value: Value = serde_json::from_str(body).unwrap();
        if topic == "defender/device-1/security" {
            assert!(value["Events"][0]["Payload"][0].is_object(), "{body}");
            messages += body;
            messages.push('\n');
        } else {
            let class = value["class_uid"].as_u64().unwrap();
            let activity = value["activity_id"].as_u64().unwrap();
            // Without a counterpart, see docs/sinks.md.
            let left_out = match class {
                0 | 1001 | 1002 | 2004 | 3001 | 3004 | 3006 | 4003 | 5020 | 7001..=7004 => true,
                1007 => value.get("exit_code").is_none(),
                1010 => activity == 2,
                5001 => activity == 1,
                2003 => value["unmapped"]["verdict"] == "not_applicable",
                3002 => activity == 2,
                4001 => activity != 7 && (activity != 1 || value["connection_info"]["direction_id"] == 0),
                6002 => value["unmapped"]["kind"] == "service",
                _ => false,
            };
            assert!(left_out, "{topic} {body}");
        }
    }
    // A hub is told by a property what these are.
    let file = directory.join("connection_string.txt");
    fs::write(&file, "HostName=127.0.0.1;DeviceId=device-1;x509=true").unwrap();
    for ((topic, body), (plain, same)) in captured(&records, Some(&file)).iter().zip(&published) {
        let known = topic.ends_with("&$.ifid=urn%3Aazureiot%3ASecurity%3ASecurityAgent%3A1");
        assert_eq!((known, body), (plain.ends_with("/security"), same), "{topic}");
        assert!(topic.starts_with("devices/device-1/messages/events/$.ct="), "{topic}");
    }
    let lines = directory.join("security_messages.jsonl");
    fs::write(&lines, messages).unwrap();
    let packages = ["ocsf-json-schema==1.2.0", "jsonschema==4.26.0"];
    let Some(python) = environment(directory, "venv", &packages) else { return };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg(here.join("lib/security_message_validate.py"))
        .arg(here.join("tests/ocsf/security_message.schema.json"))
        .arg(lines)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for name in [
        "ProcessCreate",
        "ProcessTerminate",
        "ConnectionCreate",
        "Login",
        "ListeningPorts",
        "ConnectedHardware",
        "OSBaseline",
        "SystemInformation",
        "Diagnostic",
    ] {
        assert!(said.contains(&format!("event {name}: ")), "no {name}: {said}");
    }
}
