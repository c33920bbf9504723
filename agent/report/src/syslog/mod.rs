//! The syslog sink: one line per record, to the local daemon or a remote collector.
//!
//! Syslog daemons restart and collectors vanish. A record that could not be sent waits, and the ones behind it; after 0.1 s, ... 30 s it
//! is tried again on a new socket.
//!
//! | Transport | Framing | Source |
//! |---|---|---|
//! | local datagram socket (`/dev/log`) | a datagram a line, always as syslog(3) has it | RFC 3164 without stamp and host name |
//! | UDP | a datagram a line | RFC 5426 |
//! | TCP | octet counting | RFC 6587 section 3.4.1 |
//! | TLS (feature `tls`) | octet counting | RFC 5425 |
//!
//! Lines to a collector are RFC 5424, RFC 3164 or CEF ([`Format`]).
//!
//! Syslog has no acknowledgements: what the system took when a connection broke may be lost without a trace. A connection that the
//! peer has closed is noticed before something is sent into it.

mod cef;
mod format;
mod transport;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::sink::Intake;
use format::Formatter;
pub use format::{Facility, Format};
use transport::{Connection, Failure};

/// Records sent in one go; what a stream takes in one write.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 64 * 1024;
/// Telemetry waits so long for company, if it is sent at all.
const GATHER: Duration = Duration::from_millis(50);

/// Where to send.
#[derive(Debug, Clone)]
pub enum Transport {
    /// The local daemon's datagram socket, usually `/dev/log`.
    Local {
        /// Its path.
        path: PathBuf,
    },
    /// A collector, by datagrams.
    Udp {
        /// Name or address.
        host: String,
        /// Usually 514.
        port: u16,
    },
    /// A collector, by a connection.
    Tcp {
        /// Name or address.
        host: String,
        /// Usually 514 or 601.
        port: u16,
    },
    /// A collector, by an encrypted connection.
    #[cfg(feature = "tls")]
    Tls {
        /// Name or address; its certificate must have it.
        host: String,
        /// Usually 6514.
        port: u16,
        /// Certificates.
        tls: crate::tls::Tls,
    },
}

/// What to send, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to.
    pub transport: Transport,
    /// What lines to a collector look like; the local daemon gets what it is used to.
    pub format: Format,
    /// Syslog facility of every line: `daemon`, `authpriv`, `local0`, ...
    pub facility: Facility,
    /// The device's name for remote collectors; the local daemon adds its own.
    pub hostname: String,
}

/// Sends until the sink is closed.
pub async fn run(config: Config, mut intake: Intake) {
    let formatter = Formatter::new(&config);
    let mut connection = Connection::new(config.transport);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let mut batch = VecDeque::new();
    while !batch.is_empty() || intake.wait().await {
        if batch.is_empty() {
            intake.gather(GATHER, BATCH_BYTES).await;
            intake.take(&mut batch, BATCH, BATCH_BYTES);
        }
        let mut sent = VecDeque::new();
        let (mut bytes, mut failure, mut check) = (0, None, true);
        while !batch.is_empty() {
            // On a stream all of it goes in one write, which spares packets; a datagram is one line.
            let count = if connection.is_stream() { batch.len() } else { 1 };
            let mut payload = Vec::new();
            for record in batch.iter().take(count) {
                let line = formatter.line(record);
                if connection.is_stream() {
                    payload.extend_from_slice(format!("{} ", line.len()).as_bytes());
                }
                payload.extend_from_slice(&line);
            }
            match connection.send(&payload, std::mem::take(&mut check)).await {
                Ok(()) => {
                    bytes += payload.len();
                    sent.extend(batch.drain(..count));
                }
                // This one will never go; the next may.
                Err(Failure::Unsendable(error)) => {
                    intake.lost(batch.pop_front().iter());
                    intake.failed(&error);
                }
                Err(Failure::Broken(error)) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        intake.spend(bytes);
        intake.delivered(&sent);
        intake.connected(connection.peer());
        let Some(error) = failure else {
            backoff.worked();
            continue;
        };
        if !sent.is_empty() {
            backoff.worked();
        }
        intake.failed(&error);
        if intake.pause(backoff.failed()).await {
            // Asked to end: this was the last try.
            intake.unsent(&batch);
            return;
        }
    }
    connection.finish().await;
}

#[cfg(test)]
mod rsyslog;
#[cfg(test)]
mod tests;
