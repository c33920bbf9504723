//! The kernel's messages about nf_tables, and the ruleset that is kept from them: whatever comes in, in whatever order.

#![no_main]

use defender_sensors::firewall::message::{parse, Message};
use defender_sensors::firewall::ruleset::Ruleset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut ruleset = Ruleset::default();
    // Each message: its type's lower byte, its length, and so many bytes.
    let mut rest = data;
    while let Some(([kind, length], tail)) = rest.split_first_chunk::<2>() {
        let (payload, tail) = tail.split_at((*length as usize).min(tail.len()));
        if let Some(Message::Object(object)) = parse(10 << 8 | u16::from(*kind), payload) {
            ruleset.apply(&object);
        }
        rest = tail;
    }
});
