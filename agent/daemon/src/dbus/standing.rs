//! The latest status, for what everybody may ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::request::{Desk, Reply, Request, StatusReport};

/// How old a status may be. Everybody may ask for it, as often as they like, so the pipeline is not asked each time.
const FRESH: Duration = Duration::from_millis(250);
/// How long the pipeline may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The latest status. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    desk: Desk,
    latest: Arc<Mutex<Option<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    report: Arc<StatusReport>,
    since: Instant,
}

impl Standing {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk, latest: Arc::default() }
    }

    /// The status, a fraction of a second old at most. One caller at a time asks the pipeline; the others wait for the answer.
    pub(super) async fn now(&self) -> Result<Arc<StatusReport>, String> {
        // Waiting for one's turn counts: with a pipeline that is stuck each turn would take the whole time.
        let answered = timeout(ANSWER, self.kept_or_asked()).await;
        answered.map_err(|_| format!("the agent has not answered within {} s", ANSWER.as_secs()))?
    }

    async fn kept_or_asked(&self) -> Result<Arc<StatusReport>, String> {
        let mut latest = self.latest.lock().await;
        if let Some(kept) = latest.as_ref().filter(|kept| kept.since.elapsed() < FRESH) {
            return Ok(Arc::clone(&kept.report));
        }
        match self.desk.ask(Request::Status).await {
            Reply::Status(report) => {
                let report: Arc<StatusReport> = Arc::from(report);
                *latest = Some(Kept { report: Arc::clone(&report), since: Instant::now() });
                Ok(report)
            }
            Reply::Failed { error } | Reply::Refused { error } => Err(error),
            _ => Err("the agent gave no status".to_owned()),
        }
    }

    /// Something has changed: what is kept is not the latest any more.
    pub(super) async fn forget(&self) {
        *self.latest.lock().await = None;
    }
}
