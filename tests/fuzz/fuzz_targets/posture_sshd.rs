//! OpenSSH's configuration.
#![no_main]

defender_fuzz::scan_target!("sshd");
