//! The sensor: log files and datagrams in, authentication events out.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use defender_model::authentication::Activity;
use defender_model::event::{Event, EventKind};
use defender_model::health::{Health, Kind};
use defender_model::time::Timestamp;
use tokio::sync::watch;

use super::accounting::Accounting;
use super::datagram::{self, Datagram, Seat};
use super::interpreter::Interpreter;
use super::merger::{Figures, Merger};
use super::report::{Inbox, Report, Teller};
use super::tail::{Item, Position, Tail, INOTIFY};
use crate::balance::Balance;
use crate::file::Status;
use crate::{Observation, Outlet};

/// What is read altogether. Single sources are components of their own, so that one's recovery does not hide another's fault.
pub(super) const COMPONENT: &str = "login";

/// What to read.
#[derive(Debug, Default)]
pub struct Config {
    /// Log files; those that do not exist (yet) are waited for.
    pub files: Vec<PathBuf>,
    /// Where an earlier run stopped.
    pub positions: Vec<Position>,
    /// A bound socket that syslog(3) sends to, where no syslog daemon runs, and where it is.
    pub datagrams: Option<(UnixDatagram, PathBuf)>,
    /// utmp, wtmp and btmp, by whatever names; those that do not exist (yet) are waited for.
    pub accounting: Vec<PathBuf>,
    /// What others tell: the audit stream, PAM.
    pub reports: Option<Inbox>,
    /// Kept up to date.
    pub status: Arc<Mutex<Status>>,
}

/// Names of counters by [`Teller`].
const TELLERS: [&str; Teller::COUNT] = ["log", "utmp", "wtmp", "btmp", "audit", "pam"];

/// Reads until the pipeline is gone (or there is nothing to read from, which it reports).
///
/// `now` is the wall clock: an event's time is the arrival of what first told of it, since the stamps of log lines have neither year
/// nor zone. `positions` is kept up to date with what has been handed to the pipeline, for the next run's [`Config::positions`].
pub async fn run(
    config: Config,
    now: fn() -> Timestamp,
    outlet: Outlet,
    positions: watch::Sender<Vec<Position>>,
) {
    let mut notes = Vec::new();
    let mut unwatched = |what: &str, error: std::io::Error| {
        let message = format!("cannot follow {what}, inotify is not to be had: {error}");
        notes.push(Health::new(Kind::Degraded, INOTIFY, message));
    };
    let mut tail = if config.files.is_empty() {
        None
    } else {
        Tail::new(&config.files, &config.positions).map_err(|error| unwatched("log files", error)).ok()
    };
    let mut accounting = if config.accounting.is_empty() {
        None
    } else {
        Accounting::new(&config.accounting).map_err(|error| unwatched("utmp, wtmp and btmp", error)).ok()
    };
    let mut receiver = config.datagrams.and_then(|(socket, path)| {
        Seat::new(path, socket)
            .map_err(|error| {
                let message = format!("cannot receive syslog datagrams: {error}");
                notes.push(Health::new(Kind::Degraded, datagram::COMPONENT, message));
            })
            .ok()
    });
    let mut others = config.reports;
    let refused = others.as_ref().map(|inbox| Arc::clone(&inbox.refused));
    let mut told_by = [0; Teller::COUNT];
    let mut balance = Balance::default();
    let mut reports = Vec::new();
    if let Some(accounting) = &mut accounting {
        accounting.read(&mut reports);
    }
    let start = summary(tail.as_ref(), accounting.as_ref(), is_open(&receiver), &config.files);
    let mut nothing_read = start.kind == Kind::Degraded;
    show(&config.status, |status| {
        status.modes = vec![start.message.clone()];
        status.counters = counters(&[0; Teller::COUNT], &Merger::default(), Balance::default());
    });
    notes.push(start);
    for note in notes {
        if !outlet.send(Observation::Health(note)).await {
            return;
        }
    }
    let mut reader = Interpreter::default();
    let mut merger = Merger::default();
    let mut events = Vec::new();
    loop {
        let monotonic = Instant::now();
        for report in reports.drain(..) {
            let attempts = u64::from(report.login.count.max(1));
            told_by[report.teller.index()] += attempts;
            // Sessions that were there before the agent are no news.
            balance.produced += if report.since.is_none() { attempts } else { 0 };
            merger.take(report, now(), monotonic, &mut events);
        }
        merger.expire(monotonic, &mut events);
        balance.delivered += events.iter().map(attempts).sum::<u64>();
        balance.no_room = refused.as_ref().map_or(0, |refused| refused.load(Ordering::Relaxed));
        show(&config.status, |status| {
            let produced = balance.produced + balance.no_room + balance.unreadable;
            status.counters = counters(&told_by, &merger, Balance { produced, ..balance });
        });
        for event in events.drain(..) {
            if !outlet.send(Observation::Event(event)).await {
                return;
            }
        }
        let source = tokio::select! {
            item = next_item(&mut tail, &positions) => Source::Item(item),
            datagram = next_datagram(&mut receiver) => Source::Datagram(datagram),
            () = changed(&mut accounting) => Source::Accounting,
            report = next_report(&mut others) => Source::Report(report),
            () = due(merger.wake()) => Source::Due,
        };
        let monotonic = Instant::now();
        let mut opened = false;
        let mut note = None;
        match source {
            Source::Due => {}
            Source::Item(Item::Note(health)) => note = Some(health),
            Source::Item(Item::Opened) => opened = true,
            Source::Item(Item::Line(line)) => {
                let found = reader.read(&line.bytes, line.whole, None, monotonic);
                balance.unreadable += u64::from(!line.whole && found.is_none());
                reports.extend(found.map(|login| Report::new(Teller::Log, login)));
            }
            Source::Datagram(Ok(Datagram { bytes, whole, uid })) => {
                if let Some(login) = reader.read(&bytes, whole, uid, monotonic) {
                    if uid.is_some_and(|uid| uid != 0) && login.activity != Activity::Logoff {
                        // Anybody can send this. It is an event of its own and takes nothing of what others tell.
                        told_by[Teller::Log.index()] += u64::from(login.count);
                        balance.produced += u64::from(login.count);
                        events.push(Event::new(now(), login.into()));
                    } else {
                        reports.push(Report::new(Teller::Log, login));
                    }
                } else if !whole {
                    balance.unreadable += 1;
                }
            }
            Source::Datagram(Err(said)) => {
                opened = said.is_some();
                note = said;
            }
            Source::Accounting => {
                if let Some(accounting) = &mut accounting {
                    let before = accounting.open_files().count();
                    note = accounting.note();
                    accounting.read(&mut reports);
                    opened = accounting.open_files().count() > before;
                }
            }
            Source::Report(Some(report)) => reports.push(report),
            Source::Report(None) => others = None,
        }
        if opened {
            let now_read = summary(tail.as_ref(), accounting.as_ref(), is_open(&receiver), &config.files);
            show(&config.status, |status| status.modes = vec![now_read.message.clone()]);
            if now_read.kind != Kind::Degraded && std::mem::take(&mut nothing_read) {
                note = Some(Health { kind: Kind::Recovered, ..now_read });
            }
        }
        for note in note.into_iter().chain(reader.cut_report(monotonic)) {
            if !outlet.send(Observation::Health(note)).await {
                return;
            }
        }
    }
}

fn show(status: &Mutex<Status>, change: impl FnOnce(&mut Status)) {
    change(&mut status.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The figures: what each source told of, what the merger did with it, and the sheet.
fn counters(told_by: &[u64; Teller::COUNT], merger: &Merger, balance: Balance) -> Vec<(&'static str, u64)> {
    let mut counters = Vec::with_capacity(16);
    counters.extend(TELLERS.into_iter().zip(told_by.iter().copied()));
    let figures = merger.figures();
    counters.extend([("merged", figures.merged), ("sessions", figures.sessions)]);
    let Figures { aggregated, unchanged, held, .. } = figures;
    counters.extend(Balance { aggregated, unchanged, held, ..balance }.counters());
    counters
}

/// How many attempts an event is about.
fn attempts(event: &Event) -> u64 {
    match &event.kind {
        EventKind::Authentication(login) => u64::from(login.count),
        _ => 0,
    }
}

enum Source {
    Item(Item),
    /// Or what is to be said of the socket.
    Datagram(Result<Datagram, Option<Health>>),
    Accounting,
    Report(Option<Report>),
    Due,
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

async fn next_datagram(seat: &mut Option<Seat>) -> Result<Datagram, Option<Health>> {
    match seat {
        Some(seat) => seat.next().await,
        None => std::future::pending().await,
    }
}

fn is_open(seat: &Option<Seat>) -> bool {
    seat.as_ref().is_some_and(Seat::is_open)
}

async fn changed(accounting: &mut Option<Accounting>) {
    match accounting {
        Some(accounting) => accounting.changed().await,
        None => std::future::pending().await,
    }
}

async fn next_report(inbox: &mut Option<Inbox>) -> Option<Report> {
    match inbox {
        Some(inbox) => inbox.receiver.recv().await,
        None => std::future::pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What is read and what is waited for, in one sentence.
fn summary(
    tail: Option<&Tail>,
    accounting: Option<&Accounting>,
    datagrams: bool,
    files: &[PathBuf],
) -> Health {
    let list = |paths: &[String]| if paths.is_empty() { "nothing".to_owned() } else { paths.join(", ") };
    let mut open: Vec<String> =
        tail.iter().flat_map(|t| t.open_files()).map(|p| p.display().to_string()).collect();
    let missing: Vec<String> =
        files.iter().map(|p| p.display().to_string()).filter(|p| !open.contains(p)).collect();
    open.extend(accounting.iter().flat_map(|a| a.open_files()).map(|p| p.display().to_string()));
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
