//! The file sink: JSON lines, one per record, in a file of bounded size.
//!
//! Alerts are written at once, telemetry within 50 ms together with what else came. When the file is full it becomes `.1`, `.1` becomes
//! `.2`, and so on; a record is never split between two files.
//!
//! | What happens | What is done |
//! |---|---|
//! | no space, read-only, not permitted | reported; what waits is kept in memory as far as it fits, tried again after 0.1 s, ... 30 s; a half written record is taken back |
//! | the file was deleted or replaced | seen before each write: a new one is begun |
//! | power was lost in the middle of a line | the next start ends that line first, so that it spoils no other |

mod writer;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::Error;
use crate::sink::Intake;
use writer::Writer;

/// How long telemetry waits for company.
const GATHER: Duration = Duration::from_millis(50);
/// So many bytes are company enough.
const ENOUGH: usize = 64 * 1024;

/// Where and how to write.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file. Its directory must exist.
    pub path: PathBuf,
    /// Size in bytes that the file is not to exceed (but for a single record that is longer).
    pub max_size: u64,
    /// How many full files are kept.
    pub keep: u32,
    /// Alerts are on the medium before they count as delivered (fdatasync).
    pub sync_alerts: bool,
}

/// Writes until the sink is closed.
pub async fn run(config: Config, mut intake: Intake) {
    let sync_alerts = config.sync_alerts;
    let mut writer = Writer::new(config);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let mut batch = VecDeque::new();
    while !batch.is_empty() || intake.wait().await {
        if batch.is_empty() {
            intake.gather(GATHER, ENOUGH).await;
            intake.take(&mut batch, usize::MAX, ENOUGH);
        }
        let (written, mut outcome) = writer.write(&batch);
        let alerts = batch.iter().take(written).any(|record| record.alert);
        if alerts && sync_alerts && outcome.is_ok() {
            outcome = sync(&writer).await;
        }
        intake.delivered(batch.iter().take(written));
        batch.drain(..written);
        match outcome {
            Ok(()) => backoff.worked(),
            Err(error) => {
                intake.failed(&error);
                if intake.pause(backoff.failed()).await {
                    // Asked to end: this was the last try.
                    intake.unsent(&batch);
                    return;
                }
            }
        }
    }
}

/// On a thread of its own, since a slow medium can take long.
async fn sync(writer: &Writer) -> Result<(), Error> {
    let Some(file) = writer.duplicate()? else { return Ok(()) };
    let done = tokio::task::spawn_blocking(move || file.sync_data()).await;
    match done {
        Ok(Err(source)) => Err(writer.error("write to the medium", source)),
        // The runtime is ending.
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
