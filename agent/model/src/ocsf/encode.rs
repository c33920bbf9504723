//! Events to JSON lines.

mod compliance;
mod finding;
mod health;
mod inventory;
mod login;
mod observed;
mod process;
mod remediation;

use std::net::IpAddr;

use super::json::{self, Object};
use super::VERSION;
use crate::authentication::Authentication;
use crate::event::{Event, EventKind};
use crate::identity::DeviceIdentity;

/// `observable.type_id` 2: IP Address.
const OBSERVABLE_IP: u8 = 2;
/// `file.type_id` 1: Regular File.
const REGULAR_FILE: u8 = 1;

/// What an event has in its `metadata` besides that of all.
#[derive(Default)]
struct Logged<'a> {
    /// `log_provider`: where it was learnt.
    provider: Option<&'a str>,
    /// `event_code`: what a submitter calls it.
    code: &'a str,
    /// `is_truncated`: something is missing.
    truncated: bool,
    /// `untruncated_size`, in bytes.
    whole: Option<u64>,
}

/// Appends the event as one line of JSON, without the newline.
pub fn encode(event: &Event, device: &DeviceIdentity, out: &mut Vec<u8>) {
    json::object(out, |record| {
        let (class, activity) = class(&event.kind);
        record.number("class_uid", class);
        record.number("category_uid", class / 1000);
        record.number("activity_id", activity);
        record.number("type_uid", class * 100 + activity);
        record.number("severity_id", event.severity().id());
        record.signed("time", event.time.millis());
        let mut logged = Logged::default();
        match &event.kind {
            EventKind::Process(activity) => logged = process::activity(record, activity),
            EventKind::Authentication(attempt) => login::write(record, attempt),
            EventKind::Finding(found) => finding::write(record, found),
            EventKind::Compliance(concluded) => compliance::write(record, concluded),
            EventKind::Remediation(done) => remediation::write(record, done),
            EventKind::Health(said) => health::write(record, said, device),
            EventKind::Inventory(inventory) => inventory::write(record, inventory),
            kind => logged = observed::write(record, kind),
        }
        record.object("metadata", |metadata| {
            metadata.text("version", VERSION);
            metadata.texts("profiles", &mut ["host", "linux/linux_users"].into_iter());
            metadata.number("sequence", event.sequence);
            metadata.known("log_provider", logged.provider);
            metadata.said("event_code", logged.code);
            if logged.truncated {
                metadata.flag("is_truncated", true);
            }
            metadata.counted("untruncated_size", logged.whole);
            product(metadata, "product", device);
        });
        record.object("device", |described| {
            // 7: IOT.
            described.number("type_id", 7u8);
            described.text("uid", &device.uid);
            described.text("hostname", &device.hostname);
            described.text("boot_uid", &device.boot_id);
            if let EventKind::Inventory(inventory) = &event.kind {
                inventory::device(described, inventory);
            }
        });
    });
}

/// `class_uid` and `activity_id`.
fn class(kind: &EventKind) -> (u32, u32) {
    match kind {
        EventKind::Process(activity) => process::class(activity),
        EventKind::Authentication(attempt) => login::class(attempt),
        EventKind::Finding(found) => finding::class(found),
        EventKind::Compliance(concluded) => compliance::class(concluded),
        EventKind::Remediation(done) => remediation::class(done),
        EventKind::Health(said) => health::class(said),
        EventKind::Inventory(inventory) => inventory::class(inventory),
        kind => observed::class(kind),
    }
}

fn product(record: &mut Object<'_>, name: &'static str, device: &DeviceIdentity) {
    record.object(name, |product| {
        product.text("name", "defender");
        product.text("vendor_name", "defender project");
        product.text("version", &device.agent_version);
    });
}

/// The file of a path; nothing when the path is empty.
fn file(record: &mut Object<'_>, path: &str) {
    if path.is_empty() {
        return;
    }
    record.object("file", |file| {
        place(file, path);
        file.number("type_id", REGULAR_FILE);
    });
}

/// `path` and `name` of a file.
fn place(file: &mut Object<'_>, path: &str) {
    file.text("path", path);
    file.text("name", path.rsplit('/').next().unwrap_or(path));
}

/// A user; nothing when neither number nor name is known.
fn user(record: &mut Object<'_>, name: &'static str, uid: Option<u32>, login: Option<&str>) {
    record.any(name, |user| {
        user.decimal("uid", uid);
        user.known("name", login);
    });
}

/// Where a login came from.
fn source(record: &mut Object<'_>, attempt: &Authentication) {
    if let Some(address) = attempt.source {
        end(record, "src_endpoint", address, attempt.source_port, None);
    }
}

/// One end of a connection.
fn end(
    record: &mut Object<'_>,
    name: &'static str,
    address: IpAddr,
    port: Option<u16>,
    hostname: Option<&str>,
) {
    record.object(name, |end| {
        end.shown("ip", &address);
        end.counted("port", port);
        end.known("hostname", hostname);
    });
}

/// `observables`: addresses by the name of their attribute.
fn observables(record: &mut Object<'_>, named: &[(&str, Option<IpAddr>)]) {
    record.list("observables", |list| {
        for (name, address) in named {
            let Some(address) = address else { continue };
            list.object(|observable| {
                observable.text("name", name);
                observable.number("type_id", OBSERVABLE_IP);
                observable.shown("value", address);
            });
        }
    });
}
