//! The module twin of Azure IoT Hub.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| defender_report::fuzzing::twin(bytes));
