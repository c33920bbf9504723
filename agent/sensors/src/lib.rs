//! Sensors: one module per kernel or service interface, each yielding defender events.
//!
//! | Module | Interface | Yields |
//! |---|---|---|
//! | [`process`] | audit netlink, proc connector, `/proc` | exec and exit of processes |
//! | [`login`] | log files, `/dev/log` datagrams | logins, failed or not |
//! | [`account`] | `/etc/passwd` and its siblings | local users and groups |
//! | [`file`] | inotify, a baseline of digests | files created, changed, removed |
//! | [`firewall`] | nf_tables | changes of the packet filter by others |
//! | [`module`] | `/proc/modules` | kernel modules loaded and removed |
//! | [`network`] | connection tracking, NFLOG, `/proc/net` | connections, names looked up, listening sockets |
//! | [`peripheral`] | kernel uevents, `/sys` | devices plugged in and pulled out |
//!
//! [`balance`] holds the sheet that each of them keeps of what its source produced, [`reopening`] when a source that failed is opened again.
//!
//! A sensor is one async task. It sends [`Observation`]s through an [`Outlet`] and never stops another sensor: what it cannot do it
//! says in a health observation.

pub mod account;
mod accounts;
pub mod balance;
pub mod budget;
pub mod file;
pub mod firewall;
mod inotify_queue;
pub mod login;
pub mod module;
mod netlink;
pub mod network;
pub mod peripheral;
pub mod process;
pub mod reopening;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use defender_model::event::Event;
use defender_model::health::Health;
use tokio::sync::mpsc;

/// Observations that are sent together: room is waited for once for all of them.
const TOGETHER: usize = 64;

/// What a sensor has to say.
#[derive(Debug)]
pub enum Observation {
    /// Something happened on the device.
    Event(Event),
    /// The sensor speaks of itself.
    Health(Health),
}

/// The sensor's end of the bounded channel into the pipeline.
#[derive(Debug, Clone)]
pub struct Outlet {
    sender: mpsc::Sender<Observation>,
    dropped: Arc<AtomicU64>,
}

impl Outlet {
    /// A channel that holds at most `capacity` observations.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Observation>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, dropped: Arc::default() }, receiver)
    }

    /// Sends, waiting for room: right for sources that keep what is not taken (files, the kernel's own queues). False when
    /// the pipeline is gone and the sensor should end.
    pub async fn send(&self, observation: Observation) -> bool {
        self.sender.send(observation).await.is_ok()
    }

    /// Sends all there is to say, as [`send`](Self::send) does. False when the sensor should end.
    pub(crate) async fn send_all(&self, observations: &mut Vec<Observation>) -> bool {
        let most = self.sender.max_capacity().min(TOGETHER);
        let mut observations = observations.drain(..);
        while observations.len() > 0 {
            let Ok(places) = self.sender.reserve_many(observations.len().min(most)).await else {
                return false;
            };
            for (place, observation) in places.zip(&mut observations) {
                place.send(observation);
            }
        }
        true
    }

    /// Sends without waiting; what finds no room is counted as dropped.
    pub fn try_send(&self, observation: Observation) {
        if self.sender.try_send(observation).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counter of [`Outlet::dropped`], for who is not to hold the channel open.
    #[must_use]
    pub fn drops(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// How many observations [`Outlet::try_send`] had to drop so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
