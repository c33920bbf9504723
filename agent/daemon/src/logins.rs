//! The login sensor, and where in the log files it stopped, so that a restart neither misses a line nor reads one twice.
//!
//! Positions are kept in the run directory, which is memory and spares the flash, a moment after they change; at a clean stop
//! they also go to the state directory, for the next boot.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use defender_model::time::Timestamp;
use defender_sensors::file::Status;
use defender_sensors::login::report::{Inbox, Reports};
use defender_sensors::login::sensor;
use defender_sensors::login::tail::Position;
use defender_sensors::Outlet;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::small_file;

/// Positions are written at most this often: what was read since is read again after a crash.
const EVERY: Duration = Duration::from_millis(100);
/// Name of the file in either directory.
const NAME: &str = "log-positions";
/// Longest state file read, in bytes.
const LIMIT: u64 = 64 << 10;

/// What others have of the sensor.
#[derive(Debug, Clone)]
pub struct Handle {
    /// What it does.
    pub status: Arc<Mutex<Status>>,
    /// Where it takes reports from other sources.
    pub reports: Reports,
}

/// Reports of other sources that wait for the sensor.
const WAITING: usize = 64;

/// A handle of the sensor that is to run, and what [`start`] reads the handle's reports from.
#[must_use]
pub fn open() -> (Handle, Inbox) {
    let (reports, inbox) = Reports::channel(WAITING);
    (Handle { status: Arc::default(), reports }, inbox)
}

/// Starts the sensor and the task that keeps its positions. The sensor's task may be aborted; the other ends after it.
pub fn start(
    config: &Config,
    datagrams: Option<(UnixDatagram, PathBuf)>,
    status: Arc<Mutex<Status>>,
    reports: Inbox,
    clock: fn() -> Timestamp,
    outlet: Outlet,
) -> [JoinHandle<()>; 2] {
    let [volatile, lasting] =
        [&config.agent.run_dir, &config.agent.state_dir].map(|directory| directory.join(NAME));
    let (positions, moved) = watch::channel(Vec::new());
    let known = if volatile.exists() { read(&volatile) } else { read(&lasting) };
    let sensor = sensor::Config {
        files: config.login.files.clone(),
        positions: known,
        datagrams,
        accounting: config.login.accounting.clone(),
        reports: Some(reports),
        status,
    };
    [
        tokio::spawn(sensor::run(sensor, clock, outlet, positions)),
        tokio::spawn(keep(volatile, lasting, moved)),
    ]
}

fn read(file: &Path) -> Vec<Position> {
    let text = small_file::read(file, LIMIT).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // A line that is no position belongs to another version; its file is read from the end.
    text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
}

async fn keep(volatile: PathBuf, lasting: PathBuf, mut moved: watch::Receiver<Vec<Position>>) {
    let mut failed = false;
    let text =
        |positions: &[Position]| positions.iter().map(|position| format!("{position}\n")).collect::<String>();
    while moved.changed().await.is_ok() {
        let latest = text(&moved.borrow_and_update());
        let written = small_file::replace(&volatile, latest.as_bytes());
        if let (Err(error), false) = (&written, failed) {
            tracing::warn!(%error, file = %volatile.display(), "positions in log files are not kept");
        }
        failed = written.is_err();
        tokio::time::sleep(EVERY).await;
    }
    let latest = text(&moved.borrow());
    for file in [volatile, lasting] {
        if let Err(error) = small_file::replace(&file, latest.as_bytes()) {
            tracing::warn!(%error, file = %file.display(), "positions in log files are not kept");
        }
    }
}
