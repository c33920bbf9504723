//! Sigma's strings: literals with the wildcards `*` and `?`.
//!
//! A backslash makes the next `*`, `?` or backslash a plain character; before any other character it is a plain backslash.
//!
//! Case: `A` to `Z` equal `a` to `z`, every other character equals only itself, unless the modifier `cased` is given. That is
//! exact, needs no tables, and is what SQL's `LIKE` does in SQLite. File names on Linux keep their case, so nothing that matters
//! to a device is missed by not folding `É`.

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// These bytes.
    Literal(Vec<u8>),
    /// Exactly one character: `?`.
    One,
    /// Any number of characters, none included: `*`.
    Many,
}

/// A parsed Sigma string. Adjacent literals are joined, adjacent `*` are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Pattern {
    pub(crate) parts: Vec<Part>,
}

impl Pattern {
    /// Parses wildcards and escapes.
    pub(crate) fn parse(text: &str) -> Self {
        let mut pattern = Self::default();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' => pattern.push(Part::Many),
                '?' => pattern.push(Part::One),
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\')) => pattern.push_char(c),
                    Some(c) => {
                        pattern.push_char('\\');
                        pattern.push_char(c);
                    }
                    None => pattern.push_char('\\'),
                },
                c => pattern.push_char(c),
            }
        }
        pattern
    }

    /// A pattern without wildcards.
    pub(crate) fn literal(bytes: Vec<u8>) -> Self {
        let mut pattern = Self::default();
        if !bytes.is_empty() {
            pattern.parts.push(Part::Literal(bytes));
        }
        pattern
    }

    pub(crate) fn push(&mut self, part: Part) {
        match (self.parts.last_mut(), part) {
            (Some(Part::Literal(last)), Part::Literal(more)) => last.extend_from_slice(&more),
            (Some(Part::Many), Part::Many) => {}
            (_, part) => self.parts.push(part),
        }
    }

    fn push_char(&mut self, c: char) {
        let mut buffer = [0; 4];
        self.push(Part::Literal(c.encode_utf8(&mut buffer).as_bytes().to_vec()));
    }

    /// `*` before it, unless it is there.
    pub(crate) fn open_start(&mut self) {
        if self.parts.first() != Some(&Part::Many) {
            self.parts.insert(0, Part::Many);
        }
    }

    /// `*` after it, unless it is there.
    pub(crate) fn open_end(&mut self) {
        if self.parts.last() != Some(&Part::Many) {
            self.parts.push(Part::Many);
        }
    }

    /// The bytes of a pattern without wildcards.
    pub(crate) fn as_literal(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(&[]),
            [Part::Literal(bytes)] => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn has_wildcards(&self) -> bool {
        self.as_literal().is_none()
    }

    /// Bytes of its literals.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|p| if let Part::Literal(l) = p { l.len() } else { 1 }).sum()
    }
}

/// Bytes equal, ASCII letters of either case unless `cased`.
pub(crate) fn equal(a: &[u8], b: &[u8], cased: bool) -> bool {
    if cased {
        a == b
    } else {
        a.eq_ignore_ascii_case(b)
    }
}

/// `value` contains `literal`.
pub(crate) fn contains(value: &[u8], literal: &[u8], cased: bool) -> bool {
    literal.is_empty() || value.windows(literal.len()).any(|window| equal(window, literal, cased))
}

/// The whole `value` matches the pattern.
///
/// The pattern falls into pieces at its `*`; each piece is put at the first place it fits, left to right, which is right because
/// `*` takes anything. Work is at most the length of the value times the longest piece, and a piece is bounded by the rule.
pub(crate) fn matches(parts: &[Part], value: &str, cased: bool) -> bool {
    let value = value.as_bytes();
    let mut pieces = parts.split(|p| *p == Part::Many);
    let first = pieces.next().unwrap_or_default();
    let Some(mut at) = piece_at(first, value, 0, cased) else { return false };
    let Some(last) = pieces.next_back() else { return at == value.len() };
    for piece in pieces {
        match find_piece(piece, value, at, cased) {
            Some(end) => at = end,
            None => return false,
        }
    }
    ends_with_piece(last, value, at, cased)
}

/// End of `piece` when it starts at byte `at`.
fn piece_at(piece: &[Part], value: &[u8], mut at: usize, cased: bool) -> Option<usize> {
    for part in piece {
        match part {
            Part::Literal(bytes) => {
                let end = at.checked_add(bytes.len())?;
                if !equal(value.get(at..end)?, bytes, cased) {
                    return None;
                }
                at = end;
            }
            Part::One => at += character_length(*value.get(at)?),
            Part::Many => return None,
        }
    }
    (at <= value.len()).then_some(at)
}

/// End of the first place at or after `from` where `piece` fits.
fn find_piece(piece: &[Part], value: &[u8], from: usize, cased: bool) -> Option<usize> {
    (from..=value.len()).filter(|i| is_boundary(value, *i)).find_map(|i| piece_at(piece, value, i, cased))
}

/// `piece` fits at the very end, not before `from`.
fn ends_with_piece(piece: &[Part], value: &[u8], from: usize, cased: bool) -> bool {
    let mut start = value.len();
    for part in piece.iter().rev() {
        let back = match part {
            Part::Literal(bytes) => bytes.len(),
            Part::One => {
                let mut n = 1;
                while start > n && !is_boundary(value, start - n) {
                    n += 1;
                }
                n
            }
            Part::Many => return false,
        };
        match start.checked_sub(back) {
            Some(s) if s >= from => start = s,
            _ => return false,
        }
    }
    piece_at(piece, value, start, cased) == Some(value.len())
}

fn is_boundary(value: &[u8], at: usize) -> bool {
    // Continuation bytes of UTF-8 are 10xxxxxx.
    value.get(at).is_none_or(|b| b & 0xc0 != 0x80)
}

fn character_length(lead: u8) -> usize {
    match lead {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches_text(pattern: &str, value: &str) -> bool {
        matches(&Pattern::parse(pattern).parts, value, false)
    }

    #[test]
    fn wildcards_and_escapes() {
        assert!(matches_text("*/wget", "/usr/bin/WGET"));
        assert!(!matches_text("*/wget", "/usr/bin/wget2"));
        assert!(matches_text("a?c", "aßc"));
        assert!(!matches_text("a?c", "ac"));
        assert!(matches_text(r"\*\?", "*?"));
        assert!(!matches_text(r"\*", "x"));
        assert!(matches_text(r"c:\dir\\*", r"c:\dir\x"));
        assert!(matches_text("a*b*c", "aXbYbZc"));
        assert!(!matches_text("ab*bc", "abc"));
        assert!(matches_text("*?", "é"));
        assert!(!matches_text("*?", ""));
        assert!(matches_text("*", ""));
        assert!(matches_text("", ""));
        assert!(!matches_text("", "x"));
    }

    #[test]
    fn only_ascii_letters_fold() {
        assert!(matches_text("straße.SH", "STRAßE.sh"));
        assert!(!matches_text("é", "É"));
        // U+212A KELVIN SIGN lower-cases to `k` in Unicode; here it does not equal it.
        assert!(!matches_text("k", "\u{212a}"));
        assert!(!matches(&Pattern::parse("Wget").parts, "wget", true));
    }

    /// The definition, written down without regard to speed.
    fn reference(pattern: &[Part], value: &[char]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some((Part::Many, rest)) => (0..=value.len()).any(|i| reference(rest, &value[i..])),
            Some((Part::One, rest)) => !value.is_empty() && reference(rest, &value[1..]),
            Some((Part::Literal(bytes), rest)) => {
                let literal: Vec<char> = std::str::from_utf8(bytes).unwrap().chars().collect();
                value.len() >= literal.len()
                    && value.iter().zip(&literal).all(|(a, b)| a.eq_ignore_ascii_case(b))
                    && reference(rest, &value[literal.len()..])
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_the_definition(pattern in "[aAbß*?\\\\]{0,8}", value in "[aAbBß\\\\?]{0,10}") {
            let parsed = Pattern::parse(&pattern);
            let chars: Vec<char> = value.chars().collect();
            prop_assert_eq!(matches(&parsed.parts, &value, false), reference(&parsed.parts, &chars));
        }

        #[test]
        fn finds_literals(literal in "[aAb]{0,3}", value in "[abAB]{0,8}") {
            let expected = value.to_ascii_lowercase().contains(&literal.to_ascii_lowercase());
            prop_assert_eq!(contains(value.as_bytes(), literal.as_bytes(), false), expected);
            prop_assert_eq!(contains(value.as_bytes(), literal.as_bytes(), true), value.contains(&literal));
        }
    }
}
