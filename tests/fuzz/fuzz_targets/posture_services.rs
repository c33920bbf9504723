//! inittab, inetd.conf, units, start scripts, dropbear's options.
#![no_main]

defender_fuzz::scan_target!("services");
