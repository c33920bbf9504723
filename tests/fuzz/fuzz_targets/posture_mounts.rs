//! fstab and mount units.
#![no_main]

defender_fuzz::scan_target!("mounts");
