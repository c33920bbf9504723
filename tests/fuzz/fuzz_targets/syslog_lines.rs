//! Events as lines of syslog: RFC 5424, RFC 3164, CEF.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| defender_report::fuzzing::lines(bytes));
