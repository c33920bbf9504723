//! Names in which placeholders stand for what is generated.
//!
//! | Written | Stands for |
//! |---|---|
//! | `{number}` | a number, date or version: digits, with single `-`, `.`, `_`, `:` or `T` between digits, as many as there are |
//! | `{hex:N}` | N hexadecimal digits |
//! | `{uuid}` | a UUID as RFC 9562 writes it |
//! | `{random:N}` | N letters or digits of ASCII, as mkstemp(3) makes them |
//! | `{any}` | one character or more; the learner never writes it |
//! | `{{` | the character `{` |
//!
//! No placeholder crosses the [`Separator`], so that what matches lies in the directory, or domain, that the pattern names.

/// Longest name of a profile, in bytes: `PATH_MAX` of Linux.
pub(crate) const MAX_NAME: usize = 4096;
/// The same as it is written: a placeholder may be longer than what it stands for.
const MAX_WRITTEN: usize = 8 * MAX_NAME;
/// Most characters that one placeholder stands for.
const MAX_COUNT: usize = 128;

/// What the parts of a name stand between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Separator {
    /// Files: `/`.
    Slash,
    /// Domains: `.`.
    Dot,
}

impl Separator {
    const fn byte(self) -> u8 {
        match self {
            Self::Slash => b'/',
            Self::Dot => b'.',
        }
    }

    /// Length of the number a text begins with: digits, with single punctuation between digits; 0 for none.
    pub(super) fn number(self, text: &[u8]) -> usize {
        let joins: &[u8] = match self {
            Self::Slash => b"-._:T",
            Self::Dot => b"-_",
        };
        let mut length = 0;
        loop {
            let digits = text[length..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            length += digits;
            match text.get(length..length + 2) {
                Some([join, digit]) if digits > 0 && joins.contains(join) && digit.is_ascii_digit() => {
                    length += 1;
                }
                _ => return length,
            }
        }
    }
}

/// Appends `text` so that it stands for itself.
pub(super) fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        if c == '{' {
            out.push('{');
        }
        out.push(c);
    }
}

/// Whether `text` begins with a UUID: 8-4-4-4-12 hexadecimal digits.
pub(super) fn is_uuid(text: &[u8]) -> bool {
    text.len() >= 36
        && text[..36].iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A name as a profile has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// Itself.
    Exact(Box<str>),
    /// With placeholders.
    Pattern(Pattern),
}

/// A name with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    separator: Separator,
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Number,
    Hex(usize),
    Uuid,
    Random(usize),
    Any,
}

impl Part {
    /// Reads what stands between the braces.
    fn new(word: &str) -> Option<Self> {
        let count = |digits: &str| digits.parse().ok().filter(|count| (1..=MAX_COUNT).contains(count));
        match word.split_once(':') {
            None => Some(match word {
                "number" => Self::Number,
                "uuid" => Self::Uuid,
                "any" => Self::Any,
                _ => return None,
            }),
            Some(("hex", digits)) => count(digits).map(Self::Hex),
            Some(("random", digits)) => count(digits).map(Self::Random),
            Some(_) => None,
        }
    }
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with its placeholders or its length.
    pub(crate) fn parse(text: &str, separator: Separator) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_WRITTEN {
            return Err(format!("a name has 1 to {MAX_WRITTEN} bytes"));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            let part = rest.split_once('}').and_then(|(word, after)| Some((Part::new(word)?, after)));
            let Some((part, after)) = part else {
                return Err(format!(
                    "`{{` begins none of {{number}}, {{hex:N}}, {{uuid}}, {{random:N}} (N from 1 to {MAX_COUNT}) and {{any}}; write \
                     `{{{{` for the character itself"
                ));
            };
            rest = after;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            // One after the other says no more than one.
            if part != Part::Any || parts.last() != Some(&Part::Any) {
                parts.push(part);
            }
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Ok(Self::Exact(literal.into()));
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self::Pattern(Pattern { separator, parts: parts.into() }))
    }

    /// Whether `text` is that name, or one of those it stands for.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *text,
            Self::Pattern(pattern) => pattern.matches(text),
        }
    }

    /// Something of it is `{any}`.
    pub(crate) fn has_any(&self) -> bool {
        matches!(self, Self::Pattern(pattern) if pattern.parts.contains(&Part::Any))
    }
}

impl Pattern {
    /// Whether the whole of `text` matches. Allocates nothing; the time is the product of both lengths at worst.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let separator = self.separator.byte();
        let one = |at: usize| text.get(at).filter(|byte| **byte != separator).map(|_| at + 1);
        let (mut part, mut at) = (0, 0);
        // Where to go on when what follows the last `{any}` does not fit: one byte further on.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let rest = &text[at..];
            let all = |count: usize, fits: fn(&u8) -> bool| {
                rest.get(..count).is_some_and(|text| text.iter().all(fits)).then_some(at + count)
            };
            let step = match self.parts.get(part) {
                None if rest.is_empty() => return true,
                None => None,
                Some(Part::Literal(literal)) => {
                    rest.starts_with(literal.as_bytes()).then_some(at + literal.len())
                }
                Some(Part::Number) => match self.separator.number(rest) {
                    0 => None,
                    length => Some(at + length),
                },
                Some(Part::Hex(count)) => all(*count, u8::is_ascii_hexdigit),
                Some(Part::Random(count)) => all(*count, u8::is_ascii_alphanumeric),
                Some(Part::Uuid) => is_uuid(rest).then_some(at + 36),
                Some(Part::Any) => {
                    let after = one(at);
                    if let Some(after) = after {
                        retry = Some((part + 1, after));
                    }
                    after
                }
            };
            (part, at) = match (step, retry) {
                (Some(next), _) => (part + 1, next),
                (None, Some((from, start))) => {
                    let Some(next) = one(start) else { return false };
                    retry = Some((from, next));
                    (from, next)
                }
                (None, None) => return false,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Name::parse(pattern, Separator::Slash).unwrap().matches(text)
    }

    #[test]
    fn placeholders_stand_for_what_the_table_says() {
        for (pattern, text) in [
            ("/var/log/app-{number}.log", "/var/log/app-2026-11-27T10:11:12.log"),
            ("/var/log/app-{number}.log", "/var/log/app-1.log"),
            ("/opt/app/{number}/bin/app", "/opt/app/1.2.3/bin/app"),
            ("/tmp/tmp.{random:10}", "/tmp/tmp.aB3dE6gH9j"),
            ("/d/{uuid}.x", "/d/5f1c3a52-0d5e-4a64-9a0e-6a3f2d1b7c11.x"),
            ("/d/{hex:4}", "/d/09aF"),
            ("/srv/{any}/app", "/srv/any thing/app"),
            ("/srv/a{any}b{any}c", "/srv/aXbYbZc"),
            ("/a{{number}", "/a{number}"),
            ("/a}", "/a}"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("/var/log/app-{number}.log", "/var/log/app-evil.log"),
            ("/var/log/app-{number}.log", "/var/log/app-.log"),
            ("/var/log/app-{number}.log", "/var/log/app-1/2.log"),
            ("/var/log/app-{number}.log", "/var/log/app-1.log.sh"),
            ("/tmp/tmp.{random:10}", "/tmp/tmp.aB3dE6gH9"),
            ("/tmp/tmp.{random:4}", "/tmp/tmp.a/b1"),
            ("/tmp/tmp.{random:4}", "/tmp/tmp.a.b1"),
            ("/srv/{any}", "/srv/"),
            ("/srv/{any}", "/srv/a/b"),
            ("/srv/{any}/c", "/srv/a/b/c"),
            ("/a{{number}", "/a1"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        let name = Name::parse("{number}.pool.example", Separator::Dot).unwrap();
        assert!(name.matches("17.pool.example") && !name.matches("1.7.pool.example"));
    }

    #[test]
    fn unknown_placeholders_are_mistakes() {
        for bad in
            ["", "{", "/a{b}", "/{hex:0}", "/{hex:999}", "/{random}", "/{number:3}", "/{any", "/{hex:-1}"]
        {
            assert!(Name::parse(bad, Separator::Slash).is_err(), "{bad}");
        }
        assert!(Name::parse(&"x".repeat(MAX_WRITTEN + 1), Separator::Slash).is_err());
    }

    proptest! {
        #[test]
        fn escaped_text_matches_itself_and_nothing_else(a in "[ -~]{1,12}", b in "[ -~]{1,12}") {
            let mut escaped = String::new();
            escape(&a, &mut escaped);
            let name = Name::parse(&escaped, Separator::Slash).unwrap();
            prop_assert_eq!(&name, &Name::Exact(a.as_str().into()));
            prop_assert_eq!(name.matches(&b), a == b);
        }

        #[test]
        fn never_panics_and_never_crosses_a_directory(
            pattern in "([a-c/.é]|\\{number\\}|\\{any\\}|\\{hex:2\\}|\\{random:3\\}){1,8}",
            text in "[a-c/.é0-9-]{0,12}",
        ) {
            let name = Name::parse(&pattern, Separator::Slash).unwrap();
            if name.matches(&text) {
                prop_assert_eq!(pattern.matches('/').count(), text.matches('/').count());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(pattern in "[{}a:1/]{0,12}", text in any::<String>()) {
            for separator in [Separator::Slash, Separator::Dot] {
                if let Ok(name) = Name::parse(&pattern, separator) {
                    name.matches(&text);
                }
            }
        }

        #[test]
        fn any_matches_as_a_slow_matcher_says(pattern in "[ab*/]{1,8}", text in "[ab/]{0,10}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern, text) {
                    ([], []) => true,
                    ([b'*', b'*', rest @ ..], _) => slow(&[&b"*"[..], rest].concat(), text),
                    ([b'*', rest @ ..], [first, after @ ..]) if *first != b'/' => {
                        slow(rest, after) || slow(pattern, after)
                    }
                    ([a, rest @ ..], [b, after @ ..]) if a == b && *a != b'*' => slow(rest, after),
                    _ => false,
                }
            }
            let written = pattern.replace('*', "{any}");
            prop_assert_eq!(matches(&written, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
