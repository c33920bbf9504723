//! What leaves the device: the spool, priorities, and the sinks.

use std::path::PathBuf;

use serde::Serialize;
use toml::de::DeValue;
use toml::Spanned;

use super::read;
use super::section::section;
use super::value::{Level, MqttFormat, Priority, SyslogFormat, Transport, Urgency, VerifyingKey};

/// Sections `sink.*`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Sinks {
    /// Section `sink.file`.
    pub file: FileSink,
    /// Section `sink.syslog`.
    pub syslog: SyslogSink,
    /// Section `sink.remote_syslog`.
    pub remote_syslog: RemoteSyslogSink,
    /// Section `sink.mqtt`.
    pub mqtt: MqttSink,
}

impl read::Value for Sinks {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, read::Fault> {
        let mut read = Self::default();
        read::table(
            value,
            &mut [
                ("file", &mut read.file),
                ("syslog", &mut read.syslog),
                ("remote_syslog", &mut read.remote_syslog),
                ("mqtt", &mut read.mqtt),
            ],
        )?;
        Ok(read)
    }
}

section! { "spool"
/// What is to leave the device waits on flash until it has, so that remote sinks miss nothing over outages, crashes and reboots.
Spool {
    /// Keep it in the state directory. Off: records for remote sinks wait in memory only.
    enabled: bool = true,
    /// KiB it may take. When it is full the oldest telemetry goes first, then the oldest alerts.
    max_kib: u64 = 4096,
    /// Wait for the flash after each alert.
    sync_alerts: bool = true,
} }

section! { "priorities"
/// How often remote sinks send what is not `immediate`, for links that cost by the connection. The defaults are those of Microsoft's
/// micro agent.
Priorities {
    /// Seconds between two deliveries of `high` records.
    high_s: u64 = 1800,
    /// The same of `medium` ones.
    medium_s: u64 = 7200,
    /// The same of `low` ones.
    low_s: u64 = 86_400,
} }

section! { "sink.file"
/// Events as JSON lines (OCSF) in a file.
FileSink {
    /// Write the file.
    enabled: bool = true,
    /// The file. Its rotated predecessors lie beside it as `.1`, `.2`, ...
    path: PathBuf = "/var/log/defender/events.jsonl".into(),
    /// KiB after which the file is rotated.
    max_kib: u64 = 4096,
    /// Rotated files kept.
    keep: u32 = 3,
    /// Wait for the flash after each alert.
    sync_alerts: bool = true,
} }

section! { "sink.syslog"
/// Alerts and health as log messages on the device.
SyslogSink {
    /// Send them.
    enabled: bool = true,
    /// Socket of the syslog daemon.
    socket: PathBuf = "/dev/log".into(),
    /// Mildest level that is sent.
    minimum_level: Level = Level(defender_model::severity::Severity::Medium),
} }

section! { "sink.remote_syslog"
/// Events to a syslog server.
RemoteSyslogSink {
    /// Send them.
    enabled: bool = false,
    /// Host name or address of the server, which is also the name its certificate must bear.
    host: String = String::new(),
    /// Port of the server.
    port: u16 = 6514,
    /// How messages travel.
    transport: Transport = Transport::Tls,
    /// What messages look like: with structured data, for old collectors, or for Sentinel, ArcSight and QRadar.
    format: SyslogFormat = SyslogFormat(defender_report::syslog::Format::Rfc5424),
    /// Certificates of the authorities that may vouch for the server, PEM.
    ca_file: PathBuf = "/etc/defender/tls/ca.pem".into(),
    /// Certificates those authorities have revoked, PEM; empty for none. Out of date it refuses every server.
    crl_file: PathBuf = PathBuf::new(),
    /// Certificate the agent shows, PEM; empty for none.
    certificate_file: PathBuf = PathBuf::new(),
    /// Key of that certificate, PEM; or where it is in a PKCS#11 token, `pkcs11:...`.
    key_file: PathBuf = PathBuf::new(),
    /// Days before the end of that certificate from which on health warns of it.
    expiry_warning_days: u32 = 30,
    /// When alerts and health are sent.
    alerts: Priority = Priority(Urgency::Immediate),
    /// When everything else is sent.
    telemetry: Priority = Priority(Urgency::Immediate),
    /// KiB a day, 0 for no limit. The last quarter is for alerts alone; what is over it waits for the next day.
    daily_kib: u64 = 0,
    /// Mildest level that is sent.
    minimum_level: Level = Level(defender_model::severity::Severity::Medium),
} }

section! { "sink.mqtt"
/// Events to an MQTT broker.
MqttSink {
    /// Send them.
    enabled: bool = false,
    /// Host name or address of the broker.
    host: String = String::new(),
    /// File with the connection string of a device or module of Azure IoT Hub (`HostName=...;DeviceId=...;ModuleId=...;SharedAccessKey=...`,
    /// or `x509=true` with `certificate_file`). It takes the place of `host`, `topic`, `username` and `password_file`. Empty: another broker.
    connection_string_file: PathBuf = PathBuf::new(),
    /// Id scope of Azure's Device Provisioning Service, which is then asked for the hub in place of `connection_string_file`. Empty: it is not.
    dps_id_scope: String = String::new(),
    /// Who the device is to that service; of a certificate, its common name. Empty: the device id.
    dps_registration_id: String = String::new(),
    /// File with the symmetric key of the enrolment, base64; empty: `certificate_file` says who the device is.
    dps_key_file: PathBuf = PathBuf::new(),
    /// That key is an enrolment group's, from which the device derives its own.
    dps_group_key: bool = false,
    /// The service.
    dps_host: String = "global.azure-devices-provisioning.net".into(),
    /// Who may set from afar what [Configuration from afar](sinks.md#configuration-from-afar) lists, by documents that they have signed: Ed25519
    /// public keys, base64 of the DER, of which each will do. Empty: nobody.
    configuration_keys: Vec<VerifyingKey> = Vec::new(),
    /// Let the hub's module twin set the periods of `high`, `medium` and `low` for this sink (`CollectorsCore_PriorityIntervals`) as well, though
    /// nobody signs it.
    unsigned_twin: bool = false,
    /// Port of the broker.
    port: u16 = 8883,
    /// Topic; `{device}` stands for the device id and `{kind}` for `alerts`, `events` or, with `format`, `security`.
    topic: String = "defender/{device}/{kind}".into(),
    /// What is published: OCSF, or security messages of Azure Security Center for IoT, schema 1.0, with OCSF for what has no counterpart there.
    format: MqttFormat = MqttFormat(false),
    /// Use TLS.
    tls: bool = true,
    /// Certificates of the authorities that may vouch for the broker, PEM.
    ca_file: PathBuf = "/etc/defender/tls/ca.pem".into(),
    /// Certificates those authorities have revoked, PEM; empty for none. Out of date it refuses every broker.
    crl_file: PathBuf = PathBuf::new(),
    /// Certificate the agent shows, PEM; empty for none.
    certificate_file: PathBuf = PathBuf::new(),
    /// Key of that certificate, PEM; or where it is in a PKCS#11 token, `pkcs11:...`.
    key_file: PathBuf = PathBuf::new(),
    /// Days before the end of that certificate from which on health warns of it.
    expiry_warning_days: u32 = 30,
    /// User name; empty for none.
    username: String = String::new(),
    /// File that holds the password; empty for none.
    password_file: PathBuf = PathBuf::new(),
    /// When alerts and health are sent.
    alerts: Priority = Priority(Urgency::Immediate),
    /// When everything else is sent.
    telemetry: Priority = Priority(Urgency::Immediate),
    /// Longest silence, in seconds: then a word is exchanged to see that the connection stands, and the broker counts the device as
    /// gone after half as long again. A metered link wants it long; Azure IoT Hub takes at most 1767.
    keep_alive_s: u64 = 60,
    /// KiB a day, 0 for no limit. The last quarter is for alerts alone; what is over it waits for the next day.
    daily_kib: u64 = 0,
    /// Mildest level that is sent.
    minimum_level: Level = Level(defender_model::severity::Severity::Informational),
} }
