//! Which device speaks, and since which boot.

/// Identity that every encoded event carries, so that a receiver can order, spot gaps and drop duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceIdentity {
    /// Stable over reboots and updates, unique in a fleet; from the configuration or derived from the machine id.
    pub uid: String,
    /// The kernel's `/proc/sys/kernel/random/boot_id`, new at each boot.
    pub boot_id: String,
    /// Host name at start.
    pub hostname: String,
    /// Version of the agent.
    pub agent_version: String,
}
