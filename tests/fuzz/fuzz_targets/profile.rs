//! Learned profiles: what is read is written the same, and holds events against itself without a panic.
#![no_main]

use defender_detect::profile::{Document, Learner, Profile};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A profile, and behind the first zero byte, which no TOML has, an event to hold against it and to learn from.
    let (text, line) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let document = Document::parse(text);
    if let Ok(document) = &document {
        let again = Document::parse(document.to_toml().as_bytes());
        assert_eq!(again.as_ref(), Ok(document));
        let _ = document.too_wide();
    }
    let Ok(Some(event)) = defender_model::ocsf::decode(line) else { return };
    if let Ok(document) = &document {
        Profile::from(document).inspect(&event, &mut |_, _, _| {});
    }
    let mut learner = Learner::default();
    learner.learn(&event);
    if learner.left_out() == 0 {
        let learned = learner.finish();
        assert_eq!(Document::parse(learned.to_toml().as_bytes()).as_ref(), Ok(&learned));
        Profile::from(&learned).inspect(&event, &mut |_, program, entry| panic!("{program} {entry} was learned"));
    }
});
