//! OCSF 1.8.0 as JSON lines: what every sink carries unless told otherwise, and what `replay` reads.
//!
//! Schema: Open Cybersecurity Schema Framework 1.8.0, profiles `host` and `linux/linux_users`.
//!
//! | Event | Class |
//! |---|---|
//! | process started, ended, traced, became root | Process Activity, 1007 |
//! | login, logout, account switch | Authentication, 3002 |
//! | connection, listening socket | Network Activity, 4001 |
//! | name looked up | DNS Activity, 4003 |
//! | file created, changed, removed | File System Activity, 1001 |
//! | hardware plugged in, pulled out | Peripheral Activity, 1010 |
//! | kernel module loaded, removed, eBPF program loaded | Kernel Extension Activity, 1002 |
//! | packet filter changed | Entity Management, 3004 |
//! | account created, deleted, changed, locked | Account Change, 3001 |
//! | group created, deleted, its members changed | Group Management, 3006 |
//! | hardware, system, network interfaces | Device Inventory Info, 5001 |
//! | packages | Software Inventory Info, 5020 |
//! | something became of a service | Application Lifecycle, 6002 |
//! | event that a service submitted | Base Event, 0 |
//! | posture check | Compliance Finding, 2003 |
//! | finding | Detection Finding, 2004 |
//! | block, unblock, restore | Network Remediation Activity, 7004 |
//! | process killed | Process Remediation Activity, 7003 |
//! | the product's hook run | Remediation Activity, 7001 |
//! | the agent starts, is armed, stops, recovers, reports figures | Application Lifecycle, 6002 |
//! | the agent is degraded or lost something | Application Error, 6008 |
//!
//! What OCSF has no attribute for goes into its `unmapped` object. `device.uid`, `device.boot_uid` and `metadata.sequence`
//! together name an event for ever.

mod decode;
mod encode;
mod json;
mod mark;
#[cfg(test)]
mod tests;

pub use decode::{decode, DecodeError};
pub use encode::{encode, Encoder};

/// The schema version every event states in `metadata.version`.
pub const VERSION: &str = "1.8.0";

/// Class ids of the schema that we emit.
pub(crate) mod class {
    pub(crate) const BASE_EVENT: u32 = 0;
    pub(crate) const FILE_ACTIVITY: u32 = 1001;
    pub(crate) const KERNEL_EXTENSION_ACTIVITY: u32 = 1002;
    pub(crate) const PROCESS_ACTIVITY: u32 = 1007;
    pub(crate) const PERIPHERAL_ACTIVITY: u32 = 1010;
    pub(crate) const COMPLIANCE_FINDING: u32 = 2003;
    pub(crate) const DETECTION_FINDING: u32 = 2004;
    pub(crate) const ACCOUNT_CHANGE: u32 = 3001;
    pub(crate) const AUTHENTICATION: u32 = 3002;
    pub(crate) const ENTITY_MANAGEMENT: u32 = 3004;
    pub(crate) const GROUP_MANAGEMENT: u32 = 3006;
    pub(crate) const NETWORK_ACTIVITY: u32 = 4001;
    pub(crate) const DNS_ACTIVITY: u32 = 4003;
    pub(crate) const DEVICE_INVENTORY: u32 = 5001;
    pub(crate) const SOFTWARE_INVENTORY: u32 = 5020;
    pub(crate) const APPLICATION_LIFECYCLE: u32 = 6002;
    pub(crate) const APPLICATION_ERROR: u32 = 6008;
    pub(crate) const REMEDIATION: u32 = 7001;
    pub(crate) const PROCESS_REMEDIATION: u32 = 7003;
    pub(crate) const NETWORK_REMEDIATION: u32 = 7004;
}
