//! The security message of Azure Security Center for IoT, schema 1.0: what its classic agent sent, in place of OCSF.
//!
//! Names, types and what must be there are those of the schemas in `Azure/Azure-IoT-Security` (`security_message/schemas`, draft-07).
//! `docs/sinks.md` has the mapping for people. Events without a counterpart are not encoded: they go as OCSF, so that nothing is lost.

use std::fmt::Write as _;

use serde_json::Value;

use crate::event::{self, text_at};
use crate::record::Record;

/// The property by which a hub knows such a message, as its clients set it in a topic (`iothub-interface-id` in what the hub passes on).
pub(super) const INTERFACE: &str = "&$.ifid=urn%3Aazureiot%3ASecurity%3ASecurityAgent%3A1";

/// How a value is written.
#[derive(Clone, Copy)]
enum As {
    /// As text, if there is any.
    Text,
    /// As text, empty where there is none: the schema wants the property.
    Needed,
    /// The same, in capitals.
    Capitals,
    /// As a whole number, 0 where there is none.
    Number,
}
use As::{Capitals, Needed, Number, Text};

/// One event of the schema: its properties and where OCSF has their values. The first place of a name that has something counts.
struct Shape {
    name: &'static str,
    category: &'static str,
    kind: &'static str,
    properties: &'static [(&'static str, &'static str, As)],
    /// What the schema has no property for, as texts in `ExtraDetails`.
    extra: &'static [(&'static str, &'static str)],
}

const PROCESS_CREATE: Shape = Shape {
    name: "ProcessCreate",
    category: "Triggered",
    kind: "Security",
    properties: &[
        ("Executable", "/process/file/path", Text),
        ("Executable", "/process/name", Needed),
        ("ProcessId", "/process/pid", Number),
        ("UserId", "/process/user/uid", Needed),
        ("UserName", "/process/user/name", Text),
        ("CommandLine", "/process/cmd_line", Needed),
    ],
    extra: &[
        ("WorkingDirectory", "/process/working_directory"),
        ("ParentExecutable", "/actor/process/file/path"),
        ("AuditUserId", "/process/auid"),
    ],
};
const PROCESS_TERMINATE: Shape = Shape {
    name: "ProcessTerminate",
    category: "Triggered",
    kind: "Security",
    properties: &[
        ("Executable", "/process/file/path", Text),
        ("Executable", "/process/name", Needed),
        ("ProcessId", "/process/pid", Number),
        ("ExitStatus", "/exit_code", Number),
    ],
    extra: &[("CommandLine", "/process/cmd_line")],
};
const LOGIN: Shape = Shape {
    name: "Login",
    category: "Triggered",
    kind: "Security",
    properties: &[
        ("ProcessId", "/actor/process/pid", Number),
        ("UserName", "/user/name", Needed),
        ("Executable", "/service/name", Needed),
        ("RemoteAddress", "/src_endpoint/ip", Text),
        ("RemotePort", "/src_endpoint/port", Text),
    ],
    extra: &[("Terminal", "/session/terminal"), ("Method", "/unmapped/method"), ("Message", "/message")],
};
const CONNECTION: Shape = Shape {
    name: "ConnectionCreate",
    category: "Triggered",
    kind: "Security",
    properties: &[
        ("Protocol", "/connection_info/protocol_name", Capitals),
        ("Protocol", "/connection_info/protocol_num", Needed),
        ("ProcessId", "/actor/process/pid", Number),
        ("UserId", "/actor/process/user/uid", Text),
        ("Executable", "/actor/process/file/path", Needed),
        ("CommandLine", "/actor/process/cmd_line", Text),
    ],
    extra: &[("RemoteHostName", "/dst_endpoint/hostname"), ("UserName", "/actor/process/user/name")],
};
const LISTENING_PORTS: Shape = Shape {
    name: "ListeningPorts",
    category: "Periodic",
    kind: "Security",
    properties: &[
        ("LocalAddress", "/dst_endpoint/ip", Text),
        ("LocalPort", "/dst_endpoint/port", Needed),
        ("Protocol", "/connection_info/protocol_name", Capitals),
        ("Protocol", "/connection_info/protocol_num", Needed),
    ],
    extra: &[("Pid", "/actor/process/pid"), ("Executable", "/actor/process/file/path")],
};
const CONNECTED_HARDWARE: Shape = Shape {
    name: "ConnectedHardware",
    category: "Periodic",
    kind: "Security",
    properties: &[
        ("HardwareCategory", "/unmapped/bus", Needed),
        ("HardwareSubCategory", "/peripheral_device/class", Needed),
        ("HardwareName", "/peripheral_device/model", Text),
        ("HardwareName", "/peripheral_device/name", Needed),
    ],
    extra: &[
        ("Vendor", "/peripheral_device/vendor_name"),
        ("VendorId", "/peripheral_device/vendor_id_list/0"),
        ("ProductId", "/unmapped/product_id"),
        ("SerialNumber", "/peripheral_device/serial_number"),
    ],
};
const BASELINE: Shape = Shape {
    name: "OSBaseline",
    category: "Periodic",
    kind: "Security",
    properties: &[("Description", "/finding_info/title", Needed), ("CceId", "/compliance/control", Needed)],
    extra: &[
        ("Verdict", "/unmapped/verdict"),
        ("Policy", "/compliance/standards/0"),
        ("Detail", "/compliance/status_details/0"),
        ("Remediation", "/remediation/desc"),
    ],
};
const SYSTEM_INFORMATION: Shape = Shape {
    name: "SystemInformation",
    category: "Periodic",
    kind: "Security",
    properties: &[
        ("OSName", "/device/os/name", Text),
        ("OSVersion", "/device/os/version", Text),
        ("OsArchitecture", "/device/hw_info/cpu_architecture", Text),
        ("HostName", "/device/hostname", Text),
        ("BIOSVersion", "/device/hw_info/bios_ver", Text),
    ],
    extra: &[
        ("HardwareVendor", "/device/vendor_name"),
        ("HardwareModel", "/device/model"),
        ("HardwareSerialNumber", "/device/hw_info/serial_number"),
        ("FirmwareVendor", "/device/hw_info/bios_manufacturer"),
        ("KernelRelease", "/device/os/kernel_release"),
    ],
};
const DIAGNOSTIC: Shape = Shape {
    name: "Diagnostic",
    category: "Triggered",
    kind: "Diagnostic",
    properties: &[
        ("Message", "/message", Needed),
        // It is the agent that speaks, perhaps the one of an earlier boot.
        ("ProcessId", "/actor/process/pid", Number),
        ("ThreadId", "/actor/process/tid", Number),
    ],
    extra: &[("Component", "/unmapped/component"), ("Kind", "/unmapped/kind")],
};

/// What names an event for ever, and how often it happened.
const COMMON: [(&str, &str); 3] =
    [("BootId", "/device/boot_uid"), ("Sequence", "/metadata/sequence"), ("HitCount", "/count")];

/// The record as a message with one event; `None` where the schema has no event of its kind.
pub(super) fn encode(record: &Record) -> Option<String> {
    let event = event::of(record);
    let mut payload = String::from("{");
    let shape = counterpart(&event, &mut payload)?;
    let mut written = "";
    for &(name, place, how) in shape.properties {
        let value = text_at(&event, place);
        if name == written || value.is_none() && matches!(how, Text | Capitals) {
            continue;
        }
        written = name;
        let mut value = value.unwrap_or_default();
        match how {
            Number => number(&mut payload, name, &value),
            Capitals => {
                value.make_ascii_uppercase();
                text(&mut payload, name, &value);
            }
            Text | Needed => text(&mut payload, name, &value),
        }
    }
    next(&mut payload, "ExtraDetails");
    payload.push('{');
    for (name, place) in shape.extra.iter().chain(&COMMON) {
        if let Some(value) = text_at(&event, place) {
            text(&mut payload, name, &value);
        }
    }
    for (name, value) in event.pointer("/unmapped/counters").and_then(Value::as_object).into_iter().flatten()
    {
        text(&mut payload, name, &value.to_string());
    }
    payload.push_str("}}");

    let of = |place| text_at(&event, place).unwrap_or_default();
    let (device, boot) = (of("/device/uid"), of("/device/boot_uid"));
    let mut message = String::from("{");
    text(&mut message, "AgentVersion", &of("/metadata/product/version"));
    text(&mut message, "AgentId", &guid(&[&device]));
    text(&mut message, "MessageSchemaVersion", "1.0");
    next(&mut message, "Events");
    message.push_str("[{");
    text(&mut message, "Id", &guid(&[&device, &boot, &record.sequence.to_string()]));
    let time = record.time.to_string();
    for (name, value) in [
        ("TimestampLocal", time.as_str()),
        ("TimestampUTC", &time),
        ("Category", shape.category),
        ("Name", shape.name),
        ("EventType", shape.kind),
        ("PayloadSchemaVersion", "1.0"),
    ] {
        text(&mut message, name, value);
    }
    message.push_str(",\"IsEmpty\":false,\"Payload\":[");
    message.push_str(&payload);
    message.push_str("]}]}");
    Some(message)
}

/// The event of the schema that says the same. What it has its own words for is written to `payload`.
fn counterpart(event: &Value, payload: &mut String) -> Option<&'static Shape> {
    let number = |place| event.pointer(place).and_then(Value::as_i64);
    let word = |place| event.pointer(place).and_then(Value::as_str).unwrap_or_default();
    Some(match (number("/class_uid")?, number("/activity_id")?) {
        (1007, 1) => {
            // Where the parent is not known, OCSF has the process itself as the actor.
            let parent = number("/actor/process/pid").filter(|pid| Some(*pid) != number("/process/pid"));
            self::number(payload, "ParentProcessId", &parent.unwrap_or(0).to_string());
            &PROCESS_CREATE
        }
        (1007, 2) if number("/exit_code").is_some() => &PROCESS_TERMINATE,
        (3002, activity @ (1 | 7)) => {
            text(payload, "Operation", if activity == 1 { "login" } else { "account switch" });
            text(payload, "Result", if number("/status_id") == Some(1) { "Success" } else { "Fail" });
            &LOGIN
        }
        (4001, 1) => {
            let (direction, local, remote) = match number("/connection_info/direction_id") {
                Some(1) => ("In", "dst", "src"),
                Some(2 | 4) => ("Out", "src", "dst"),
                // Passing through: no end is local.
                _ => return None,
            };
            text(payload, "Direction", direction);
            for (end, side) in [("Local", local), ("Remote", remote)] {
                let of = |what| text_at(event, &format!("/{side}_endpoint/{what}"));
                text(payload, &format!("{end}Address"), &of("ip")?);
                text(payload, &format!("{end}Port"), of("port").as_deref().unwrap_or("0"));
            }
            &CONNECTION
        }
        (4001, 7) => &LISTENING_PORTS,
        (1010, 1) => &CONNECTED_HARDWARE,
        (2003, _) => {
            let verdict = word("/unmapped/verdict");
            let (result, error) = match verdict {
                "pass" => ("Pass", ""),
                "fail" | "excepted" => ("Fail", ""),
                "unknown" => ("Err", "/compliance/status_details/0"),
                _ => return None,
            };
            let severity = match word("/unmapped/check_severity") {
                // An accepted fault weighs nothing.
                _ if verdict == "excepted" => "Informational",
                "critical" => "Critical",
                "high" => "Important",
                "medium" => "Warning",
                _ => "Informational",
            };
            text(payload, "Result", result);
            text(payload, "Error", if error.is_empty() { "" } else { word(error) });
            text(payload, "Severity", severity);
            &BASELINE
        }
        (5001, 2) => {
            if let Some(mebibytes) = number("/device/hw_info/ram_size") {
                let kibibytes = mebibytes.saturating_mul(1024).to_string();
                self::number(payload, "TotalPhysicalMemoryInKB", &kibibytes);
            }
            &SYSTEM_INFORMATION
        }
        // Not what becomes of services, which is of the same class.
        (6002 | 6008, _) if event.pointer("/unmapped/component").is_some() => {
            let severity = match word("/unmapped/kind") {
                "lost" => "Error",
                "degraded" => "Warning",
                _ => "Information",
            };
            text(payload, "Severity", severity);
            &DIAGNOSTIC
        }
        _ => return None,
    })
}

/// A member's name, and the comma before it.
fn next(json: &mut String, name: &str) {
    if !json.ends_with('{') {
        json.push(',');
    }
    let _ = write!(json, "\"{name}\":");
}

fn text(json: &mut String, name: &str, value: &str) {
    next(json, name);
    json.push_str(&Value::from(value).to_string());
}

fn number(json: &mut String, name: &str, value: &str) {
    next(json, name);
    json.push_str(if value.is_empty() { "0" } else { value });
}

/// The same identifier for the same parts, for ever: FNV-1a of 128 bits (RFC 9923), in the form of a UUID of version 8 (RFC 9562).
fn guid(parts: &[&str]) -> String {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash = BASIS;
    for part in parts {
        // A byte that no text has ends each part.
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        }
    }
    let hash = hash & !(0xf << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    let hex = format!("{hash:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::sink::tests::record;

    fn encoded(event: &Value) -> Option<Value> {
        let record = Record { ocsf: event.to_string().into_bytes().into(), ..record(24, false) };
        Some(serde_json::from_str(&encode(&record)?).expect("JSON"))
    }

    #[test]
    fn a_start_of_a_program() {
        let event = json!({
            "class_uid": 1007, "activity_id": 1,
            "process": {
                "pid": 4242, "file": { "path": "/bin/busybox" }, "name": "wget", "cmd_line": "wget \"x\"",
                "user": { "uid": "0", "name": "root" },
            },
            "actor": { "process": { "pid": 700 } },
            "device": { "uid": "device-1", "boot_uid": "b0a7" },
            "metadata": { "sequence": 24, "product": { "version": "0.1.0" } },
        });
        let expected = json!({
            "AgentVersion": "0.1.0", "AgentId": guid(&["device-1"]), "MessageSchemaVersion": "1.0",
            "Events": [{
                "Id": guid(&["device-1", "b0a7", "24"]), "TimestampLocal": "2023-11-14T22:13:20.000Z",
                "TimestampUTC": "2023-11-14T22:13:20.000Z", "Category": "Triggered", "Name": "ProcessCreate",
                "EventType": "Security", "PayloadSchemaVersion": "1.0", "IsEmpty": false,
                "Payload": [{
                    "Executable": "/bin/busybox", "ProcessId": 4242, "ParentProcessId": 700, "UserId": "0",
                    "UserName": "root", "CommandLine": "wget \"x\"",
                    "ExtraDetails": { "BootId": "b0a7", "Sequence": "24" },
                }],
            }],
        });
        assert_eq!(encoded(&event), Some(expected));
        let orphan = json!({
            "class_uid": 1007, "activity_id": 1, "process": { "pid": 9 }, "actor": { "process": { "pid": 9 } },
        });
        let orphan = &encoded(&orphan).expect("a counterpart")["Events"][0]["Payload"][0];
        let expected = json!({
            "Executable": "", "ProcessId": 9, "ParentProcessId": 0, "UserId": "", "CommandLine": "",
            "ExtraDetails": {},
        });
        assert_eq!(*orphan, expected);
    }

    #[test]
    fn both_ways_of_a_connection() {
        for (direction, expected) in [
            (1, Some(("In", "192.0.2.7", "2001:db8::1"))),
            (2, Some(("Out", "2001:db8::1", "192.0.2.7"))),
            (0, None),
        ] {
            let event = json!({
                "class_uid": 4001, "activity_id": 1, "src_endpoint": { "ip": "192.0.2.7", "port": 5 },
                "dst_endpoint": { "ip": "2001:db8::1" },
                "connection_info": { "direction_id": direction, "protocol_num": 6, "protocol_name": "tcp" },
            });
            let encoded = encoded(&event);
            let payload = encoded.as_ref().map(|message| &message["Events"][0]["Payload"][0]);
            let found = payload.map(|payload| {
                assert_eq!(payload["Protocol"], "TCP");
                let word = |name: &str| payload[name].as_str().expect("a text");
                (word("Direction"), word("RemoteAddress"), word("LocalAddress"))
            });
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn identifiers_are_stable_and_told_apart() {
        let one = guid(&["device-1", "b0a7", "1"]);
        assert_eq!((one.len(), one.as_bytes()[14], one.as_bytes()[8]), (36, b'8', b'-'));
        assert_eq!(guid(&["device-1", "b0a7", "1"]), one);
        for other in [["device-1", "b0a7", "2"], ["device-1", "b0a71", ""], ["device-", "1b0a7", "1"]] {
            assert_ne!(guid(&other), one);
        }
        // The test vector of the empty input, but for version and variant.
        assert_eq!(guid(&[]), "6c62272e-07bb-8142-a2b8-21756295c58d");
    }

    proptest! {
        #[test]
        fn whatever_an_event_says_the_message_is_json(text in "(?s).*", class in 0..9000_i64, activity in 0..9_i64) {
            let event = json!({
                "class_uid": class, "activity_id": activity, "exit_code": 1, "message": text,
                "process": { "pid": 1, "cmd_line": text, "user": { "name": text } },
                "unmapped": { "component": text, "verdict": "fail", "counters": { "n": 1 } },
                "device": { "uid": text, "boot_uid": text },
            });
            let _ = encoded(&event);
            for (class, activity) in [(1007, 1), (1007, 2), (3002, 1), (2003, 1), (6008, 1), (1010, 1), (4001, 7), (5001, 2)] {
                let mut event = event.clone();
                event["class_uid"] = class.into();
                event["activity_id"] = activity.into();
                prop_assert!(encoded(&event).is_some());
            }
        }
    }
}
