//! The wall clock. Whatever depends on the time takes it as an argument; this is what the running agent hands in.

use std::time::{SystemTime, UNIX_EPOCH};

use defender_model::time::Timestamp;

/// Milliseconds since the epoch. Before 1970 is 1970.
#[must_use]
pub fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
