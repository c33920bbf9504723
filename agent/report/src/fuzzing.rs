//! What the fuzz targets in `tests/fuzz` call: parsers and encoders that nobody outside this crate has a use for.

use std::time::Duration;

use defender_model::severity::Severity;
use defender_model::time::Timestamp;

use crate::record::Record;
use crate::{mqtt, spool, syslog};

/// A record whose event, and whose summary, are these bytes.
fn record(bytes: &[u8]) -> Record {
    Record {
        severity: Severity::High,
        alert: true,
        ocsf: bytes.into(),
        summary: String::from_utf8_lossy(bytes).into(),
        time: Timestamp(1_700_000_000_000),
        sequence: 1,
        ticket: None,
    }
}

/// A line of syslog in every format is one line.
///
/// # Panics
/// When one is not, or when a header of CEF has not seven parts.
pub fn lines(bytes: &[u8]) {
    syslog::fuzzing::lines(&record(bytes));
}

/// A security message is JSON.
///
/// # Panics
/// When it is not.
pub fn security_message(bytes: &[u8]) {
    mqtt::fuzzing::security_message(&record(bytes));
}

/// A twin of Azure IoT Hub, whole and as a change: what is reported is JSON, periods are within their bounds.
///
/// # Panics
/// When it is not so.
pub fn twin(bytes: &[u8]) {
    let month = Duration::from_secs(30 * 86_400);
    mqtt::fuzzing::twin(bytes, &|period| period >= Duration::from_secs(60) && period <= month);
}

/// A segment of the spool, as it may be found.
pub fn segment(bytes: &[u8]) {
    spool::fuzzing::segment(bytes);
}
