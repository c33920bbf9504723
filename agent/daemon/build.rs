//! Link options of the agent's binary: flash is counted.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link");
    println!("cargo:rustc-check-cfg=cfg(without_unwind_tables)");
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    let fixed = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|one| one == "crt-static"));
    // Relative relocations packed as DT_RELR (gABI, "Relative Relocation Table") take about 6 KB instead of 240 KB. The dynamic
    // linker must know them: glibc 2.36 (2022), musl 1.2.4 (2023). Where it does not, build with DEFENDER_PACK_RELOCATIONS=0.
    if linux && wanted("DEFENDER_PACK_RELOCATIONS") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // Generic code is compiled anew for each type and often comes out the same; LLD and gold keep one copy ("identical code
    // folding"), which saves some 38 KB. `all` also folds functions whose address is taken: the Rust reference promises no
    // distinct addresses. C does, so not where a static C library is linked in. GNU ld cannot fold, so the linker at hand is asked.
    // A folded function may show under another's name in a stack trace: for such a build set DEFENDER_FOLD_FUNCTIONS=0.
    if linux && release && !fixed && wanted("DEFENDER_FOLD_FUNCTIONS") && linker_takes("-Wl,--icf=all") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
    // Unwind tables are an eighth of the binary. Without them a debugger shows less of a core dump's stack; for such a build set
    // DEFENDER_DROP_UNWIND_TABLES=0. 32-bit ARM has tables of another kind, which its C library wants.
    // Cargo tells build scripts nothing of the profile's `panic`; ours aborts in every profile made from `release`.
    let arm = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "arm");
    if linux && release && !arm && wanted("DEFENDER_DROP_UNWIND_TABLES") {
        let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        let script = Path::new(&directory).join("link/no-unwind-tables.ld");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{}", script.display());
        // A static C library may bring the unwinder's other functions and this one in a single object, which then clash.
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

/// Links a program that does nothing as the agent will be linked, with `option` besides: by the same compiler, for the same target,
/// with the same linker and flags (Cargo book, "Environment variables Cargo sets for build scripts").
fn linker_takes(option: &str) -> bool {
    let (Some(rustc), Some(target), Some(out)) =
        (env::var_os("RUSTC"), env::var_os("TARGET"), env::var_os("OUT_DIR"))
    else {
        return false;
    };
    let source = PathBuf::from(&out).join("linked.rs");
    if fs::write(&source, "fn main() {}\n").is_err() {
        return false;
    }
    let mut trial = Command::new(rustc);
    if let Ok(flags) = env::var("CARGO_ENCODED_RUSTFLAGS") {
        trial.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("linker=");
        flag.push(linker);
        trial.arg("-C").arg(flag);
    }
    trial.arg("--target").arg(target).arg("-C").arg(format!("link-arg={option}"));
    trial.arg("-o").arg(PathBuf::from(&out).join("linked")).arg(&source);
    trial.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
