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
//! Syslog has no acknowledgements. What a stream was given last is sent again when the connection breaks (`unconfirmed`); a connection
//! that the peer has closed is noticed before something is sent into it.

mod cef;
mod format;
mod transport;
mod unconfirmed;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::error::Error;
use crate::record::Record;
use crate::sink::Intake;
use format::Formatter;
pub use format::{Facility, Format};
use transport::{Connection, Failure};
use unconfirmed::Unconfirmed;

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
    let mut under_way = Unconfirmed::default();
    loop {
        if batch.is_empty() && !under_way.is_full() {
            match next(&mut intake, &under_way).await {
                Some(true) => {
                    intake.gather(GATHER, BATCH_BYTES).await;
                    intake.take(&mut batch, BATCH, BATCH_BYTES);
                }
                Some(false) => break,
                None => {}
            }
        } else if under_way.is_full() && !intake.is_closed() {
            let due = under_way.due(Instant::now()).unwrap_or_else(Instant::now);
            tokio::time::sleep_until(due.into()).await;
        } else if under_way.is_full() {
            // Asked to end, and nobody takes what was sent.
            intake.unsent(&under_way.take_back());
            intake.unsent(&batch);
            return;
        }
        let mut failure = settle(&mut connection, &mut under_way, &mut intake, &mut backoff).await;
        if failure.is_none() && !batch.is_empty() && !under_way.is_full() {
            let sent = send(&formatter, &mut connection, &mut intake, &mut batch).await;
            intake.connected(connection.peer());
            if connection.is_stream() {
                if !sent.records.is_empty() {
                    under_way.sent(sent.records);
                }
            } else if sent.failure.is_none() || !sent.records.is_empty() {
                backoff.worked();
                intake.delivered(&sent.records);
            }
            failure = sent.failure;
        }
        let Some(error) = failure else { continue };
        let mut again = under_way.take_back();
        again.append(&mut batch);
        batch = again;
        intake.failed(&error);
        if intake.pause(backoff.failed()).await {
            // Asked to end: this was the last try.
            intake.unsent(&batch);
            return;
        }
    }
    let rest = under_way.take_back();
    if connection.finish().await {
        intake.delivered(&rest);
    } else {
        intake.unsent(&rest);
    }
}

/// Whether there is a record, or `None` when it is time to look after what is under way.
async fn next(intake: &mut Intake, under_way: &Unconfirmed) -> Option<bool> {
    match under_way.due(Instant::now()) {
        None => Some(intake.wait().await),
        Some(due) => tokio::time::timeout_at(due.into(), intake.wait()).await.ok(),
    }
}

/// Counts as delivered what is; the error says that the connection has broken with something under way.
async fn settle(
    connection: &mut Connection,
    under_way: &mut Unconfirmed,
    intake: &mut Intake,
    backoff: &mut Backoff,
) -> Option<Error> {
    if !connection.stands().await {
        return (!under_way.is_empty()).then(|| Error::Closed { target: connection.target() });
    }
    let now = Instant::now();
    if connection.all_acknowledged() {
        under_way.arrived(now);
    }
    let settled = under_way.settled(now);
    if !settled.is_empty() {
        backoff.worked();
        intake.delivered(&settled);
    }
    None
}

/// What became of a batch.
struct Sent {
    records: VecDeque<Record>,
    failure: Option<Error>,
}

/// Sends what `batch` holds; what could not be sent stays in it.
async fn send(
    formatter: &Formatter,
    connection: &mut Connection,
    intake: &mut Intake,
    batch: &mut VecDeque<Record>,
) -> Sent {
    let mut sent = Sent { records: VecDeque::new(), failure: None };
    let mut bytes = 0;
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
        match connection.send(&payload).await {
            Ok(()) => {
                bytes += payload.len();
                sent.records.extend(batch.drain(..count));
            }
            // This one will never go; the next may.
            Err(Failure::Unsendable(error)) => {
                intake.lost(batch.pop_front().iter());
                intake.failed(&error);
            }
            Err(Failure::Broken(error)) => {
                sent.failure = Some(error);
                break;
            }
        }
    }
    intake.spend(bytes);
    sent
}

#[cfg(test)]
mod rsyslog;
#[cfg(test)]
mod tests;

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::{Config, Facility, Format, Formatter, Transport};
    use crate::record::Record;

    pub(crate) fn lines(record: &Record) {
        for format in [Format::Rfc5424, Format::Rfc3164, Format::Cef] {
            let transport = Transport::Udp { host: "h".to_owned(), port: 514 };
            let config =
                Config { transport, format, facility: Facility::DAEMON, hostname: "device".to_owned() };
            let line = String::from_utf8(Formatter::new(&config).line(record)).expect("text");
            assert!(line.starts_with("<27>") && !line.chars().any(char::is_control), "{line:?}");
            if format == Format::Cef {
                // Escaped characters are two, of which neither separates.
                let mut escaped = false;
                let bars = line.bytes().filter(|byte| {
                    let bar = *byte == b'|' && !escaped;
                    escaped = *byte == b'\\' && !escaped;
                    bar
                });
                assert!(bars.count() >= 7, "{line}");
            }
        }
    }
}
