//! Where events come from: the data sources (ATT&CK's word) that rules need and sensors supply.

use core::fmt;

/// One kind of thing that can be observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DataSource {
    /// Programs started.
    Process,
    /// Logins.
    Login,
    /// Connections.
    Flow,
    /// Sockets that begin to listen.
    Listener,
    /// Names looked up.
    Dns,
    /// Files created, changed, deleted, renamed.
    File,
    /// Files opened for reading.
    FileRead,
    /// Peripherals plugged in and pulled out.
    Peripheral,
    /// Kernel modules loaded and removed.
    Module,
    /// Changes of the packet filter.
    Firewall,
    /// Local users and groups.
    Account,
    /// The state of services.
    Service,
    /// Events that services submit.
    Submitted,
    /// Processes that trace others, load eBPF programs or become root.
    Deed,
}

impl DataSource {
    /// Every one.
    pub const ALL: [Self; 14] = [
        Self::Process,
        Self::Login,
        Self::Flow,
        Self::Listener,
        Self::Dns,
        Self::File,
        Self::FileRead,
        Self::Peripheral,
        Self::Module,
        Self::Firewall,
        Self::Account,
        Self::Service,
        Self::Submitted,
        Self::Deed,
    ];

    /// Stable name, for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Login => "login",
            Self::Flow => "flow",
            Self::Listener => "listener",
            Self::Dns => "dns",
            Self::File => "file",
            Self::FileRead => "file_read",
            Self::Peripheral => "peripheral",
            Self::Module => "module",
            Self::Firewall => "firewall",
            Self::Account => "account",
            Self::Service => "service",
            Self::Submitted => "submitted",
            Self::Deed => "deed",
        }
    }
}

impl fmt::Display for DataSource {
    /// What is observed, in words: `programs started`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "programs started",
            Self::Login => "logins",
            Self::Flow => "connections",
            Self::Listener => "listening sockets",
            Self::Dns => "names looked up",
            Self::File => "changes of files",
            Self::FileRead => "reading of files",
            Self::Peripheral => "peripherals",
            Self::Module => "kernel modules",
            Self::Firewall => "changes of the packet filter",
            Self::Account => "changes of accounts",
            Self::Service => "states of services",
            Self::Submitted => "events that services submit",
            Self::Deed => "processes that trace others, load eBPF programs or become root",
        })
    }
}

/// Any number of data sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DataSources(u16);

impl DataSources {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// This one.
    #[must_use]
    pub const fn of(source: DataSource) -> Self {
        Self(1 << source as u8)
    }

    /// Those of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = DataSource> {
        DataSource::ALL.into_iter().filter(move |source| self.0 & Self::of(*source).0 != 0)
    }
}
