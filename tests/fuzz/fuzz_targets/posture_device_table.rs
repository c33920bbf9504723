//! Device tables as makedevs reads them.
#![no_main]

defender_fuzz::scan_target!("device_table");
