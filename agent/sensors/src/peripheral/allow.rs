//! The product's list of peripherals.

use std::fmt;
use std::str::FromStr;

use defender_model::peripheral::PeripheralActivity;

use super::function::Functions;

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// USB devices by vendor and product, and serial number where one is given: `0781:5567`, `0781:*`, `0781:5567:4C530001`.
    Usb {
        /// `idVendor`.
        vendor: u16,
        /// `idProduct`; any of the vendor's where absent.
        product: Option<u16>,
        /// Serial number; any where absent.
        serial: Option<String>,
    },
    /// What is of this class and no other: `class:storage`, and `class:hid` for keyboards, mice and other human interfaces.
    Class(String),
    /// What is connected that way: `bus:mmc`.
    Bus(String),
}

/// Ways to be connected that an entry may name.
const BUSES: [&str; 6] = ["usb", "mmc", "pci", "bluetooth", "platform", "virtual"];

/// An entry that says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryError(String);

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` names no peripheral: write vendor and product as in `0781:5567`, `0781:*` or `0781:5567:SERIAL`, a class as in \
             `class:storage` or `class:hid`, or a bus as in `bus:mmc`",
            self.0
        )
    }
}

impl std::error::Error for EntryError {}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let wrong = || EntryError(text.to_owned());
        let (head, rest) = text.split_once(':').ok_or_else(wrong)?;
        match head {
            "class" if Functions::named(rest).is_some() => return Ok(Self::Class(rest.to_owned())),
            "bus" if BUSES.contains(&rest) => return Ok(Self::Bus(rest.to_owned())),
            _ => {}
        }
        let number = |text: &str| match text.len() {
            4 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => u16::from_str_radix(text, 16).ok(),
            _ => None,
        };
        let vendor = number(head).ok_or_else(wrong)?;
        let (product, serial) = match rest.split_once(':') {
            Some((product, serial)) if !serial.is_empty() => (product, Some(serial.to_owned())),
            Some(_) => return Err(wrong()),
            None => (rest, None),
        };
        let product = match product {
            "*" => None,
            product => Some(number(product).ok_or_else(wrong)?),
        };
        Ok(Self::Usb { vendor, product, serial })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usb { vendor, product, serial } => {
                match product {
                    Some(product) => write!(f, "{vendor:04x}:{product:04x}")?,
                    None => write!(f, "{vendor:04x}:*")?,
                }
                match serial {
                    Some(serial) => write!(f, ":{serial}"),
                    None => Ok(()),
                }
            }
            Self::Class(class) => write!(f, "class:{class}"),
            Self::Bus(bus) => write!(f, "bus:{bus}"),
        }
    }
}

/// Whether the list has it; `None` where there is no list, and for what no list is about: parts of the bus itself and what programs make.
pub(super) fn judge(list: &[Entry], device: &PeripheralActivity, functions: Functions) -> Option<bool> {
    if list.is_empty() || device.bus == "virtual" {
        return None;
    }
    // Several classes are allowed by as many entries.
    let mut classes = Functions::default();
    let listed = list.iter().any(|entry| match entry {
        Entry::Usb { vendor, product, serial } => {
            device.bus == "usb"
                && device.vendor_id == Some(*vendor)
                && (product.is_none() || device.product_id == *product)
                && (serial.is_none() || device.serial == *serial)
        }
        Entry::Class(class) => {
            classes.add(Functions::named(class).unwrap_or_default());
            false
        }
        Entry::Bus(bus) => device.bus == *bus,
    });
    Some(listed || functions.within(classes))
}

#[cfg(test)]
mod tests {
    use defender_model::peripheral::PeripheralClass;

    use super::*;

    #[test]
    fn entries_are_written_as_they_are_read() {
        for text in ["1d6b:0002", "0781:*", "0781:5567:4C53:00", "class:hid", "class:storage", "bus:mmc"] {
            assert_eq!(text.parse::<Entry>().unwrap().to_string(), text);
        }
        for wrong in ["", "0781", "781:5567", "0781:", "0781:5567:", "class:toaster", "bus:x", "+781:5567"] {
            assert!(wrong.parse::<Entry>().unwrap_err().to_string().starts_with(&format!("`{wrong}`")));
        }
    }

    #[test]
    fn what_is_not_on_the_list_is_not_allowed() {
        let list = |entries: &[&str]| entries.iter().map(|e| e.parse().unwrap()).collect::<Vec<Entry>>();
        let mut stick = crate::peripheral::registry::blank("/devices/x/usb1/1-1");
        stick.vendor_id = Some(0x0781);
        stick.product_id = Some(0x5567);
        stick.serial = Some("4C53".into());
        let storage = Functions::of(PeripheralClass::Storage);
        let mut both = storage;
        both.add(Functions::of(PeripheralClass::Keyboard));
        for (entries, functions, allowed) in [
            (&[][..], storage, None),
            (&["0781:5567"], storage, Some(true)),
            (&["0781:*"], storage, Some(true)),
            (&["0781:5567:4C53"], storage, Some(true)),
            (&["0781:5567:4C54"], storage, Some(false)),
            (&["0781:5568"], storage, Some(false)),
            (&["class:storage"], storage, Some(true)),
            (&["class:storage"], both, Some(false)),
            (&["class:storage", "class:hid"], both, Some(true)),
            (&["bus:mmc"], storage, Some(false)),
            (&["bus:usb"], storage, Some(true)),
        ] {
            assert_eq!(judge(&list(entries), &stick, functions), allowed, "{entries:?}");
        }
    }
}
