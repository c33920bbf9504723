//! Link options of the agent's binary.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Relative relocations packed as DT_RELR (gABI, "Relative Relocation Table") take about 6 KB instead of 240 KB: flash is
    // counted. The dynamic linker must know them: glibc 2.36 (2022), musl 1.2.4 (2023). Where it does not, build with
    // DEFENDER_PACK_RELOCATIONS=0.
    println!("cargo:rerun-if-env-changed=DEFENDER_PACK_RELOCATIONS");
    let linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    let wanted = env::var("DEFENDER_PACK_RELOCATIONS").map_or(true, |value| value != "0");
    if linux && wanted {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
