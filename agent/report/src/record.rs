//! What is reported.

use std::sync::Arc;

use defender_model::severity::Severity;
use defender_model::time::Timestamp;

use crate::spool::Ticket;

/// An event, encoded. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Record {
    /// How bad it is.
    pub severity: Severity,
    /// It must not be lost to make room for telemetry: findings, remediations, health that asks for attention.
    pub alert: bool,
    /// The event in OCSF: one JSON line without line end.
    pub ocsf: Arc<[u8]>,
    /// The event in one printable line.
    pub summary: Arc<str>,
    /// When it happened.
    pub time: Timestamp,
    /// Its position in this boot's stream.
    pub sequence: u64,
    /// What a spool knows it by. `None` for a record that does not come from one.
    pub ticket: Option<Ticket>,
}
