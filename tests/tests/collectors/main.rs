//! The sinks against collectors of the distribution, over TLS, with certificates made by the openssl program.
//!
//! | Module | Holds |
//! |---|---|
//! | `authority` | certificates, good and bad, and revocation lists |
//! | `collector` | rsyslogd and syslog-ng on loopback |
//! | `syslog_tls` | what they and we refuse, and why |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod authority;
mod collector;
mod syslog_tls;
