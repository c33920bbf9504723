//! How the agent is: what `defender status` shows, part by part.

use serde::Serialize;

use crate::wire::wire;

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StatusReport {
    /// Version of the agent.
    pub version: String,
    /// `starting`, `ok` or `degraded`.
    pub health: String,
    /// Every enabled sensor runs, detection and response are ready.
    pub armed: bool,
    /// Milliseconds from start to armed.
    pub armed_after_ms: u64,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Device id.
    pub device: String,
    /// Id of this boot.
    pub boot: String,
    /// Why the agent is degraded, one sentence each.
    pub degraded: Vec<String>,
    /// The process sensor.
    pub process: ProcessStatus,
    /// The login sensor.
    pub logins: SensorStatus,
    /// The network sensor.
    pub network: SensorStatus,
    /// The file sensor.
    pub files: SensorStatus,
    /// The peripheral sensor.
    pub peripherals: SensorStatus,
    /// The watch on the packet filter.
    pub packet_filter: SensorStatus,
    /// The watch on kernel modules.
    pub modules: SensorStatus,
    /// The watch on services.
    pub services: SensorStatus,
    /// What other services submitted.
    pub submissions: SensorStatus,
    /// The watch on users and groups.
    pub accounts: SensorStatus,
    /// What the device consists of.
    pub inventory: SensorStatus,
    /// Events by kind since start.
    pub events: EventCounts,
    /// Rules loaded, and the files or rules left out with the reason.
    pub rules: RulesStatus,
    /// The firewall.
    pub firewall: FirewallStatus,
    /// Each sink.
    pub sinks: Vec<SinkStatus>,
    /// Each measure of confinement, as `measure: state`.
    pub confinement: Vec<String>,
}

/// The process sensor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProcessStatus {
    /// `audit`, `ebpf`, `ebpf_entry`, `connector`, `poll`; empty when the sensor is off.
    pub source: String,
    /// How the source is read.
    pub detail: String,
    /// Better sources and why they are not used.
    pub declined: Vec<String>,
    /// Events known to be lost before they reached the agent.
    pub lost: u64,
    /// Processes in the table.
    pub table: u64,
    /// What was told of, and what became of it.
    pub counters: Vec<(String, u64)>,
}

/// One sensor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SensorStatus {
    /// How each part works; empty when the sensor is off.
    pub modes: Vec<String>,
    /// What the kernel lacks, and what is missed for it.
    pub lacks: Vec<String>,
    /// What the parts have seen, sent and dropped.
    pub counters: Vec<(String, u64)>,
}

/// Events by kind since start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EventCounts {
    /// Processes started and ended.
    pub process: u64,
    /// Logins, failed or not.
    pub authentication: u64,
    /// Connections, listening sockets, names looked up.
    pub network: u64,
    /// Files created, changed, removed.
    pub files: u64,
    /// Devices plugged in and pulled out.
    pub peripherals: u64,
    /// Alerts.
    pub findings: u64,
    /// Blocks and unblocks.
    pub remediations: u64,
    /// Statements of the agent about itself.
    pub health: u64,
    /// Statements of sensors that found no room in the pipeline. Events wait for it.
    pub dropped: u64,
    /// Events that came from sensors and other services, of every kind.
    pub received: u64,
    /// Records made of them and of what the agent itself has to say: as many as sequence numbers given out since start.
    pub emitted: u64,
}

/// Rules loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RulesStatus {
    /// Rules in force.
    pub loaded: u64,
    /// What was left out, one sentence each.
    pub errors: Vec<String>,
}

/// The firewall.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FirewallStatus {
    /// Blocks can be made.
    pub ready: bool,
    /// Why not.
    pub error: String,
    /// The device is isolated.
    pub isolation: Option<IsolationStatus>,
}

/// An isolation in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct IsolationStatus {
    /// Seconds left.
    pub seconds_left: u64,
    /// Why: the finding's title or the operator's words.
    pub reason: String,
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SinkStatus {
    /// `file`, `syslog`, `remote_syslog`, `mqtt`, and the `spool` before them.
    pub name: String,
    /// `ok` or `retrying`.
    pub state: String,
    /// Records handed to it, by the pipeline or by the spool: `written`, `dropped` or `waiting`.
    pub handed: u64,
    /// Records in its queue, or in its hands.
    pub waiting: u64,
    /// Records written.
    pub written: u64,
    /// Records lost.
    pub dropped: u64,
    /// Bytes in the spool that it has not delivered.
    pub spooled: u64,
    /// Seconds since the oldest record happened that it has not delivered; 0 when there is none.
    pub lag_s: u64,
    /// Seconds until it tries again; 0 when it does not wait to.
    pub next_try_s: u64,
    /// The last error; empty when there was none.
    pub last_error: String,
}

wire! {
    StatusReport { version, health, armed, armed_after_ms, uptime_s, device, boot, degraded, process, logins, network, files, peripherals, packet_filter, modules, services, submissions, accounts, inventory, events, rules, firewall, sinks, confinement }
    ProcessStatus { source, detail, declined, lost, table, counters }
    SensorStatus { modes, lacks, counters }
    EventCounts { process, authentication, network, files, peripherals, findings, remediations, health, dropped, received, emitted }
    RulesStatus { loaded, errors }
    FirewallStatus { ready, error, isolation }
    IsolationStatus { seconds_left, reason }
    SinkStatus { name, state, handed, waiting, written, dropped, spooled, lag_s, next_try_s, last_error }
}
