//! PAM stacks.
#![no_main]

defender_fuzz::scan_target!("pam");
