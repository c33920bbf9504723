//! Log lines of login services.
#![no_main]

use defender_sensors::login::line::Line;
use defender_sensors::login::message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let line = Line::parse(bytes);
    let logged = defender_model::text::from_bytes(line.message);
    for service in ["sshd", "dropbear", "login", "su"] {
        let _ = message::parse(service, &logged, true);
        let _ = message::origin(service, &logged);
    }
    let _ = message::repeats_of_last(&logged);
});
