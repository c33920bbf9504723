//! Threat feeds: lists of addresses, networks, domains and file digests that are known to be bad.
//!
//! | Module | Holds |
//! |---|---|
//! | [`list`] | [`List`]: a feed's entries, from the bytes of its file |
//! | `line` | one line |
//! | `address`, `domain`, [`digest`] | the sorted tables |

mod address;
pub mod digest;
mod domain;
mod line;
pub mod list;

pub use digest::Digest;
pub use list::{BadLines, FeedError, Hit, Kind, List, ListBuilder};
