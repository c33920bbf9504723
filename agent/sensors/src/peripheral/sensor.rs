//! The task that reads what the kernel tells of devices.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use defender_model::event::Event;
use defender_model::health::{Health, Kind};
use defender_model::time::Timestamp;

use super::allow::Entry;
use super::registry::{Registry, Told};
use super::uevent::Uevent;
use crate::balance::Balance;
use crate::budget::Budget;
use crate::file::Status;
use crate::netlink::{Batch, Drops, Socket, KOBJECT_UEVENT};
use crate::{Observation, Outlet};

/// What the sensor is called in health events.
pub const COMPONENT: &str = "peripheral";
/// `UDEV_MONITOR_KERNEL`: the kernel's own messages; group 2 has udev's.
const KERNEL: u32 = 1;
/// Losses are reported at most this often.
const LOSS_REPORT: Duration = Duration::from_secs(60);
/// Between two looks at `/sys` where the kernel does not tell.
const POLL: Duration = Duration::from_secs(5);
/// Longest wait for the kernel: there is nothing else to do.
const WAIT: Duration = Duration::from_secs(60);
/// Batches read before others have a turn.
const ROUNDS: usize = 64;

/// What the sensor needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Mount point of sysfs, usually `/sys`.
    pub sys: PathBuf,
    /// The product's list; empty for none.
    pub allow: Vec<Entry>,
    /// Most events in a second; 0 for no bound.
    pub events_per_second: u32,
    /// Bytes of the kernel's buffer for what the agent has not read yet.
    pub receive_buffer: u32,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
}

/// The sensor, opened but not running.
pub struct PeripheralSensor {
    socket: Option<Socket>,
    batch: Batch,
    registry: Registry,
    /// Found at the start and not on the product's list.
    waiting: Vec<Told>,
    budget: Budget,
    clock: fn() -> Timestamp,
    status: Arc<Mutex<Status>>,
    seen: u64,
    unreadable: u64,
    overruns: u64,
    drops: Drops,
    sent: u64,
    reported: Option<(Instant, u64)>,
}

impl PeripheralSensor {
    /// Opens the kernel's socket and takes note of the devices that are there.
    #[must_use]
    pub fn open(settings: Settings) -> Self {
        let mut status = Status::default();
        let socket = match Socket::open(KOBJECT_UEVENT, KERNEL) {
            Ok(socket) => {
                socket.set_receive_buffer(i32::try_from(settings.receive_buffer).unwrap_or(i32::MAX));
                Some(socket)
            }
            Err(error) => {
                status.lacks.push(format!(
                    "devices are looked for every {} s only, and shorter visits are not seen: no messages of the kernel: {error}{}",
                    POLL.as_secs(),
                    match error.raw_os_error() {
                        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => ": the kernel lacks CONFIG_NET",
                        _ => "",
                    }
                ));
                None
            }
        };
        // After the socket: what comes in between is heard of, and known already.
        let mut registry = Registry::new(&settings.sys, settings.allow);
        let now = Instant::now();
        let waiting = registry.baseline(now, (settings.clock)());
        let how = if socket.is_some() { "messages of the kernel" } else { "looks at /sys" };
        status.modes.push(format!("devices: {how}, {} at the start", registry.len()));
        if registry.len() == 0 {
            let words =
                "no device can be read there (CONFIG_SYSFS): names and classes of devices are not known";
            status.lacks.push(format!("{}: {words}", settings.sys.display()));
        }
        Self {
            socket,
            batch: Batch::new(),
            registry,
            waiting,
            budget: Budget::new(settings.events_per_second, now),
            clock: settings.clock,
            status: Arc::new(Mutex::new(status)),
            seen: 0,
            unreadable: 0,
            overruns: 0,
            drops: Drops::default(),
            sent: 0,
            reported: None,
        }
    }

    /// What the sensor is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Runs until the pipeline is gone or `stop` is ready.
    pub async fn run(mut self, outlet: Outlet, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut out = Vec::new();
        {
            let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            out.push(Observation::Health(Health::new(Kind::Changed, COMPONENT, status.modes.join("; "))));
            for (at, words) in status.lacks.iter().enumerate() {
                let health = Health::new(Kind::Degraded, format!("{COMPONENT}.{at}"), words.clone());
                out.push(Observation::Health(health));
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.send(waiting, &mut out);
        loop {
            if !outlet.send_all(&mut out).await {
                return;
            }
            self.count();
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = self.wait() => {}
            }
            self.turn(&mut out);
        }
    }

    /// Until the kernel has something to say, or something is due.
    async fn wait(&self) {
        let due = self.registry.next().map(|due| due.saturating_duration_since(Instant::now()));
        let result = match &self.socket {
            Some(socket) => socket.readable(due.unwrap_or(WAIT)).await,
            None => {
                tokio::time::sleep(due.unwrap_or(POLL).min(POLL)).await;
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the kernel's messages about devices cannot be waited for");
            tokio::time::sleep(POLL).await;
        }
    }

    fn turn(&mut self, out: &mut Vec<Observation>) {
        let (now, time) = (Instant::now(), (self.clock)());
        let mut told = Vec::new();
        let lost = match self.socket.take() {
            Some(socket) => {
                let before = self.overruns;
                self.drain(&socket, now, time, &mut told);
                let lost = self.overruns > before;
                self.drops.look(&socket, lost);
                self.socket = Some(socket);
                lost
            }
            None => true,
        };
        if lost {
            self.registry.rescan(now, time, &mut told);
        }
        self.registry.settle(Instant::now(), &mut told);
        self.send(told, out);
        self.report_loss(out);
    }

    fn drain(&mut self, socket: &Socket, now: Instant, time: Timestamp, told: &mut Vec<Told>) {
        for _ in 0..ROUNDS {
            match socket.receive(&mut self.batch) {
                Ok(()) => {
                    for message in self.batch.datagrams() {
                        self.seen += 1;
                        match Uevent::parse(message) {
                            Some(event) => self.registry.handle(&event, now, time, told),
                            None => self.unreadable += 1,
                        }
                    }
                    if !self.batch.is_full() {
                        break;
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.overruns += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    fn send(&mut self, told: Vec<Told>, out: &mut Vec<Observation>) {
        let now = Instant::now();
        for (time, activity) in told {
            if self.budget.admits(now) {
                self.sent += 1;
                out.push(Observation::Event(Event::new(time, activity.into())));
            }
        }
    }

    /// Events that were not sent.
    const fn refused(&self) -> u64 {
        self.budget.refused() + self.registry.tally().untracked
    }

    fn report_loss(&mut self, out: &mut Vec<Observation>) {
        let lost = self.refused() + self.overruns;
        let due = match self.reported {
            None => lost > 0,
            Some((at, before)) => lost != before && at.elapsed() >= LOSS_REPORT,
        };
        if !due {
            return;
        }
        self.reported = Some((Instant::now(), lost));
        let words = "devices came or went that were not reported: there were more of them than `peripheral.events_per_second` \
                     allows, or than the kernel's buffer (`peripheral.receive_buffer_kib`) could hold; what is there was read again";
        let health = Health::new(Kind::Lost, COMPONENT, words)
            .with("over_bound", self.refused())
            .with("kernel", self.drops.total())
            .with("overruns", self.overruns);
        out.push(Observation::Health(health));
    }

    fn count(&self) {
        let tally = self.registry.tally();
        let balance = Balance {
            produced: tally.news
                + tally.joined
                + tally.idle
                + tally.untracked
                + self.unreadable
                + self.drops.total(),
            delivered: self.sent,
            aggregated: tally.joined + tally.superseded,
            unchanged: tally.idle,
            held: self.registry.held(),
            over_bound: self.budget.refused(),
            kernel: self.drops.total(),
            unreadable: self.unreadable,
            no_room: tally.untracked,
        };
        let present = self.registry.len() as u64;
        let mut counters = vec![("messages", self.seen), ("overruns", self.overruns), ("present", present)];
        counters.extend(balance.counters());
        self.status.lock().unwrap_or_else(PoisonError::into_inner).counters = counters;
    }
}
