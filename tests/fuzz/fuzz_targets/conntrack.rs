//! Messages of connection tracking: the kernel's, but with whatever strangers send in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for kind in [0x100, 0x102] {
        let _ = defender_sensors::network::conntrack::parse(kind, bytes);
    }
});
