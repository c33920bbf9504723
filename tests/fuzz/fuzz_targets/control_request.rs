//! Requests on the control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<defender_daemon::request::Request>(bytes);
});
