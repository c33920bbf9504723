//! The sensor: log files and datagrams in, authentication events out.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Instant;

use defender_model::event::Event;
use defender_model::health::{Health, Kind};
use defender_model::time::Timestamp;
use tokio::sync::watch;

use super::datagram::{Datagram, Receiver};
use super::interpreter::Interpreter;
use super::tail::{Item, Position, Tail, INOTIFY};
use crate::{Observation, Outlet};

/// What is read altogether. Single sources are components of their own, so that one's recovery does not hide another's fault.
pub(super) const COMPONENT: &str = "login";
/// The syslog socket.
const DATAGRAMS: &str = "login syslog";

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
                notes.push(Health::new(Kind::Degraded, INOTIFY, message));
            })
            .ok()
    };
    let mut receiver = config.datagrams.and_then(|socket| {
        Receiver::new(socket)
            .map_err(|error| {
                let message = format!("cannot receive syslog datagrams: {error}");
                notes.push(Health::new(Kind::Degraded, DATAGRAMS, message));
            })
            .ok()
    });
    let start = summary(tail.as_ref(), receiver.is_some(), &config.files);
    let mut nothing_read = start.kind == Kind::Degraded;
    notes.push(start);
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
            Source::Item(Item::Opened) => {
                if std::mem::take(&mut nothing_read) {
                    let now_read = summary(tail.as_ref(), receiver.is_some(), &config.files);
                    let note = Health { kind: Kind::Recovered, ..now_read };
                    if !outlet.send(Observation::Health(note)).await {
                        return;
                    }
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
                if !outlet.send(Observation::Health(Health::new(Kind::Degraded, DATAGRAMS, message))).await {
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

#[cfg(test)]
mod tests;
