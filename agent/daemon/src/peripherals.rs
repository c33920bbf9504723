//! The peripheral sensor.

use defender_sensors::peripheral::{PeripheralSensor, Settings};

use crate::clock::wall_clock;
use crate::config::Config;

/// Opens the sensor, which takes note of the devices that are there; `None` when it is off.
#[must_use]
pub fn open(config: &Config) -> Option<PeripheralSensor> {
    let peripheral = &config.peripheral;
    peripheral.enabled.then(|| {
        PeripheralSensor::open(Settings {
            sys: "/sys".into(),
            allow: peripheral.allow.iter().map(|entry| entry.0.clone()).collect(),
            events_per_second: peripheral.events_per_second,
            receive_buffer: peripheral.receive_buffer_kib.saturating_mul(1024),
            clock: wall_clock,
        })
    })
}
