//! Files of keys and values, and of lines.
#![no_main]

defender_fuzz::scan_target!("settings");
