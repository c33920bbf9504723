//! Kernel parameters in files.
#![no_main]

defender_fuzz::scan_target!("sysctl");
