//! The sensor: log files and datagrams in, authentication events out.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use defender_model::authentication::{Activity, Authentication};
use defender_model::event::Event;
use defender_model::health::{Health, Kind};
use defender_model::text;
use defender_model::time::Timestamp;
use tokio::sync::watch;

use super::attempt::Attempts;
use super::datagram::{Datagram, Receiver};
use super::line::{Line, MAX_LINE};
use super::message;
use super::tail::{Item, Position, Tail};
use crate::{Observation, Outlet};

const COMPONENT: &str = "login";
/// Cut lines are reported at most this often.
const CUT_REPORT: Duration = Duration::from_secs(60);

/// What to read.
#[derive(Debug, Default)]
pub struct Config {
    /// Log files; those that do not exist (yet) are waited for.
    pub files: Vec<PathBuf>,
    /// Where an earlier run stopped.
    pub positions: Vec<Position>,
    /// A bound socket that syslog(3) sends to, where no syslog daemon runs.
    pub datagrams: Option<UnixDatagram>,
}

/// Reads until the pipeline is gone (or there is nothing to read from, which it reports).
///
/// `now` is the wall clock: an event's time is its line's arrival, since the stamps of log lines have neither year nor zone.
/// `positions` is kept up to date with what has been handed to the pipeline, for the next run's [`Config::positions`].
pub async fn run(
    config: Config,
    now: fn() -> Timestamp,
    outlet: Outlet,
    positions: watch::Sender<Vec<Position>>,
) {
    let mut notes = Vec::new();
    let mut tail = if config.files.is_empty() {
        None
    } else {
        Tail::new(&config.files, &config.positions)
            .map_err(|error| {
                let message = format!("cannot follow log files, inotify is not to be had: {error}");
                notes.push(Health::new(Kind::Degraded, COMPONENT, message));
            })
            .ok()
    };
    let mut receiver = config.datagrams.and_then(|socket| {
        Receiver::new(socket)
            .map_err(|error| {
                let message = format!("cannot receive syslog datagrams: {error}");
                notes.push(Health::new(Kind::Degraded, COMPONENT, message));
            })
            .ok()
    });
    notes.push(summary(tail.as_ref(), receiver.is_some(), &config.files));
    for note in notes {
        if !outlet.send(Observation::Health(note)).await {
            return;
        }
    }
    let mut reader = Interpreter::default();
    loop {
        let source = tokio::select! {
            item = next_item(&mut tail, &positions) => Source::Item(item),
            datagram = next_datagram(&mut receiver) => Source::Datagram(datagram),
        };
        let monotonic = Instant::now();
        let found = match source {
            Source::Item(Item::Note(note)) => {
                if !outlet.send(Observation::Health(note)).await {
                    return;
                }
                None
            }
            Source::Item(Item::Line(line)) => reader.read(&line.bytes, line.whole, None, monotonic),
            Source::Datagram(Ok(Datagram { bytes, whole, uid })) => {
                reader.read(&bytes, whole, uid, monotonic)
            }
            Source::Datagram(Err(error)) => {
                receiver = None;
                let message = format!("the syslog socket failed: {error}; datagrams are not read any more");
                if !outlet.send(Observation::Health(Health::new(Kind::Degraded, COMPONENT, message))).await {
                    return;
                }
                None
            }
        };
        if let Some(found) = found {
            if !outlet.send(Observation::Event(Event::new(now(), found.into()))).await {
                return;
            }
        }
        if let Some(note) = reader.cut_report(monotonic) {
            if !outlet.send(Observation::Health(note)).await {
                return;
            }
        }
    }
}

enum Source {
    Item(Item),
    Datagram(std::io::Result<Datagram>),
}

/// The tail's next item; before it waits for one, the positions are published.
async fn next_item(tail: &mut Option<Tail>, positions: &watch::Sender<Vec<Position>>) -> Item {
    let Some(tail) = tail else { return std::future::pending().await };
    if let Some(item) = tail.take() {
        return item;
    }
    let current = tail.positions();
    positions.send_if_modified(|published| {
        let changed = *published != current;
        if changed {
            *published = current;
        }
        changed
    });
    tail.next().await
}

async fn next_datagram(receiver: &mut Option<Receiver>) -> std::io::Result<Datagram> {
    match receiver {
        Some(receiver) => receiver.next().await,
        None => std::future::pending().await,
    }
}

/// What is read and what is waited for, in one sentence.
fn summary(tail: Option<&Tail>, datagrams: bool, files: &[PathBuf]) -> Health {
    let list = |paths: &[String]| if paths.is_empty() { "nothing".to_owned() } else { paths.join(", ") };
    let mut open: Vec<String> =
        tail.iter().flat_map(|t| t.open_files()).map(|p| p.display().to_string()).collect();
    let missing: Vec<String> =
        files.iter().map(|p| p.display().to_string()).filter(|p| !open.contains(p)).collect();
    if datagrams {
        open.push("syslog datagrams".to_owned());
    }
    let kind = if open.is_empty() { Kind::Degraded } else { Kind::Changed };
    let mut message = format!("reading {}", list(&open));
    if !missing.is_empty() {
        message.push_str(&format!("; waiting for {}", list(&missing)));
    }
    Health::new(kind, COMPONENT, message)
}

/// Lines to events, with what has to be remembered between lines.
#[derive(Debug, Default)]
struct Interpreter {
    attempts: Attempts,
    /// What the line before said, for daemons that log "last message repeated".
    last: Option<Authentication>,
    cut: u64,
    cut_reported: Option<(Instant, u64)>,
}

impl Interpreter {
    fn read(&mut self, bytes: &[u8], whole: bool, uid: Option<u32>, now: Instant) -> Option<Authentication> {
        if !whole {
            self.cut += 1;
        }
        let line = Line::parse(bytes);
        let message = text::from_bytes(line.message);
        let last = self.last.take();
        let Some(tag) = line.tag else {
            let count = message::repeats_of_last(&message)?;
            return last.map(|last| Authentication { count, ..last });
        };
        let found = message::parse(&text::from_bytes(tag), &message, whole)?;
        if !self.attempts.counts(line.pid, found.role, now) {
            return None;
        }
        let mut found = Authentication { pid: line.pid, ..found.authentication };
        if uid.is_some_and(|uid| uid != 0) && found.activity == Activity::Logon {
            // Only root judges logins. Anybody can send to the socket; nobody gets an address blocked that way.
            (found.source, found.source_port) = (None, None);
        }
        self.last = Some(found.clone());
        Some(found)
    }

    /// The number of cut lines, if it has grown and was not reported just now.
    fn cut_report(&mut self, now: Instant) -> Option<Health> {
        let due = match self.cut_reported {
            None => self.cut > 0,
            Some((at, count)) => self.cut > count && now.saturating_duration_since(at) >= CUT_REPORT,
        };
        if !due {
            return None;
        }
        self.cut_reported = Some((now, self.cut));
        let message = format!(
            "log lines were longer than {MAX_LINE} bytes or never finished: their ends were not read, addresses in them not used"
        );
        Some(Health::new(Kind::Lost, COMPONENT, message).with("lines_cut", self.cut))
    }
}

#[cfg(test)]
mod tests;
