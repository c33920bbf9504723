//! `/etc/passwd`, `/etc/group` and `/etc/shadow`, with zeroes between them, and the sensor's own record of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut files = bytes.splitn(3, |byte| *byte == 0);
    let mut file = || files.next().unwrap_or_default();
    let _ = defender_sensors::account::fuzz([file(), file(), file()]);
});
