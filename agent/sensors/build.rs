//! Which sources of process events the target can have.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(ebpf)");
    let is = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    // The programs in the repository are compiled for 64-bit little-endian kernels.
    if env::var_os("CARGO_FEATURE_EBPF").is_some()
        && is("CARGO_CFG_TARGET_POINTER_WIDTH", "64")
        && is("CARGO_CFG_TARGET_ENDIAN", "little")
    {
        println!("cargo:rustc-cfg=ebpf");
    }
}
