//! A file of the spool, as it may be found after a crash.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| defender_report::fuzzing::segment(bytes));
