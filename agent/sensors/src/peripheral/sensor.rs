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
use crate::reopening::Reopening;
use crate::{Observation, Outlet};

/// What the sensor is called in health events.
pub const COMPONENT: &str = "peripheral";
/// The kernel's messages in health events, and what they are.
const SOURCE: &str = "peripheral.messages";
const WHAT: &str = "the kernel's messages about devices";
/// `UDEV_MONITOR_KERNEL`: the kernel's own messages; group 2 has udev's.
const KERNEL: u32 = 1;
/// Losses are reported at most this often.
const LOSS_REPORT: Duration = Duration::from_secs(60);
/// Between two looks at `/sys` where the kernel does not tell.
const POLL: Duration = Duration::from_secs(5);
/// After a wait that failed.
const PAUSE: Duration = Duration::from_secs(1);
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
    reopening: Reopening,
    receive_buffer: u32,
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
        let socket = match listen(settings.receive_buffer) {
            Ok(socket) => Some(socket),
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
            reopening: Reopening::default(),
            receive_buffer: settings.receive_buffer,
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
                let again = self.reopening.wake().map(|at| at.saturating_duration_since(Instant::now()));
                tokio::time::sleep(due.unwrap_or(POLL).min(again.unwrap_or(POLL)).min(POLL)).await;
                Ok(())
            }
        };
        if let Err(error) = result {
            // Reading it tells what is wrong with it.
            tracing::warn!(%error, "the kernel's messages about devices cannot be waited for");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn turn(&mut self, out: &mut Vec<Observation>) {
        let (now, time) = (Instant::now(), (self.clock)());
        let mut told = Vec::new();
        let gap = self.socket.is_none();
        self.reopen(now, out);
        let lost = self.drain(now, time, &mut told, out) || gap;
        if lost {
            self.registry.rescan(now, time, &mut told);
        }
        self.registry.settle(Instant::now(), &mut told);
        self.send(told, out);
        self.report_loss(out);
    }

    /// Reads what the kernel tells; true when it dropped something, or cannot be read.
    fn drain(
        &mut self,
        now: Instant,
        time: Timestamp,
        told: &mut Vec<Told>,
        out: &mut Vec<Observation>,
    ) -> bool {
        let Some(socket) = self.socket.take() else { return true };
        let mut batch = std::mem::replace(&mut self.batch, Batch::empty());
        let drained = socket.drain(&mut batch, ROUNDS, &mut |batch| {
            for message in batch.datagrams() {
                self.seen += 1;
                match Uevent::parse(message) {
                    Some(event) => self.registry.handle(&event, now, time, told),
                    None => self.unreadable += 1,
                }
            }
        });
        self.batch = batch;
        let lost = drained.as_ref().map_or(true, |overruns| *overruns > 0);
        self.drops.look(&socket, lost && drained.is_ok());
        match drained {
            Ok(overruns) => {
                self.overruns += overruns;
                self.socket = Some(socket);
            }
            Err(error) => {
                if let Some(health) = self.reopening.broke(now, SOURCE, WHAT, &error) {
                    self.show(|status| status.lacks.push(health.message.clone()));
                    out.push(Observation::Health(health));
                }
            }
        }
        lost
    }

    /// Opens a socket that failed again.
    fn reopen(&mut self, now: Instant, out: &mut Vec<Observation>) {
        if !self.reopening.is_due(now) {
            return;
        }
        match listen(self.receive_buffer) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.drops.renew();
                self.show(|status| status.lacks.retain(|lack| !lack.starts_with(WHAT)));
                out.extend(self.reopening.mended(now, SOURCE, WHAT).map(Observation::Health));
            }
            Err(_) => {
                self.reopening.failed(now);
            }
        }
    }

    fn show(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
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

fn listen(receive_buffer: u32) -> io::Result<Socket> {
    let socket = Socket::open(KOBJECT_UEVENT, KERNEL)?;
    socket.set_receive_buffer(i32::try_from(receive_buffer).unwrap_or(i32::MAX));
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_that_is_taken_away_is_opened_again_and_sysfs_looked_through() {
        let sys = tempfile::tempdir().unwrap();
        let mut sensor = PeripheralSensor::open(Settings {
            sys: sys.path().into(),
            allow: Vec::new(),
            events_per_second: 0,
            receive_buffer: 1 << 16,
            clock: || Timestamp(1),
        });
        let Some(socket) = &sensor.socket else { return println!("skipped: no messages of the kernel here") };
        socket.injure();
        let mut said = Vec::new();
        let end = Instant::now() + Duration::from_secs(60);
        while said.len() < 2 {
            assert!(Instant::now() < end, "{said:?}");
            let mut out = Vec::new();
            sensor.wait().await;
            // Plugged in while nothing can be heard.
            let card = sys.path().join("class/net/eth9");
            fs::create_dir_all(&card).unwrap();
            sensor.turn(&mut out);
            for observation in out {
                let Observation::Health(health) = observation else { continue };
                let lacks =
                    sensor.status.lock().unwrap().lacks.iter().filter(|lack| lack.starts_with(WHAT)).count();
                said.push((health.kind, health.component, lacks));
            }
        }
        assert_eq!(said, [(Kind::Degraded, SOURCE.to_owned(), 1), (Kind::Recovered, SOURCE.to_owned(), 0)]);
        assert!(sensor.socket.is_some() && sensor.reopening.wake().is_none());
    }
}
