//! What the network sensor is told, and what it says of itself.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use defender_model::time::Timestamp;

use super::interface::Selection;
use crate::balance::Balance;

/// What the sensor needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Report connections.
    pub flows: bool,
    /// Have the kernel count bytes and packets of connections.
    pub accounting: bool,
    /// How often the sockets that wait for connections are listed; `None` for never.
    pub listen_interval: Option<Duration>,
    /// The NFLOG group to which rules copy the questions and answers of the domain name system; `None` to leave them.
    pub dns_group: Option<u16>,
    /// The NFLOG group to which rules copy what they drop; `None` to leave it.
    pub denied_group: Option<u16>,
    /// Most names kept, and most questions that wait for an answer at once.
    pub dns_table: usize,
    /// Which interfaces are watched.
    pub interfaces: Selection,
    /// Most connections remembered between begin and end.
    pub flow_table: usize,
    /// Most events of one kind in a second; 0 for no bound.
    pub events_per_second: u32,
    /// Bytes of the kernel's buffer for what the agent has not read yet.
    pub receive_buffer: u32,
    /// Mount point of procfs, usually `/proc`.
    pub proc: PathBuf,
    /// Account database, usually `/etc/passwd`.
    pub passwd: PathBuf,
    /// The other end answers whose sockets are whose (see [`look`](super::onlooker::look)).
    pub onlooker: Option<Arc<UnixStream>>,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
}

/// What the sensor is doing, for `defender status`.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// How each part works, in words.
    pub modes: Vec<String>,
    /// What the kernel lacks, and what is missed for it.
    pub lacks: Vec<String>,
    /// Messages about connections read.
    pub flows_seen: u64,
    /// Questions and answers of the domain name system read.
    pub dns_seen: u64,
    /// Dropped packets read.
    pub denied_seen: u64,
    /// Sockets found to listen, or no longer to.
    pub listeners_seen: u64,
    /// What became of all these. Without sense are packets that are hostile, cut, or encrypted. Questions are told with their answers,
    /// and what the kernel drops are messages about connections and packets.
    pub balance: Balance,
    /// Times that the kernel had to drop messages.
    pub overruns: u64,
    /// Connections open.
    pub open: usize,
    /// Sockets that wait for connections or datagrams.
    pub listening: usize,
    /// Addresses of which the name is known.
    pub names: usize,
    /// Connections that found no room in the table.
    pub untracked: u64,
    /// Events sent without the process that the device has behind them.
    pub unattributed: u64,
}

impl Status {
    /// The figures, with the names they have in statistics.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = vec![
            ("flows_seen", self.flows_seen),
            ("dns_seen", self.dns_seen),
            ("denied_seen", self.denied_seen),
            ("listeners_seen", self.listeners_seen),
            ("overruns", self.overruns),
            ("open", self.open as u64),
            ("listening", self.listening as u64),
            ("names", self.names as u64),
            ("untracked", self.untracked),
            ("unattributed", self.unattributed),
        ];
        let kinds = self.flows_seen + self.dns_seen + self.denied_seen + self.listeners_seen;
        let produced = kinds + self.balance.unreadable + self.balance.kernel;
        counters.extend(Balance { produced, ..self.balance }.counters());
        counters
    }
}
