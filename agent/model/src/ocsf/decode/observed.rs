//! OCSF to connections, names, files, devices, modules, the packet filter and what processes do.

use std::sync::Arc;

use super::{ActorObject, DecodeError, Endpoint, FileObject, ProcessObject, Record};
use crate::account::{AccountActivity, AccountChange};
use crate::dns::{Answer, Dns};
use crate::file::{FileActivity, FileChange, FileType, Sha256};
use crate::kernel::{FirewallChange, ModuleActivity, ProgramType, RuleChange};
use crate::network::{self, Direction, Flow, FlowChange, Listener, Protocol, Volume};
use crate::ocsf::mark;
use crate::peripheral::{PeripheralActivity, PeripheralClass};
use crate::process::{Actor, Ancestor, Deed, ProcessDeed};
use crate::service::{ServiceActivity, ServiceChange, Submitted};
use crate::severity::Severity;
use crate::time::Timestamp;

const ACTIVITY: DecodeError = DecodeError::Attribute("activity_id");

fn actor(object: ActorObject) -> Option<Actor> {
    object.process.map(|process| Actor {
        pid: process.pid,
        uid: process.user.id(),
        auid: process.auid,
        parent: process.parent_process.map(|parent| ancestor(*parent)),
        executable: process.file.path.into(),
        command_line: process.cmd_line.into(),
        user: process.user.name.map(Into::into),
    })
}

pub(super) fn ancestor(object: ProcessObject) -> Arc<Ancestor> {
    lineage(object, Ancestor::LEVELS)
}

fn lineage(object: ProcessObject, levels: usize) -> Arc<Ancestor> {
    Arc::new(Ancestor {
        pid: object.pid,
        executable: object.file.path.into(),
        command_line: object.cmd_line.into(),
        parent: object.parent_process.filter(|_| levels > 1).map(|parent| lineage(*parent, levels - 1)),
    })
}

fn end(object: &Endpoint, name: &'static str) -> Result<network::Endpoint, DecodeError> {
    object
        .ip
        .map(|address| network::Endpoint { address, port: object.port })
        .ok_or(DecodeError::Attribute(name))
}

/// What became of class 4001: a flow, or a listening socket.
pub(super) enum NetworkActivity {
    Flow(Flow),
    Listener(Listener),
}

pub(super) fn network(record: Record) -> Result<NetworkActivity, DecodeError> {
    let protocol = Protocol(
        record.connection_info.protocol_num.ok_or(DecodeError::Attribute("connection_info.protocol_num"))?,
    );
    if record.activity_id == 7 || record.unmapped.kind == mark::LISTENER {
        let open = match record.activity_id {
            7 => true,
            2 => false,
            _ => return Err(ACTIVITY),
        };
        let local = end(&record.dst_endpoint, "dst_endpoint.ip")?;
        let process = actor(record.actor);
        return Ok(NetworkActivity::Listener(Listener { open, protocol, local, process }));
    }
    let change = match record.activity_id {
        1 => FlowChange::Opened,
        2 => FlowChange::Closed,
        4 => FlowChange::Failed,
        5 => FlowChange::Denied,
        6 => FlowChange::Traffic,
        _ => return Err(ACTIVITY),
    };
    let direction = match record.connection_info.direction_id {
        1 => Direction::Inbound,
        2 => Direction::Outbound,
        4 => Direction::Local,
        _ => Direction::Unknown,
    };
    let volume = |bytes: Option<u64>, packets: Option<u64>| {
        (bytes.is_some() || packets.is_some())
            .then(|| Volume { bytes: bytes.unwrap_or(0), packets: packets.unwrap_or(0) })
    };
    let traffic = record.traffic;
    Ok(NetworkActivity::Flow(Flow {
        change,
        direction,
        protocol,
        source: end(&record.src_endpoint, "src_endpoint.ip")?,
        destination: end(&record.dst_endpoint, "dst_endpoint.ip")?,
        destination_name: record.dst_endpoint.hostname,
        forward: volume(traffic.bytes_out, traffic.packets_out),
        reply: volume(traffic.bytes_in, traffic.packets_in),
        started: record.start_time.map(Timestamp),
        ended: record.end_time.map(Timestamp),
        rule: record.unmapped.rule,
        process: actor(record.actor),
    }))
}

pub(super) fn dns(record: Record) -> Result<Dns, DecodeError> {
    let rcode = match record.activity_id {
        1 => None,
        2 => Some(record.unmapped.rcode.or(record.rcode_id).ok_or(DecodeError::Attribute("rcode_id"))?),
        _ => return Err(ACTIVITY),
    };
    let server = record.dst_endpoint;
    Ok(Dns {
        name: record.query.hostname,
        record_type: record.query.record_type,
        rcode,
        answers: record
            .answers
            .into_iter()
            .map(|answer| Answer { record_type: answer.record_type, data: answer.rdata })
            .collect(),
        server: server.ip.map(|address| network::Endpoint { address, port: server.port }),
        process: actor(record.actor),
    })
}

fn file_type(id: u8) -> FileType {
    match id {
        1 | 8 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::CharacterDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Socket,
        6 => FileType::Pipe,
        7 => FileType::Link,
        _ => FileType::Unknown,
    }
}

fn sha256(file: &FileObject) -> Option<Sha256> {
    file.hashes.iter().find(|hash| hash.algorithm_id == 3).and_then(|hash| hash.value.parse().ok())
}

pub(super) fn file(record: Record) -> Result<FileActivity, DecodeError> {
    let change = match record.activity_id {
        1 => FileChange::Created,
        2 | 14 => FileChange::Read,
        3 => FileChange::Modified,
        4 => FileChange::Deleted,
        5 => FileChange::Renamed,
        6 | 7 => FileChange::Attributes,
        _ => return Err(ACTIVITY),
    };
    let (old_path, file) = match record.file_result {
        Some(result) => (Some(record.file.path), result),
        None => (None, record.file),
    };
    if file.path.is_empty() {
        return Err(DecodeError::Attribute("file.path"));
    }
    Ok(FileActivity {
        change,
        old_path,
        file_type: file_type(file.type_id),
        mode: record.unmapped.mode.as_deref().and_then(|mode| u16::from_str_radix(mode, 8).ok()),
        owner: file.owner.id(),
        sha256: sha256(&file),
        path: file.path,
        process: actor(record.actor),
    })
}

pub(super) fn peripheral(record: Record) -> Result<PeripheralActivity, DecodeError> {
    let device = record.peripheral_device;
    let number = |text: &str| u16::from_str_radix(text, 16).ok();
    let connected = match record.activity_id {
        1 => true,
        2 => false,
        _ => return Err(ACTIVITY),
    };
    Ok(PeripheralActivity {
        connected,
        class: PeripheralClass::from_name(&device.class).unwrap_or(PeripheralClass::Other),
        bus: record.unmapped.bus,
        interface: device.name,
        path: device.uid,
        vendor_id: device.vendor_id_list.first().and_then(|id| number(id)),
        product_id: record.unmapped.product_id.as_deref().and_then(number),
        vendor: device.vendor_name,
        product: device.model,
        serial: device.serial_number,
        functions: record.unmapped.functions,
        interfaces: record.unmapped.interfaces,
        nodes: record.unmapped.nodes,
        parent: record.unmapped.parent,
        allowed: record.unmapped.allowed,
    })
}

pub(super) fn module(record: Record) -> Result<ModuleActivity, DecodeError> {
    let file = record.driver.file;
    let loaded = match record.activity_id {
        1 => true,
        2 => false,
        _ => return Err(ACTIVITY),
    };
    Ok(ModuleActivity {
        loaded,
        sha256: sha256(&file),
        path: (!file.path.is_empty()).then_some(file.path),
        name: file.name,
        program: record.unmapped.program_type_id.map(ProgramType),
        process: actor(record.actor),
    })
}

pub(super) fn deed(record: Record) -> Result<ProcessDeed, DecodeError> {
    let source = super::source(&record.metadata);
    let from = record.unmapped.previous_uid;
    let both = (actor(record.actor), actor(ActorObject { process: record.process }));
    let (Some(process), Some(subject)) = both else {
        return Err(DecodeError::Attribute("process"));
    };
    let deed = match (record.activity_id, from) {
        (3, _) => Deed::Traced(subject),
        (_, Some(from)) => Deed::BecameRoot { from },
        _ => return Err(DecodeError::Attribute("unmapped.previous_uid")),
    };
    Ok(ProcessDeed { deed, process, source })
}

/// A change to the packet filter; `None` for other managed entities.
pub(super) fn firewall(record: Record) -> Result<Option<FirewallChange>, DecodeError> {
    if record.entity.kind != mark::FIREWALL {
        return Ok(None);
    }
    let change = match record.activity_id {
        1 => RuleChange::Added,
        3 => RuleChange::Changed,
        4 => RuleChange::Removed,
        _ => return Err(ACTIVITY),
    };
    Ok(Some(FirewallChange {
        change,
        family: record.unmapped.family,
        table: record.entity.name,
        operation: record.unmapped.operation,
        entries: record.unmapped.entries,
        effect: record.unmapped.effect,
        summary: record.unmapped.summary,
        process: actor(record.actor),
    }))
}

/// A change of an account; `None` where it is one that other programs tell of.
pub(super) fn account(record: Record) -> Option<AccountActivity> {
    let change = AccountChange::from_name(&record.unmapped.kind)?;
    Some(AccountActivity {
        change,
        uid: record.user.id(),
        user: record.user.name.unwrap_or_default(),
        gid: record.group.id().or(record.unmapped.gid),
        group: record.group.name.unwrap_or_default(),
        shell: record.unmapped.shell,
        detail: record.message,
        process: actor(record.actor),
    })
}

pub(super) fn service(record: Record) -> Result<ServiceActivity, DecodeError> {
    let change = match (record.activity_id, record.status_id) {
        (3, _) => ServiceChange::Started,
        (4, 2) => ServiceChange::Failed,
        (4, _) => ServiceChange::Stopped,
        (5, _) => ServiceChange::Restarted,
        (8, _) => ServiceChange::Updated,
        (99, _) => ServiceChange::Reported,
        _ => return Err(ACTIVITY),
    };
    let name = record.app.name.ok_or(DecodeError::Attribute("app.name"))?;
    Ok(ServiceActivity { change, name, detail: record.message })
}

pub(super) fn submitted(record: Record) -> Result<Submitted, DecodeError> {
    let severity = Severity::from_id(record.severity_id).ok_or(DecodeError::Attribute("severity_id"))?;
    Ok(Submitted {
        title: record.unmapped.title,
        severity,
        category: record.unmapped.category,
        code: record.metadata.event_code,
        message: record.message,
        attributes: record.unmapped.attributes.into_iter().collect(),
        sender: record.unmapped.sender,
        process: actor(record.actor),
    })
}
