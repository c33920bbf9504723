//! Everything that can go wrong, each with what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Target;
use crate::allow::AllowedBy;

/// Why an operation on the firewall, or the block of one address, did not happen.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no `nft` program at this path.
    NftMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// `nft` is there but cannot be started.
    NftNotStarted {
        /// The program.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `nft` was built without its JSON library.
    NftWithoutJson {
        /// The program.
        path: PathBuf,
    },
    /// The kernel refused for want of privilege.
    PermissionDenied {
        /// What was being done.
        doing: &'static str,
        /// What `nft` said.
        detail: String,
    },
    /// The kernel has no nf_tables, or none for family `inet`.
    KernelUnsupported {
        /// What `nft` said.
        detail: String,
    },
    /// A blocked set has no room left.
    SetFull {
        /// What `nft` said.
        detail: String,
    },
    /// `nft` did not answer in time and was killed.
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// The bound.
        after: Duration,
    },
    /// `nft` said no for any other reason.
    NftFailed {
        /// What was being done.
        doing: &'static str,
        /// How it ended.
        status: String,
        /// What it said, shortened.
        detail: String,
    },
    /// `nft` answered with something that is not its documented JSON.
    BadOutput {
        /// What was being done.
        doing: &'static str,
        /// Why it could not be read.
        cause: String,
    },
    /// Table `inet defender` is not in the kernel.
    TableMissing,
    /// The table was put right and still is not as it was written: something else keeps changing it.
    TableAltered,
    /// This address may never be blocked.
    Allowed {
        /// The address.
        target: Target,
        /// Why.
        by: AllowedBy,
    },
    /// As many blocks as configured are in force, and all of them end later than this one would.
    Full {
        /// The address.
        target: Target,
        /// The bound.
        limit: usize,
    },
    /// The kernel took the block, but it is not there when read back.
    NotInEffect {
        /// The address.
        target: Target,
    },
    /// The kernel does not show the isolation when read back.
    NotIsolated,
    /// The state file could not be read or written.
    StateFile {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The state file is not one of ours, or damaged.
    StateCorrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NftMissing { path } => {
                write!(f, "no nft program at {}; install nftables or set the path of nft in the configuration", path.display())
            }
            Self::NftNotStarted { path, source } => {
                write!(f, "{} could not be started: {source}; check its mode and the agent's confinement", path.display())
            }
            Self::NftWithoutJson { path } => {
                write!(f, "{} is built without JSON; build nftables with jansson", path.display())
            }
            Self::PermissionDenied { doing, detail } => {
                write!(f, "no permission for {doing} ({detail}); the agent needs the ambient capability CAP_NET_ADMIN")
            }
            Self::KernelUnsupported { detail } => write!(
                f,
                "the kernel has no nf_tables for family inet ({detail}); enable CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
            ),
            Self::SetFull { detail } => {
                write!(f, "the set of blocked addresses is full ({detail}); remove elements others added, or raise the bound")
            }
            Self::Timeout { doing, after } => {
                write!(f, "nft did not finish {doing} within {} ms and was killed; check the load", after.as_millis())
            }
            Self::NftFailed { doing, status, detail } => {
                write!(f, "nft failed at {doing} ({status}): {detail}; try `nft list table inet defender` by hand")
            }
            Self::BadOutput { doing, cause } => {
                write!(f, "the answer of nft to {doing} cannot be read: {cause}; check that it is nftables' own nft")
            }
            Self::TableMissing => {
                f.write_str("table inet defender is not in the kernel; the next block, or a restart of the agent, installs it")
            }
            Self::TableAltered => f.write_str(
                "table inet defender was put right but does not stay so; find what else changes it with `nft monitor`",
            ),
            Self::Allowed { target, by } => write!(f, "{target} is never blocked: {by}"),
            Self::Full { target, limit } => write!(
                f,
                "{target} is not blocked: {limit} blocks are in force and all end later; unblock some or raise the bound"
            ),
            Self::NotInEffect { target } => write!(
                f,
                "{target} is not blocked: the kernel does not show it when read back; look at `nft list table inet defender`"
            ),
            Self::NotIsolated => f.write_str(
                "the device is not isolated as it should be: the kernel shows something else when read back; look at `nft list table inet defender_isolation`",
            ),
            Self::StateFile { path, doing, source } => {
                write!(f, "state file {}: {doing}: {source}; check the directory's owner, mode and free space", path.display())
            }
            Self::StateCorrupt { path, cause } => {
                write!(f, "state file {} is ignored: {cause}; it is overwritten at the next save", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NftNotStarted { source, .. } | Self::StateFile { source, .. } => Some(source),
            _ => None,
        }
    }
}
