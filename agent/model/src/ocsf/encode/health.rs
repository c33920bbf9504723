//! What the agent says of itself: Application Lifecycle, 6002, Application Error, 6008.

use super::{name, Object};
use crate::health::{Health, Kind};
use crate::ocsf::class;

pub(super) fn class(said: &Health) -> (u32, u32) {
    match said.kind {
        Kind::Degraded | Kind::Lost => (class::APPLICATION_ERROR, 1),
        Kind::Started => (class::APPLICATION_LIFECYCLE, 3),
        Kind::Stopping => (class::APPLICATION_LIFECYCLE, 4),
        Kind::Armed => (class::APPLICATION_LIFECYCLE, 6),
        Kind::Changed | Kind::Recovered | Kind::Statistics => (class::APPLICATION_LIFECYCLE, 99),
    }
}

pub(super) fn write(record: &mut Object<'_>, said: &Health, product: &[u8]) {
    record.text(name!("message"), &said.message);
    // The class of errors has no `app`.
    if class(said).0 == class::APPLICATION_LIFECYCLE {
        record.object(name!("app"), |app| app.written(product));
    }
    record.object(name!("unmapped"), |unmapped| {
        unmapped.text(name!("kind"), said.kind.name());
        unmapped.text(name!("component"), &said.component);
        unmapped.counters(name!("counters"), &said.counters);
    });
}
