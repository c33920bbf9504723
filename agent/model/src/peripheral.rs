//! Hardware plugged in and pulled out.

/// What a peripheral is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeripheralClass {
    /// A disk, stick or card.
    Storage,
    /// Types for its user.
    Keyboard,
    /// Points for its user.
    Mouse,
    /// A network interface, radios and modems included.
    Network,
    /// A serial port.
    Serial,
    /// A camera.
    Camera,
    /// Sound in or out.
    Audio,
    /// A printer.
    Printer,
    /// A hub or other part of the bus itself.
    Hub,
    /// Something else.
    Other,
}

impl PeripheralClass {
    /// Every class.
    pub const ALL: [Self; 10] = [
        Self::Storage,
        Self::Keyboard,
        Self::Mouse,
        Self::Network,
        Self::Serial,
        Self::Camera,
        Self::Audio,
        Self::Printer,
        Self::Hub,
        Self::Other,
    ];

    /// The word for it, in events, rules and tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Keyboard => "keyboard",
            Self::Mouse => "mouse",
            Self::Network => "network",
            Self::Serial => "serial",
            Self::Camera => "camera",
            Self::Audio => "audio",
            Self::Printer => "printer",
            Self::Hub => "hub",
            Self::Other => "other",
        }
    }

    /// The class of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// A peripheral appeared or disappeared. What it says of itself is the text of whoever built it: it may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeripheralActivity {
    /// It appeared; false: it is gone.
    pub connected: bool,
    /// What it is for.
    pub class: PeripheralClass,
    /// How it is connected: `usb`, `mmc`, `pci`, `bluetooth`.
    pub bus: String,
    /// The kernel's name for it: `sda`, `usb0`, `1-1.2`.
    pub interface: String,
    /// Its path below `/sys`.
    pub path: String,
    /// Vendor number of the bus (USB `idVendor`).
    pub vendor_id: Option<u16>,
    /// Product number of the bus (USB `idProduct`).
    pub product_id: Option<u16>,
    /// Vendor as the device names it.
    pub vendor: Option<String>,
    /// Product as the device names it.
    pub product: Option<String>,
    /// Serial number as the device states it.
    pub serial: Option<String>,
    /// Every class it is of, in the order of [`PeripheralClass::ALL`] with a space between: `storage keyboard`. Empty where `class`
    /// says it all.
    pub functions: String,
    /// Class, subclass and protocol of its USB interfaces as udev writes them (`ID_USB_INTERFACES`): `:080650:030101:`.
    pub interfaces: String,
    /// What the kernel made of it, with a space between: partitions of a disk, `input7`, `ttyACM0`.
    pub nodes: String,
    /// The kernel's name of the USB device that this is a part of: `1-1.2` of the disk `sda`.
    pub parent: Option<String>,
    /// It is on the product's list of peripherals, or the device it is a part of is; `None` where there is no such list.
    pub allowed: Option<bool>,
}
