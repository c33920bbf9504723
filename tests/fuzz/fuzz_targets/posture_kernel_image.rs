//! Kernel images with a packed configuration inside.
#![no_main]

defender_fuzz::scan_target!("kernel_image");
