//! The shared libraries a program needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};

use super::PACK;

/// Copies every shared library `program` needs (by `ldd`, so with theirs) from the build machine into `root`, unless the
/// packages unpacked there already brought it.
pub(super) fn copy(program: &Path, root: &Path) -> Result<()> {
    for library in of(program)? {
        // The path inside the image, where the merged /usr makes both spellings the same.
        let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
        let Some(file) = library.file_name() else { continue };
        let present = ["usr/lib", "usr/lib/x86_64-linux-gnu", "usr/lib64"]
            .iter()
            .any(|at| root.join(at).join(file).exists());
        if present || inside.exists() {
            continue;
        }
        if let Some(parent) = inside.parent() {
            fs::create_dir_all(parent).map_err(Error::io(format!("cannot create {}", parent.display())))?;
        }
        fs::copy(&library, &inside).map_err(Error::io(format!("cannot copy {}", library.display())))?;
    }
    Ok(())
}

/// Every shared library `program` needs, as the build machine has it.
pub(crate) fn of(program: &Path) -> Result<Vec<PathBuf>> {
    let text = command::run(Command::new("ldd").arg(program), PACK)?;
    parse(&String::from_utf8_lossy(&text)).into_iter().collect()
}

/// Lines like `libssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x...)` and `/lib64/ld-linux-x86-64.so.2 (0x...)`.
fn parse(text: &str) -> Vec<Result<PathBuf>> {
    text.lines()
        .map(str::trim)
        .filter_map(|line| match line.split_once(" => ") {
            Some((name, rest)) if rest.starts_with("not found") => Some(Err(Error::Missing {
                what: format!("shared library {name}"),
                next: "install the package that holds it, or build the agent on this machine".into(),
            })),
            Some((_, rest)) => rest.split(" (").next().filter(|p| p.starts_with('/')).map(|p| Ok(p.into())),
            None => line.split(" (").next().filter(|p| p.starts_with('/')).map(|p| Ok(p.into())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_the_output_of_ldd() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n\tstatically linked\n";
        let found: Vec<_> = parse(text).into_iter().map(|l| l.expect("present")).collect();
        assert_eq!(found, [PathBuf::from("/lib/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
        assert!(parse("\tlibx.so => not found\n")[0].is_err());
    }
}
