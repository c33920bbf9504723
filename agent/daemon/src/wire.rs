//! From JSON values to the types of the control socket and of shown events. Without serde's derive, which is another copy of the code
//! for every type and every kind of source.
//!
//! What is missing keeps its default and what is unknown is passed over, so that agents and command lines of different versions
//! understand each other; a value of the wrong type is an error.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

/// A value cannot be read: which, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(String);

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Fault {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

/// A place for a value.
pub(crate) trait Wire {
    /// Puts there what the value says.
    fn fill(&mut self, value: &Value) -> Result<(), Fault>;
}

/// Reads an object's members into the places named.
pub(crate) fn object(value: &Value, places: &mut [(&'static str, &mut dyn Wire)]) -> Result<(), Fault> {
    let Value::Object(members) = value else { return Err(Fault::new("is not an object")) };
    for (name, place) in places {
        if let Some(value) = members.get(*name) {
            place.fill(value).map_err(|fault| Fault(format!("`{name}` {fault}")))?;
        }
    }
    Ok(())
}

/// A member that must be there.
pub(crate) fn required<T: Wire + Default>(value: &Value, name: &str) -> Result<T, Fault> {
    let mut place = T::default();
    let member = value.get(name).ok_or_else(|| Fault(format!("`{name}` is missing")))?;
    place.fill(member).map_err(|fault| Fault(format!("`{name}` {fault}")))?;
    Ok(place)
}

/// An address that must be there.
pub(crate) fn address(value: &Value, name: &str) -> Result<IpAddr, Fault> {
    let text: String = required(value, name)?;
    text.parse().map_err(|_| Fault(format!("`{name}` is not an IPv4 or IPv6 address")))
}

/// Says how a type's members are called: as its fields are.
macro_rules! wire {
    ($($type:ty { $($field:ident),* $(,)? })*) => {$(
        impl $crate::wire::Wire for $type {
            fn fill(&mut self, value: &serde_json::Value) -> Result<(), $crate::wire::Fault> {
                $crate::wire::object(value, &mut [$((stringify!($field), &mut self.$field)),*])
            }
        }
    )*};
}
pub(crate) use wire;

impl Wire for bool {
    fn fill(&mut self, value: &Value) -> Result<(), Fault> {
        *self = value.as_bool().ok_or_else(|| Fault::new("is not true or false"))?;
        Ok(())
    }
}

fn number(value: &Value, most: u64) -> Result<u64, Fault> {
    let number = value.as_u64().filter(|number| *number <= most);
    number.ok_or_else(|| Fault(format!("is not a whole number from 0 to {most}")))
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn fill(&mut self, value: &Value) -> Result<(), Fault> {
                *self = number(value, <$type>::MAX as u64)? as $type;
                Ok(())
            }
        }
    )*};
}
numbers!(u8, u32, u64, usize);

impl Wire for i64 {
    fn fill(&mut self, value: &Value) -> Result<(), Fault> {
        *self = value.as_i64().ok_or_else(|| Fault::new("is not a whole number"))?;
        Ok(())
    }
}

fn text(value: &Value) -> Result<&str, Fault> {
    value.as_str().ok_or_else(|| Fault::new("is not a text"))
}

impl Wire for String {
    fn fill(&mut self, value: &Value) -> Result<(), Fault> {
        text(value)?.clone_into(self);
        Ok(())
    }
}

impl Wire for Arc<str> {
    fn fill(&mut self, value: &Value) -> Result<(), Fault> {
        *self = text(value)?.into();
        Ok(())
    }
}

impl<T: Wire + Default> Wire for Option<T> {
    fn fill(&mut self, value: &Value) -> Result<(), Fault> {
        *self = None;
        if !value.is_null() {
            self.insert(T::default()).fill(value)?;
        }
        Ok(())
    }
}

impl<T: Wire> Wire for Box<T> {
    fn fill(&mut self, value: &Value) -> Result<(), Fault> {
        (**self).fill(value)
    }
}

impl<T: Wire + Default> Wire for Vec<T> {
    fn fill(&mut self, value: &Value) -> Result<(), Fault> {
        let Value::Array(items) = value else { return Err(Fault::new("is not a list")) };
        self.clear();
        for item in items {
            let mut place = T::default();
            place.fill(item)?;
            self.push(place);
        }
        Ok(())
    }
}

impl Wire for (String, u64) {
    fn fill(&mut self, value: &Value) -> Result<(), Fault> {
        let Some([first, second]) = value.as_array().map(Vec::as_slice) else {
            return Err(Fault::new("is not a pair"));
        };
        self.0.fill(first)?;
        self.1.fill(second)
    }
}
