//! Sigma rules, and an event judged by whatever loads.
#![no_main]

use defender_detect::{Detector, Limits, RuleSet};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (rules, _) = RuleSet::builder().add_source("fuzz.yml", bytes).build();
    let line = br#"{"class_uid":1007,"activity_id":1,"time":1,"process":{"pid":2,"file":{"path":"/bin/sh"},"cmd_line":"sh -c id"},"metadata":{}}"#;
    if let Ok(Some(event)) = defender_model::ocsf::decode(line) {
        Detector::new(rules, Limits::default()).inspect(&event, &mut Vec::new());
    }
});
