//! X.509 certificates and private keys.
#![no_main]

defender_fuzz::scan_target!("certificate");
