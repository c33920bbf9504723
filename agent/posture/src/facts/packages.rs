//! Installed packages, by the databases of dpkg, opkg and apk.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};

use crate::root::{Root, Unreadable};

/// Longest database read, in bytes; it is read line by line.
const LIMIT: u64 = 64 << 20;
/// Most packages kept.
const MAX_PACKAGES: usize = 20_000;

/// Names and versions.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    pub(crate) versions: BTreeMap<String, String>,
    /// The database, when there is one.
    pub(crate) from: Option<String>,
}

/// Whose package it is, by purl's word for the kind of its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ecosystem {
    Deb,
    Opkg,
    Apk,
}

/// One installed package.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    pub(crate) license: String,
}

/// Databases, and the beginnings of a record's lines: name, version, state, architecture, licence.
const DATABASES: &[(&str, Ecosystem, [&str; 5])] = &[
    ("/var/lib/dpkg/status", Ecosystem::Deb, CONTROL),
    ("/var/lib/dpkg/status.d/*", Ecosystem::Deb, CONTROL),
    ("/var/lib/opkg/status", Ecosystem::Opkg, CONTROL),
    ("/usr/lib/opkg/status", Ecosystem::Opkg, CONTROL),
    ("/lib/apk/db/installed", Ecosystem::Apk, INDEX),
    ("/usr/lib/apk/db/installed", Ecosystem::Apk, INDEX),
];
const CONTROL: [&str; 5] = ["Package:", "Version:", "Status:", "Architecture:", "License:"];
const INDEX: [&str; 5] = ["P:", "V:", "S\0", "A:", "L:"];

impl Packages {
    pub(crate) fn read(root: &Root) -> Result<Self, Unreadable> {
        let mut packages = Self::default();
        each(root, &mut |from, _, record| {
            packages.from.get_or_insert_with(|| from.to_owned());
            if let Some(record) = record.filter(|_| packages.versions.len() < MAX_PACKAGES) {
                packages.versions.insert(record.name, record.version);
            }
        })?;
        Ok(packages)
    }
}

/// Hands on every database, and after it every package that it says is installed.
pub(crate) fn each(
    root: &Root,
    told: &mut dyn FnMut(&str, Ecosystem, Option<Record>),
) -> Result<(), Unreadable> {
    for (pattern, ecosystem, keys) in DATABASES {
        for path in root.glob(pattern)? {
            let Some((file, _)) = root.open_regular(&path)? else { continue };
            let from = path.display().to_string();
            told(&from, *ecosystem, None);
            records(&mut BufReader::new(file.take(LIMIT)), keys, &mut |record| {
                told(&from, *ecosystem, Some(record));
            })
            .map_err(|error| Unreadable { path: from.clone(), reason: error.to_string() })?;
        }
    }
    Ok(())
}

fn records(
    input: &mut dyn std::io::BufRead,
    keys: &[&str; 5],
    told: &mut dyn FnMut(Record),
) -> std::io::Result<()> {
    let (mut record, mut installed) = (Record::default(), true);
    let mut line = Vec::new();
    loop {
        line.clear();
        let end = input.take(64 * 1024).read_until(b'\n', &mut line)? == 0;
        let text = defender_model::text::from_bytes(&line);
        let text = text.trim_end();
        let value = |key: usize| text.strip_prefix(keys[key]).map(str::trim);
        if text.is_empty() {
            let whole = std::mem::take(&mut record);
            if !whole.name.is_empty() && installed {
                told(whole);
            }
            installed = true;
        } else if let Some(value) = value(0) {
            value.clone_into(&mut record.name);
        } else if let Some(value) = value(1) {
            value.clone_into(&mut record.version);
        } else if let Some(value) = value(2) {
            installed = value.split_whitespace().last() == Some("installed");
        } else if let Some(value) = value(3) {
            value.clone_into(&mut record.architecture);
        } else if let Some(value) = value(4) {
            value.clone_into(&mut record.license);
        }
        if end {
            return Ok(());
        }
    }
}

/// Order of versions by Debian's rules (deb-version(7)), which opkg and apk share for what matters.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let epoch =
        |version: &str| version.split_once(':').and_then(|(epoch, _)| epoch.parse::<u64>().ok()).unwrap_or(0);
    let rest = |version: &str| {
        version.split_once(':').map_or_else(|| version.to_owned(), |(_, rest)| rest.to_owned())
    };
    epoch(a).cmp(&epoch(b)).then_with(|| {
        let (a, b) = (rest(a), rest(b));
        let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
        while !a.is_empty() || !b.is_empty() {
            let weight = |byte: Option<&u8>| match byte {
                Some(b'~') => -1,
                None => 0,
                Some(byte) if byte.is_ascii_digit() => 0,
                Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
                Some(byte) => i32::from(*byte) + 256,
            };
            while a.first().is_some_and(|byte| !byte.is_ascii_digit())
                || b.first().is_some_and(|byte| !byte.is_ascii_digit())
            {
                let order = weight(a.first()).cmp(&weight(b.first()));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
            }
            let digits =
                |text: &[u8]| text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
            let (x, y) = (a.split_at(digits(a)), b.split_at(digits(b)));
            let number = |digits: &[u8]| {
                let at = digits.iter().position(|byte| *byte != b'0').unwrap_or(digits.len());
                digits[at..].to_vec()
            };
            let (left, right) = (number(x.0), number(y.0));
            let order = left.len().cmp(&right.len()).then_with(|| left.cmp(&right));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (x.1, y.1);
        }
        Ordering::Equal
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_databases() {
        let mut found = Vec::new();
        let mut told = |r: Record| found.push([r.name, r.version, r.architecture, r.license]);
        let dpkg = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\nDescription: x\n Package: no\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 2\n";
        records(&mut dpkg.as_bytes(), &CONTROL, &mut told).unwrap();
        records(&mut &b"P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n\n"[..], &INDEX, &mut told).unwrap();
        assert_eq!(found, [["a", "1.0", "amd64", ""], ["musl", "1.2.4-r2", "x86_64", "MIT"]]);
    }

    #[test]
    fn versions_in_debians_order() {
        for (less, more) in [
            ("1.0", "1.1"),
            ("1.9", "1.10"),
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0-1"),
            ("9", "1:1"),
            ("1.0a", "1.0b"),
            ("1.0", "1.0+dfsg"),
            ("1.01", "1.2"),
        ] {
            assert_eq!(compare(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(compare(more, less), Ordering::Greater);
        }
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
    }

    proptest::proptest! {
        #[test]
        fn is_an_order(a in "[0-9a.:~+-]{0,8}", b in "[0-9a.:~+-]{0,8}") {
            proptest::prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            proptest::prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }
}
