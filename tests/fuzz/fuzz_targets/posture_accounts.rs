//! passwd, shadow, group and login.defs.
#![no_main]

defender_fuzz::scan_target!("accounts");
