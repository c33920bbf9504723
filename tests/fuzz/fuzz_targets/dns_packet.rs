//! Packets that rules copy to the agent: whoever is asked for a name chooses what comes back.
#![no_main]

use defender_sensors::network::{dns, nflog, packet};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let logged = nflog::parse(0x400, bytes);
    for packet in [packet::parse(bytes), logged.and_then(|logged| packet::parse(logged.packet))].into_iter().flatten() {
        let _ = dns::parse(packet.payload);
    }
    let _ = dns::parse(bytes);
    let _ = dns::parse_segment(bytes);
});
