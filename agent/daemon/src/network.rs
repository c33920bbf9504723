//! The network sensor and the nftables rules that feed it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use defender_firewall::watch::{self, Watch};
use defender_model::health::{Health, Kind};
use defender_model::severity::Severity;
use defender_sensors::network::nftables::rules;
use defender_sensors::network::sensor::COMPONENT;
use defender_sensors::network::{NetworkSensor, Selection, Settings};
use defender_sensors::{Observation, Outlet};
use tokio::sync::watch::Receiver;
use tokio::sync::Notify;

use crate::clock::wall_clock;
use crate::config::Config;
use crate::stop;

/// How often the rules are looked for.
const KEEP: Duration = Duration::from_secs(10);

/// Opens the sensor, while the agent still has the privileges of its start. `onlooker` is the other end of the second process.
#[must_use]
pub fn open(config: &Config, onlooker: Option<UnixStream>) -> Option<NetworkSensor> {
    let network = &config.network;
    network.enabled.then(|| {
        NetworkSensor::open(Settings {
            flows: true,
            dns_group: network.dns.then_some(network.dns_group),
            denied_group: network.denied.then_some(network.denied_group),
            dns_table: network.dns_table,
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
/// `disturbed` is told when another program changed them.
pub async fn run(
    sensor: NetworkSensor,
    config: Config,
    outlet: Outlet,
    disturbed: Arc<Notify>,
    stopped: Receiver<bool>,
) {
    let nft = config.response.nft.clone();
    let firewall = defender_firewall::Config { nft, ..defender_firewall::Config::default() };
    let network = &config.network;
    let wanted = Watch {
        connections: true,
        dns_group: network.dns.then_some(network.dns_group),
        include: network.include_interfaces.clone(),
        exclude: network.exclude_interfaces.clone(),
    };
    for (part, words) in install(&firewall, wanted.clone()).await {
        let health = Health::new(Kind::Degraded, format!("{COMPONENT}.{part}"), words);
        outlet.send(Observation::Health(health)).await;
    }
    let keeping = keep(firewall, wanted, disturbed, outlet.clone());
    tokio::select! {
        () = sensor.run(outlet, stop::told(stopped)) => {}
        () = keeping => {}
    }
}

/// Looks now and then whether the rules are there, and puts them back when somebody took them away.
async fn keep(firewall: defender_firewall::Config, wanted: Watch, disturbed: Arc<Notify>, outlet: Outlet) {
    let count = || watch::CHAINS.map(|chain| rules(watch::TABLE, chain).ok());
    let placed = count();
    loop {
        // Whether told or not, they are counted.
        let _ = tokio::time::timeout(KEEP, disturbed.notified()).await;
        if count() == placed {
            continue;
        }
        let mut words =
            "the rules that feed the network sensor were taken away by another hand; they are put back"
                .to_owned();
        for (_, lacking) in install(&firewall, wanted.clone()).await {
            words = format!("{words}; {lacking}");
        }
        let mut health = Health::new(Kind::Changed, format!("{COMPONENT}.rules"), words);
        health.severity = Severity::Medium;
        outlet.send(Observation::Health(health)).await;
        if count() != placed {
            // Nothing is gained by trying often.
            tokio::time::sleep(KEEP * 30).await;
        }
    }
}

/// Puts the rules in place, those that the kernel takes, and says what is missed for want of the others.
async fn install(firewall: &defender_firewall::Config, wanted: Watch) -> Vec<(&'static str, String)> {
    let Err(whole) = watch::install(firewall, &wanted).await else { return Vec::new() };
    let tracking = Watch { dns_group: None, ..wanted.clone() };
    let copying = Watch { connections: false, ..wanted };
    let no_names = |error| {
        let words = format!(
            "look-ups of names are not seen: {error}; the kernel may lack CONFIG_NFT_LOG or CONFIG_NETFILTER_NETLINK_LOG"
        );
        ("names", words)
    };
    let no_tracking = |error| {
        let words = format!(
            "connections are seen only if another rule asks for their state: {error}; the kernel may lack \
             CONFIG_NF_CONNTRACK or CONFIG_NFT_CT"
        );
        ("connections", words)
    };
    if copying.dns_group.is_some() {
        if watch::install(firewall, &tracking).await.is_ok() {
            return vec![no_names(whole)];
        }
        return match watch::install(firewall, &copying).await {
            Ok(()) => vec![no_tracking(whole)],
            Err(error) => vec![no_tracking(whole), no_names(error)],
        };
    }
    vec![no_tracking(whole)]
}
