//! Domain names in one block of bytes, found by hash.
//!
//! A name and all domains above it are looked up in one pass from its end: the hash runs over the bytes backwards, so that at each
//! dot it is the hash of the domain that begins there.

use std::ops::Range;

/// Longest domain name (RFC 1035 section 2.3.4, in text without the final dot).
pub(super) const MAX_NAME: usize = 253;
/// Bytes before a name in the block: its length, and where its label is.
const HEADER: usize = 5;
/// Set beside the label of `*.name`: what lies below the name is listed, the name itself is not.
const BELOW: u32 = 1 << 31;

/// Domain names, lower case.
#[derive(Debug, Clone, Default)]
pub(super) struct Domains {
    block: Vec<u8>,
    /// Open addressing: place of an entry in the block plus one; 0 is free. A power of two long.
    table: Vec<u32>,
    count: usize,
}

/// A listed domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed<'a> {
    pub(super) name: &'a str,
    pub(super) below: bool,
    pub(super) label: u32,
}

/// FNV-1a, one byte further.
fn step(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
}

const START: u32 = 0x811c_9dc5;

/// FNV's low bits are its worst.
fn spread(hash: u32) -> usize {
    let hash = (hash ^ hash >> 15).wrapping_mul(0x2c1b_3c6d);
    (hash ^ hash >> 13) as usize
}

impl Domains {
    /// Adds a name of at most [`MAX_NAME`] bytes; `below`: only what lies below it.
    pub(super) fn push(&mut self, name: &[u8], below: bool, label: u32) {
        let Ok(length) = u8::try_from(name.len()) else { return };
        self.block.push(length);
        self.block.extend_from_slice(&(label | if below { BELOW } else { 0 }).to_le_bytes());
        self.block.extend(name.iter().map(u8::to_ascii_lowercase));
        self.count += 1;
    }

    /// Makes look-ups possible. Of equal names the first stays; `name` and `*.name` are `name`.
    pub(super) fn finish(&mut self) {
        self.block.shrink_to_fit();
        // At most two thirds full: chains stay short.
        self.table = vec![0; (self.count + self.count / 2 + 1).next_power_of_two()];
        self.count = 0;
        let mut at = 0;
        while let Some(length) = self.block.get(at) {
            let next = at + HEADER + usize::from(*length);
            self.index(at);
            at = next;
        }
    }

    fn index(&mut self, at: usize) {
        let mask = self.table.len() - 1;
        let name = self.name_at(at);
        let hash = self.block[name.clone()].iter().rev().fold(START, |hash, byte| step(hash, *byte));
        let mut slot = spread(hash) & mask;
        while let Some(known) = (self.table[slot] as usize).checked_sub(1) {
            if self.block[self.name_at(known)] == self.block[name.clone()] {
                // The highest byte of the label holds the mark.
                self.block[known + 4] &= self.block[at + 4] | 0x7f;
                return;
            }
            slot = (slot + 1) & mask;
        }
        // The block is bounded to far less than 4 GiB by whoever fills it.
        self.table[slot] = u32::try_from(at + 1).unwrap_or(0);
        self.count += 1;
    }

    fn name_at(&self, at: usize) -> Range<usize> {
        at + HEADER..at + HEADER + usize::from(self.block[at])
    }

    /// The listed domain that the name is, or lies below; the longest of them.
    pub(super) fn find(&self, name: &str) -> Option<Listed<'_>> {
        if self.count == 0 {
            return None;
        }
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let mask = self.table.len() - 1;
        let mut best = None;
        let mut hash = START;
        for start in (name.len().saturating_sub(MAX_NAME)..name.len()).rev() {
            hash = step(hash, name[start]);
            let whole = start == 0;
            if !whole && name[start - 1] != b'.' {
                continue;
            }
            let mut slot = spread(hash) & mask;
            while let Some(at) = (self.table[slot] as usize).checked_sub(1) {
                if self.block[self.name_at(at)].eq_ignore_ascii_case(&name[start..]) {
                    if !whole || self.label_at(at) & BELOW == 0 {
                        best = Some(at);
                    }
                    break;
                }
                slot = (slot + 1) & mask;
            }
        }
        best.map(|at| {
            let label = self.label_at(at);
            Listed {
                // Only ASCII is taken in.
                name: std::str::from_utf8(&self.block[self.name_at(at)]).unwrap_or_default(),
                below: label & BELOW != 0,
                label: label & !BELOW,
            }
        })
    }

    fn label_at(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.block[at + 1..at + HEADER]);
        u32::from_le_bytes(bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.block.capacity() + self.table.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domains(names: &[&str]) -> Domains {
        let mut all = Domains::default();
        for (name, label) in names.iter().zip(1..) {
            let below = name.strip_prefix("*.");
            all.push(below.unwrap_or(name).as_bytes(), below.is_some(), label);
        }
        all.finish();
        all
    }

    #[test]
    fn a_name_stands_for_all_below_it() {
        let all =
            domains(&["bad.example", "*.worse.example", "deep.bad.example", "Twice.test", "*.twice.test"]);
        let find = |name| all.find(name).map(|listed| (listed.name, listed.below, listed.label));
        assert_eq!(find("bad.example"), Some(("bad.example", false, 1)));
        assert_eq!(find("A.BAD.example."), Some(("bad.example", false, 1)));
        assert_eq!(find("x.deep.bad.example"), Some(("deep.bad.example", false, 3)));
        assert_eq!(find("worse.example"), None);
        assert_eq!(find("a.worse.example"), Some(("worse.example", true, 2)));
        assert_eq!(find("notbad.example"), None);
        assert_eq!(find("bad.example.com"), None);
        assert_eq!(find("twice.test"), Some(("twice.test", false, 4)));
        assert_eq!(find("x.twice.test"), Some(("twice.test", false, 4)));
        assert_eq!((find(""), find("."), find("example"), all.len()), (None, None, None, 4));
        assert_eq!(Domains::default().find("bad.example"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Against the definition: every listed name compared.
        #[test]
        fn agrees_with_looking_at_every_name(
            names in prop::collection::vec("(\\*\\.)?[ab]{1,2}(\\.[abc]){1,3}", 0..30),
            probes in prop::collection::vec("[aAbc]{1,2}(\\.[abcB]){0,4}\\.?", 1..30)
        ) {
            let all = domains(&names.iter().map(String::as_str).collect::<Vec<_>>());
            for probe in probes {
                let plain = probe.trim_end_matches('.').to_ascii_lowercase();
                let listed = names.iter().any(|name| match name.strip_prefix("*.") {
                    Some(below) => plain.ends_with(&format!(".{below}")),
                    None => plain == *name || plain.ends_with(&format!(".{name}")),
                });
                prop_assert_eq!(all.find(&probe).is_some(), listed, "{}", probe);
            }
        }
    }
}
