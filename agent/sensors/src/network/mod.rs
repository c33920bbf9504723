//! Connections and sockets that wait for them.
//!
//! | Module | Holds |
//! |---|---|
//! | [`conntrack`] | the kernel's messages about connections |
//! | `flow` | connections as events, with what is remembered between begin and end |
//! | `listener` | sockets that wait for connections: which have come, which have gone |
//! | `interface` | the device's own addresses; which interfaces are watched |
//! | [`onlooker`] | which process a socket belongs to, asked of a process of its own |
//! | `socket` | the kernel's lists of sockets |
//! | `budget` | how many events may pass in a second |
//! | `attribute` | netlink attributes |
//! | [`sensor`] | the task that joins them |

mod attribute;
mod budget;
pub mod conntrack;
mod flow;
mod interface;
mod listener;
pub mod onlooker;
pub mod sensor;
mod socket;

pub use interface::Selection;
pub use sensor::{NetworkSensor, Settings, Status};
