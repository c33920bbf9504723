//! Boot loaders' files with a kernel command line.
#![no_main]

defender_fuzz::scan_target!("command_line");
