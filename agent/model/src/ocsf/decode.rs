//! JSON lines back to events: what `replay` reads. Only what detection judges is read back: observations, not conclusions.

mod observed;
mod place;

use std::collections::BTreeMap;
use std::net::IpAddr;

use self::place::objects;
use super::{class, mark};
use crate::authentication::{Activity, Authentication, Outcome};
use crate::event::Event;
use crate::process::{Change, ExitReason, Process, ProcessActivity, Source};
use crate::time::Timestamp;

/// Longest line that is looked at, in bytes: an argument vector is at most 6 MiB in the kernel (`fs/exec.c`, three quarters of
/// the 8 MiB stack limit), and JSON escapes can lengthen it sixfold.
const MAX_LINE: usize = 40 << 20;

/// Why a line is not an event.
#[derive(Debug)]
pub enum DecodeError {
    /// The line is longer than any event of ours can be.
    TooLong(usize),
    /// Not JSON, or an attribute of the wrong type.
    Json(serde_json::Error),
    /// An attribute that the class needs is missing or out of range.
    Attribute(&'static str),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong(bytes) => {
                write!(f, "line of {bytes} bytes is longer than an event can be ({MAX_LINE})")
            }
            Self::Json(cause) => write!(f, "not an OCSF event: {cause}"),
            Self::Attribute(name) => write!(f, "OCSF attribute {name} is missing or out of range"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads one line. `Ok(None)` for OCSF classes that are conclusions (findings, remediations, health) rather than observations.
///
/// # Errors
/// When the line is not JSON or lacks what its class needs; see [`DecodeError`].
pub fn decode(line: &[u8]) -> Result<Option<Event>, DecodeError> {
    if line.len() > MAX_LINE {
        return Err(DecodeError::TooLong(line.len()));
    }
    let mut record = Record::default();
    place::read(line, &mut record).map_err(DecodeError::Json)?;
    let time = Timestamp(record.time.ok_or(DecodeError::Attribute("time"))?);
    let sequence = record.metadata.sequence;
    let kind = match record.class_uid {
        Some(class::PROCESS_ACTIVITY) if matches!(record.activity_id, 3 | 5) => {
            observed::deed(record)?.into()
        }
        Some(class::PROCESS_ACTIVITY) => process_activity(record)?.into(),
        Some(class::AUTHENTICATION) => authentication(record)?.into(),
        Some(class::NETWORK_ACTIVITY) => match observed::network(record)? {
            observed::NetworkActivity::Flow(flow) => flow.into(),
            observed::NetworkActivity::Listener(socket) => socket.into(),
        },
        Some(class::DNS_ACTIVITY) => observed::dns(record)?.into(),
        Some(class::FILE_ACTIVITY) => observed::file(record)?.into(),
        Some(class::PERIPHERAL_ACTIVITY) => observed::peripheral(record)?.into(),
        Some(class::KERNEL_EXTENSION_ACTIVITY) => observed::module(record)?.into(),
        Some(class::ENTITY_MANAGEMENT) => match observed::firewall(record)? {
            Some(change) => change.into(),
            None => return Ok(None),
        },
        Some(class::APPLICATION_LIFECYCLE) if record.unmapped.kind == mark::SERVICE => {
            observed::service(record)?.into()
        }
        Some(class::ACCOUNT_CHANGE | class::GROUP_MANAGEMENT) => match observed::account(record) {
            Some(activity) => activity.into(),
            None => return Ok(None),
        },
        Some(class::BASE_EVENT) if record.unmapped.kind == mark::SUBMITTED => {
            observed::submitted(record)?.into()
        }
        Some(_) => return Ok(None),
        None => return Err(DecodeError::Attribute("class_uid")),
    };
    Ok(Some(Event { time, sequence, kind }))
}

objects! {
    struct Record {
        class_uid: Option<u32>,
        activity_id: u32,
        time: Option<i64>,
        message: String,
        count: Option<u32>,
        duration: Option<u64>,
        status_id: u8,
        severity_id: u8,
        exit_code: Option<i32>,
        actor: ActorObject,
        process: Option<ProcessObject>,
        user: Named,
        group: Named,
        service: Named,
        app: Named,
        session: Session,
        start_time: Option<i64>,
        end_time: Option<i64>,
        src_endpoint: Endpoint,
        dst_endpoint: Endpoint,
        connection_info: ConnectionInfo,
        traffic: Traffic,
        query: Query,
        rcode_id: Option<u16>,
        answers: Vec<AnswerObject>,
        file: FileObject,
        file_result: Option<FileObject>,
        peripheral_device: Peripheral,
        driver: Driver,
        entity: Entity,
        unmapped: Unmapped,
        metadata: Metadata,
    }

    struct Metadata {
        sequence: u64,
        log_provider: String,
        event_code: String,
        is_truncated: bool,
    }

    struct ActorObject {
        process: Option<ProcessObject>,
    }

    struct ProcessObject {
        pid: u32,
        file: FileObject,
        cmd_line: String,
        working_directory: String,
        user: Named,
        group: Named,
        euid: Option<u32>,
        auid: Option<u32>,
        session: Session,
        created_time: Option<i64>,
        parent_process: Option<Box<ProcessObject>>,
    }

    struct FileObject {
        path: String,
        name: String,
        type_id: u8,
        owner: Named,
        hashes: Vec<Fingerprint>,
    }

    struct Fingerprint {
        algorithm_id: u8,
        value: String,
    }

    struct ConnectionInfo {
        direction_id: u8,
        protocol_num: Option<u8>,
    }

    struct Traffic {
        bytes_out: Option<u64>,
        packets_out: Option<u64>,
        bytes_in: Option<u64>,
        packets_in: Option<u64>,
    }

    struct Query {
        hostname: String,
        record_type: String = "type",
    }

    struct AnswerObject {
        record_type: String = "type",
        rdata: String,
    }

    struct Peripheral {
        name: String,
        uid: String,
        class: String,
        vendor_name: Option<String>,
        model: Option<String>,
        serial_number: Option<String>,
        vendor_id_list: Vec<String>,
    }

    struct Driver {
        file: FileObject,
    }

    struct Entity {
        name: String,
        kind: String = "type",
    }

    struct Named {
        name: Option<String>,
        uid: Option<String>,
    }

    struct Session {
        uid: Option<String>,
        terminal: Option<String>,
    }

    struct Endpoint {
        ip: Option<IpAddr>,
        port: Option<u16>,
        hostname: Option<String>,
    }

    struct Unmapped {
        argv: Option<Vec<String>>,
        signal: Option<u8>,
        method: Option<String>,
        user_known: Option<bool>,
        kind: String,
        rcode: Option<u16>,
        mode: Option<String>,
        bus: String,
        product_id: Option<String>,
        family: String,
        operation: String,
        rule: Option<String>,
        entries: Option<u32>,
        functions: String,
        interfaces: String,
        nodes: String,
        parent: Option<String>,
        allowed: Option<bool>,
        title: String,
        category: String,
        sender: String,
        attributes: BTreeMap<String, String>,
        effect: String,
        summary: String,
        shell: String,
        gid: Option<u32>,
        program_type_id: Option<u32>,
        previous_uid: Option<u32>,
    }
}

impl Named {
    fn id(&self) -> Option<u32> {
        self.uid.as_deref().and_then(|uid| uid.parse().ok())
    }
}

fn process_activity(record: Record) -> Result<ProcessActivity, DecodeError> {
    let subject = record.process.ok_or(DecodeError::Attribute("process"))?;
    let change = match record.activity_id {
        1 => Change::Exec { truncated: record.metadata.is_truncated },
        2 => Change::Exit(match (record.unmapped.signal, record.exit_code) {
            (Some(signal), _) => ExitReason::Signal(signal),
            (None, Some(code)) => {
                ExitReason::Code(u8::try_from(code).map_err(|_| DecodeError::Attribute("exit_code"))?)
            }
            (None, None) => ExitReason::Unknown,
        }),
        _ => return Err(DecodeError::Attribute("activity_id")),
    };
    let started = subject.created_time.map(Timestamp);
    let launched = matches!(change, Change::Exec { .. });
    let parent = record.actor.process.filter(|actor| launched && actor.pid != subject.pid);
    let argv = record.unmapped.argv.unwrap_or_else(|| split(&subject.cmd_line));
    let process = Process {
        pid: subject.pid,
        executable: subject.file.path.into(),
        argv,
        cwd: subject.working_directory,
        uid: subject.user.id(),
        euid: subject.euid,
        gid: subject.group.id(),
        auid: subject.auid,
        user: subject.user.name.map(Into::into),
        session: subject.session.uid.as_deref().and_then(|uid| uid.parse().ok()),
        tty: subject.session.terminal,
        parent: parent.map(observed::ancestor),
    };
    Ok(ProcessActivity { process, change, source: source(&record.metadata), started })
}

/// Which source told; a log of another agent's may name one that is not ours.
fn source(metadata: &Metadata) -> Source {
    Source::from_name(&metadata.log_provider).unwrap_or(Source::Replay)
}

fn split(command_line: &str) -> Vec<String> {
    if command_line.is_empty() {
        return Vec::new();
    }
    command_line.split(' ').map(str::to_owned).collect()
}

fn authentication(record: Record) -> Result<Authentication, DecodeError> {
    let activity = match record.activity_id {
        1 => Activity::Logon,
        2 => Activity::Logoff,
        7 => Activity::AccountSwitch,
        _ => return Err(DecodeError::Attribute("activity_id")),
    };
    let outcome = match record.status_id {
        1 => Outcome::Success,
        2 => Outcome::Failure,
        _ => return Err(DecodeError::Attribute("status_id")),
    };
    Ok(Authentication {
        activity,
        outcome,
        user: record.user.name.filter(|name| !name.is_empty()),
        user_known: record.unmapped.user_known,
        service: record.service.name.unwrap_or_default(),
        method: record.unmapped.method,
        source: record.src_endpoint.ip,
        source_port: record.src_endpoint.port,
        tty: record.session.terminal,
        pid: record.actor.process.map(|p| p.pid),
        count: record.count.unwrap_or(1).max(1),
        duration_ms: record.duration,
        message: record.message,
    })
}
