//! Connections, names, files, devices, modules, accounts, services, the packet filter and what processes do.
//!
//! What is observed is an event, or what a finding rests on. There, some attributes stand as in the event ([`shared`]); what the
//! schema's evidence has no attribute for is in its `data` ([`particular`]).

use super::process::{ancestor, lineage};
use super::{end, file, name, place, user, Logged, Object, REGULAR_FILE};
use crate::account::{AccountActivity, AccountChange};
use crate::dns::Dns;
use crate::event::EventKind;
use crate::file::{FileActivity, FileChange, FileType, Sha256};
use crate::kernel::RuleChange;
use crate::network::{Direction, Flow, FlowChange, Protocol};
use crate::ocsf::{class, mark};
use crate::peripheral::{PeripheralActivity, PeripheralClass};
use crate::process::{Actor, Deed};
use crate::service::ServiceChange;
use crate::time::Timestamp;

pub(super) fn class(kind: &EventKind) -> (u32, u32) {
    match kind {
        EventKind::Network(flow) => (class::NETWORK_ACTIVITY, flow_activity(flow.change)),
        // 7 Listen, 2 Close.
        EventKind::Listener(socket) => (class::NETWORK_ACTIVITY, if socket.open { 7 } else { 2 }),
        // 1 Query, 2 Response.
        EventKind::Dns(dns) => (class::DNS_ACTIVITY, if dns.rcode.is_some() { 2 } else { 1 }),
        EventKind::File(activity) => (class::FILE_ACTIVITY, file_activity(activity.change)),
        EventKind::Peripheral(activity) => {
            (class::PERIPHERAL_ACTIVITY, if activity.connected { 1 } else { 2 })
        }
        EventKind::Deed(done) => {
            let number = match done.deed {
                // Open: "a request by the actor to obtain a handle [...] to a process with the aim of performing further actions".
                Deed::Traced(_) => 3,
                // Set User ID.
                Deed::BecameRoot { .. } => 5,
            };
            (class::PROCESS_ACTIVITY, number)
        }
        EventKind::Module(activity) => {
            (class::KERNEL_EXTENSION_ACTIVITY, if activity.loaded { 1 } else { 2 })
        }
        EventKind::Firewall(done) => {
            let activity = match done.change {
                RuleChange::Added => 1,
                RuleChange::Changed => 3,
                RuleChange::Removed => 4,
            };
            (class::ENTITY_MANAGEMENT, activity)
        }
        EventKind::Account(done) => account_activity(done.change),
        EventKind::Service(activity) => {
            let number = match activity.change {
                ServiceChange::Started => 3,
                ServiceChange::Stopped | ServiceChange::Failed => 4,
                ServiceChange::Restarted => 5,
                ServiceChange::Updated => 8,
                ServiceChange::Reported => 99,
            };
            (class::APPLICATION_LIFECYCLE, number)
        }
        // 99: Other. Submitted events, and none that is written elsewhere.
        _ => (class::BASE_EVENT, 99),
    }
}

const fn flow_activity(change: FlowChange) -> u32 {
    match change {
        FlowChange::Opened => 1,
        FlowChange::Closed => 2,
        FlowChange::Failed => 4,
        // Refuse.
        FlowChange::Denied => 5,
        FlowChange::Traffic => 6,
    }
}

const fn file_activity(change: FileChange) -> u32 {
    match change {
        FileChange::Created => 1,
        FileChange::Read => 2,
        FileChange::Modified => 3,
        FileChange::Deleted => 4,
        FileChange::Renamed => 5,
        FileChange::Attributes => 6,
    }
}

const fn account_activity(change: AccountChange) -> (u32, u32) {
    match change {
        AccountChange::UserCreated => (class::ACCOUNT_CHANGE, 1),
        AccountChange::UserDeleted => (class::ACCOUNT_CHANGE, 6),
        AccountChange::PasswordChanged => (class::ACCOUNT_CHANGE, 3),
        AccountChange::UserLocked => (class::ACCOUNT_CHANGE, 9),
        AccountChange::UserUnlocked => (class::ACCOUNT_CHANGE, 12),
        AccountChange::UserChanged => (class::ACCOUNT_CHANGE, 99),
        AccountChange::GroupCreated => (class::GROUP_MANAGEMENT, 6),
        AccountChange::GroupDeleted => (class::GROUP_MANAGEMENT, 5),
        AccountChange::MemberAdded => (class::GROUP_MANAGEMENT, 3),
        AccountChange::MemberRemoved => (class::GROUP_MANAGEMENT, 4),
    }
}

/// Writes what was observed as an event.
pub(super) fn write<'a>(record: &mut Object<'_>, kind: &'a EventKind) -> Logged<'a> {
    let mut logged = Logged::default();
    record.said(name!("message"), message(kind));
    match kind {
        EventKind::Network(flow) => volume(record, flow),
        // The schema lists 0 to 25.
        EventKind::Dns(dns) => {
            record.counted(name!("rcode_id"), dns.rcode.map(|rcode| if rcode <= 25 { rcode } else { 99 }));
        }
        EventKind::Account(done) if done.change.concerns_group() => record.any(name!("group"), |group| {
            group.said(name!("name"), &done.group);
            group.decimal(name!("uid"), done.gid);
        }),
        EventKind::Service(activity) => {
            if activity.change == ServiceChange::Failed {
                // 2: Failure.
                record.number(name!("status_id"), 2u8);
            }
            record.object(name!("app"), |app| {
                app.text(name!("name"), &activity.name);
                // Whose it is nobody says, and the schema wants a maker.
                app.text(name!("vendor_name"), "unknown");
            });
        }
        EventKind::Deed(done) => logged.provider = Some(done.source.name()),
        EventKind::Submitted(said) => {
            logged = Logged { provider: Some("dbus"), code: &said.code, ..Logged::default() };
        }
        _ => {}
    }
    shared(record, kind, false);
    particular(record, kind);
    logged
}

/// Writes what was observed as evidence of a finding, with all known ancestors of the process behind it.
pub(super) fn evidence(object: &mut Object<'_>, kind: &EventKind) {
    shared(object, kind, true);
    object.any(name!("data"), |data| {
        if let EventKind::Service(activity) = kind {
            data.text(name!("service"), &activity.name);
        }
        data.said(name!("message"), message(kind));
        particular(data, kind);
    });
}

fn message(kind: &EventKind) -> &str {
    match kind {
        EventKind::Account(done) => &done.detail,
        EventKind::Service(activity) => &activity.detail,
        EventKind::Submitted(said) => &said.message,
        _ => "",
    }
}

/// Attributes that events and evidence have alike.
fn shared(record: &mut Object<'_>, kind: &EventKind, whole: bool) {
    actor(record, kind, whole);
    match kind {
        EventKind::Network(flow) => {
            let (source, destination) = (flow.source, flow.destination);
            end(record, name!("src_endpoint"), source.address, source.port, None);
            let name = flow.destination_name.as_deref();
            end(record, name!("dst_endpoint"), destination.address, destination.port, name);
            let direction = match flow.direction {
                Direction::Unknown => 0,
                Direction::Inbound => 1,
                Direction::Outbound => 2,
                Direction::Local => 4,
            };
            connection(record, direction, flow.protocol);
        }
        EventKind::Listener(socket) => {
            end(record, name!("dst_endpoint"), socket.local.address, socket.local.port, None);
            connection(record, 1, socket.protocol);
        }
        EventKind::Dns(dns) => lookup(record, dns),
        EventKind::File(activity) => {
            let at = activity.old_path.as_ref().unwrap_or(&activity.path);
            record.object(name!("file"), |object| {
                subject(object, at, activity);
                if activity.old_path.is_none() {
                    content(object, activity);
                }
            });
        }
        EventKind::Deed(done) => record.object(name!("process"), |process| {
            let subject = match &done.deed {
                Deed::Traced(target) => target,
                Deed::BecameRoot { .. } => &done.process,
            };
            described(process, subject, whole);
        }),
        EventKind::Account(done) if !done.user.is_empty() => {
            user(record, name!("user"), done.uid, Some(&done.user));
        }
        _ => {}
    }
}

/// Attributes that evidence has in its `data`.
fn particular(record: &mut Object<'_>, kind: &EventKind) {
    match kind {
        EventKind::Network(flow) => {
            record.any(name!("unmapped"), |unmapped| unmapped.known(name!("rule"), flow.rule.as_deref()));
        }
        EventKind::Listener(_) => {
            record.object(name!("unmapped"), |unmapped| unmapped.text(name!("kind"), mark::LISTENER));
        }
        EventKind::Dns(dns) => answers(record, dns),
        EventKind::File(activity) => {
            if activity.old_path.is_some() {
                record.object(name!("file_result"), |object| {
                    subject(object, &activity.path, activity);
                    content(object, activity);
                });
            }
            if let Some(mode) = activity.mode {
                // Permission bits as chmod(1) takes them: `4755`.
                record.object(name!("unmapped"), |unmapped| {
                    unmapped.shown(name!("mode"), &format_args!("{mode:04o}"));
                });
            }
        }
        EventKind::Peripheral(activity) => peripheral(record, activity),
        EventKind::Module(activity) => {
            record.object(name!("driver"), |driver| {
                driver.object(name!("file"), |file| {
                    file.known(name!("path"), activity.path.as_deref());
                    file.text(name!("name"), &activity.name);
                    // 99: Other.
                    file.number(name!("type_id"), if activity.program.is_some() { 99 } else { REGULAR_FILE });
                    digests(file, activity.sha256.as_ref());
                });
            });
            if let Some(kind) = activity.program {
                record.object(name!("unmapped"), |unmapped| {
                    unmapped.text(name!("program_type"), kind.name());
                    unmapped.number(name!("program_type_id"), kind.0);
                });
            }
        }
        EventKind::Deed(done) => {
            if let Deed::BecameRoot { from } = done.deed {
                record.object(name!("unmapped"), |unmapped| unmapped.number(name!("previous_uid"), from));
            }
        }
        EventKind::Firewall(done) => {
            record.object(name!("entity"), |entity| {
                entity.text(name!("name"), &done.table);
                // 5: Policy.
                entity.number(name!("type_id"), 5u8);
                entity.text(name!("type"), mark::FIREWALL);
            });
            record.any(name!("unmapped"), |unmapped| {
                unmapped.said(name!("family"), &done.family);
                unmapped.said(name!("operation"), &done.operation);
                unmapped.counted(name!("entries"), done.entries);
                unmapped.said(name!("effect"), &done.effect);
                unmapped.said(name!("summary"), &done.summary);
            });
        }
        EventKind::Account(done) => account(record, done),
        EventKind::Service(_) => {
            record.object(name!("unmapped"), |unmapped| unmapped.text(name!("kind"), mark::SERVICE));
        }
        EventKind::Submitted(said) => record.object(name!("unmapped"), |unmapped| {
            unmapped.text(name!("kind"), mark::SUBMITTED);
            unmapped.text(name!("title"), &said.title);
            unmapped.said(name!("category"), &said.category);
            unmapped.said(name!("sender"), &said.sender);
            unmapped.pairs(name!("attributes"), &said.attributes);
        }),
        _ => {}
    }
}

/// The process behind the event. Where the class demands an actor, `unknown` stands for one that was not seen.
fn actor(record: &mut Object<'_>, kind: &EventKind, whole: bool) {
    let demanded = matches!(
        kind,
        EventKind::File(_) | EventKind::Peripheral(_) | EventKind::Module(_) | EventKind::Submitted(_)
    );
    match kind.actor() {
        Some(subject) => record.object(name!("actor"), |actor| {
            actor.object(name!("process"), |process| described(process, subject, whole));
        }),
        None if demanded => record.object(name!("actor"), |actor| actor.text(name!("app_name"), "unknown")),
        None => {}
    }
}

fn described(process: &mut Object<'_>, subject: &Actor, whole: bool) {
    process.number(name!("pid"), subject.pid);
    file(process, &subject.executable);
    process.said(name!("cmd_line"), &subject.command_line);
    user(process, name!("user"), subject.uid, subject.user.as_deref());
    process.counted(name!("auid"), subject.auid);
    let parent = subject.parent.as_deref();
    match parent {
        _ if whole => lineage(process, parent),
        Some(parent) => process.object(name!("parent_process"), |above| ancestor(above, parent)),
        None => {}
    }
}

fn connection(record: &mut Object<'_>, direction: u8, protocol: Protocol) {
    record.object(name!("connection_info"), |connection| {
        connection.number(name!("direction_id"), direction);
        connection.number(name!("protocol_num"), protocol.0);
        connection.known(name!("protocol_name"), protocol.name());
    });
}

/// When a flow began and ended, and what went through it.
fn volume(record: &mut Object<'_>, flow: &Flow) {
    if let Some(started) = flow.started.map(Timestamp::millis) {
        record.signed(name!("start_time"), started);
    }
    if let Some(ended) = flow.ended.map(Timestamp::millis) {
        record.signed(name!("end_time"), ended);
    }
    record.any(name!("traffic"), |traffic| {
        traffic.counted(name!("bytes_out"), flow.forward.map(|volume| volume.bytes));
        traffic.counted(name!("packets_out"), flow.forward.map(|volume| volume.packets));
        traffic.counted(name!("bytes_in"), flow.reply.map(|volume| volume.bytes));
        traffic.counted(name!("packets_in"), flow.reply.map(|volume| volume.packets));
    });
}

fn lookup(record: &mut Object<'_>, dns: &Dns) {
    match dns.server {
        Some(server) => end(record, name!("dst_endpoint"), server.address, server.port, None),
        // The class demands an end; where the server's address is not known, all there is to say is what service it was.
        None => record.object(name!("dst_endpoint"), |end| end.text(name!("svc_name"), "dns")),
    }
    record.object(name!("query"), |query| {
        query.text(name!("hostname"), &dns.name);
        query.said(name!("type"), &dns.record_type);
        // 0: Query.
        query.number(name!("opcode_id"), 0u8);
    });
}

fn answers(record: &mut Object<'_>, dns: &Dns) {
    record.list(name!("answers"), |answers| {
        for answer in &dns.answers {
            answers.object(|object| {
                object.said(name!("type"), &answer.record_type);
                object.text(name!("rdata"), &answer.data);
            });
        }
    });
    record.any(name!("unmapped"), |unmapped| {
        unmapped.counted(name!("rcode"), dns.rcode.filter(|rcode| *rcode > 25));
    });
}

fn subject(object: &mut Object<'_>, path: &str, activity: &FileActivity) {
    place(object, path);
    let type_id = match activity.file_type {
        FileType::Unknown => 0u8,
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Socket => 5,
        FileType::Pipe => 6,
        FileType::Link => 7,
    };
    object.number(name!("type_id"), type_id);
}

/// Whose a file is and what it holds, after the event.
fn content(object: &mut Object<'_>, activity: &FileActivity) {
    user(object, name!("owner"), activity.owner, None);
    digests(object, activity.sha256.as_ref());
}

fn digests(file: &mut Object<'_>, sha256: Option<&Sha256>) {
    if let Some(digest) = sha256 {
        file.list(name!("hashes"), |list| list.object(|hash| fingerprint(hash, digest)));
    }
}

pub(super) fn fingerprint(hash: &mut Object<'_>, digest: &Sha256) {
    // 3: SHA-256.
    hash.number(name!("algorithm_id"), 3u8);
    hash.shown(name!("value"), digest);
}

fn peripheral(record: &mut Object<'_>, activity: &PeripheralActivity) {
    let type_id = match activity.class {
        PeripheralClass::Storage => 1u8,
        PeripheralClass::Keyboard => 2,
        PeripheralClass::Mouse => 3,
        PeripheralClass::Printer => 4,
        PeripheralClass::Camera => 7,
        PeripheralClass::Network
        | PeripheralClass::Serial
        | PeripheralClass::Audio
        | PeripheralClass::Hub
        | PeripheralClass::Other => 99,
    };
    record.object(name!("peripheral_device"), |device| {
        device.text(name!("name"), &activity.interface);
        device.said(name!("uid"), &activity.path);
        device.text(name!("class"), activity.class.name());
        device.number(name!("type_id"), type_id);
        device.known(name!("vendor_name"), activity.vendor.as_deref());
        device.known(name!("model"), activity.product.as_deref());
        device.known(name!("serial_number"), activity.serial.as_deref());
        if let Some(vendor) = activity.vendor_id {
            device.texts(name!("vendor_id_list"), &mut [hex(vendor).as_str()].into_iter());
        }
    });
    record.any(name!("unmapped"), |unmapped| {
        unmapped.said(name!("bus"), &activity.bus);
        unmapped.known(name!("product_id"), activity.product_id.map(hex).as_deref());
        unmapped.said(name!("functions"), &activity.functions);
        unmapped.said(name!("interfaces"), &activity.interfaces);
        unmapped.said(name!("nodes"), &activity.nodes);
        unmapped.known(name!("parent"), activity.parent.as_deref());
        if let Some(allowed) = activity.allowed {
            unmapped.flag(name!("allowed"), allowed);
        }
    });
}

/// A vendor or product number as lsusb(8) prints it: `0951`.
fn hex(number: u16) -> String {
    format!("{number:04x}")
}

fn account(record: &mut Object<'_>, done: &AccountActivity) {
    let group = done.change.concerns_group();
    record.object(name!("unmapped"), |unmapped| {
        unmapped.text(name!("kind"), done.change.name());
        unmapped.said(name!("shell"), &done.shell);
        unmapped.counted(name!("gid"), done.gid.filter(|_| !group));
    });
}
