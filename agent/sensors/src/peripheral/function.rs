//! What a peripheral is for, from what it says of itself.
//!
//! Sources: usb.org, "Defined Class Codes"; linux/usb/ch9.h; linux/input-event-codes.h; the tests for keyboards and mice are those of
//! udev's builtin `input_id`.

use defender_model::peripheral::PeripheralClass;

/// Several classes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Functions(u16);

/// In this order one of them stands for all: what can do the most harm first.
const FIRST: [PeripheralClass; 9] = [
    PeripheralClass::Keyboard,
    PeripheralClass::Storage,
    PeripheralClass::Network,
    PeripheralClass::Serial,
    PeripheralClass::Camera,
    PeripheralClass::Mouse,
    PeripheralClass::Audio,
    PeripheralClass::Printer,
    PeripheralClass::Hub,
];

impl Functions {
    /// A human interface that is not, as far as is known, a keyboard or a mouse: buttons, a game pad, a battery.
    const HID: Self = Self(1 << 15);

    /// What `class:NAME` of an allow-list stands for.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name == "hid" {
            let typing = Self::of(PeripheralClass::Keyboard).0 | Self::of(PeripheralClass::Mouse).0;
            return Some(Self(typing | Self::HID.0));
        }
        PeripheralClass::from_name(name).map(Self::of)
    }

    pub(super) fn of(class: PeripheralClass) -> Self {
        let at = PeripheralClass::ALL.iter().position(|known| *known == class).unwrap_or_default();
        Self(1 << at)
    }

    /// Takes another in; true when that is new.
    pub(super) fn add(&mut self, other: Self) -> bool {
        let before = self.0;
        self.0 |= other.0;
        self.0 != before
    }

    pub(super) const fn within(self, allowed: Self) -> bool {
        self.0 != 0 && self.0 & !allowed.0 == 0
    }

    fn holds(self, class: PeripheralClass) -> bool {
        self.0 & Self::of(class).0 != 0
    }

    /// The one that stands for all.
    pub(super) fn first(self) -> PeripheralClass {
        FIRST.into_iter().find(|class| self.holds(*class)).unwrap_or(PeripheralClass::Other)
    }

    /// All of them; empty where there is but one.
    pub(super) fn words(self) -> String {
        let mut words = String::new();
        let known = PeripheralClass::ALL.into_iter().filter(|class| self.holds(*class));
        if known.clone().count() < 2 {
            return words;
        }
        for class in known {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(class.name());
        }
        words
    }
}

/// Class, subclass and protocol of a USB interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Triple(pub(super) [u8; 3]);

impl Triple {
    /// The value of `INTERFACE` or `TYPE`: `8/6/80`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(|part| part.parse::<u8>().ok());
        Some(Self([parts.next()??, parts.next()??, parts.next()??]))
    }

    pub(super) fn functions(self) -> Functions {
        use PeripheralClass::{
            Audio, Camera, Hub, Keyboard, Mouse, Network, Other, Printer, Serial, Storage,
        };
        Functions::of(match self.0 {
            [0x01, ..] => Audio,
            [0x02, 0x02, _] => Serial,
            // Ethernet, ATM, wireless and network control models; RNDIS wears the class of a wireless controller or "miscellaneous".
            [0x02, 0x06 | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d | 0x0e, _]
            | [0xe0, 0x01, _]
            | [0xef, 0x04, 0x01] => Network,
            [0x03, _, 0x01] => Keyboard,
            [0x03, _, 0x02] => Mouse,
            [0x03, ..] => return Functions::HID,
            [0x06 | 0x0e, ..] => Camera,
            [0x07, ..] => Printer,
            [0x08, ..] => Storage,
            [0x09, ..] => Hub,
            // The data half of a modem or network adapter, whose other half says which.
            [0x0a, ..] => return Functions::default(),
            _ => Other,
        })
    }
}

/// What an input device is by the keys and axes it has (`KEY` and `REL` of its uevent); `None` when it neither types nor points.
pub(super) fn of_input(key: Option<&str>, rel: Option<&str>) -> Option<PeripheralClass> {
    // The lowest bits stand in the last word, whose width is the kernel's `long`.
    let low = |bits: Option<&str>| {
        bits.and_then(|bits| u64::from_str_radix(bits.rsplit(' ').next()?, 16).ok()).unwrap_or_default()
    };
    // KEY_ESC to KEY_S.
    const TYPES: u64 = 0xffff_fffe;
    // REL_X, REL_Y.
    const POINTS: u64 = 0b11;
    if low(key) & TYPES == TYPES {
        return Some(PeripheralClass::Keyboard);
    }
    (low(rel) & POINTS == POINTS).then_some(PeripheralClass::Mouse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_say_what_it_is_for() {
        for (interface, class) in [
            ("8/6/80", PeripheralClass::Storage),
            ("3/1/1", PeripheralClass::Keyboard),
            ("3/0/1", PeripheralClass::Keyboard),
            ("3/1/2", PeripheralClass::Mouse),
            ("3/0/0", PeripheralClass::Other),
            ("2/6/0", PeripheralClass::Network),
            ("2/2/1", PeripheralClass::Serial),
            ("224/1/3", PeripheralClass::Network),
            ("14/1/0", PeripheralClass::Camera),
            ("9/0/1", PeripheralClass::Hub),
            ("255/66/1", PeripheralClass::Other),
        ] {
            assert_eq!(Triple::parse(interface).unwrap().functions().first(), class, "{interface}");
        }
        for wrong in ["", "8/6", "256/0/0", "8/6/x"] {
            assert_eq!(Triple::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keyboards_and_mice_by_what_they_have() {
        let keys = "1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe";
        assert_eq!(of_input(Some(keys), None), Some(PeripheralClass::Keyboard));
        assert_eq!(of_input(Some("ffffffff fffffffe"), None), Some(PeripheralClass::Keyboard));
        assert_eq!(of_input(Some("70000 0 0 0 0"), Some("143")), Some(PeripheralClass::Mouse));
        // A power button; keys for volume.
        assert_eq!(of_input(Some("10000000000000 0"), None), None);
        assert_eq!(of_input(Some("3e000b00000000 0 0 0"), Some("40")), None);
    }

    #[test]
    fn several_at_once() {
        let mut both = Functions::of(PeripheralClass::Keyboard);
        assert_eq!(both.words(), "");
        assert!(both.add(Functions::of(PeripheralClass::Storage)));
        assert!(!both.add(Functions::of(PeripheralClass::Storage)));
        assert_eq!((both.first(), both.words().as_str()), (PeripheralClass::Keyboard, "storage keyboard"));
        let hid = Functions::named("hid").unwrap();
        assert!(!both.within(hid) && Functions::of(PeripheralClass::Mouse).within(hid));
        assert!(Functions::HID.within(hid) && !Functions::default().within(hid));
        assert_eq!(Functions::named("toaster"), None);
    }
}
