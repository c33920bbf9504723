//! What the agent says of itself: Application Lifecycle, 6002, Application Error, 6008.

use super::{product, Object};
use crate::health::{Health, Kind};
use crate::identity::DeviceIdentity;
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

pub(super) fn write(record: &mut Object<'_>, said: &Health, device: &DeviceIdentity) {
    record.text("message", &said.message);
    // The class of errors has no `app`.
    if class(said).0 == class::APPLICATION_LIFECYCLE {
        product(record, "app", device);
    }
    record.object("unmapped", |unmapped| {
        unmapped.text("kind", said.kind.name());
        unmapped.text("component", &said.component);
        unmapped.counters("counters", &said.counters);
    });
}
