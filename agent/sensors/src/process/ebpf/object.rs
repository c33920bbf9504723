//! The compiled programs: an ELF object, cut into programs whose references to maps are filled in. Source: elf(5),
//! Documentation/bpf/llvm_reloc.rst.
//!
//! The object is our own and part of the agent, so only what clang writes for `programs.c` is known here; anything else is refused.

/// Includes the object that is called so, or the one of that source which this build has compiled.
#[cfg(not(ebpf_compiled))]
macro_rules! object {
    ($_source:literal, $object:literal) => {
        include_bytes!($object)
    };
}
#[cfg(ebpf_compiled)]
macro_rules! object {
    ($source:literal, $_object:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $source, ".o"))
    };
}

/// `programs.c`, compiled by Debian 12's clang and stripped by its LLVM, beside the source, as `compile.rs` does and the test below
/// repeats and compares:
/// `clang --target=bpfel -mcpu=v2 -O2 -g0 -Wall -Werror -Wno-unused-parameter -ffreestanding -fno-addrsig -c programs.c -o programs.o &&
/// llvm-strip-14 --strip-unneeded programs.o`, and once more with `-DBITS=32` for `programs32.o`. What is here is for kernels of the
/// agent's own word size.
#[cfg(target_pointer_width = "64")]
pub(crate) const OBJECT: &[u8] = object!("programs", "programs.o");
/// `entry.c`, likewise.
#[cfg(target_pointer_width = "64")]
pub(crate) const ENTRY: &[u8] = object!("entry", "entry.o");
#[cfg(target_pointer_width = "32")]
pub(crate) const OBJECT: &[u8] = object!("programs", "programs32.o");
#[cfg(target_pointer_width = "32")]
pub(crate) const ENTRY: &[u8] = object!("entry", "entry32.o");

const SECTION_HEADER: usize = 64;
const SYMBOL: usize = 24;
const RELOCATION: usize = 16;
const INSTRUCTION: usize = 8;
/// `R_BPF_64_64`: the immediate value of a two-slot load.
const R_BPF_64_64: u32 = 1;
/// `BPF_LD | BPF_IMM | BPF_DW`.
const LOAD: u8 = 0x18;
/// `BPF_PSEUDO_MAP_FD`, in the upper half of the register byte.
const MAP: u8 = 1 << 4;

struct Elf<'a> {
    data: &'a [u8],
    sections: usize,
    count: usize,
}

/// The instructions of the program in the section of that name, with each map's descriptor in place of its name, and the number in that of
/// `variant`. `None` when the object is not as expected.
pub(crate) fn program(
    data: &[u8],
    section: &str,
    variant: i32,
    map: impl Fn(&[u8]) -> Option<i32>,
) -> Option<Vec<u8>> {
    let elf = Elf::new(data)?;
    let mut code = elf.section(section.as_bytes())?.to_vec();
    let symbols = elf.section(b".symtab")?;
    let names = elf.section(b".strtab")?;
    let relocations = elf.section(format!(".rel{section}").as_bytes())?;
    for relocation in relocations.chunks_exact(RELOCATION) {
        let (at, info) = (long(relocation, 0)?, long(relocation, 8)?);
        let (symbol, kind) = ((info >> 32) as usize, info as u32);
        let name = half(symbols, symbol.checked_mul(SYMBOL)?)?;
        let (kind_of_value, value) = match string(names, name as usize)? {
            b"variant" => (0, variant),
            name => (MAP, map(name)?),
        };
        let at = usize::try_from(at).ok()?;
        let instruction = code.get_mut(at..at.checked_add(INSTRUCTION)?)?;
        if kind != R_BPF_64_64 || instruction[0] != LOAD {
            return None;
        }
        instruction[1] = instruction[1] & 0x0f | kind_of_value;
        instruction[4..].copy_from_slice(&value.to_le_bytes());
    }
    Some(code)
}

impl<'a> Elf<'a> {
    fn new(data: &'a [u8]) -> Option<Self> {
        // 64 bits, little-endian; machine 247 is EM_BPF.
        if data.get(..6)? != b"\x7fELF\x02\x01" || data.get(18..20)? != [247, 0] {
            return None;
        }
        let sections = usize::try_from(long(data, 40)?).ok()?;
        let count = quarter(data, 60)?;
        Some(Self { data, sections, count })
    }

    fn header(&self, index: usize) -> Option<&'a [u8]> {
        let start = self.sections.checked_add(index.checked_mul(SECTION_HEADER)?)?;
        self.data.get(start..start.checked_add(SECTION_HEADER)?)
    }

    fn content(&self, header: &[u8]) -> Option<&'a [u8]> {
        let start = usize::try_from(long(header, 24)?).ok()?;
        self.data.get(start..start.checked_add(usize::try_from(long(header, 32)?).ok()?)?)
    }

    fn section(&self, wanted: &[u8]) -> Option<&'a [u8]> {
        let names = self.content(self.header(quarter(self.data, 62)?)?)?;
        for index in 0..self.count {
            let header = self.header(index)?;
            if string(names, half(header, 0)? as usize)? == wanted {
                return self.content(header);
            }
        }
        None
    }
}

fn quarter(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(half(bytes, at)?) | u64::from(half(bytes, at.checked_add(4)?)?) << 32)
}

fn string(names: &[u8], at: usize) -> Option<&[u8]> {
    let rest = names.get(at..)?;
    Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::super::compile::compile;
    use super::*;

    /// Those in the repository, by source and bits of the kernel.
    const OBJECTS: [(&str, &str, &[u8]); 4] = [
        ("programs", "64", include_bytes!("programs.o")),
        ("entry", "64", include_bytes!("entry.o")),
        ("programs", "32", include_bytes!("programs32.o")),
        ("entry", "32", include_bytes!("entry32.o")),
    ];

    #[test]
    fn the_objects_are_what_the_sources_compile_to() {
        let version = Command::new("clang").arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let Ok(version) = version else {
            println!("skipped: clang is not installed");
            return;
        };
        if !version.contains("Debian") || !version.contains("version 14.") {
            println!("skipped: another compiler gives other code: {version}");
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        let object = temporary.path().join("object.o");
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/process/ebpf");
        for (source, bits, expected) in OBJECTS {
            let stripped = compile("clang", &directory, source, bits, &object).unwrap();
            if !stripped {
                // Of the package llvm-14, which that of clang recommends.
                println!("skipped: llvm-strip is not installed");
                return;
            }
            let same = std::fs::read(&object).unwrap() == expected;
            assert!(
                same,
                "the {bits}-bit object in the repository is not from this {source}.c: compile it again"
            );
        }
    }

    #[test]
    fn all_programs_are_found_and_name_known_maps() {
        let btf = ["exec", "exit", "socket", "deed"];
        let mut entry = super::super::ENTRY.map(|(section, _)| section).to_vec();
        entry.extend(["send", "called", "returned"]);
        let mut sections: Vec<(&[u8], &str)> = vec![(OBJECT, "exec"), (ENTRY, "arguments")];
        for (source, _, object) in OBJECTS {
            let wanted: &[_] = if source == "entry" { &entry } else { &btf };
            sections.extend(wanted.iter().chain(&["state"]).map(|section| (object, *section)));
        }
        for (object, section) in sections {
            let asked = std::cell::RefCell::new(Vec::new());
            let code = program(object, section, 7, |name| {
                asked.borrow_mut().push(String::from_utf8_lossy(name).into_owned());
                Some(0x0102_0304)
            });
            let code = code.unwrap();
            assert_eq!(code.len() % INSTRUCTION, 0);
            assert!(code.windows(4).any(|bytes| bytes == [4, 3, 2, 1]));
            let mut known =
                vec!["events", "scratch", "counters", "offsets", "parents", "programs", "sockets", "sent"];
            known.push("calls");
            assert!(asked.borrow().iter().all(|name| known.contains(&name.as_str())), "{asked:?}");
        }
        assert_eq!(program(OBJECT, "exec", 0, |_| None), None);
        assert_eq!(program(OBJECT, "else", 0, |_| Some(3)), None);
    }

    proptest! {
        #[test]
        fn a_damaged_object_never_panics(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16)) {
            let mut object = OBJECT.to_vec();
            for (at, byte) in flips {
                let at = at.index(object.len());
                object[at] = byte;
            }
            let _ = program(&object, "exec", 0, |_| Some(3));
        }
    }
}
