//! Bytes from outside to text, and text to a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Text of bytes that came from outside: valid UTF-8 as it is, every other byte as the four characters `\xHH`.
///
/// Nothing is lost to U+FFFD, so two different file names stay different. The escape is not itself escaped: an argument
/// that spells out `\xff` reads the same as one that holds the byte 0xff, which no rule needs to tell apart.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => escape_invalid(bytes),
    }
}

/// Like [`from_bytes`], keeping the allocation when the bytes are valid UTF-8.
#[must_use]
pub fn from_vec(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| escape_invalid(e.as_bytes()))
}

fn escape_invalid(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Text that is safe on a terminal and in a log line: control characters (C0, DEL, C1), line and paragraph separators and the
/// characters that reorder text (bidirectional controls) are escaped, everything else stays.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The last part of a path, without its directories.
#[must_use]
pub fn file_name(path: &str) -> &str {
    // Most names are short: to look at each byte is quicker than a search made for long texts.
    let start = path.bytes().rposition(|byte| byte == b'/').map_or(0, |slash| slash + 1);
    &path[start..]
}

/// The longest prefix of `text` of at most `max` bytes that ends on a character boundary.
#[must_use]
pub fn truncate(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The known word a misspelt one was most likely meant to be; `None` when more than half of it would have to change.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, known) = known.map(|known| (distance(wrong, known), known)).min()?;
    (distance <= wrong.len().max(known.len()) / 2).then_some(known)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_valid_text_and_escapes_the_rest() {
        assert_eq!(from_bytes("größe".as_bytes()), "größe");
        assert_eq!(from_bytes(b"a\xffb\xc3"), "a\\xffb\\xc3");
        assert_eq!(from_vec(b"\xed\xa0\x80".to_vec()), "\\xed\\xa0\\x80");
    }

    #[test]
    fn terminal_escapes_never_pass() {
        assert_eq!(printable("plain größe"), "plain größe");
        assert_eq!(printable("\x1b[2Jx\u{9b}y\n\u{202e}"), "\\u{1b}[2Jx\\u{9b}y\\n\\u{202e}");
    }

    #[test]
    fn finds_the_word_that_was_meant() {
        let known = || ["mode_max", "owner", "group"].into_iter();
        assert_eq!(nearest("mode-max", known()), Some("mode_max"));
        assert_eq!(nearest("onwer", known()), Some("owner"));
        assert_eq!(nearest("zzzzzzzz", known()), None);
        assert_eq!(nearest("a", [].into_iter()), None);
    }

    #[test]
    fn truncates_on_a_character() {
        assert_eq!(truncate("aß", 2), "a");
        assert_eq!(truncate("aß", 3), "aß");
    }
}
