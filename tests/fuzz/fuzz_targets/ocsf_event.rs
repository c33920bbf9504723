//! OCSF lines as `replay` reads them; what is read can be written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(event)) = defender_model::ocsf::decode(bytes) {
        let mut line = Vec::new();
        defender_model::ocsf::encode(&event, &Default::default(), &mut line);
        assert!(defender_model::ocsf::decode(&line).is_ok_and(|again| again.is_some()));
    }
});
