//! What the device consists of: told when the agent starts, and after that what is another.
//!
//! | Module | Holds |
//! |---|---|
//! | `hardware` | maker, model, firmware, system |
//! | `interfaces` | network interfaces and their addresses |
//! | `software` | packages, kept over restarts |

mod hardware;
mod interfaces;
mod software;

use std::path::Path;
use std::time::Duration;

use defender_model::event::Event;
use defender_model::health::Kind;
use defender_model::inventory::{Interface, Inventory};
use defender_sensors::{Observation, Outlet};

use crate::clock::wall_clock;
use crate::config::Config;
use crate::tally::Tally;
use software::Software;

/// Tells how it is, and from then on what changes; `tally` has what became of it. The caller ends it.
pub(crate) async fn watch(config: Config, outlet: Outlet, tally: Tally) {
    let every = Duration::from_secs(config.inventory.interval_s.max(1));
    tally.says("device and software", Ok(&format!("every {} s", every.as_secs())));
    let tell = |inventory: Inventory| {
        tally.produced(|balance| balance.delivered += 1);
        Observation::Event(Event::new(wall_clock(), inventory.into()))
    };
    let mut known = interfaces::read(Path::new("/"));
    let mut info = hardware::read(Path::new("/"));
    info.interfaces.clone_from(&known);
    if !outlet.send(tell(Inventory::Device(Box::new(info)))).await {
        return;
    }
    let mut software = Software::new(&config);
    loop {
        for observation in software.look().await {
            match &observation {
                Observation::Event(_) => tally.produced(|balance| balance.delivered += 1),
                // Changes that are not told one by one.
                Observation::Health(health) if health.kind == Kind::Lost => {
                    let beyond = health.counters.iter().map(|(_, count)| count).sum::<u64>();
                    tally.count(|balance| {
                        balance.produced += beyond;
                        balance.over_bound += beyond;
                    });
                }
                Observation::Health(_) => {}
            }
            if !outlet.send(observation).await {
                return;
            }
        }
        tokio::time::sleep(every).await;
        let now = interfaces::read(Path::new("/"));
        for (interface, detail) in differences(&known, &now) {
            if !outlet.send(tell(Inventory::Interface { interface, detail })).await {
                return;
            }
        }
        known = now;
    }
}

/// The interfaces that are others, and in words how.
fn differences(before: &[Interface], now: &[Interface]) -> Vec<(Interface, String)> {
    let mut told = Vec::new();
    let named = |list: &'_ [Interface], name: &str| list.iter().position(|interface| interface.name == name);
    for interface in now {
        let mut words: Vec<String> = Vec::new();
        match named(before, &interface.name).map(|at| &before[at]) {
            Some(old) if old == interface => continue,
            None => words.push("appeared".to_owned()),
            Some(old) => {
                if old.mac != interface.mac {
                    words.push(format!("hardware address {} -> {}", old.mac, interface.mac));
                }
                if old.vlan != interface.vlan {
                    words.push("another VLAN".to_owned());
                }
                let gone = old.addresses.iter().filter(|address| !interface.addresses.contains(address));
                words.extend(gone.map(|address| format!("{address} removed")));
                let new = interface.addresses.iter().filter(|address| !old.addresses.contains(address));
                words.extend(new.map(|address| format!("{address} added")));
            }
        }
        told.push((interface.clone(), words.join(", ")));
    }
    for interface in before.iter().filter(|old| named(now, &old.name).is_none()) {
        told.push((interface.clone(), "vanished".to_owned()));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_another_is_told_and_nothing_else() {
        let interface = |name: &str, addresses: &[&str]| Interface {
            name: name.into(),
            mac: "52:54:00:77:00:02".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ..Interface::default()
        };
        let before = vec![interface("eth0", &["192.0.2.1"]), interface("wlan0", &[])];
        let now = vec![interface("eth0", &["192.0.2.2", "2001:db8::2"]), interface("eth0.5", &[])];
        let told: Vec<String> = differences(&before, &now)
            .into_iter()
            .map(|(it, detail)| format!("{} {detail}", it.name))
            .collect();
        assert_eq!(
            told,
            [
                "eth0 192.0.2.1 removed, 192.0.2.2 added, 2001:db8::2 added",
                "eth0.5 appeared",
                "wlan0 vanished"
            ]
        );
        assert!(differences(&now, &now).is_empty());
    }
}
