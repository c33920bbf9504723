//! How every watched file was when it was last looked at, kept over restarts.
//!
//! The file is text: a line that names the format, one line for each file (type, mode, owner, group, size, time of change, SHA-256,
//! capabilities, path) and a last line with their number and a check sum, so that a file cut off or damaged is known as such. It is
//! written beside the old one and then takes its name: a loss of power leaves one of the two.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use defender_model::file::FileType;

use super::entry::Entry;

const FORMAT: &str = "defender-file-baseline 1";
/// Longest file that is read, in bytes.
const LIMIT: u64 = 32 << 20;
/// Longest path (`PATH_MAX`).
const PATH: usize = 4096;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// A file with the round in which it was last seen.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) entry: Entry,
    /// The round in which it was last met.
    pub(super) round: u32,
    /// Learned from an event of this run, so that what a look found before it is old news.
    pub(super) live: bool,
}

/// Files by path.
pub(super) type Files = BTreeMap<Box<Path>, Known>;

/// Why a baseline cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// There is none.
    Missing,
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is not what was written.
    Damaged,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none"),
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::Damaged => f.write_str("it is cut off or damaged"),
        }
    }
}

/// Reads what an earlier run wrote; at most `max` files.
pub(super) fn read(file: &Path, max: usize) -> Result<Files, Unusable> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
        Err(error) => return Err(Unusable::Unreadable(error)),
    };
    let mut bytes = Vec::new();
    opened.take(LIMIT).read_to_end(&mut bytes).map_err(Unusable::Unreadable)?;
    parse(&bytes, max).ok_or(Unusable::Damaged)
}

/// Writes it, safe against a loss of power.
pub(crate) fn write(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&new)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The text of a baseline.
pub(super) fn text(files: &Files) -> String {
    let mut out = String::with_capacity(files.len() * 160 + 64);
    out.push_str(FORMAT);
    out.push('\n');
    for (path, known) in files {
        let entry = &known.entry;
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{} {:o} {} {} {} {} ",
            letter(entry.file_type),
            entry.mode,
            entry.owner,
            entry.group,
            entry.size,
            entry.changed
        );
        match &entry.sha256 {
            Some(digest) => {
                let _ = write!(out, "{digest}");
            }
            None => out.push('-'),
        }
        out.push(' ');
        if entry.capabilities.is_empty() {
            out.push('-');
        }
        entry.capabilities.iter().for_each(|byte| push_hex(&mut out, *byte));
        out.push(' ');
        for byte in path.as_os_str().as_bytes() {
            if byte.is_ascii_graphic() && *byte != b'%' {
                out.push(char::from(*byte));
            } else {
                out.push('%');
                push_hex(&mut out, *byte);
            }
        }
        out.push('\n');
    }
    let _ = writeln!(out, "end {} {:016x}", files.len(), check(out.as_bytes()));
    out
}

fn push_hex(out: &mut String, byte: u8) {
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// FNV-1a: against accidents, not against people.
pub(crate) fn check(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What [`text`] wrote; `None` where it is anything else.
fn parse(bytes: &[u8], max: usize) -> Option<Files> {
    let text = std::str::from_utf8(bytes).ok()?;
    let end = text.trim_end_matches('\n').rfind('\n')? + 1;
    let (body, last) = text.split_at(end);
    let mut words = last.strip_suffix('\n')?.strip_prefix("end ")?.split(' ');
    let count: usize = words.next()?.parse().ok()?;
    if u64::from_str_radix(words.next()?, 16).ok()? != check(body.as_bytes()) || words.next().is_some() {
        return None;
    }
    let lines = body.strip_prefix(FORMAT)?.strip_prefix('\n')?.lines();
    let mut files = Files::new();
    let mut read = 0;
    for line in lines {
        if read < max {
            let (path, entry) = file(line)?;
            files.insert(path.into(), Known { entry, round: 0, live: false });
        }
        read += 1;
    }
    (read == count).then_some(files)
}

fn file(line: &str) -> Option<(PathBuf, Entry)> {
    let mut words = line.split(' ');
    let entry = Entry {
        file_type: file_type(words.next()?)?,
        mode: u16::from_str_radix(words.next()?, 8).ok()?,
        owner: words.next()?.parse().ok()?,
        group: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        changed: words.next()?.parse().ok()?,
        sha256: match words.next()? {
            "-" => None,
            digits => Some(digits.parse().ok()?),
        },
        capabilities: match words.next()? {
            "-" => Box::default(),
            digits => digits.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>()?.into(),
        },
    };
    let mut path = Vec::new();
    let mut escaped = words.next()?.as_bytes();
    while let Some((first, rest)) = escaped.split_first() {
        escaped = rest;
        if *first == b'%' {
            path.push(byte(rest.get(..2)?)?);
            escaped = &rest[2..];
        } else {
            path.push(*first);
        }
    }
    (path.first() == Some(&b'/') && path.len() <= PATH && words.next().is_none())
        .then(|| (PathBuf::from(std::ffi::OsString::from_vec(path)), entry))
}

fn byte(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| HEX.iter().position(|known| *known == digit);
    match digits {
        [high, low] => u8::try_from(value(*high)? << 4 | value(*low)?).ok(),
        _ => None,
    }
}

/// As `find -type` and `ls -l` have them.
const LETTERS: [(&str, FileType); 8] = [
    ("?", FileType::Unknown),
    ("f", FileType::Regular),
    ("d", FileType::Directory),
    ("c", FileType::CharacterDevice),
    ("b", FileType::BlockDevice),
    ("s", FileType::Socket),
    ("p", FileType::Pipe),
    ("l", FileType::Link),
];

fn letter(file_type: FileType) -> &'static str {
    LETTERS.iter().find(|(_, known)| *known == file_type).map_or("?", |(letter, _)| letter)
}

fn file_type(word: &str) -> Option<FileType> {
    LETTERS.iter().find(|(letter, _)| *letter == word).map(|(_, known)| *known)
}

#[cfg(test)]
mod tests {
    use defender_model::file::Sha256;
    use proptest::prelude::*;

    use super::*;

    fn files(paths: Vec<Vec<u8>>) -> Files {
        let entry = |at: usize| Entry {
            file_type: LETTERS[at % 8].1,
            mode: 0o4755,
            owner: u32::MAX,
            group: 0,
            size: at as u64,
            changed: -1,
            sha256: (at % 2 == 0).then_some(Sha256([at as u8; 32])),
            capabilities: vec![7; at % 3].into(),
        };
        let path =
            |name: Vec<u8>| PathBuf::from(std::ffi::OsString::from_vec([b"/".to_vec(), name].concat()));
        let known = |at| Known { entry: entry(at), round: 0, live: false };
        paths.into_iter().enumerate().map(|(at, name)| (path(name).into(), known(at))).collect()
    }

    fn entries(files: &Files) -> Vec<(&Path, &Entry)> {
        files.iter().map(|(path, known)| (&**path, &known.entry)).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("baseline");
        assert!(matches!(read(&file, 10), Err(Unusable::Missing)));
        let known = files(vec![b"a b".to_vec(), b"%\n\xff".to_vec()]);
        write(&file, &text(&known)).unwrap();
        assert_eq!(entries(&read(&file, 10).unwrap()), entries(&known));
        assert_eq!(read(&file, 1).unwrap().len(), 1, "bounded");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let text = text(&files(vec![b"one".to_vec(), b"two".to_vec()])).into_bytes();
        for cut in 0..text.len() {
            assert!(parse(&text[..cut], 10).is_none(), "{cut}");
        }
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged, 10).is_none(), "{at} of {}", text.len());
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, 10);
            let signed = format!("{FORMAT}\n{}\n", String::from_utf8_lossy(&bytes));
            let _ = parse(format!("{signed}end 1 {:016x}\n", check(signed.as_bytes())).as_bytes(), 10);
        }

        #[test]
        fn any_paths(paths in proptest::collection::vec(proptest::collection::vec(1_u8.., 1..20), 0..8)) {
            let known = files(paths);
            let read = parse(text(&known).as_bytes(), 100).expect("it was written by us");
            prop_assert_eq!(entries(&read), entries(&known));
        }
    }
}
