//! The control socket: how the command line asks a running agent.
//!
//! A stream socket in the file system, `/run/defender/control.sock`, mode 0660, owner and group `defender`. Each line a client
//! writes is one [`Request`](crate::request::Request) as JSON, each line it gets back one [`Reply`](crate::request::Reply), in
//! the same order.
//!
//! | Module | Holds |
//! |---|---|
//! | `server` | the agent's end |
//! | `client` | the command line's end; synchronous |
//! | `peer` | who is at the other end, as the kernel says, and who counts as an operator |
//!
//! The socket's mode lets root and members of group `defender` connect. The server does not rely on that alone: it asks the kernel
//! for the peer's user and groups (`SO_PEERCRED`, `SO_PEERGROUPS`, unix(7)) and answers anybody else, who got here through a
//! mode changed by hand or a descriptor passed on, with the status only.

mod client;
mod peer;
mod server;

pub use client::{ask, Error};
pub use peer::Operators;
pub use server::{bind, serve};

/// Where the agent listens unless its run directory is configured to be elsewhere.
pub const SOCKET: &str = "/run/defender/control.sock";
/// Name of the socket within the run directory.
pub const SOCKET_NAME: &str = "control.sock";
/// The group whose members may ask everything.
pub const GROUP: &str = "defender";
