//! Changes to the running kernel: its modules and its packet filter.

use crate::file::Sha256;
use crate::process::Actor;

/// A kernel module was loaded or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleActivity {
    /// It was loaded; false: removed.
    pub loaded: bool,
    /// Its name as `/proc/modules` has it.
    pub name: String,
    /// The file it came from, where seen.
    pub path: Option<String>,
    /// Digest of that file, where computed.
    pub sha256: Option<Sha256>,
    /// Who asked for it; the kernel itself loads modules through `modprobe`.
    pub process: Option<Actor>,
}

/// What happened to the packet filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleChange {
    /// Something was added to it.
    Added,
    /// Something in it was replaced.
    Changed,
    /// Something was taken out of it.
    Removed,
}

impl RuleChange {
    /// Every change.
    pub const ALL: [Self; 3] = [Self::Added, Self::Changed, Self::Removed];

    /// The word for it, in events, rules and tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }

    /// The change of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.name() == name)
    }
}

/// Somebody changed the kernel's packet filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallChange {
    /// What happened.
    pub change: RuleChange,
    /// Address family as nft(8) names it: `inet`, `ip`, `ip6`, `arp`, `bridge`, `netdev`.
    pub family: String,
    /// The table.
    pub table: String,
    /// The kernel's word for it, such as `nft_unregister_rule`, `xt_replace`.
    pub operation: String,
    /// How many entries were touched, where told.
    pub entries: Option<u32>,
    /// Who did it.
    pub process: Option<Actor>,
}
