//! Databases of dpkg, opkg and apk.
#![no_main]

defender_fuzz::scan_target!("packages");
