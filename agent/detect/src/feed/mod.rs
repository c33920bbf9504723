//! Threat feeds: lists of addresses, networks, domains and file digests that are known to be bad.
//!
//! | Module | Holds |
//! |---|---|
//! | [`list`] | [`List`]: a feed's entries, from the bytes of its file |
//! | `line` | one line |
//! | `address`, `domain`, `digest` | the sorted tables |
//! | [`watch`] | [`Feed`]: what a hit means; events held against the feeds in force |
//! | `mention` | hosts mentioned in the arguments of programs |

mod address;
mod digest;
mod domain;
mod line;
pub mod list;
mod mention;
pub mod watch;

pub use list::{BadLines, FeedError, Hit, Kind, List, ListBuilder};
pub use watch::Feed;
pub(crate) use watch::Feeds;
