//! Which sources of process events the target can have, and where their programs come from.

use std::env;
use std::path::{Path, PathBuf};

#[path = "src/process/ebpf/compile.rs"]
mod compile;

/// A clang that can compile for BPF: the programs are then not those of the repository.
const CLANG: &str = "DEFENDER_EBPF_CLANG";

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={CLANG}");
    println!("cargo:rustc-check-cfg=cfg(ebpf)");
    println!("cargo:rustc-check-cfg=cfg(ebpf_compiled)");
    let value = |name: &str| env::var(name).unwrap_or_default();
    let bits = value("CARGO_CFG_TARGET_POINTER_WIDTH");
    // The programs are compiled for little-endian kernels.
    let possible = ["32", "64"].contains(&bits.as_str()) && value("CARGO_CFG_TARGET_ENDIAN") == "little";
    if env::var_os("CARGO_FEATURE_EBPF").is_none() || !possible {
        return Ok(());
    }
    println!("cargo:rustc-cfg=ebpf");
    let clang = value(CLANG);
    if clang.is_empty() {
        return Ok(());
    }
    let directory = Path::new(&value("CARGO_MANIFEST_DIR")).join("src/process/ebpf");
    let out = PathBuf::from(value("OUT_DIR"));
    for source in ["programs", "entry"] {
        let object = out.join(format!("{source}.o"));
        compile::compile(&clang, &directory, source, &bits, &object)
            .map_err(|words| format!("{CLANG}: {words}"))?;
        println!("cargo:rerun-if-changed=src/process/ebpf/{source}.c");
    }
    println!("cargo:rerun-if-changed=src/process/ebpf/compile.rs");
    println!("cargo:rerun-if-changed=src/process/ebpf/shared.h");
    println!("cargo:rustc-cfg=ebpf_compiled");
    Ok(())
}
