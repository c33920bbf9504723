//! Connections, names, files, devices, modules and the packet filter to OCSF.

use super::{file, lineage, parent, some};
use crate::account::{AccountActivity, AccountChange};
use crate::dns::Dns;
use crate::event::EventKind;
use crate::file::{FileActivity, FileChange, FileType, Sha256};
use crate::kernel::{FirewallChange, ModuleActivity, RuleChange};
use crate::network::{Direction, Endpoint, Flow, FlowChange, Listener, Protocol, Volume};
use crate::ocsf::class;
use crate::ocsf::wire::{
    self, Actor, ConnectionInfo, Decimal, Driver, Entity, Fingerprint, Metadata, Named, Octal, Pairs,
    Peripheral, Product, Query, Record, Traffic, Unmapped, User,
};
use crate::peripheral::{PeripheralActivity, PeripheralClass};
use crate::process;
use crate::service::{ServiceActivity, ServiceChange, Submitted};
use crate::time::Timestamp;

/// The record of something observed; `None` for kinds that are not here.
pub(super) fn record(kind: &EventKind) -> Option<Record<'_>> {
    Some(match kind {
        EventKind::Network(flow) => network(flow),
        EventKind::Listener(socket) => listener(socket),
        EventKind::Dns(dns) => lookup(dns),
        EventKind::File(activity) => file_activity(activity),
        EventKind::Peripheral(activity) => peripheral(activity),
        EventKind::Module(activity) => module(activity),
        EventKind::Firewall(change) => firewall(change),
        EventKind::Account(activity) => account(activity),
        EventKind::Inventory(inventory) => super::inventory::record(inventory),
        EventKind::Service(activity) => service(activity),
        EventKind::Submitted(said) => submitted(said),
        EventKind::Process(_)
        | EventKind::Authentication(_)
        | EventKind::Finding(_)
        | EventKind::Remediation(_)
        | EventKind::Compliance(_)
        | EventKind::Health(_) => return None,
    })
}

fn described(subject: &process::Actor) -> wire::Process<'_> {
    let user = (subject.uid.is_some() || subject.user.is_some()).then(|| User {
        uid: subject.uid.map(Decimal),
        name: subject.user.as_deref(),
        ..User::default()
    });
    wire::Process {
        pid: Some(subject.pid),
        file: file(&subject.executable),
        cmd_line: some(&subject.command_line),
        user,
        auid: subject.auid,
        parent_process: subject.parent.as_ref().map(|ancestor| Box::new(parent(ancestor))),
        ..wire::Process::default()
    }
}

fn actor(subject: Option<&process::Actor>) -> Option<Actor<'_>> {
    subject.map(|subject| Actor { process: Some(described(subject)), ..Actor::default() })
}

/// For classes that demand an actor: `unknown` stands for one that was not seen.
fn required_actor(subject: Option<&process::Actor>) -> Option<Actor<'_>> {
    actor(subject).or_else(|| Some(Actor { app_name: Some("unknown"), ..Actor::default() }))
}

fn endpoint<'a>(end: Endpoint, hostname: Option<&'a str>) -> wire::Endpoint<'a> {
    wire::Endpoint { ip: Some(end.address), port: end.port, hostname, ..wire::Endpoint::default() }
}

fn connection<'a>(direction: u8, protocol: Protocol) -> ConnectionInfo<'a> {
    ConnectionInfo {
        direction_id: Some(direction),
        protocol_num: Some(protocol.0),
        protocol_name: protocol.name(),
        ..ConnectionInfo::default()
    }
}

fn network(flow: &Flow) -> Record<'_> {
    let direction = match flow.direction {
        Direction::Unknown => 0,
        Direction::Inbound => 1,
        Direction::Outbound => 2,
        Direction::Local => 4,
    };
    let counted = flow.forward.is_some() || flow.reply.is_some();
    let traffic = |volume: Option<Volume>| (volume.map(|v| v.bytes), volume.map(|v| v.packets));
    let ((bytes_out, packets_out), (bytes_in, packets_in)) = (traffic(flow.forward), traffic(flow.reply));
    Record {
        class_uid: Some(class::NETWORK_ACTIVITY),
        activity_id: Some(match flow.change {
            FlowChange::Opened => 1,
            FlowChange::Closed => 2,
            FlowChange::Failed => 4,
            FlowChange::Traffic => 6,
            // Refuse.
            FlowChange::Denied => 5,
        }),
        start_time: flow.started.map(Timestamp::millis),
        end_time: flow.ended.map(Timestamp::millis),
        actor: actor(flow.process.as_ref()),
        src_endpoint: Some(endpoint(flow.source, None)),
        dst_endpoint: Some(endpoint(flow.destination, flow.destination_name.as_deref())),
        connection_info: Some(connection(direction, flow.protocol)),
        traffic: counted.then(|| Traffic {
            bytes_out,
            packets_out,
            bytes_in,
            packets_in,
            ..Traffic::default()
        }),
        unmapped: Unmapped { rule: flow.rule.as_deref(), ..Unmapped::default() }.none_if_empty(),
        ..Record::default()
    }
}

fn listener(socket: &Listener) -> Record<'_> {
    Record {
        class_uid: Some(class::NETWORK_ACTIVITY),
        // 7 Listen, 2 Close.
        activity_id: Some(if socket.open { 7 } else { 2 }),
        actor: actor(socket.process.as_ref()),
        dst_endpoint: Some(endpoint(socket.local, None)),
        connection_info: Some(connection(1, socket.protocol)),
        unmapped: Some(Unmapped { kind: Some(wire::LISTENER), ..Unmapped::default() }),
        ..Record::default()
    }
}

fn lookup(dns: &Dns) -> Record<'_> {
    Record {
        class_uid: Some(class::DNS_ACTIVITY),
        // 1 Query, 2 Response.
        activity_id: Some(if dns.rcode.is_some() { 2 } else { 1 }),
        actor: actor(dns.process.as_ref()),
        // The class demands an end; where the server's address is not known, all there is to say is what service it was.
        dst_endpoint: Some(match dns.server {
            Some(server) => endpoint(server, None),
            None => wire::Endpoint { svc_name: Some("dns"), ..wire::Endpoint::default() },
        }),
        query: Some(query(dns)),
        // The schema lists 0 to 25.
        rcode_id: dns.rcode.map(|rcode| if rcode <= 25 { rcode } else { 99 }),
        answers: (!dns.answers.is_empty()).then(|| {
            let answers = dns.answers.iter().map(|answer| wire::Answer {
                record_type: some(&answer.record_type),
                rdata: Some(answer.data.as_str()),
                ..wire::Answer::default()
            });
            answers.collect()
        }),
        unmapped: Unmapped { rcode: dns.rcode.filter(|rcode| *rcode > 25), ..Unmapped::default() }
            .none_if_empty(),
        ..Record::default()
    }
}

fn query(dns: &Dns) -> Query<'_> {
    Query {
        hostname: Some(dns.name.as_str()),
        record_type: some(&dns.record_type),
        // 0: Query.
        opcode_id: Some(0),
        ..Query::default()
    }
}

const fn type_id(file_type: FileType) -> u8 {
    match file_type {
        FileType::Unknown => 0,
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Socket => 5,
        FileType::Pipe => 6,
        FileType::Link => 7,
    }
}

fn digests<'a>(sha256: Option<Sha256>) -> Option<Vec<Fingerprint<'a>>> {
    sha256.map(|digest| {
        // 3: SHA-256.
        vec![Fingerprint { algorithm_id: Some(3), value: Some(digest), ..Fingerprint::default() }]
    })
}

fn path<'a>(path: &'a str, file_type: FileType) -> wire::File<'a> {
    wire::File {
        path: Some(path),
        name: Some(path.rsplit('/').next().unwrap_or(path)),
        type_id: Some(type_id(file_type)),
        ..wire::File::default()
    }
}

fn file_activity(activity: &FileActivity) -> Record<'_> {
    let mut after = path(&activity.path, activity.file_type);
    after.owner = activity.owner.map(|uid| Box::new(User { uid: Some(Decimal(uid)), ..User::default() }));
    after.hashes = digests(activity.sha256);
    let (subject, result) = match &activity.old_path {
        Some(old) => (path(old, activity.file_type), Some(after)),
        None => (after, None),
    };
    Record {
        class_uid: Some(class::FILE_ACTIVITY),
        activity_id: Some(match activity.change {
            FileChange::Created => 1,
            FileChange::Read => 2,
            FileChange::Modified => 3,
            FileChange::Deleted => 4,
            FileChange::Renamed => 5,
            FileChange::Attributes => 6,
        }),
        actor: required_actor(activity.process.as_ref()),
        file: Some(subject),
        file_result: result,
        unmapped: Unmapped { mode: activity.mode.map(Octal), ..Unmapped::default() }.none_if_empty(),
        ..Record::default()
    }
}

fn peripheral(activity: &PeripheralActivity) -> Record<'_> {
    let type_id = match activity.class {
        PeripheralClass::Storage => 1,
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
    Record {
        class_uid: Some(class::PERIPHERAL_ACTIVITY),
        activity_id: Some(if activity.connected { 1 } else { 2 }),
        actor: required_actor(None),
        peripheral_device: Some(Peripheral {
            name: Some(activity.interface.as_str()),
            uid: some(&activity.path),
            class: Some(activity.class.name()),
            type_id: Some(type_id),
            vendor_name: activity.vendor.as_deref(),
            model: activity.product.as_deref(),
            serial_number: activity.serial.as_deref(),
            vendor_id_list: activity.vendor_id.map(|id| vec![wire::Hex(id)]),
            ..Peripheral::default()
        }),
        unmapped: Unmapped {
            bus: some(&activity.bus),
            product_id: activity.product_id.map(wire::Hex),
            functions: some(&activity.functions),
            interfaces: some(&activity.interfaces),
            nodes: some(&activity.nodes),
            parent: activity.parent.as_deref(),
            allowed: activity.allowed,
            ..Unmapped::default()
        }
        .none_if_empty(),
        ..Record::default()
    }
}

fn module(activity: &ModuleActivity) -> Record<'_> {
    Record {
        class_uid: Some(class::KERNEL_EXTENSION_ACTIVITY),
        activity_id: Some(if activity.loaded { 1 } else { 2 }),
        actor: required_actor(activity.process.as_ref()),
        driver: Some(Driver {
            file: Some(wire::File {
                name: Some(activity.name.as_str()),
                path: activity.path.as_deref(),
                hashes: digests(activity.sha256),
                type_id: Some(super::REGULAR_FILE),
                ..wire::File::default()
            }),
            ..Driver::default()
        }),
        ..Record::default()
    }
}

fn firewall(done: &FirewallChange) -> Record<'_> {
    Record {
        class_uid: Some(class::ENTITY_MANAGEMENT),
        activity_id: Some(match done.change {
            RuleChange::Added => 1,
            RuleChange::Changed => 3,
            RuleChange::Removed => 4,
        }),
        actor: actor(done.process.as_ref()),
        entity: Some(Entity {
            name: Some(done.table.as_str()),
            // 5: Policy.
            type_id: Some(5),
            kind: Some(wire::FIREWALL),
            ..Entity::default()
        }),
        unmapped: Some(Unmapped {
            family: some(&done.family),
            operation: some(&done.operation),
            entries: done.entries,
            effect: some(&done.effect),
            summary: some(&done.summary),
            ..Unmapped::default()
        }),
        ..Record::default()
    }
}

fn account(done: &AccountActivity) -> Record<'_> {
    let group = done.change.concerns_group();
    let named = |name| Named { name, uid: done.gid.map(Decimal), ..Named::default() };
    let user = User { uid: done.uid.map(Decimal), name: some(&done.user), ..User::default() };
    Record {
        class_uid: Some(if group { class::GROUP_MANAGEMENT } else { class::ACCOUNT_CHANGE }),
        activity_id: Some(match done.change {
            AccountChange::UserCreated => 1,
            AccountChange::UserDeleted => 6,
            AccountChange::PasswordChanged => 3,
            AccountChange::UserLocked => 9,
            AccountChange::UserUnlocked => 12,
            AccountChange::UserChanged => 99,
            AccountChange::GroupCreated => 6,
            AccountChange::GroupDeleted => 5,
            AccountChange::MemberAdded => 3,
            AccountChange::MemberRemoved => 4,
        }),
        message: some(&done.detail),
        actor: actor(done.process.as_ref()),
        user: (!done.user.is_empty()).then_some(user),
        group: group.then(|| named(some(&done.group))),
        unmapped: Some(Unmapped {
            kind: Some(done.change.name()),
            shell: some(&done.shell),
            gid: done.gid.filter(|_| !group),
            ..Unmapped::default()
        }),
        ..Record::default()
    }
}

fn service(activity: &ServiceActivity) -> Record<'_> {
    Record {
        class_uid: Some(class::APPLICATION_LIFECYCLE),
        activity_id: Some(match activity.change {
            ServiceChange::Started => 3,
            ServiceChange::Stopped | ServiceChange::Failed => 4,
            ServiceChange::Restarted => 5,
            ServiceChange::Updated => 8,
            ServiceChange::Reported => 99,
        }),
        // 2: Failure.
        status_id: (activity.change == ServiceChange::Failed).then_some(2),
        message: some(&activity.detail),
        // Whose it is nobody says, and the schema wants a maker.
        app: Some(Product {
            name: Some(activity.name.as_str()),
            vendor_name: Some("unknown"),
            ..Product::default()
        }),
        unmapped: Some(Unmapped { kind: Some(wire::SERVICE), ..Unmapped::default() }),
        ..Record::default()
    }
}

fn submitted(said: &Submitted) -> Record<'_> {
    Record {
        class_uid: Some(class::BASE_EVENT),
        // 99: Other.
        activity_id: Some(99),
        message: some(&said.message),
        actor: required_actor(said.process.as_ref()),
        metadata: Some(Metadata {
            log_provider: Some("dbus"),
            event_code: some(&said.code),
            ..Metadata::default()
        }),
        unmapped: Some(Unmapped {
            kind: Some(wire::SUBMITTED),
            title: Some(said.title.as_str()),
            category: some(&said.category),
            sender: some(&said.sender),
            attributes: (!said.attributes.is_empty()).then_some(Pairs(&said.attributes)),
            ..Unmapped::default()
        }),
        ..Record::default()
    }
}

/// The same as evidence of a finding, with all known ancestors of the process behind it.
pub(super) fn evidence(kind: &EventKind) -> wire::Evidence<'_> {
    let Some(mut record) = record(kind) else { return wire::Evidence::default() };
    if let Some(described) = record.actor.as_mut().and_then(|actor| actor.process.as_mut()) {
        described.parent_process = lineage(kind.actor().and_then(|subject| subject.parent.as_deref()));
    }
    let data = wire::EvidenceData {
        answers: record.answers,
        file_result: record.file_result,
        driver: record.driver,
        peripheral_device: record.peripheral_device,
        entity: record.entity,
        service: record.app.and_then(|app| app.name),
        message: record.message,
        unmapped: record.unmapped,
        ..wire::EvidenceData::default()
    };
    wire::Evidence {
        actor: record.actor,
        user: record.user,
        src_endpoint: record.src_endpoint,
        dst_endpoint: record.dst_endpoint,
        connection_info: record.connection_info,
        query: record.query,
        file: record.file,
        data: data.none_if_empty(),
        ..wire::Evidence::default()
    }
}
