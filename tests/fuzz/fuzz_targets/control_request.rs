//! Requests on the control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = defender_daemon::request::Request::from_json(bytes);
});
