//! Events as security messages of Azure Security Center for IoT.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| defender_report::fuzzing::security_message(bytes));
