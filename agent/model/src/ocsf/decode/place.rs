//! JSON into the places of a record as it is parsed, with no tree of values in between. Serde's derive is another copy of the code for
//! every type; here one visitor serves them all.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

/// A place for a value. Each kind of value it does not take is a mistake in the text.
pub(super) trait Place {
    /// What it takes, in words.
    fn wanted(&self) -> &'static str;

    fn null(&mut self) -> bool {
        false
    }

    fn truth(&mut self, _: bool) -> bool {
        false
    }

    fn number(&mut self, _: i128) -> bool {
        false
    }

    fn text(&mut self, _: &str) -> bool {
        false
    }

    /// An object begins.
    fn object(&mut self) -> bool {
        false
    }

    /// The place of an object's member; `None` for those that are passed over.
    fn member(&mut self, _: &str) -> Option<&mut dyn Place> {
        None
    }

    /// A list begins.
    fn list(&mut self) -> bool {
        false
    }

    /// The place of a list's next element.
    fn element(&mut self) -> Option<&mut dyn Place> {
        None
    }
}

/// Reads one text.
///
/// # Errors
/// It is not JSON, or holds a value of the wrong kind.
pub(super) fn read(text: &[u8], place: &mut dyn Place) -> Result<(), serde_json::Error> {
    let mut source = serde_json::Deserializer::from_slice(text);
    Value(place).deserialize(&mut source)?;
    source.end()
}

/// The value of a place.
struct Value<'p>(&'p mut dyn Place);
/// The next element of a place.
struct Element<'p>(&'p mut dyn Place);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        match self.0.element() {
            Some(place) => source.deserialize_any(Value(place)),
            None => Err(D::Error::invalid_type(Unexpected::Seq, &self.0.wanted())),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0.wanted())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        fits(self.0.null(), &*self.0, Unexpected::Unit)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        fits(self.0.truth(truth), &*self.0, Unexpected::Bool(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        fits(self.0.number(number.into()), &*self.0, Unexpected::Signed(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        fits(self.0.number(number.into()), &*self.0, Unexpected::Unsigned(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        fits(self.0.text(text), &*self.0, Unexpected::Str(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        fits(self.0.list(), &*self.0, Unexpected::Seq)?;
        while list.next_element_seed(Element(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        fits(self.0.object(), &*self.0, Unexpected::Map)?;
        while let Some(name) = members.next_key::<String>()? {
            match self.0.member(&name) {
                Some(place) => members.next_value_seed(Value(place))?,
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

fn fits<E: Error>(fits: bool, place: &dyn Place, found: Unexpected<'_>) -> Result<(), E> {
    if fits {
        Ok(())
    } else {
        Err(E::invalid_type(found, &place.wanted()))
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Place for $type {
            fn wanted(&self) -> &'static str {
                concat!("a number that fits ", stringify!($type))
            }

            fn number(&mut self, number: i128) -> bool {
                <$type>::try_from(number).map(|number| *self = number).is_ok()
            }
        }
    )*};
}
number!(u8, u16, u32, u64, i32, i64);

impl Place for bool {
    fn wanted(&self) -> &'static str {
        "true or false"
    }

    fn truth(&mut self, truth: bool) -> bool {
        *self = truth;
        true
    }
}

impl Place for String {
    fn wanted(&self) -> &'static str {
        "a string"
    }

    fn text(&mut self, text: &str) -> bool {
        text.clone_into(self);
        true
    }
}

/// An address that may be absent.
impl Place for Option<IpAddr> {
    fn wanted(&self) -> &'static str {
        "an IPv4 or IPv6 address"
    }

    fn null(&mut self) -> bool {
        *self = None;
        true
    }

    fn text(&mut self, text: &str) -> bool {
        *self = text.parse().ok();
        self.is_some()
    }
}

impl<T: Place + Default> Place for Option<T> {
    fn wanted(&self) -> &'static str {
        T::default().wanted()
    }

    fn null(&mut self) -> bool {
        *self = None;
        true
    }

    fn truth(&mut self, truth: bool) -> bool {
        self.insert(T::default()).truth(truth)
    }

    fn number(&mut self, number: i128) -> bool {
        self.insert(T::default()).number(number)
    }

    fn text(&mut self, text: &str) -> bool {
        self.insert(T::default()).text(text)
    }

    fn object(&mut self) -> bool {
        self.insert(T::default()).object()
    }

    fn member(&mut self, name: &str) -> Option<&mut dyn Place> {
        self.as_mut()?.member(name)
    }

    fn list(&mut self) -> bool {
        self.insert(T::default()).list()
    }

    fn element(&mut self) -> Option<&mut dyn Place> {
        self.as_mut()?.element()
    }
}

/// Only objects are boxed.
impl<T: Place> Place for Box<T> {
    fn wanted(&self) -> &'static str {
        (**self).wanted()
    }

    fn object(&mut self) -> bool {
        (**self).object()
    }

    fn member(&mut self, name: &str) -> Option<&mut dyn Place> {
        (**self).member(name)
    }
}

impl<T: Place + Default> Place for Vec<T> {
    fn wanted(&self) -> &'static str {
        "a list"
    }

    fn list(&mut self) -> bool {
        self.clear();
        true
    }

    fn element(&mut self) -> Option<&mut dyn Place> {
        self.push(T::default());
        self.last_mut().map(|place| place as &mut dyn Place)
    }
}

/// An object whose members may have any name.
impl<T: Place + Default> Place for BTreeMap<String, T> {
    fn wanted(&self) -> &'static str {
        "an object"
    }

    fn object(&mut self) -> bool {
        true
    }

    fn member(&mut self, name: &str) -> Option<&mut dyn Place> {
        Some(self.entry(name.to_owned()).or_default())
    }
}

/// Objects whose members are called as their fields are, or as it says behind the type. What is missing keeps its default.
macro_rules! objects {
    ($(struct $name:ident { $($field:ident: $type:ty $(= $member:literal)?),* $(,)? })*) => {$(
        #[derive(Default)]
        struct $name {
            $($field: $type,)*
        }

        impl $crate::ocsf::decode::place::Place for $name {
            fn wanted(&self) -> &'static str {
                "an object"
            }

            fn object(&mut self) -> bool {
                true
            }

            fn member(&mut self, name: &str) -> Option<&mut dyn $crate::ocsf::decode::place::Place> {
                $(if name == $crate::ocsf::decode::place::named!($field $($member)?) {
                    return Some(&mut self.$field);
                })*
                None
            }
        }
    )*};
}
macro_rules! named {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $member:literal) => {
        $member
    };
}
pub(super) use {named, objects};
