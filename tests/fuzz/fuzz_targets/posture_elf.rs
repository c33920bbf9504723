//! ELF files.
#![no_main]

defender_fuzz::scan_target!("elf");
