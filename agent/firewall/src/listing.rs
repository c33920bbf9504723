//! What `nft -j list table inet defender` answers.
//!
//! Read by a visitor of our own, not by the enums of crate `nftables`: those fail the whole table on one statement they do
//! not know, hold counters in 32 bits, and would add some 400 KiB to the binary. Elements are kept as addresses and seconds
//! while they stream past, so a full set costs no more than its addresses.

use std::collections::hash_map::DefaultHasher;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::address::Target;
use crate::ruleset::{ALLOWED, BLOCKED, CHAINS, COUNTERS};

/// Packets and bytes of one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// The table as it was in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Elements of the blocked sets with the time left, in whole seconds; `None` for one without time-out.
    pub(crate) blocked: BTreeMap<Target, Option<Duration>>,
    /// By the order of [`COUNTERS`].
    pub(crate) counters: [Count; 3],
    /// Whether it holds exactly the objects that we install: none missing, no strangers.
    pub(crate) whole: bool,
    /// Changes when anything but blocked elements and counts changes. Comparable within one process.
    pub(crate) fingerprint: u64,
}

/// Reads a listing; the error says what is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Listing, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let mut listing = Listing::default();
    let mut hasher = DefaultHasher::new();
    let (mut tables, mut strangers) = (0, false);
    let (mut sets, mut counters, mut chains, mut rules) = ([0; 4], [0; 3], [0; 3], [0; 3]);
    for object in document.nftables {
        match object {
            Object::Nothing => {}
            Object::Stranger => strangers = true,
            Object::Table(value) => {
                tables += 1;
                // A dormant table is all there and does nothing.
                strangers |= value.get("flags").is_some();
                hash_value(&Value::Object(value), &mut hasher);
            }
            Object::Set(set) => {
                match BLOCKED.iter().chain(&ALLOWED).position(|name| *name == set.name) {
                    Some(n) => sets[n] += 1,
                    None => strangers = true,
                }
                if BLOCKED.contains(&set.name.as_str()) {
                    listing.blocked.extend(set.elements);
                } else {
                    hash_value(&set.elem, &mut hasher);
                }
                set.name.hash(&mut hasher);
                hash_value(&Value::Object(set.rest), &mut hasher);
            }
            Object::Counter(name, count) => match COUNTERS.iter().position(|c| *c == name) {
                Some(n) => {
                    counters[n] += 1;
                    listing.counters[n] = count;
                }
                None => strangers = true,
            },
            Object::Chain(value) => {
                match chain_index(&value, "name") {
                    Some(n) => chains[n] += 1,
                    None => strangers = true,
                }
                hash_value(&Value::Object(value), &mut hasher);
            }
            Object::Rule(value) => {
                match chain_index(&value, "chain") {
                    Some(n) => rules[n] += 1,
                    None => strangers = true,
                }
                hash_value(&Value::Object(value), &mut hasher);
            }
        }
    }
    listing.whole = !strangers
        && tables == 1
        && sets == [1; 4]
        && counters == [1; 3]
        && chains == [1; 3]
        && CHAINS.iter().zip(rules).all(|((_, wanted), found)| *wanted == found);
    listing.fingerprint = hasher.finish();
    Ok(listing)
}

fn chain_index(value: &Map<String, Value>, key: &str) -> Option<usize> {
    let name = value.get(key)?.as_str()?;
    CHAINS.iter().position(|(chain, _)| *chain == name)
}

/// Handles are part of it: an object deleted and put back by another hand has a new one.
fn hash_value(value: &Value, hasher: &mut DefaultHasher) {
    value.to_string().hash(hasher);
}

#[derive(Deserialize)]
struct Document {
    nftables: Vec<Object>,
}

enum Object {
    /// `metainfo`.
    Nothing,
    /// A kind of object we never install.
    Stranger,
    Table(Map<String, Value>),
    Chain(Map<String, Value>),
    Rule(Map<String, Value>),
    Set(SetObject),
    Counter(String, Count),
}

#[derive(Default)]
struct SetObject {
    name: String,
    /// Of a blocked set.
    elements: Vec<(Target, Option<Duration>)>,
    /// Of any other set.
    elem: Value,
    /// Type, flags, size and so on.
    rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of one member that names its kind")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object::Nothing;
                while let Some(kind) = map.next_key::<String>()? {
                    object = match kind.as_str() {
                        "metainfo" => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                            Object::Nothing
                        }
                        "table" => Object::Table(map.next_value()?),
                        "chain" => Object::Chain(map.next_value()?),
                        "rule" => Object::Rule(map.next_value()?),
                        "set" => Object::Set(map.next_value()?),
                        "counter" => {
                            let counter: CounterObject = map.next_value()?;
                            Object::Counter(
                                counter.name,
                                Count { packets: counter.packets, bytes: counter.bytes },
                            )
                        }
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                            Object::Stranger
                        }
                    };
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[derive(Deserialize)]
struct CounterObject {
    name: String,
    #[serde(default)]
    packets: u64,
    #[serde(default)]
    bytes: u64,
}

impl<'de> Deserialize<'de> for SetObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SetVisitor;
        impl<'de> Visitor<'de> for SetVisitor {
            type Value = SetObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a set")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SetObject, A::Error> {
                let mut set = SetObject::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => set.name = map.next_value()?,
                        // Every nft puts the name first; without it the elements are nobody's and count as unknown.
                        "elem" if BLOCKED.contains(&set.name.as_str()) => {
                            set.elements = map.next_value::<BlockedElements>()?.0;
                        }
                        "elem" => set.elem = map.next_value()?,
                        _ => {
                            set.rest.insert(key, map.next_value()?);
                        }
                    }
                }
                Ok(set)
            }
        }
        deserializer.deserialize_map(SetVisitor)
    }
}

/// The elements of a blocked set; what is no single address is passed over.
struct BlockedElements(Vec<(Target, Option<Duration>)>);

impl<'de> Deserialize<'de> for BlockedElements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Element<'a> {
            Plain(#[serde(borrow)] std::borrow::Cow<'a, str>),
            Timed { elem: Timed },
            Other(serde::de::IgnoredAny),
        }
        #[derive(Deserialize)]
        struct Timed {
            val: String,
            expires: Option<u64>,
        }
        struct ElementsVisitor;
        impl<'de> Visitor<'de> for ElementsVisitor {
            type Value = BlockedElements;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of set elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<BlockedElements, A::Error> {
                let mut found = Vec::new();
                while let Some(element) = elements.next_element::<Element<'de>>()? {
                    let (text, left) = match &element {
                        Element::Plain(text) => (text.as_ref(), None),
                        Element::Timed { elem } => (elem.val.as_str(), elem.expires.map(Duration::from_secs)),
                        Element::Other(_) => continue,
                    };
                    if let Ok(target) = text.parse() {
                        found.push((target, left));
                    }
                }
                Ok(BlockedElements(found))
            }
        }
        deserializer.deserialize_seq(ElementsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &str = include_str!("testdata/table.json");

    #[test]
    fn a_listing_of_nft_1_0_6() {
        let listing = parse(GOLDEN.as_bytes()).unwrap();
        assert!(listing.whole);
        let blocked: Vec<_> =
            listing.blocked.iter().map(|(t, left)| (t.to_string(), left.map(|d| d.as_secs()))).collect();
        assert_eq!(
            blocked,
            [
                ("192.0.2.7".to_owned(), Some(599)),
                ("198.51.100.9".to_owned(), None),
                ("2001:db8::7".to_owned(), Some(3599))
            ]
        );
        assert_eq!(listing.counters[0], Count { packets: 5_000_000_000, bytes: 9_000_000_000_000 });
    }

    fn changed(from: &str, to: &str) -> Listing {
        assert!(GOLDEN.contains(from), "{from}");
        parse(GOLDEN.replacen(from, to, 1).as_bytes()).unwrap()
    }

    #[test]
    fn counts_and_blocked_elements_do_not_touch_the_fingerprint() {
        let before = parse(GOLDEN.as_bytes()).unwrap().fingerprint;
        assert_eq!(changed("5000000000", "5000000001").fingerprint, before);
        assert_eq!(changed("192.0.2.7", "192.0.2.8").fingerprint, before);
        assert_eq!(changed("599", "1").fingerprint, before);
    }

    #[test]
    fn every_other_change_does() {
        let before = parse(GOLDEN.as_bytes()).unwrap().fingerprint;
        for (from, to) in [
            (r#"{"drop": null}"#, r#"{"accept": null}"#),
            ("@blocked4", "@allowed4"),
            (r#""prio": -250"#, r#""prio": 300"#),
            (r#""hook": "input""#, r#""hook": "output""#),
            (r#""addr": "127.0.0.0", "len": 8"#, r#""addr": "0.0.0.0", "len": 0"#),
            (r#""flags": ["timeout"]"#, r#""flags": ["timeout", "interval"]"#),
        ] {
            assert_ne!(changed(from, to).fingerprint, before, "{from}");
        }
    }

    #[test]
    fn missing_and_strange_objects_make_it_not_whole() {
        assert!(!changed(r#""name": "dropped_input""#, r#""name": "x""#).whole);
        assert!(!changed(r#""name": "blocked6""#, r#""name": "x""#).whole);
        assert!(!changed(r#""chain": "forward""#, r#""chain": "x""#).whole);
        assert!(!changed(r#"{"counter": {"family""#, r#"{"quota": {"family""#).whole);
        assert!(
            !changed(
                r#""name": "defender", "handle""#,
                r#""name": "defender", "flags": "dormant", "handle""#
            )
            .whole
        );
        assert!(!parse(br#"{"nftables": []}"#).unwrap().whole);
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"nftables": 1}"#,
            r#"{"nftables": [1]}"#,
            "table inet defender {\n}\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        let deep = format!(r#"{{"nftables": [{{"rule": {}"#, r#"{"a":"#.repeat(100_000));
        assert!(parse(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn a_damaged_listing_never_panics(at in 0..GOLDEN.len(), byte: u8, cut in 0..GOLDEN.len()) {
            let mut bytes = GOLDEN.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = parse(&bytes);
            let _ = parse(&bytes[..cut]);
        }
    }
}
