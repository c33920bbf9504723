//! The agent's own nftables table, `inet defender`, and nothing else of the ruleset.
//!
//! [`Firewall`] is the one thing to hold: it installs the table, blocks addresses for a time, reads every block back from
//! the kernel, and writes a state file from which the next boot restores what is left.
//!
//! | Room | Holds |
//! |---|---|
//! | [`address`] | [`Target`] (what is blocked) and [`Cidr`] (what is allowed); IPv4-mapped addresses become IPv4 here |
//! | [`allow`] | the allow-list: configuration, gateways, and what is never blocked anywhere |
//! | [`route`] | default gateways out of `/proc/net/route` and `/proc/net/ipv6_route` |
//! | `ruleset` | what the table looks like, as documents for `nft -j -f` |
//! | `listing` | what `nft -j list table` answers |
//! | [`own`] | which processes change the ruleset for the agent |
//! | `nft` | running `nft`, bounded in time and output |
//! | `ledger` | which blocks we believe in force, in memory, bounded |
//! | [`saved`] | the state file, and the pure decision what to restore from it |
//! | [`config`], [`outcome`] | what callers give and get |
//! | [`firewall`] | the operations that join them |
//! | [`isolation`] | a table that for a time lets only named peers through |
//! | [`watch`] | a second table, which judges nothing and feeds the network sensor |
//!
//! The crate never spawns a task and holds no lock; every call is one future of the daemon's single-threaded runtime.
//! `nft` inherits the daemon's ambient `CAP_NET_ADMIN` and its confinement.

pub mod address;
pub mod allow;
pub mod config;
mod error;
pub mod firewall;
pub mod isolation;
mod ledger;
mod listing;
mod nft;
pub mod outcome;
pub mod own;
pub mod route;
mod ruleset;
pub mod saved;
pub mod watch;

pub use address::{Cidr, Target};
pub use config::Config;
pub use error::Error;
pub use firewall::Firewall;
pub use isolation::Isolation;
pub use outcome::{BlockReport, BlockRequest, Blocked, Counters, Outcome, Started, Tally, Unblocked};
pub use ruleset::TABLE;
