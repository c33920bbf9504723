//! Link options of the agent's binary: flash is counted.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link");
    println!("cargo:rustc-check-cfg=cfg(without_unwind_tables)");
    let linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    // Relative relocations packed as DT_RELR (gABI, "Relative Relocation Table") take about 6 KB instead of 240 KB. The dynamic
    // linker must know them: glibc 2.36 (2022), musl 1.2.4 (2023). Where it does not, build with DEFENDER_PACK_RELOCATIONS=0.
    if linux && wanted("DEFENDER_PACK_RELOCATIONS") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // Unwind tables are an eighth of the binary. Without them a debugger shows less of a core dump's stack; for such a build set
    // DEFENDER_DROP_UNWIND_TABLES=0. 32-bit ARM has tables of another kind, which its C library wants.
    // Cargo tells build scripts nothing of the profile's `panic`; ours aborts in every profile made from `release`.
    let abort = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let arm = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "arm");
    if linux && abort && !arm && wanted("DEFENDER_DROP_UNWIND_TABLES") {
        let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        let script = Path::new(&directory).join("link/no-unwind-tables.ld");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{}", script.display());
        // A static C library may bring the unwinder's other functions and this one in a single object, which then clash.
        let fixed = env::var("CARGO_CFG_TARGET_FEATURE")
            .is_ok_and(|features| features.split(',').any(|one| one == "crt-static"));
        if !fixed {
            println!("cargo:rustc-cfg=without_unwind_tables");
        }
    }
}

/// An option is on unless the environment of the build sets it to 0.
fn wanted(option: &str) -> bool {
    println!("cargo:rerun-if-env-changed={option}");
    env::var(option).map_or(true, |value| value != "0")
}
