//! What the encoding modifiers do to a value: Base64, UTF-16, dashes.

use crate::error::Cause;
use crate::pattern::{Part, Pattern};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648 section 4).
pub(crate) fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(ALPHABET[(word >> (18 - 6 * i) & 63) as usize]);
            } else {
                out.push(b'=');
            }
        }
    }
    out
}

/// The three texts one of which Base64 contains when the encoded data contains `bytes`: one for each position modulo three, without
/// the characters that also depend on what stands before or after.
pub(crate) fn base64_offsets(bytes: &[u8]) -> [Vec<u8>; 3] {
    [0, 1, 2].map(|shift| {
        let mut padded = vec![b' '; shift];
        padded.extend_from_slice(bytes);
        let encoded = base64(&padded);
        let start = [0, 2, 3][shift];
        let end = encoded.len() - [0, 3, 2][padded.len() % 3];
        encoded.get(start..end).unwrap_or_default().to_vec()
    })
}

/// Byte order of UTF-16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Utf16 {
    /// Least significant byte first: `wide`, `utf16le`.
    Little,
    /// Most significant byte first: `utf16be`.
    Big,
    /// Little, after a byte order mark: `utf16`.
    Marked,
}

/// The literals of a pattern in UTF-16.
pub(crate) fn utf16(pattern: &Pattern, order: Utf16) -> Result<Pattern, Cause> {
    let mut out = Pattern::default();
    if order == Utf16::Marked {
        out.push(Part::Literal(vec![0xff, 0xfe]));
    }
    for part in &pattern.parts {
        match part {
            Part::Literal(bytes) => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| Cause::Modifier("UTF-16 of a value that is encoded already".to_owned()))?;
                let units = text.encode_utf16();
                let bytes = match order {
                    Utf16::Big => units.flat_map(u16::to_be_bytes).collect(),
                    Utf16::Little | Utf16::Marked => units.flat_map(u16::to_le_bytes).collect(),
                };
                out.push(Part::Literal(bytes));
            }
            other => out.push(other.clone()),
        }
    }
    Ok(out)
}

/// Characters that programs of Windows accept where an option starts.
const DASHES: [&str; 5] = ["-", "/", "\u{2013}", "\u{2014}", "\u{2015}"];
/// Most options in one value: each multiplies the number of variants by five.
const MAX_DASHES: usize = 3;

/// Every variant of a value in which a `-` or `/` that starts an option is any of the five dashes.
pub(crate) fn windash(pattern: &Pattern) -> Result<Vec<Pattern>, Cause> {
    let mut variants = vec![Pattern::default()];
    let mut found = 0;
    let mut previous_is_word = false;
    for part in &pattern.parts {
        let Part::Literal(bytes) = part else {
            for v in &mut variants {
                v.push(part.clone());
            }
            previous_is_word = false;
            continue;
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Cause::Modifier("`windash` of a value that is encoded already".to_owned()))?;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let next_is_word = chars.peek().is_some_and(|c| is_word(*c));
            // pySigma's expression `\B[-/]\b`: not after a word character, before one.
            if matches!(c, '-' | '/') && !previous_is_word && next_is_word {
                found += 1;
                if found > MAX_DASHES {
                    return Err(Cause::TooLarge(format!(
                        "`windash` on a value with more than {MAX_DASHES} options"
                    )));
                }
                variants = variants
                    .iter()
                    .flat_map(|v| {
                        DASHES.map(|dash| {
                            let mut v = v.clone();
                            v.push(Part::Literal(dash.as_bytes().to_vec()));
                            v
                        })
                    })
                    .collect();
            } else {
                let mut buffer = [0; 4];
                for v in &mut variants {
                    v.push(Part::Literal(c.encode_utf8(&mut buffer).as_bytes().to_vec()));
                }
            }
            previous_is_word = is_word(c);
        }
    }
    Ok(variants)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    /// RFC 4648 section 10.
    #[test]
    fn base64_of_the_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(text(base64(plain.as_bytes())), encoded);
        }
    }

    #[test]
    fn some_offset_is_always_contained() {
        let needle = b"/bin/sh -i";
        let offsets = base64_offsets(needle).map(text);
        for before in 0..7 {
            for after in 0..7 {
                let data = [&vec![0xa5; before][..], needle, &vec![0x5a; after][..]].concat();
                let encoded = text(base64(&data));
                assert!(offsets.iter().any(|o| encoded.contains(o.as_str())), "{before} {after}");
            }
        }
        // The specification's example.
        assert_eq!(base64_offsets(b"foobar").map(text), ["Zm9vYmFy", "Zvb2Jhc", "mb29iYX"]);
    }

    #[test]
    fn utf16_orders() {
        let p = Pattern::parse("a*b");
        let le = utf16(&p, Utf16::Little).unwrap();
        assert_eq!(le.parts, [Part::Literal(b"a\0".to_vec()), Part::Many, Part::Literal(b"b\0".to_vec())]);
        assert_eq!(utf16(&Pattern::parse("a"), Utf16::Big).unwrap().parts, [Part::Literal(b"\0a".to_vec())]);
        assert_eq!(
            utf16(&Pattern::parse("a"), Utf16::Marked).unwrap().parts,
            [Part::Literal(b"\xff\xfea\0".to_vec())]
        );
    }

    #[test]
    fn dashes() {
        let all = windash(&Pattern::parse(" -param-name")).unwrap();
        assert_eq!(all.len(), 5);
        assert_eq!(all[1], Pattern::parse(" /param-name"));
        assert!(windash(&Pattern::parse("-a -b -c -d")).is_err());
        assert_eq!(windash(&Pattern::parse("plain")).unwrap(), [Pattern::parse("plain")]);
    }
}
