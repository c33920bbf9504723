//! Logins, failed or not, from what services log.
//!
//! ```text
//! log files ──► tail ────┐
//!                        ├──► line ──► message ──► attempt ──► sensor ──► Outlet
//! /dev/log ──► datagram ─┘    tag, pid  who, where   once each
//! ```
//!
//! | Module | Holds |
//! |---|---|
//! | [`tail`] | following files through rotation, truncation and restarts |
//! | [`datagram`] | receiving what syslog(3) sends where no syslog daemon runs |
//! | [`line`] | taking a syslog line apart |
//! | [`message`] | what a service's message says of a login; which lines count |
//! | [`attempt`] | counting an attempt once that several lines speak of |
//! | [`sensor`] | the task that joins them |

mod address;
pub mod attempt;
pub mod datagram;
pub mod line;
pub mod message;
pub mod sensor;
pub mod tail;
