//! What else the kernel opens to start a program: the loader an executable names (ELF `PT_INTERP`, elf(5)), and the interpreter
//! of a script (`#!`, execve(2)) with the loader of that.
//!
//! execve(2) opens them as it opens the program, for execution, so a rule that lets one run must let the others.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// More program headers than linkers write.
const HEADER_LIMIT: u64 = 128;
/// `PATH_MAX` (linux/limits.h).
const PATH_LIMIT: u64 = 4096;
const PT_INTERP: u64 = 3;

/// Scripts whose interpreter is a script again (`BINPRM` recursion, fs/exec.c).
const LEVELS: usize = 5;
/// Bytes of a script the kernel looks at (`BINPRM_BUF_SIZE`, linux/binfmts.h).
const FIRST_LINE: usize = 256;

/// Interpreters and loaders of the program at `path`, in the order the kernel opens them; what cannot be read has none.
pub(super) fn of(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    while found.len() < LEVELS {
        let Some(next) = next(found.last().map_or(path, PathBuf::as_path)) else { break };
        found.push(next);
    }
    found
}

/// The interpreter of a script, or the loader of an ELF file that is not linked statically. A loader has none itself.
fn next(path: &Path) -> Option<PathBuf> {
    let file = File::open(path).ok()?;
    let mut start = [0; FIRST_LINE];
    let length = file.read_at(&mut start, 0).ok()?;
    if let Some(line) = start[..length].strip_prefix(b"#!") {
        return script(line);
    }
    find(&|offset, length| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    })
}

/// The interpreter in a first line, without `#!`.
fn script(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let name = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).find(|word| !word.is_empty())?;
    Some(OsString::from_vec(name.to_vec()).into())
}

/// `read` returns that many bytes from that offset, or nothing.
fn find(read: &dyn Fn(u64, usize) -> Option<Vec<u8>>) -> Option<PathBuf> {
    let identification = read(0, 16)?;
    // EI_CLASS: 1 is 32 bit, 2 is 64 bit. EI_DATA: 1 is little-endian; that of a program that can run here is ours.
    let wide = match identification.get(..6)? {
        [0x7f, b'E', b'L', b'F', 1, _] => false,
        [0x7f, b'E', b'L', b'F', 2, _] => true,
        _ => return None,
    };
    let number = |at: u64, size: usize| -> Option<u64> {
        let bytes = read(at, size)?;
        let ordered: Vec<u8> =
            if cfg!(target_endian = "little") { bytes.into_iter().rev().collect() } else { bytes };
        Some(ordered.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    // Offsets within the ELF header (e_phoff, e_phentsize, e_phnum) and a program header (p_offset, p_filesz).
    let (phoff, phentsize, phnum, p_offset, p_filesz, word) =
        if wide { (32, 54, 56, 8, 32, 8) } else { (28, 42, 44, 4, 16, 4) };
    let table = number(phoff, word)?;
    let size = number(phentsize, 2)?;
    for index in 0..number(phnum, 2)?.min(HEADER_LIMIT) {
        let header = table.checked_add(index * size)?;
        if number(header, 4)? != PT_INTERP {
            continue;
        }
        let offset = number(header.checked_add(p_offset)?, word)?;
        let length = number(header.checked_add(p_filesz)?, word)?;
        if length > PATH_LIMIT {
            return None;
        }
        let mut name = read(offset, usize::try_from(length).ok()?)?;
        name.truncate(name.iter().position(|byte| *byte == 0)?);
        return (!name.is_empty()).then(|| OsString::from_vec(name).into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_its_interpreter_and_that_its_loader() {
        for (line, wanted) in [
            (&b" /bin/sh\necho"[..], Some("/bin/sh")),
            (b"/usr/bin/env python3\n", Some("/usr/bin/env")),
            (b"\t/bin/sh", Some("/bin/sh")),
            (b"  \n/bin/sh", None),
            (b"", None),
        ] {
            assert_eq!(script(line), wanted.map(PathBuf::from));
        }
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("hook");
        std::fs::write(&program, "#!/bin/sh\nexit 0\n").unwrap();
        let found = of(&program);
        assert_eq!(found[0], Path::new("/bin/sh"));
        assert_eq!(found[1..], of(Path::new("/bin/sh")));
        // A script that interprets itself does not go on for ever.
        std::fs::write(&program, format!("#!{}\n", program.display())).unwrap();
        assert_eq!(of(&program).len(), LEVELS);
        assert!(of(Path::new("/nonexistent")).is_empty());
    }

    fn find_in(file: &[u8]) -> Option<PathBuf> {
        find(&|offset, length| {
            let start = usize::try_from(offset).ok()?;
            Some(file.get(start..start.checked_add(length)?)?.to_vec())
        })
    }

    /// An ELF file of headers alone: a PT_LOAD, then PT_INTERP.
    fn elf(wide: bool, name: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 512];
        let mut put = |at: usize, size: usize, value: u64| {
            file[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        put(0, 4, u64::from(u32::from_le_bytes(*b"\x7fELF")));
        put(4, 2, if wide { 0x102 } else { 0x101 });
        if wide {
            put(32, 8, 64);
            put(54, 2, 56);
            put(56, 2, 2);
            put(64, 4, 1);
            put(120, 4, 3);
            put(128, 8, 256);
            put(152, 8, name.len() as u64);
        } else {
            put(28, 4, 52);
            put(42, 2, 32);
            put(44, 2, 2);
            put(52, 4, 1);
            put(84, 4, 3);
            put(88, 4, 256);
            put(100, 4, name.len() as u64);
        }
        file[256..256 + name.len()].copy_from_slice(name);
        file
    }

    #[test]
    fn finds_the_loader_in_both_classes() {
        assert_eq!(find_in(&elf(true, b"/lib64/ld.so\0")), Some("/lib64/ld.so".into()));
        assert_eq!(
            find_in(&elf(false, b"/lib/ld-musl-armhf.so.1\0")),
            Some("/lib/ld-musl-armhf.so.1".into())
        );
    }

    #[test]
    fn a_name_without_end_or_of_no_length_is_none() {
        assert_eq!(find_in(&elf(true, b"/lib64/ld.so")), None);
        assert_eq!(find_in(&elf(true, b"\0")), None);
        assert_eq!(find_in(b"#!/bin/sh\nexec true, and more than sixteen bytes\n"), None);
    }

    #[test]
    fn no_cut_and_no_flipped_byte_makes_it_panic() {
        for file in [elf(true, b"/lib64/ld.so\0"), elf(false, b"/lib/ld.so\0")] {
            for end in 0..file.len() {
                find_in(&file[..end]);
                for change in [0xff, 0x80, 0x01] {
                    let mut flipped = file.clone();
                    flipped[end] ^= change;
                    find_in(&flipped);
                }
            }
        }
    }

    #[test]
    fn this_test_itself_names_its_loader() {
        let found = of(&std::env::current_exe().unwrap());
        if cfg!(target_env = "gnu") {
            assert!(found.first().is_some_and(|path| path.exists()), "{found:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_after_the_magic_give_an_answer(wide: bool, rest: Vec<u8>) {
            let mut file = vec![0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1];
            file.extend(rest);
            find_in(&file);
        }

        #[test]
        fn any_change_to_a_header_gives_an_answer(wide: bool, changes: Vec<(u8, u8)>) {
            let mut file = elf(wide, b"/lib/ld.so\0");
            for (at, value) in changes {
                file[usize::from(at)] = value;
            }
            find_in(&file);
        }
    }
}
