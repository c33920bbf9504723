//! The configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = defender_daemon::config::load::check(std::path::Path::new("fuzz.toml"), text);
});
