//! Lists of kernel modules, and modprobe.d.
#![no_main]

defender_fuzz::scan_target!("modules");
