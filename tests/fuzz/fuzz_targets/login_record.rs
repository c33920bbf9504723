//! Records of utmp, wtmp and btmp.
#![no_main]

use defender_sensors::login::accounting::record::{Layout, Record};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Layout::of(bytes, bytes.len() as u64);
    for layout in [Layout::Time32, Layout::Time64] {
        for record in bytes.chunks(layout.size()) {
            let _ = Record::parse(layout, record);
        }
    }
});
