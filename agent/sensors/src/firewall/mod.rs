//! Changes of the packet filter by others, named by the process that made them.
//!
//! The kernel tells every listener what a transaction of nf_tables did, object by object, and ends it with a message that says which
//! process it was (`NFT_MSG_NEWGEN`, since Linux 4.14). iptables of today is nf_tables too; the old interface of `iptables-legacy` is not,
//! and is seen by the program started.
//!
//! | Module | Holds |
//! |---|---|
//! | [`message`] | the kernel's messages |
//! | [`ruleset`] | tables, chains and how many rules they have, kept up to date from the messages |
//! | `effect` | what a transaction comes to, from the ruleset before and after it |
//! | `transaction` | what one transaction touched |
//! | `reading` | the socket, and the whole ruleset read anew |
//! | [`sensor`] | the task that joins them |

mod effect;
pub mod message;
mod reading;
pub mod ruleset;
pub mod sensor;
mod transaction;

pub use sensor::{FirewallSensor, Settings};
