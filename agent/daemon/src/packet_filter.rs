//! The watch on the packet filter, and who is told when the agent's own tables are not left alone.

use std::sync::Arc;

use defender_firewall::{isolation, own, watch};
use defender_sensors::firewall::{FirewallSensor, Settings};
use defender_sensors::process::Directory;
use tokio::sync::Notify;

use crate::clock::wall_clock;
use crate::config::Config;

/// The agent's tables, of family `inet`.
const TABLES: &[&str] = &[defender_firewall::TABLE, watch::TABLE, isolation::TABLE];

/// Told when another program changed a table of the agent.
#[derive(Debug, Clone, Default)]
pub struct Disturbed {
    /// Who keeps the table with the blocks, and that of the isolation.
    pub blocks: Arc<Notify>,
    /// Who keeps the table that feeds the network sensor.
    pub watch: Arc<Notify>,
}

/// Opens the sensor; `None` when it is off.
#[must_use]
pub fn open(config: &Config, directory: Directory, disturbed: Disturbed) -> Option<FirewallSensor> {
    let firewall = &config.firewall;
    firewall.monitor.then(|| {
        FirewallSensor::open(Settings {
            own_tables: TABLES,
            own_process: own::is_own,
            disturbed: Box::new(move || {
                disturbed.blocks.notify_one();
                disturbed.watch.notify_one();
            }),
            directory,
            receive_buffer: firewall.receive_buffer_kib.saturating_mul(1024),
            events_per_second: firewall.events_per_second,
            clock: wall_clock,
        })
    })
}
