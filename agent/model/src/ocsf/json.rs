//! JSON, written from front to back into a buffer: no tree in between, for every event passes here.
//!
//! The grammar is that of RFC 8259. Texts that need escapes, and numbers, are written by `serde_json`.

use core::fmt::Display;

/// A member's name as it stands in the line, the comma in front of it included, so that it is copied in one go. [`name!`] makes it.
#[derive(Clone, Copy)]
pub(super) struct Name(&'static str);

/// The name of a member; those of the schema need no escapes.
macro_rules! name {
    ($text:literal) => {
        $crate::ocsf::json::Name::of(concat!(",\"", $text, "\":"))
    };
}
pub(super) use name;

impl Name {
    /// What the macro writes.
    pub(super) const fn of(written: &'static str) -> Self {
        Self(written)
    }
}

/// An object being written; its closing brace is not there yet.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
}

/// Appends an object with the members that `fill` writes.
pub(super) fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fill(&mut Object { out });
    out.push(b'}');
}

/// Members alone, without braces, for [`Object::written`].
pub(super) fn members(fill: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, fill);
    out.pop();
    out.remove(0);
    out
}

impl Object<'_> {
    /// Members that were written before, at least one.
    pub(super) fn written(&mut self, members: &[u8]) {
        self.comma();
        self.out.extend_from_slice(members);
    }

    /// A text.
    pub(super) fn text(&mut self, name: Name, value: &str) {
        self.name(name);
        string(self.out, value);
    }

    /// A text, left out when it is empty.
    pub(super) fn said(&mut self, name: Name, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    /// A text, left out when it is not known.
    pub(super) fn known(&mut self, name: Name, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// What has a text form, as that text.
    pub(super) fn shown(&mut self, name: Name, value: &dyn Display) {
        self.text(name, &value.to_string());
    }

    /// A whole number.
    pub(super) fn number(&mut self, name: Name, value: impl Into<u64>) {
        self.unsigned(name, value.into());
    }

    /// A whole number, left out when it is not known.
    pub(super) fn counted(&mut self, name: Name, value: Option<impl Into<u64>>) {
        if let Some(value) = value {
            self.unsigned(name, value.into());
        }
    }

    /// A whole number that may be below zero: times, exit codes.
    pub(super) fn signed(&mut self, name: Name, value: i64) {
        self.name(name);
        // Neither this nor what is below can fail: there is no I/O, and numbers and texts are always serialized.
        let _ = serde_json::to_writer(&mut *self.out, &value);
    }

    /// A number that the schema wants as a text (`user.uid`, `session.uid`), left out when it is not known.
    pub(super) fn decimal(&mut self, name: Name, value: Option<u32>) {
        if let Some(value) = value {
            self.name(name);
            self.out.push(b'"');
            let _ = serde_json::to_writer(&mut *self.out, &value);
            self.out.push(b'"');
        }
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, name: Name, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// An object with the members that `fill` writes.
    pub(super) fn object(&mut self, name: Name, fill: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        object(self.out, fill);
    }

    /// An object, left out when `fill` writes nothing.
    pub(super) fn any(&mut self, name: Name, fill: impl FnOnce(&mut Object<'_>)) {
        let before = self.out.len();
        self.object(name, fill);
        if self.out.ends_with(b"{}") {
            self.out.truncate(before);
        }
    }

    /// An object of names and whole numbers, in their order; left out when there are none.
    pub(super) fn counters(&mut self, name: Name, pairs: &[(String, u64)]) {
        self.any(name, |object| {
            for (name, value) in pairs {
                object.foreign(name);
                let _ = serde_json::to_writer(&mut *object.out, value);
            }
        });
    }

    /// An object of names and texts, in their order; left out when there are none.
    pub(super) fn pairs(&mut self, name: Name, pairs: &[(String, String)]) {
        self.any(name, |object| {
            for (name, value) in pairs {
                object.foreign(name);
                string(object.out, value);
            }
        });
    }

    /// A list of texts, left out when there are none.
    pub(super) fn texts(&mut self, name: Name, texts: &mut dyn Iterator<Item = &str>) {
        self.list(name, |list| {
            for text in texts {
                list.next();
                string(list.out, text);
            }
        });
    }

    /// A list, left out when `fill` writes no item.
    pub(super) fn list(&mut self, name: Name, fill: impl FnOnce(&mut List<'_>)) {
        let before = self.out.len();
        self.name(name);
        self.out.push(b'[');
        fill(&mut List { out: self.out });
        if self.out.last() == Some(&b'[') {
            self.out.truncate(before);
        } else {
            self.out.push(b']');
        }
    }

    fn unsigned(&mut self, name: Name, value: u64) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.out, &value);
    }

    fn name(&mut self, name: Name) {
        let comma = usize::from(self.out.last() == Some(&b'{'));
        self.out.extend_from_slice(&name.0.as_bytes()[comma..]);
    }

    /// A member's name that comes from outside.
    fn foreign(&mut self, name: &str) {
        self.comma();
        string(self.out, name);
        self.out.push(b':');
    }

    fn comma(&mut self) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
    }
}

/// A list being written; its closing bracket is not there yet.
pub(super) struct List<'o> {
    out: &'o mut Vec<u8>,
}

impl List<'_> {
    /// An object with the members that `fill` writes.
    pub(super) fn object(&mut self, fill: impl FnOnce(&mut Object<'_>)) {
        self.next();
        object(self.out, fill);
    }

    fn next(&mut self) {
        if self.out.last() != Some(&b'[') {
            self.out.push(b',');
        }
    }
}

/// Most texts hold nothing to escape, which is quicker to see than to write byte by byte.
fn string(out: &mut Vec<u8>, value: &str) {
    if is_plain(value.as_bytes()) {
        out.reserve(value.len() + 2);
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    } else {
        let _ = serde_json::to_writer(out, value);
    }
}

/// No byte is a control character, a quotation mark or a backslash (RFC 8259, section 7). Eight bytes are looked at together.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGHEST: u64 = ONES << 7;
    // The highest bit of some byte is set if there is a byte below `bound`, which is at most 128.
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHEST;
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let mut words = bytes.chunks_exact(8);
    let mut odd = 0;
    for word in &mut words {
        let word = <[u8; 8]>::try_from(word).map_or(0, u64::from_ne_bytes);
        odd |= below(word, 0x20) | is(word, b'"') | is(word, b'\\');
    }
    odd == 0 && words.remainder().iter().all(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(fill: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = b"before{".to_vec();
        object(&mut out, fill);
        String::from_utf8(out).unwrap().split_off("before{".len())
    }

    #[test]
    fn members_have_commas_between_them() {
        let json = written(|object| {
            object.text(name!("a"), "{");
            object.object(name!("b"), |inner| inner.number(name!("c"), 1u32));
            object.any(name!("empty"), |_| {});
            object.list(name!("none"), |_| {});
            object.list(name!("d"), |list| {
                list.object(|_| {});
                list.object(|inner| inner.flag(name!("e"), true));
            });
            object.texts(name!("f"), &mut ["[", ""].into_iter());
            object.signed(name!("g"), -1);
            object.decimal(name!("h"), Some(7));
        });
        let expected = r#"{"a":"{","b":{"c":1},"d":[{},{"e":true}],"f":["[",""],"g":-1,"h":"7"}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let json = written(|object| {
            object.said(name!("a"), "");
            object.known(name!("b"), None);
            object.counted(name!("c"), None::<u32>);
            object.decimal(name!("d"), None);
            object.pairs(name!("e"), &[]);
            object.counters(name!("f"), &[]);
        });
        assert_eq!(json, "{}");
    }

    proptest! {
        #[test]
        fn a_text_is_plain_when_none_of_its_bytes_is_odd(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'a'), Just(0x1f), Just(0x20), Just(b'\\')], 0..30),
        ) {
            let odd = bytes.iter().any(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(is_plain(&bytes), !odd);
        }

        #[test]
        fn any_text_is_read_back(texts in prop::collection::vec((any::<String>(), any::<String>()), 0..6)) {
            let json = written(|object| object.pairs(name!("pairs"), &texts));
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            let pairs = read.get("pairs").cloned().unwrap_or_else(|| serde_json::json!({}));
            for (name, _) in &texts {
                let last = texts.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
                prop_assert_eq!(pairs[name].as_str(), last);
            }
        }
    }
}
