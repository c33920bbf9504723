//! Logins, failed or not, from every source that tells of them; what several tell of one login is one event.
//!
//! ```text
//! log files ────► tail ──────┐
//!                            ├──► interpreter ──┐
//! /dev/log ─────► datagram ──┘                  │
//! utmp, wtmp, btmp ──► accounting ──────────────┼──► merger ──► sensor ──► Outlet
//! audit records, from the process sensor ───────┤
//! `defender pam`, from the control socket ──────┘
//! ```
//!
//! | Module | Holds |
//! |---|---|
//! | [`tail`] | following files through rotation, truncation and restarts |
//! | [`datagram`] | receiving what syslog(3) sends where no syslog daemon runs |
//! | [`line`] | taking a syslog line apart |
//! | [`message`] | what a service's message says of a login; which lines count |
//! | [`attempt`] | what is remembered of a process between its lines |
//! | `interpreter` | lines to reports by these three |
//! | [`accounting`] | utmp, wtmp and btmp to reports |
//! | `audit` | records that programs write to the audit subsystem to reports |
//! | [`pam`] | what `defender pam` hands in to reports |
//! | [`report`] | what one source says |
//! | [`merger`] | reports to events, sessions with durations |
//! | [`sensor`] | the task that joins them |

pub mod accounting;
mod address;
pub mod attempt;
pub(crate) mod audit;
pub mod datagram;
mod interpreter;
pub mod line;
pub mod merger;
pub mod message;
pub mod pam;
pub mod report;
pub mod sensor;
pub mod tail;
