//! Posture policies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    defender_fuzz::image::parse_policy(bytes);
});
