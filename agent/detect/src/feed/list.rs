//! A feed's entries: from the bytes of its file to sorted tables.

use core::fmt;
use std::collections::HashMap;
use std::net::IpAddr;

use defender_model::file::Sha256;
use defender_model::text::{from_bytes, printable, truncate};

use super::address::Addresses;
use super::digest::Digests;
use super::domain::Domains;
use super::line::{self, Entry};

/// Longest line read; a longer one is a bad line.
const MAX_LINE: usize = 1024;
/// Bytes of a label that are kept.
const MAX_LABEL: usize = 96;
/// Bytes all labels of a list may take; what exceeds them is listed without its label.
const MAX_LABELS: usize = 512 * 1024;
/// Bytes of names that an entry may take on average.
const NAME_BUDGET: usize = 48;

/// What kind of entries a list may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// Each line says by itself what it is.
    #[default]
    Any,
    /// Addresses and networks.
    Address,
    /// Domain names.
    Domain,
    /// SHA-256 digests of files.
    Sha256,
}

impl Kind {
    fn accepts(self, entry: &Entry<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Address => matches!(entry, Entry::Network(..)),
            Self::Domain => matches!(entry, Entry::Domain { .. }),
            Self::Sha256 => matches!(entry, Entry::Digest(_)),
        }
    }
}

/// Why a list is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedError {
    /// More entries than allowed.
    TooMany {
        /// How many are allowed.
        most: usize,
    },
    /// More bad lines than entries: this is no feed, or one of another format.
    NotAFeed(BadLines),
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { most } => {
                write!(f, "more than the {most} entries that are allowed; shorten the list or raise feeds.max_entries")
            }
            Self::NotAFeed(bad) => {
                write!(
                    f,
                    "more bad lines than entries ({bad}); the format is described in docs/custom-alerts.md"
                )
            }
        }
    }
}

impl std::error::Error for FeedError {}

/// Lines that are no entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BadLines {
    /// How many.
    pub count: usize,
    /// Number of the first, from 1.
    pub line: usize,
    /// What is wrong with the first.
    pub why: &'static str,
}

impl fmt::Display for BadLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bad lines, the first is line {}: {}", self.count, self.line, self.why)
    }
}

/// A listed thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The entry as a feed writes it.
    pub entry: String,
    /// Its label; empty without one.
    pub label: String,
}

/// The entries of one feed.
#[derive(Debug, Clone, Default)]
pub struct List {
    addresses: Addresses,
    domains: Domains,
    digests: Digests,
    labels: Labels,
    bad: BadLines,
}

impl List {
    /// Reads a whole file.
    ///
    /// # Errors
    /// See [`ListBuilder::finish`].
    pub fn parse(bytes: &[u8], kind: Kind, most: usize) -> Result<Self, FeedError> {
        let mut builder = ListBuilder::new(kind, most);
        builder.take(bytes)?;
        builder.finish()
    }

    /// The listed network an address lies in.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> Option<Hit> {
        // Lists of bogus addresses name these; every device speaks to itself.
        if address.to_canonical().is_loopback() || address.is_unspecified() {
            return None;
        }
        let (prefix, label) = self.addresses.find(address)?;
        let (address, whole) = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                (IpAddr::V4((u32::from(v4) & mask).into()), prefix == 32)
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                (IpAddr::V6((u128::from(v6) & mask).into()), prefix == 128)
            }
        };
        let entry = if whole { address.to_string() } else { format!("{address}/{prefix}") };
        Some(Hit { entry, label: self.labels.text(label) })
    }

    /// The listed domain that a name is, or lies below.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<Hit> {
        let listed = self.domains.find(name)?;
        let entry = format!("{}{}", if listed.below { "*." } else { "" }, listed.name);
        Some(Hit { entry, label: self.labels.text(listed.label) })
    }

    /// The digest, if it is listed.
    #[must_use]
    pub fn digest(&self, digest: Sha256) -> Option<Hit> {
        let label = self.digests.find(digest)?;
        Some(Hit { entry: digest.to_string(), label: self.labels.text(label) })
    }

    /// It lists addresses or domains.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        self.addresses.len() + self.domains.len() > 0
    }

    /// It lists digests.
    #[must_use]
    pub fn has_digests(&self) -> bool {
        self.digests.len() > 0
    }

    /// Different entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len() + self.domains.len() + self.digests.len()
    }

    /// Nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory the entries take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.addresses.bytes() + self.domains.bytes() + self.digests.bytes() + self.labels.block.capacity()
    }

    /// Lines that were left out.
    #[must_use]
    pub fn bad_lines(&self) -> BadLines {
        self.bad
    }
}

/// Labels in one block of bytes, equal ones once.
#[derive(Debug, Clone, Default)]
struct Labels {
    block: Vec<u8>,
}

impl Labels {
    /// The label at a place, as [`ListBuilder::label`] gave it out.
    fn text(&self, place: u32) -> String {
        let Some(at) = (place as usize).checked_sub(1) else { return String::new() };
        let text =
            self.block.get(at).and_then(|length| self.block.get(at + 1..at + 1 + usize::from(*length)));
        text.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }
}

/// Takes in a feed's bytes piece by piece, so that no file has to be in memory as a whole.
#[derive(Debug)]
pub struct ListBuilder {
    kind: Kind,
    most: usize,
    list: List,
    entries: usize,
    name_bytes: usize,
    /// Labels seen, and their places.
    places: HashMap<Box<[u8]>, u32>,
    lines: usize,
    /// The line whose end has not come yet.
    begun: Vec<u8>,
    /// It is too long already.
    overlong: bool,
}

impl ListBuilder {
    /// Takes entries of a kind, at most so many.
    #[must_use]
    pub fn new(kind: Kind, most: usize) -> Self {
        Self {
            kind,
            most,
            list: List::default(),
            entries: 0,
            name_bytes: 0,
            places: HashMap::new(),
            lines: 0,
            begun: Vec::new(),
            overlong: false,
        }
    }

    /// Takes in the next bytes of the file.
    ///
    /// # Errors
    /// More entries than allowed; the rest need not be read.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), FeedError> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.append(&rest[..end]);
            self.line()?;
            rest = &rest[end + 1..];
        }
        self.append(rest);
        Ok(())
    }

    /// The file is over.
    ///
    /// # Errors
    /// More entries than allowed, or more bad lines than entries.
    pub fn finish(mut self) -> Result<List, FeedError> {
        if !self.begun.is_empty() || self.overlong {
            self.line()?;
        }
        if self.list.bad.count > self.entries {
            return Err(FeedError::NotAFeed(self.list.bad));
        }
        self.list.addresses.finish();
        self.list.domains.finish();
        self.list.digests.finish();
        self.list.labels.block.shrink_to_fit();
        Ok(self.list)
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.begun.len() + bytes.len() > MAX_LINE {
            self.overlong = true;
            self.begun.clear();
        } else if !self.overlong {
            self.begun.extend_from_slice(bytes);
        }
    }

    fn line(&mut self) -> Result<(), FeedError> {
        self.lines += 1;
        if std::mem::take(&mut self.overlong) {
            self.bad("longer than 1024 bytes");
            return Ok(());
        }
        let line = std::mem::take(&mut self.begun);
        // Editors of other systems begin files with a byte order mark.
        let text = if self.lines == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        let taken = match line::parse(text) {
            Ok(None) => Ok(()),
            Ok(Some((entry, _))) if !self.kind.accepts(&entry) => {
                self.bad("an entry of another kind than the feed is said to hold");
                Ok(())
            }
            Ok(Some((entry, label))) => self.entry(entry, label),
            Err(bad) => {
                self.bad(bad.words());
                Ok(())
            }
        };
        self.begun = line;
        self.begun.clear();
        taken
    }

    fn bad(&mut self, why: &'static str) {
        let bad = &mut self.list.bad;
        bad.count += 1;
        if bad.count == 1 {
            (bad.line, bad.why) = (self.lines, why);
        }
    }

    fn entry(&mut self, entry: Entry<'_>, label: &[u8]) -> Result<(), FeedError> {
        self.entries += 1;
        if let Entry::Domain { name, .. } = entry {
            self.name_bytes += name.len();
        }
        // Long names count as several entries, so that the bound on entries is one on memory.
        if self.entries.max(self.name_bytes / NAME_BUDGET) > self.most {
            return Err(FeedError::TooMany { most: self.most });
        }
        let label = self.label(label);
        match entry {
            Entry::Network(address, prefix) => self.list.addresses.push(address, prefix, label),
            Entry::Domain { name, below } => self.list.domains.push(name, below, label),
            Entry::Digest(digest) => self.list.digests.push(digest, label),
        }
        Ok(())
    }

    /// The place of a label, 0 for none.
    fn label(&mut self, label: &[u8]) -> u32 {
        if label.is_empty() {
            return 0;
        }
        let text = from_bytes(label);
        let text = printable(truncate(&text, MAX_LABEL));
        let text = truncate(&text, 255).as_bytes();
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let block = &mut self.list.labels.block;
        let (Ok(length), Ok(place)) = (u8::try_from(text.len()), u32::try_from(block.len() + 1)) else {
            return 0;
        };
        if block.len() + text.len() >= MAX_LABELS {
            return 0;
        }
        block.push(length);
        block.extend_from_slice(text);
        self.places.insert(text.into(), place);
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hit(entry: &str, label: &str) -> Option<Hit> {
        Some(Hit { entry: entry.into(), label: label.into() })
    }

    #[test]
    fn a_mixed_file() {
        let digest = "0f".repeat(32);
        let text = format!(
            "\u{feff}# my feed\r\n192.0.2.0/24 botnet\r\n\r\n198.51.100.7\r\nbad.example  botnet\r\n*.sub.test \u{1b}[2J\r\n{digest} dropper\r\n\
             not an entry\r\n127.0.0.0/8\r\n2001:db8::/33 v6"
        );
        let list = List::parse(text.as_bytes(), Kind::Any, 100).unwrap();
        assert_eq!(list.address(ip("192.0.2.200")), hit("192.0.2.0/24", "botnet"));
        assert_eq!(list.address(ip("::ffff:198.51.100.7")), hit("198.51.100.7", ""));
        assert_eq!(list.address(ip("2001:db8::5")), hit("2001:db8::/33", "v6"));
        assert_eq!(list.address(ip("127.0.0.1")), None, "a device speaks to itself");
        assert_eq!(list.domain("x.bad.example"), hit("bad.example", "botnet"));
        assert_eq!(list.domain("a.sub.test"), hit("*.sub.test", "\\u{1b}[2J"));
        assert_eq!(list.digest(Sha256([0x0f; 32])), hit(&digest, "dropper"));
        assert_eq!(list.len(), 7);
        let bad = list.bad_lines();
        assert_eq!((bad.count, bad.line), (1, 8), "{bad}");
    }

    #[test]
    fn what_is_not_a_feed_is_refused() {
        let error = List::parse(b"<html>\n<body>\n192.0.2.1\n", Kind::Any, 100).unwrap_err();
        assert!(error.to_string().contains("the first is line 1"), "{error}");
        let error = List::parse(b"192.0.2.1\nbad.example\nworse.example\n", Kind::Address, 100).unwrap_err();
        assert!(error.to_string().contains("line 2: an entry of another kind"), "{error}");
        let error = List::parse(b"192.0.2.1\n192.0.2.2\n192.0.2.3\n", Kind::Any, 2).unwrap_err();
        assert_eq!(error, FeedError::TooMany { most: 2 });
        let long = format!("{}example\n", "abcdefghi.".repeat(20)).repeat(9);
        assert_eq!(List::parse(long.as_bytes(), Kind::Any, 9).unwrap_err(), FeedError::TooMany { most: 9 });
        let list = List::parse(b"# nothing yet\n", Kind::Any, 100).unwrap();
        assert!(
            list.is_empty() && list.domain("a.example").is_none() && list.address(ip("192.0.2.1")).is_none()
        );
    }

    #[test]
    fn long_lines_are_bad_and_take_no_room() {
        let mut builder = ListBuilder::new(Kind::Any, 10);
        builder.take(b"192.0.2.1\n192.0.2.2 ").unwrap();
        for _ in 0..1000 {
            builder.take(&[b'x'; 1000]).unwrap();
        }
        assert!(builder.begun.capacity() <= 2 * MAX_LINE);
        builder.take(b"\n192.0.2.3").unwrap();
        let list = builder.finish().unwrap();
        assert_eq!((list.len(), list.bad_lines().count, list.bad_lines().line), (2, 1, 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever the file, and however it is cut into pieces.
        #[test]
        fn pieces_make_no_difference(
            text in "([a-c0-9.:/# ;\r\n*é]{0,12}\n?|192\\.0\\.2\\.[0-9]\n|[ab]\\.test x\n){0,20}", cuts in prop::collection::vec(0usize..40, 0..8)
        ) {
            let bytes = text.as_bytes();
            let whole = List::parse(bytes, Kind::Any, 50);
            let mut builder = ListBuilder::new(Kind::Any, 50);
            let mut rest = bytes;
            let mut failed = None;
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                failed = failed.or(builder.take(piece).err());
                rest = more;
            }
            failed = failed.or(builder.take(rest).err());
            let pieces = match failed { Some(error) => Err(error), None => builder.finish() };
            match (whole, pieces) {
                (Ok(a), Ok(b)) => {
                    prop_assert_eq!((a.len(), a.bad_lines()), (b.len(), b.bad_lines()));
                    for probe in ["192.0.2.1", "192.0.2.9"] {
                        prop_assert_eq!(a.address(ip(probe)), b.address(ip(probe)));
                    }
                    prop_assert_eq!(a.domain("a.test"), b.domain("a.test"));
                }
                (a, b) => prop_assert_eq!(a.map(|l| l.len()), b.map(|l| l.len())),
            }
        }

        #[test]
        fn any_bytes_are_a_file(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = List::parse(&bytes, Kind::Any, 20);
        }
    }
}
