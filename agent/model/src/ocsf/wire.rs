//! The JSON objects we write, with the schema's attribute names. Absent attributes are left out.

use std::net::IpAddr;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::finding::Responses;

use crate::file::Sha256;

/// `unmapped.kind` of a socket that listens, or no longer does: the class has no other mark of one that closed.
pub(super) const LISTENER: &str = "listener";
/// `entity.type` of the packet filter.
pub(super) const FIREWALL: &str = "firewall";
/// `unmapped.kind` of what became of a service; the class is also that of what the agent says of itself.
pub(super) const SERVICE: &str = "service";
/// `unmapped.kind` of an event that a service submitted.
pub(super) const SUBMITTED: &str = "submitted";

/// A serializable object whose attributes are all optional, and left out when absent.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$rename:meta])* $field:ident : $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Default, Serialize)]
        pub(super) struct $name<'a> {
            $($(#[$rename])* #[serde(skip_serializing_if = "Option::is_none")] pub(super) $field: Option<$type>,)*
            #[serde(skip)]
            pub(super) borrows: std::marker::PhantomData<&'a ()>,
        }
    };
}

object!(
    /// Any event: base event attributes plus those of the classes we emit.
    Record {
        class_uid: u32, category_uid: u32, activity_id: u32, type_uid: u32, severity_id: u8, time: i64,
        message: &'a str, count: u32, is_alert: bool, status_id: u8, status_code: &'a str, status_detail: &'a str,
        exit_code: i32, logon_type_id: u8, is_remote: bool, command_uid: &'a str,
        actor: Actor<'a>, process: Process<'a>, user: User<'a>, group: Named<'a>, service: Named<'a>, session: Session<'a>, package: Package<'a>,
        start_time: i64, end_time: i64, duration: u64, src_endpoint: Endpoint<'a>, dst_endpoint: Endpoint<'a>,
        connection_info: ConnectionInfo<'a>, traffic: Traffic<'a>, query: Query<'a>, rcode_id: u16, answers: Vec<Answer<'a>>,
        file: File<'a>, file_result: File<'a>, peripheral_device: Peripheral<'a>, driver: Driver<'a>, entity: Entity<'a>, finding_info: FindingInfo<'a>, compliance: Compliance<'a>, remediation: Remediation<'a>,
        evidences: Vec<Evidence<'a>>, observables: Vec<Observable<'a>>, app: Product<'a>, unmapped: Unmapped<'a>,
        metadata: Metadata<'a>, device: Device<'a>,
    }
);
object!(Metadata { version: &'a str, profiles: &'a [&'a str], sequence: u64, log_provider: &'a str, event_code: &'a str, is_truncated: bool, untruncated_size: u64,
    product: Product<'a> });
object!(Product { name: &'a str, vendor_name: &'a str, version: &'a str });
object!(Device { type_id: u8, uid: &'a str, hostname: &'a str, boot_uid: &'a str, vendor_name: &'a str, model: &'a str, boot_time: i64,
    os: OperatingSystem<'a>, hw_info: HardwareInfo<'a>, network_interfaces: Vec<Interface<'a>> });
object!(OperatingSystem { name: &'a str, type_id: u16, version: &'a str, kernel_release: &'a str });
object!(HardwareInfo { vendor_name: &'a str, serial_number: &'a str, bios_manufacturer: &'a str, bios_ver: &'a str, bios_date: &'a str,
    cpu_architecture: &'a str, cpu_count: u32, ram_size: u64 });
object!(Interface { name: &'a str, #[serde(rename = "type")] kind: &'a str, type_id: u8, mac: &'a str, ip: IpAddr });
object!(Package { name: &'a str, version: &'a str, architecture: &'a str, purl: &'a str, hash: Fingerprint<'a> });
object!(Actor { process: Process<'a>, user: User<'a>, app_name: &'a str });
object!(Process { pid: u32, name: &'a str, file: File<'a>, cmd_line: &'a str, working_directory: &'a str, user: User<'a>,
    euid: u32, group: Named<'a>, auid: u32, session: Session<'a>, created_time: i64, parent_process: Box<Process<'a>> });
object!(File { path: &'a str, name: &'a str, type_id: u8, owner: Box<User<'a>>, hashes: Vec<Fingerprint<'a>> });
object!(Fingerprint { algorithm_id: u8, value: Sha256 });
object!(Peripheral { name: &'a str, uid: &'a str, class: &'a str, type_id: u8, vendor_name: &'a str, model: &'a str,
    serial_number: &'a str, vendor_id_list: Vec<Hex> });
object!(Driver { file: File<'a> });
object!(Entity { name: &'a str, type_id: u8, #[serde(rename = "type")] kind: &'a str });
object!(Query { hostname: &'a str, #[serde(rename = "type")] record_type: &'a str, opcode_id: u8 });
object!(Answer { #[serde(rename = "type")] record_type: &'a str, rdata: &'a str });
object!(Traffic { bytes_out: u64, packets_out: u64, bytes_in: u64, packets_in: u64 });
object!(User { uid: Decimal, name: &'a str });
object!(Named { name: &'a str, uid: Decimal });
object!(Session { uid: Decimal, terminal: &'a str });
object!(Endpoint { ip: IpAddr, port: u16, hostname: &'a str, svc_name: &'a str });
object!(ConnectionInfo { direction_id: u8, protocol_num: u8, protocol_name: &'a str });
object!(FindingInfo { uid: &'a str, title: &'a str, desc: &'a str, analytic: Analytic<'a>, attacks: Vec<Attack<'a>>,
    first_seen_time: i64, last_seen_time: i64 });
object!(Compliance { control: &'a str, category: &'a str, standards: Vec<&'a str>, requirements: Vec<String>, status_id: u8,
    status: &'a str, status_details: Vec<&'a str> });
object!(Remediation { desc: &'a str });
object!(Analytic { type_id: u8, uid: &'a str, name: &'a str });
object!(Attack { tactic: Label<'a>, technique: Label<'a>, sub_technique: Label<'a> });
object!(Label { uid: &'a str, name: &'a str });
object!(Evidence { process: Process<'a>, user: User<'a>, src_endpoint: Endpoint<'a>, data: EvidenceData<'a>,
    actor: Actor<'a>, dst_endpoint: Endpoint<'a>, connection_info: ConnectionInfo<'a>, query: Query<'a>, file: File<'a> });
object!(EvidenceData { service: &'a str, message: &'a str, answers: Vec<Answer<'a>>, file_result: File<'a>, driver: Driver<'a>,
    peripheral_device: Peripheral<'a>, entity: Entity<'a>, unmapped: Unmapped<'a> });
object!(Observable { name: &'a str, type_id: u8, value: IpAddr });
object!(
    /// What the schema has no attribute for.
    Unmapped {
        argv: &'a [String], signal: u8, source: &'a str, method: &'a str, user_known: bool,
        response: Shown<Responses>, group: Pairs<'a, String>, replaces: &'a [String], seconds: u64, finding_uid: &'a str,
        verdict: &'a str, check_severity: &'a str, recommendation: &'a str,
        kind: &'a str, component: &'a str, counters: Pairs<'a, u64>, rcode: u16, mode: Octal, bus: &'a str, product_id: Hex,
        family: &'a str, operation: &'a str, entries: u32, effect: &'a str, summary: &'a str, rule: &'a str,
        functions: &'a str, interfaces: &'a str, nodes: &'a str, parent: &'a str, allowed: bool,
        title: &'a str, category: &'a str, sender: &'a str, attributes: Pairs<'a, String>,
        shell: &'a str, gid: u32, vlans: Vec<String>, packages: u64, before: &'a str,
    }
);

impl Unmapped<'_> {
    /// Nothing in it: the attribute itself is left out.
    pub(super) fn none_if_empty(self) -> Option<Self> {
        let empty = self.argv.is_none()
            && self.signal.is_none()
            && self.source.is_none()
            && self.method.is_none()
            && self.user_known.is_none()
            && self.response.is_none()
            && self.group.is_none()
            && self.replaces.is_none()
            && self.seconds.is_none()
            && self.finding_uid.is_none()
            && self.verdict.is_none()
            && self.check_severity.is_none()
            && self.recommendation.is_none()
            && self.kind.is_none()
            && self.component.is_none()
            && self.counters.is_none()
            && self.rcode.is_none()
            && self.mode.is_none()
            && self.bus.is_none()
            && self.product_id.is_none()
            && self.family.is_none()
            && self.operation.is_none()
            && self.entries.is_none()
            && self.rule.is_none()
            && self.functions.is_none()
            && self.interfaces.is_none()
            && self.nodes.is_none()
            && self.parent.is_none()
            && self.allowed.is_none()
            && self.title.is_none()
            && self.category.is_none()
            && self.sender.is_none()
            && self.attributes.is_none()
            && self.effect.is_none()
            && self.summary.is_none();
        (!empty).then_some(self)
    }
}

impl EvidenceData<'_> {
    /// Nothing in it: the attribute itself is left out.
    pub(super) fn none_if_empty(self) -> Option<Self> {
        let empty = self.service.is_none()
            && self.message.is_none()
            && self.answers.is_none()
            && self.file_result.is_none()
            && self.driver.is_none()
            && self.peripheral_device.is_none()
            && self.entity.is_none()
            && self.unmapped.is_none();
        (!empty).then_some(self)
    }
}

/// Permission bits as chmod(1) takes them: `"4755"`.
pub(super) struct Octal(pub(super) u16);

impl Serialize for Octal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

/// A vendor or product number as lsusb(8) prints it: `"0951"`.
pub(super) struct Hex(pub(super) u16);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04x}", self.0))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number that the schema wants as a string (`user.uid`, `session.uid`).
pub(super) struct Decimal(pub(super) u32);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What has a text form, as that text.
pub(super) struct Shown<T>(pub(super) T);

impl<T: core::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Name and value pairs as an object, in their order.
pub(super) struct Pairs<'a, T>(pub(super) &'a [(String, T)]);

impl<T: Serialize> Serialize for Pairs<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
