//! The network sensor and the nftables rules that feed it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use defender_firewall::watch::{self, Watch};
use defender_model::health::{Health, Kind};
use defender_sensors::network::sensor::COMPONENT;
use defender_sensors::network::{NetworkSensor, Selection, Settings};
use defender_sensors::{Observation, Outlet};
use tokio::sync::watch::Receiver;

use crate::config::Config;
use crate::run::wall_clock;

/// Bound on a run of nft.
const NFT: Duration = Duration::from_secs(5);

/// Opens the sensor, while the agent still has the privileges of its start. `onlooker` is the other end of the second process.
#[must_use]
pub fn open(config: &Config, onlooker: Option<UnixStream>) -> Option<NetworkSensor> {
    let network = &config.network;
    network.enabled.then(|| {
        NetworkSensor::open(Settings {
            flows: true,
            listen_interval: (network.listen_interval_s > 0)
                .then(|| Duration::from_secs(network.listen_interval_s)),
            accounting: network.accounting,
            interfaces: Selection {
                include: network.include_interfaces.clone(),
                exclude: network.exclude_interfaces.clone(),
            },
            flow_table: network.flow_table,
            events_per_second: network.events_per_second,
            receive_buffer: network.receive_buffer_kib.saturating_mul(1024),
            proc: "/proc".into(),
            passwd: "/etc/passwd".into(),
            onlooker: onlooker.map(Arc::new),
            clock: wall_clock,
        })
    })
}

/// Puts the rules in place and runs the sensor until it is told to stop.
pub async fn run(sensor: NetworkSensor, nft: std::path::PathBuf, outlet: Outlet, stopped: Receiver<bool>) {
    let config = defender_firewall::Config { nft, nft_timeout: NFT, ..defender_firewall::Config::default() };
    if let Err(error) = watch::install(&config, &Watch { connections: true }).await {
        let words = format!(
            "connections are seen only if another rule asks for their state: {error}; the kernel may lack CONFIG_NF_CONNTRACK or \
             CONFIG_NFT_CT"
        );
        let health = Health::new(Kind::Degraded, format!("{COMPONENT}.rules"), words);
        outlet.send(Observation::Health(health)).await;
    }
    sensor.run(outlet, crate::run::told(stopped)).await;
}
