//! Files of threat feeds: what a download script may have saved. What is read can be looked up.
#![no_main]

use defender_detect::feed::{Kind, List};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for kind in [Kind::Any, Kind::Address, Kind::Domain, Kind::Sha256] {
        let Ok(list) = List::parse(bytes, kind, 1000) else { continue };
        assert!(list.len() <= 1000);
        for word in String::from_utf8_lossy(bytes).split_whitespace() {
            let _ = list.domain(word);
            if let Ok(address) = word.parse() {
                let _ = list.address(address);
            }
            if let Ok(digest) = word.parse() {
                let _ = list.digest(digest);
            }
        }
    }
});
