//! Messages of the kernel about devices, whose texts are those of whoever built the device.
#![no_main]

use defender_sensors::peripheral::uevent::Uevent;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(event) = Uevent::parse(bytes) {
        assert!(event.path.starts_with("/devices/") && !event.path.contains("/../"));
        let _ = event.value("PRODUCT");
    }
});
