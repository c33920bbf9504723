//! Audit log text: what an attacker's arguments look like in records.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut log = defender_sensors::process::AuditLog::default();
    let mut events = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        log.line(line, &mut events);
    }
    log.finish(&mut events);
});
