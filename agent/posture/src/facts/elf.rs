//! Hardening of a program, by its ELF headers (gABI; LSB's GNU_RELRO and GNU_STACK). Every size in the file is taken for a lie: nothing is
//! read or allocated beyond a bound.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Most program headers looked at.
const MAX_HEADERS: usize = 512;
/// Most bytes of the dynamic section looked at.
const MAX_DYNAMIC: u64 = 64 * 1024;
/// Most bytes of names looked through.
const MAX_NAMES: u64 = 8 << 20;

/// How far relocations are read-only after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Relro {
    None,
    /// All but the lazily bound.
    Partial,
    /// All of them.
    Full,
}

/// What the headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hardening {
    /// It is a program, not a library or an object.
    pub(crate) program: bool,
    pub(crate) pie: bool,
    /// `None` for a program without a dynamic section.
    pub(crate) relro: Option<Relro>,
    /// The stack is not executable.
    pub(crate) nx: bool,
    /// It calls what stack protectors call; `None` where no names are left to tell by.
    pub(crate) canary: Option<bool>,
    /// It calls checked variants of the C library's functions.
    pub(crate) fortify: Option<bool>,
    /// Run paths, in the order of the file.
    pub(crate) run_paths: Vec<String>,
}

/// Class and byte order of a file.
#[derive(Clone, Copy)]
struct Layout {
    wide: bool,
    little: bool,
}

impl Layout {
    fn number(self, bytes: &[u8], at: usize, length: usize) -> u64 {
        let Some(bytes) = bytes.get(at..at + length) else { return 0 };
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if self.little {
            bytes.iter().rev().fold(0, add)
        } else {
            bytes.iter().fold(0, add)
        }
    }

    /// A word of the class: 4 or 8 bytes.
    fn word(self, bytes: &[u8], at: usize) -> u64 {
        self.number(bytes, at, self.size())
    }

    const fn size(self) -> usize {
        if self.wide {
            8
        } else {
            4
        }
    }
}

/// One program header.
#[derive(Clone, Copy)]
struct Segment {
    kind: u64,
    flags: u64,
    offset: u64,
    address: u64,
    length: u64,
}

/// Reads a file's hardening; `None` for what is not ELF.
///
/// # Errors
/// It is ELF and damaged, or cannot be read.
pub(crate) fn read(file: &File) -> io::Result<Option<Hardening>> {
    let mut head = [0; 64];
    let length = read_some(file, &mut head, 0)?;
    if length < 52 || head[..4] != *b"\x7fELF" {
        return Ok(None);
    }
    let layout = match (head[4], head[5]) {
        (class @ (1 | 2), order @ (1 | 2)) => Layout { wide: class == 2, little: order == 1 },
        _ => return Err(damaged("its class or byte order")),
    };
    let kind = layout.number(&head, 16, 2);
    let segments = segments(file, &head, layout)?;
    let find = |kind: u64| segments.iter().find(|segment| segment.kind == kind);
    let dynamic = match find(2) {
        Some(segment) => dynamic(file, segment, layout)?,
        None => Vec::new(),
    };
    let value = |tag: u64| dynamic.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value);
    let interpreter = find(3).is_some();
    let flags_1 = value(0x6fff_fffb).unwrap_or_default();
    let program = kind == 2 || (kind == 3 && (interpreter || flags_1 & 0x0800_0000 != 0));
    let now = value(24).is_some() || value(30).unwrap_or_default() & 8 != 0 || flags_1 & 1 != 0;
    let relro = match (dynamic.is_empty(), find(0x6474_e552)) {
        (true, _) => None,
        (false, None) => Some(Relro::None),
        (false, Some(_)) if now => Some(Relro::Full),
        (false, Some(_)) => Some(Relro::Partial),
    };
    let names = Names::find(&segments, value(5), value(10));
    let seen = names.map(|names| names.look(file)).transpose()?;
    let run_paths = match names {
        Some(names) => {
            let tags = dynamic.iter().filter(|(tag, _)| matches!(tag, 15 | 29));
            tags.map(|(_, at)| names.at(file, *at)).collect::<io::Result<_>>()?
        }
        None => Vec::new(),
    };
    Ok(Some(Hardening {
        program,
        pie: kind == 3,
        relro,
        // Without the header the stack is executable on most machines.
        nx: find(0x6474_e551).is_some_and(|segment| segment.flags & 1 == 0),
        canary: seen.map(|seen| seen.canary),
        fortify: seen.map(|seen| seen.fortify),
        run_paths,
    }))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a damaged ELF file: {what}"))
}

/// Reads up to a buffer's length at an offset.
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // An offset beyond what the kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn segments(file: &File, head: &[u8], layout: Layout) -> io::Result<Vec<Segment>> {
    let (start, size_at) =
        if layout.wide { (layout.word(head, 32), 54) } else { (layout.word(head, 28), 42) };
    let size = usize::try_from(layout.number(head, size_at, 2)).unwrap_or_default();
    let count = usize::try_from(layout.number(head, size_at + 2, 2)).unwrap_or_default();
    let least = if layout.wide { 56 } else { 32 };
    if count == 0 {
        return Ok(Vec::new());
    }
    if size < least || count > MAX_HEADERS {
        return Err(damaged("its program headers"));
    }
    let mut table = vec![0; size * count];
    if read_some(file, &mut table, start)? < table.len() {
        return Err(damaged("its program headers end too early"));
    }
    let segment = |entry: &[u8]| {
        let kind = layout.number(entry, 0, 4);
        match layout.wide {
            true => Segment {
                kind,
                flags: layout.number(entry, 4, 4),
                offset: layout.word(entry, 8),
                address: layout.word(entry, 16),
                length: layout.word(entry, 32),
            },
            false => Segment {
                kind,
                flags: layout.number(entry, 24, 4),
                offset: layout.word(entry, 4),
                address: layout.word(entry, 8),
                length: layout.word(entry, 16),
            },
        }
    };
    Ok(table.chunks_exact(size).map(segment).collect())
}

/// Tags and values of the dynamic section.
fn dynamic(file: &File, segment: &Segment, layout: Layout) -> io::Result<Vec<(u64, u64)>> {
    let length = usize::try_from(segment.length.min(MAX_DYNAMIC)).unwrap_or_default();
    let mut bytes = vec![0; length];
    let read = read_some(file, &mut bytes, segment.offset)?;
    bytes.truncate(read);
    let size = layout.size();
    let entries = bytes.chunks_exact(2 * size).map(|entry| (layout.word(entry, 0), layout.word(entry, size)));
    Ok(entries.take_while(|(tag, _)| *tag != 0).collect())
}

/// The strings that names of dynamic symbols are in.
#[derive(Clone, Copy)]
struct Names {
    offset: u64,
    length: u64,
}

#[derive(Clone, Copy)]
struct Seen {
    canary: bool,
    fortify: bool,
}

impl Names {
    fn find(segments: &[Segment], address: Option<u64>, length: Option<u64>) -> Option<Self> {
        let (address, length) = (address?, length?);
        let within = |segment: &&Segment| {
            segment.kind == 1
                && (segment.address..segment.address.saturating_add(segment.length)).contains(&address)
        };
        let segment = segments.iter().find(within)?;
        Some(Self {
            offset: segment.offset.saturating_add(address - segment.address),
            length: length.min(MAX_NAMES),
        })
    }

    /// Looks through the names, a piece at a time; a name may lie across two pieces.
    fn look(self, file: &File) -> io::Result<Seen> {
        const PIECE: usize = 16 * 1024;
        const LONGEST: usize = 64;
        let mut seen = Seen { canary: false, fortify: false };
        let (mut buffer, mut kept, mut at) = (vec![0; PIECE + LONGEST], 0, 0_u64);
        while at < self.length {
            let wanted = usize::try_from(self.length - at).unwrap_or(PIECE).min(PIECE);
            let read = read_some(file, &mut buffer[kept..kept + wanted], self.offset.saturating_add(at))?;
            if read == 0 {
                break;
            }
            for name in buffer[..kept + read].split(|byte| *byte == 0) {
                seen.canary |= name.starts_with(b"__stack_chk_fail")
                    || name == b"__stack_chk_guard"
                    || name == b"__stack_smash_handler";
                seen.fortify |= name.len() > 6 && name.starts_with(b"__") && name.ends_with(b"_chk");
            }
            at += read as u64;
            let end = kept + read;
            kept = LONGEST.min(end);
            buffer.copy_within(end - kept..end, 0);
        }
        Ok(seen)
    }

    /// The string at a place.
    fn at(self, file: &File, place: u64) -> io::Result<String> {
        if place >= self.length {
            return Err(damaged("a run path lies outside of its strings"));
        }
        let mut bytes = vec![0; 1024];
        let read = read_some(file, &mut bytes, self.offset.saturating_add(place))?;
        let text = bytes[..read].split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(defender_model::text::from_bytes(text))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn of(bytes: &[u8]) -> io::Result<Option<Hardening>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read(&file)
    }

    /// A file of both classes and orders, with the segments and dynamic entries asked for.
    fn made(
        wide: bool,
        little: bool,
        kind: u16,
        segments: &[(u32, u32)],
        dynamic: &[(u64, u64)],
        names: &[u8],
    ) -> Vec<u8> {
        let put = |out: &mut Vec<u8>, value: u64, length: usize| {
            let bytes = value.to_be_bytes();
            let bytes = &bytes[8 - length..];
            if little {
                out.extend(bytes.iter().rev());
            } else {
                out.extend(bytes);
            }
        };
        let word = if wide { 8 } else { 4 };
        let (head, entry) = if wide { (64, 56) } else { (52, 32) };
        let count = segments.len() + 2;
        let dynamic_at = head + count * entry;
        let names_at = dynamic_at + (dynamic.len() + 3) * 2 * word;
        let mut out = b"\x7fELF".to_vec();
        out.extend([if wide { 2 } else { 1 }, if little { 1 } else { 2 }, 1]);
        out.resize(16, 0);
        put(&mut out, u64::from(kind), 2);
        put(&mut out, 62, 2);
        put(&mut out, 1, 4);
        put(&mut out, 0, word);
        put(&mut out, head as u64, word);
        put(&mut out, 0, word);
        put(&mut out, 0, 4);
        for value in [head, entry, count, 0, 0, 0] {
            put(&mut out, value as u64, 2);
        }
        let segment = |out: &mut Vec<u8>, kind: u32, flags: u32, offset: u64, length: u64| {
            put(out, u64::from(kind), 4);
            if wide {
                put(out, u64::from(flags), 4);
            }
            for value in [offset, offset, offset, length, length] {
                put(out, value, word);
            }
            if !wide {
                put(out, u64::from(flags), 4);
            }
            put(out, 1, word);
        };
        segment(&mut out, 1, 5, 0, (names_at + names.len()) as u64);
        segment(&mut out, 2, 6, dynamic_at as u64, (names_at - dynamic_at) as u64);
        for (kind, flags) in segments {
            segment(&mut out, *kind, *flags, 0, 0);
        }
        assert_eq!(out.len(), dynamic_at);
        for (tag, value) in
            [(5, names_at as u64), (10, names.len() as u64)].iter().chain(dynamic).chain(&[(0, 0)])
        {
            put(&mut out, *tag, word);
            put(&mut out, *value, word);
        }
        out.extend(names);
        out
    }

    #[test]
    fn reads_both_classes_and_orders() {
        for (wide, little) in [(true, true), (true, false), (false, true), (false, false)] {
            let good = made(
                wide,
                little,
                3,
                &[(3, 4), (0x6474_e552, 4), (0x6474_e551, 6)],
                &[(24, 0), (29, 1)],
                b"\0/opt/lib\0__stack_chk_fail\0__printf_chk\0",
            );
            let found = of(&good).unwrap().unwrap();
            let wanted = Hardening {
                program: true,
                pie: true,
                relro: Some(Relro::Full),
                nx: true,
                canary: Some(true),
                fortify: Some(true),
                run_paths: vec!["/opt/lib".into()],
            };
            assert_eq!(found, wanted, "wide {wide} little {little}");
            let bad = made(wide, little, 2, &[(3, 4), (0x6474_e551, 7)], &[], b"\0puts\0");
            let found = of(&bad).unwrap().unwrap();
            let wanted = Hardening {
                program: true,
                pie: false,
                relro: Some(Relro::None),
                nx: false,
                canary: Some(false),
                fortify: Some(false),
                run_paths: Vec::new(),
            };
            assert_eq!(found, wanted);
            let lazy = made(wide, little, 3, &[(0x6474_e552, 4)], &[], b"\0");
            let found = of(&lazy).unwrap().unwrap();
            assert_eq!((found.program, found.relro), (false, Some(Relro::Partial)));
        }
    }

    #[test]
    fn reads_this_very_program() {
        let found = read(&File::open("/proc/self/exe").unwrap()).unwrap().unwrap();
        assert!(found.program && found.nx && found.pie, "{found:?}");
    }

    #[test]
    fn lies_about_sizes_are_found_out() {
        assert_eq!(of(b"#!/bin/sh\n").unwrap(), None);
        assert_eq!(of(b"\x7fELF").unwrap(), None);
        let mut file = made(true, true, 3, &[], &[], b"\0");
        file[56..58].copy_from_slice(&[0xff, 0xff]);
        assert!(of(&file).is_err(), "65535 program headers");
        let mut file = made(true, true, 3, &[], &[], b"\0");
        file[32..40].fill(0xff);
        assert!(of(&file).is_err(), "program headers beyond the end");
        let file = made(true, true, 3, &[], &[(10, u64::MAX), (29, u64::MAX - 1)], b"\0");
        assert!(of(&file).is_err(), "a run path beyond its strings");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(changes in proptest::collection::vec((0..400_usize, proptest::prelude::any::<u8>()), 0..20), wide: bool, little: bool) {
            let mut file = made(wide, little, 3, &[(3, 4), (0x6474_e552, 4)], &[(24, 0), (29, 1)], b"\0/opt/lib\0__stack_chk_fail\0");
            for (at, byte) in changes {
                let length = file.len();
                file[at % length] = byte;
            }
            let _ = of(&file);
        }
    }
}
