//! What the device consists of: hardware, system, network interfaces, software.

use std::net::IpAddr;

use crate::file::Sha256;
use crate::time::Timestamp;

/// A statement about what the device consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Inventory {
    /// All of it, as it is when the agent starts.
    Device(Box<DeviceInfo>),
    /// A network interface came, went, or has other addresses.
    Interface {
        /// As it is now, or was before it went.
        interface: Interface,
        /// In words what is another.
        detail: String,
    },
    /// The packages, as a whole.
    Software {
        /// How many there are.
        packages: u64,
        /// Of their list, one `NAME VERSION ARCHITECTURE` a line in order; `None` where the agent computes none.
        sha256: Option<Sha256>,
        /// Name and version of the operating system.
        os: (String, String),
    },
    /// A package came, went, or has another version.
    Package {
        /// As it is now, or was before it went.
        package: Package,
        /// `installed`, `removed`, `updated`.
        change: PackageChange,
        /// The version before; empty where there was none.
        before: String,
    },
}

/// What became of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageChange {
    /// It is new.
    Installed,
    /// It is gone.
    Removed,
    /// It has another version.
    Updated,
}

impl PackageChange {
    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Removed => "removed",
            Self::Updated => "updated",
        }
    }
}

/// Something installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version; empty where that is not told.
    pub version: String,
    /// What it was built for; empty where that is not told.
    pub architecture: String,
    /// Its package URL.
    pub purl: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// The kernel's name.
    pub name: String,
    /// `wired`, `wireless`, `vlan`, `bridge`, `tunnel`, or the kernel's own word.
    pub kind: String,
    /// Hardware address; empty where there is none.
    pub mac: String,
    /// Its addresses, in order.
    pub addresses: Vec<IpAddr>,
    /// Of a VLAN: its number, and the interface it runs on.
    pub vlan: Option<(u16, String)>,
}

/// Hardware, firmware and system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceInfo {
    /// Its maker; this and what follows is empty where it is not told.
    pub vendor: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// The firmware's maker, version and date.
    pub firmware: [String; 3],
    /// Name and version of the operating system.
    pub os: (String, String),
    /// The kernel's release.
    pub kernel: String,
    /// What uname(2) calls the machine.
    pub machine: String,
    /// Processors.
    pub processors: u32,
    /// Memory in megabytes.
    pub memory_mb: u64,
    /// When it was booted.
    pub booted: Option<Timestamp>,
    /// Its network interfaces, but for the loopback.
    pub interfaces: Vec<Interface>,
}
