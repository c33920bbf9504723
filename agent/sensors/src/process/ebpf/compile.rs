//! The command that makes the objects. Part of `build.rs` as well, where a build may compile them by a compiler of its own.

use std::path::Path;
use std::process::Command;

/// Code for every kernel that has what the programs need, and nothing in the object but that.
const OPTIONS: [&str; 9] = [
    "--target=bpfel",
    "-mcpu=v2",
    "-O2",
    "-g0",
    "-Wall",
    "-Werror",
    "-Wno-unused-parameter",
    "-ffreestanding",
    "-fno-addrsig",
];

/// Compiles one source of `directory`, without its ending, for kernels of 32 or 64 bits. True when the compiler's own llvm-strip, where it has one, then made
/// the object smaller; it can be used either way.
///
/// # Errors
/// Why there is no object, in words.
pub(crate) fn compile(
    clang: &str,
    directory: &Path,
    source: &str,
    bits: &str,
    object: &Path,
) -> Result<bool, String> {
    let mut command = Command::new(clang);
    // Beside the source: the object holds its name as it was given.
    command.current_dir(directory).args(OPTIONS);
    if bits == "32" {
        command.arg("-DBITS=32");
    }
    let status = command.args(["-c", &format!("{source}.c"), "-o"]).arg(object).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("{clang} cannot compile {source}.c: {status}")),
        Err(error) => return Err(format!("{clang}: {error}")),
    }
    let strip = Command::new(clang).arg("-print-prog-name=llvm-strip").output();
    let strip = strip.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let strip = strip.map_err(|error| format!("{clang}: {error}"))?;
    let status = Command::new(strip).arg("--strip-unneeded").arg(object).status();
    Ok(status.is_ok_and(|status| status.success()))
}
