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

/// Databases and the letters of a record's name, version and state.
const DATABASES: &[(&str, [&str; 3])] = &[
    ("/var/lib/dpkg/status", ["Package:", "Version:", "Status:"]),
    ("/var/lib/dpkg/status.d/*", ["Package:", "Version:", "Status:"]),
    ("/var/lib/opkg/status", ["Package:", "Version:", "Status:"]),
    ("/usr/lib/opkg/status", ["Package:", "Version:", "Status:"]),
    ("/lib/apk/db/installed", ["P:", "V:", "S\0"]),
    ("/usr/lib/apk/db/installed", ["P:", "V:", "S\0"]),
];

impl Packages {
    pub(crate) fn read(root: &Root) -> Result<Self, Unreadable> {
        let mut packages = Self::default();
        for (pattern, keys) in DATABASES {
            for path in root.glob(pattern)? {
                let Some((file, _)) = root.open_regular(&path)? else { continue };
                let from = path.display().to_string();
                let failed =
                    |error: std::io::Error| Unreadable { path: from.clone(), reason: error.to_string() };
                packages.add(BufReader::new(file.take(LIMIT)), keys).map_err(failed)?;
                packages.from.get_or_insert(from);
            }
        }
        Ok(packages)
    }

    fn add(&mut self, input: impl std::io::BufRead, keys: &[&str; 3]) -> std::io::Result<()> {
        let (mut name, mut version, mut installed) = (String::new(), String::new(), true);
        let mut input = input;
        let mut line = Vec::new();
        loop {
            line.clear();
            let end = input.by_ref().take(64 * 1024).read_until(b'\n', &mut line)? == 0;
            let text = defender_model::text::from_bytes(&line);
            let text = text.trim_end();
            if text.is_empty() {
                if !name.is_empty() && installed && self.versions.len() < MAX_PACKAGES {
                    self.versions.insert(std::mem::take(&mut name), std::mem::take(&mut version));
                }
                (name, version, installed) = (String::new(), String::new(), true);
            } else if let Some(value) = text.strip_prefix(keys[0]) {
                value.trim().clone_into(&mut name);
            } else if let Some(value) = text.strip_prefix(keys[1]) {
                value.trim().clone_into(&mut version);
            } else if let Some(value) = text.strip_prefix(keys[2]) {
                installed = value.split_whitespace().last() == Some("installed");
            }
            if end {
                return Ok(());
            }
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
        let mut packages = Packages::default();
        let dpkg = "Package: a\nStatus: install ok installed\nVersion: 1.0\nDescription: x\n Package: no\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 2\n";
        packages.add(dpkg.as_bytes(), &DATABASES[0].1).unwrap();
        packages.add(&b"P:musl\nV:1.2.4-r2\n\n"[..], &DATABASES[4].1).unwrap();
        assert_eq!(
            packages.versions.into_iter().collect::<Vec<_>>(),
            [("a".into(), "1.0".into()), ("musl".into(), "1.2.4-r2".into())]
        );
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
