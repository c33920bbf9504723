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

use super::class::PROCESS_ACTIVITY;
use super::json::{self, name, Name, Object};
use super::VERSION;
use crate::authentication::Authentication;
use crate::event::{Event, EventKind};
use crate::identity::DeviceIdentity;
use crate::text::file_name;

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

/// Writes the events of one device: what is the same in all of them is written once.
#[derive(Debug)]
pub struct Encoder {
    /// The first members of `metadata`.
    metadata: Vec<u8>,
    /// Members of `metadata.product`.
    product: Vec<u8>,
    /// Members of `device`.
    device: Vec<u8>,
    /// What the events begin with that tell of a program started, or ended: most do.
    processes: [Vec<u8>; 2],
    launcher: process::Launcher,
}

impl Encoder {
    /// An encoder for this device and this boot.
    #[must_use]
    pub fn new(device: &DeviceIdentity) -> Self {
        let metadata = json::members(|metadata| {
            metadata.text(name!("version"), VERSION);
            metadata.texts(name!("profiles"), &mut ["host", "linux/linux_users"].into_iter());
        });
        let product = json::members(|product| {
            product.text(name!("name"), "defender");
            product.text(name!("vendor_name"), "defender project");
            product.text(name!("version"), &device.agent_version);
        });
        let device = json::members(|described| {
            // 7: IOT.
            described.number(name!("type_id"), 7u8);
            described.text(name!("uid"), &device.uid);
            described.text(name!("hostname"), &device.hostname);
            described.text(name!("boot_uid"), &device.boot_id);
        });
        let processes = [1, 2].map(|number| json::members(|record| head(record, PROCESS_ACTIVITY, number)));
        Self { metadata, product, device, processes, launcher: process::Launcher::default() }
    }

    /// Appends the event as one line of JSON, without the newline.
    pub fn encode(&mut self, event: &Event, out: &mut Vec<u8>) {
        json::object(out, |record| {
            let (class, activity) = class(&event.kind);
            match (class, activity) {
                (PROCESS_ACTIVITY, 1 | 2) => record.written(&self.processes[activity as usize - 1]),
                _ => head(record, class, activity),
            }
            record.number(name!("severity_id"), event.severity().id());
            record.signed(name!("time"), event.time.millis());
            let mut logged = Logged::default();
            match &event.kind {
                EventKind::Process(activity) => {
                    logged = process::activity(record, activity, &mut self.launcher);
                }
                EventKind::Authentication(attempt) => login::write(record, attempt),
                EventKind::Finding(found) => finding::write(record, found),
                EventKind::Compliance(concluded) => compliance::write(record, concluded),
                EventKind::Remediation(done) => remediation::write(record, done),
                EventKind::Health(said) => health::write(record, said, &self.product),
                EventKind::Inventory(inventory) => inventory::write(record, inventory),
                kind => logged = observed::write(record, kind),
            }
            record.object(name!("metadata"), |metadata| {
                metadata.written(&self.metadata);
                metadata.number(name!("sequence"), event.sequence);
                metadata.known(name!("log_provider"), logged.provider);
                metadata.said(name!("event_code"), logged.code);
                if logged.truncated {
                    metadata.flag(name!("is_truncated"), true);
                }
                metadata.counted(name!("untruncated_size"), logged.whole);
                metadata.object(name!("product"), |product| product.written(&self.product));
            });
            record.object(name!("device"), |described| {
                described.written(&self.device);
                if let EventKind::Inventory(inventory) = &event.kind {
                    inventory::device(described, inventory);
                }
            });
        });
    }
}

/// Appends one event of the device as a line of JSON, without the newline. Who has many takes an [`Encoder`].
pub fn encode(event: &Event, device: &DeviceIdentity, out: &mut Vec<u8>) {
    Encoder::new(device).encode(event, out);
}

/// What every event begins with.
fn head(record: &mut Object<'_>, class: u32, activity: u32) {
    record.number(name!("class_uid"), class);
    record.number(name!("category_uid"), class / 1000);
    record.number(name!("activity_id"), activity);
    record.number(name!("type_uid"), class * 100 + activity);
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

/// The file of a path; nothing when the path is empty.
fn file(record: &mut Object<'_>, path: &str) {
    if path.is_empty() {
        return;
    }
    record.object(name!("file"), |file| {
        place(file, path);
        file.number(name!("type_id"), REGULAR_FILE);
    });
}

/// `path` and `name` of a file.
fn place(file: &mut Object<'_>, path: &str) {
    file.text(name!("path"), path);
    file.text(name!("name"), file_name(path));
}

/// A user; nothing when neither number nor name is known.
fn user(record: &mut Object<'_>, name: Name, uid: Option<u32>, login: Option<&str>) {
    record.any(name, |user| {
        user.decimal(name!("uid"), uid);
        user.known(name!("name"), login);
    });
}

/// Where a login came from.
fn source(record: &mut Object<'_>, attempt: &Authentication) {
    if let Some(address) = attempt.source {
        end(record, name!("src_endpoint"), address, attempt.source_port, None);
    }
}

/// One end of a connection.
fn end(record: &mut Object<'_>, name: Name, address: IpAddr, port: Option<u16>, hostname: Option<&str>) {
    record.object(name, |end| {
        end.shown(name!("ip"), &address);
        end.counted(name!("port"), port);
        end.known(name!("hostname"), hostname);
    });
}

/// `observables`: addresses by the name of their attribute.
fn observables(record: &mut Object<'_>, named: &[(&str, Option<IpAddr>)]) {
    record.list(name!("observables"), |list| {
        for (name, address) in named {
            let Some(address) = address else { continue };
            list.object(|observable| {
                observable.text(name!("name"), name);
                observable.number(name!("type_id"), OBSERVABLE_IP);
                observable.shown(name!("value"), address);
            });
        }
    });
}
