//! Logins, failed or not, from what services log.
//!
//! ```text
//! log files ──► tail ────┐
//!                        ├──► interpreter ──► sensor ──► Outlet
//! /dev/log ──► datagram ─┘     line, message, attempt
//! ```
//!
//! | Module | Holds |
//! |---|---|
//! | [`tail`] | following files through rotation, truncation and restarts |
//! | [`datagram`] | receiving what syslog(3) sends where no syslog daemon runs |
//! | [`line`] | taking a syslog line apart |
//! | [`message`] | what a service's message says of a login; which lines count |
//! | [`attempt`] | what is remembered of a process between its lines |
//! | `interpreter` | lines to events by these three |
//! | [`sensor`] | the task that joins them |

mod address;
pub mod attempt;
pub mod datagram;
mod interpreter;
pub mod line;
pub mod message;
pub mod sensor;
pub mod tail;
