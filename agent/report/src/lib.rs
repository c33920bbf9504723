//! Sinks: where the agent's records go.
//!
//! ```text
//! SinkHandle::try_push ──► queue (alerts │ telemetry, bounded, counted) ──► one task per sink ──► file, syslog, MQTT
//! ```
//!
//! A record is encoded once, before it comes here; the sinks share its bytes. A sink that fails says so in its [`sink::Stats`] and by a
//! health statement, keeps what its queue holds, and tries again; the others do not notice.
//!
//! | Module | Holds |
//! |---|---|
//! | [`record`] | what is reported |
//! | [`sink`] | the queue in front of a sink, its figures and its health |
//! | [`pace`] | periods and daily budgets of a sink |
//! | [`spool`] | what waits on flash until remote sinks have delivered it |
//! | [`file`] | JSON lines with rotation |
//! | [`syslog`] | local and remote syslog: datagram socket, UDP, TCP, TLS |
//! | [`mqtt`] | an MQTT 3.1.1 broker (cargo feature `mqtt`) |
//! | [`tls`] | certificates of a connection (cargo feature `tls`) |
//! | `event` | what a record says, by its places in OCSF |
//! | [`error`] | what can go wrong |
//!
//! Without the feature `tls` nothing here links OpenSSL. Nothing here is switched on by default.

mod backoff;
pub mod error;
mod event;
pub mod file;
#[cfg(all(fuzzing, feature = "mqtt"))]
pub mod fuzzing;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod pace;
pub mod record;
pub mod sink;
mod socket;
pub mod spool;
mod stream;
pub mod syslog;
#[cfg(feature = "tls")]
pub mod tls;
