//! Looking at every file, in a thread that takes its time.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::entry::Entry;

/// Results that may wait.
const QUEUE: usize = 64;

/// A file to look at.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: PathBuf,
    /// Size and time of change as they were; a file that still has them is not read.
    pub(super) known: Option<(u64, i64)>,
}

/// How files are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Bytes; files that are longer have no digest.
    pub(super) limit: u64,
    /// Bytes within a second.
    pub(super) rate: u64,
    /// Puts the thread last in line for processor and disk.
    pub(super) idle: fn(),
}

/// Starts the thread. The channel closes when all were looked at.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn start(items: Vec<Item>, pace: Pace) -> io::Result<mpsc::Receiver<(PathBuf, Entry)>> {
    let (send, receive) = mpsc::channel(QUEUE);
    let work = move || {
        (pace.idle)();
        let began = Instant::now();
        let mut read = 0_u64;
        let mut slow_down = |length: usize| {
            read += length as u64;
            let due = Duration::from_secs_f64(read as f64 / pace.rate.max(1) as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        };
        for Item { path, known } in items {
            // What is gone by now makes an event.
            let Ok(mut entry) = Entry::look(&path, 0, |_| {}) else { continue };
            if known == Some((entry.size, entry.changed)) {
                continue;
            }
            if let Ok(read) = Entry::look(&path, pace.limit, &mut slow_down) {
                entry = read;
            }
            if send.blocking_send((path, entry)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("files".to_owned()).spawn(work)?;
    Ok(receive)
}
