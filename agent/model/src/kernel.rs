//! Changes to the running kernel: its modules, its eBPF programs and its packet filter.

use crate::file::Sha256;
use crate::process::Actor;

/// Type of an eBPF program: `BPF_PROG_TYPE_*` of linux/bpf.h, 0 where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProgramType(pub u32);

impl ProgramType {
    /// Those of Linux 6.12, by number.
    const NAMES: &'static str = "unknown socket_filter kprobe sched_cls sched_act tracepoint xdp perf_event cgroup_skb cgroup_sock \
         lwt_in lwt_out lwt_xmit sock_ops sk_skb cgroup_device sk_msg raw_tracepoint cgroup_sock_addr lwt_seg6local lirc_mode2 \
         sk_reuseport flow_dissector cgroup_sysctl raw_tracepoint_writable cgroup_sockopt tracing struct_ops ext lsm sk_lookup \
         syscall netfilter";

    /// What linux/bpf.h calls it, in small letters: `kprobe`; `other` for one newer than that.
    #[must_use]
    pub fn name(self) -> &'static str {
        usize::try_from(self.0).ok().and_then(|number| Self::NAMES.split(' ').nth(number)).unwrap_or("other")
    }
}

/// A kernel module was loaded or removed, or an eBPF program was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleActivity {
    /// It was loaded; false: removed.
    pub loaded: bool,
    /// Its name as `/proc/modules` has it; of an eBPF program what its loader calls it, which may be nothing.
    pub name: String,
    /// It is no module but an eBPF program of this type.
    pub program: Option<ProgramType>,
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
    /// What it comes to, words of [`effect`] with a blank between them; empty where it is nothing grave, or not known.
    pub effect: String,
    /// Before and after, in words; empty where not known.
    pub summary: String,
    /// Who did it.
    pub process: Option<Actor>,
}

/// The words of [`FirewallChange::effect`].
pub mod effect {
    /// There were rules in base chains, and now there are none in the whole packet filter.
    pub const RULESET_FLUSHED: &str = "ruleset_flushed";
    /// A base chain, which the kernel hands packets to, lost all its rules and is still there.
    pub const CHAIN_EMPTIED: &str = "chain_emptied";
    /// A base chain that dropped what no rule accepted now lets it pass.
    pub const POLICY_ACCEPT: &str = "policy_accept";
    /// A base chain is gone.
    pub const BASE_CHAIN_DELETED: &str = "base_chain_deleted";
    /// A table is gone.
    pub const TABLE_DELETED: &str = "table_deleted";
    /// A table was put to sleep: its rules are there and are not asked.
    pub const TABLE_DORMANT: &str = "table_dormant";
    /// A table of the agent was changed by another program.
    pub const OWN_TABLE: &str = "own_table";
}
