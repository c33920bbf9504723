//! The service sensor: what becomes of the services that matter, and what others announce on the bus.
//!
//! | Module | Holds |
//! |---|---|
//! | `watched` | the names in `services.watch` |
//! | `state` | from what a service is to what became of it |
//! | `process` | processes by name, where systemd is not init |
//! | `bus` | systemd's units, and announcements, over the system bus |
//! | `announcement` | the table of what services announce, and how it is told |

#[cfg(feature = "dbus")]
mod announcement;
#[cfg(feature = "dbus")]
pub mod bus;
mod process;
mod state;
mod watched;

use std::path::Path;
use std::time::Duration;

use defender_model::event::Event;
use defender_model::health::{Health, Kind};
use defender_model::service::{ServiceActivity, ServiceChange};
use defender_model::time::Timestamp;
use defender_sensors::file::Order;
use defender_sensors::{Observation, Outlet};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::tally::Tally;
pub use watched::Watched;

/// The sensor's name in health events.
const COMPONENT: &str = "services";
/// There where systemd is init (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// Starts what the configuration asks for. `orders` takes what a finished update means for the file sensor.
pub fn start(
    config: &Config,
    clock: fn() -> Timestamp,
    orders: Option<mpsc::Sender<Order>>,
    outlet: &Outlet,
    tally: &Tally,
) -> Vec<JoinHandle<()>> {
    let services = &config.services;
    let mut tasks = Vec::new();
    if !services.enabled {
        return tasks;
    }
    let (mut units, mut processes) = (Vec::new(), Vec::new());
    for text in &services.watch {
        match Watched::parse(text) {
            Some(Watched::Unit(unit)) => units.push(unit),
            Some(Watched::Process(name)) => processes.push(name),
            None => {
                let words = format!(
                    "`{text}` in services.watch is not watched: it is neither a unit, such as `rsyslog.service`, nor \
                     `process:` and a name"
                );
                outlet.try_send(Observation::Health(Health::new(Kind::Degraded, COMPONENT, words)));
            }
        }
    }
    if !processes.is_empty() && !Path::new(SYSTEMD).exists() {
        let every = Duration::from_secs(services.interval_s.max(1));
        tasks.push(tokio::spawn(process::watch(processes, every, clock, outlet.clone(), tally.clone())));
    }
    #[cfg(feature = "dbus")]
    {
        let watch = bus::Watch { units, address: None, clock, orders, tally: tally.clone() };
        let outlet = outlet.clone();
        tasks.push(tokio::spawn(async move {
            bus::watch(watch, outlet).await;
        }));
    }
    #[cfg(not(feature = "dbus"))]
    {
        // Whether services run is then told of processes only.
        tally.says("units and announcements", Err("this agent was built without D-Bus"));
        let _ = (units, orders);
    }
    tasks
}

fn told(now: Timestamp, name: &str, change: ServiceChange, detail: &str) -> Observation {
    let activity = ServiceActivity { change, name: name.to_owned(), detail: detail.to_owned() };
    Observation::Event(Event::new(now, activity.into()))
}

/// A statement that takes nothing from what is seen.
#[cfg(feature = "dbus")]
fn mild(kind: Kind, words: String) -> Observation {
    let mut health = Health::new(kind, COMPONENT, words);
    health.severity = health.severity.min(defender_model::severity::Severity::Low);
    Observation::Health(health)
}
