//! Records of the eBPF programs: the layout is ours, the paths and arguments are whatever a process likes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Each record behind a byte of its length.
    let mut rest = bytes;
    let records = std::iter::from_fn(|| {
        let (length, behind) = rest.split_first()?;
        let (record, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        Some(record)
    });
    let _ = defender_sensors::process::decode_ring(records);
});
