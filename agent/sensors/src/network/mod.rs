//! Connections, names looked up, and sockets that wait for connections.
//!
//! | Module | Holds |
//! |---|---|
//! | [`conntrack`] | the kernel's messages about connections |
//! | `flow` | connections as events, with what is remembered between begin and end |
//! | `listener` | sockets that wait for connections: which have come, which have gone |
//! | [`nflog`], [`packet`] | packets that rules copy to the agent, and their headers |
//! | [`dns`] | messages of the domain name system |
//! | `lookup`, `names` | questions and their answers put together; by which name an address was looked up |
//! | `interface` | the device's own addresses; which interfaces are watched |
//! | [`onlooker`] | which process a socket belongs to, asked of a process of its own |
//! | `owners` | the same, as eBPF programs tell it while connections are made |
//! | `socket` | the kernel's lists of sockets |
//! | `attribute` | netlink attributes |
//! | [`nftables`] | whether the rules that feed the sensor are still there |
//! | `attribution` | events that wait for word of the process behind them |
//! | `settings`, `source` | what the sensor is told; what the kernel offers it |
//! | [`sensor`] | the task that joins them |

pub(crate) mod attribute;
mod attribution;
pub mod conntrack;
pub mod dns;
mod flow;
mod interface;
mod listener;
mod lookup;
mod names;
pub mod nflog;
pub mod nftables;
pub mod onlooker;
mod owners;
pub mod packet;
pub mod sensor;
mod settings;
mod socket;
mod source;

pub use interface::{addresses, Selection};
pub use owners::Owners;
pub use sensor::NetworkSensor;
pub use settings::{Settings, Status};
