//! Kernel configurations.
#![no_main]

defender_fuzz::scan_target!("kernel_config");
