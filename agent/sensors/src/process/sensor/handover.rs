//! From one source to the next: the new one is open before the old one is left, and what both tell is told once.

use std::time::{Duration, Instant};

use defender_model::event::EventKind;
use defender_model::health::{Health, Kind};
use defender_model::process::{Change, Process, Source};
use defender_model::time::Timestamp;

use super::ProcessSensor;
use crate::process::active::{open, open_best, Active};
use crate::process::Unavailable;
use crate::Observation;

/// How long the old source is heard beside the new one. An exec that was called before the new one had its place in the kernel is told by
/// the old one alone, and only once it has succeeded.
const OVERLAP: Duration = Duration::from_millis(100);

/// How long the new source is not believed to be the first to tell. The kernel hands audit records to whoever listens by then, also those
/// that it wrote before.
const WINDOW: Duration = Duration::from_secs(5);

/// The execs that the old source told of in its last turn, which the new one may tell of too.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// When the window closes; none when it is closed.
    closes: Option<Instant>,
    /// When the new source was opened, while the old one was in force: all before that was told by the old one.
    since: Timestamp,
    /// Process and command line; none where the old source does not know it as the new one does.
    told: Vec<(u32, Option<String>)>,
    /// When the old source was left.
    until: Timestamp,
}

impl Handover {
    /// True, once for each exec, when the old source told of it.
    pub(super) fn was_told(&mut self, process: &Process, time: Timestamp) -> bool {
        let Some(closes) = self.closes else { return false };
        if Instant::now() > closes {
            *self = Self::default();
            return false;
        }
        if time < self.since {
            return true;
        }
        if time > self.until {
            return false;
        }
        let same = |(pid, line): &(u32, Option<String>)| {
            *pid == process.pid && line.as_ref().is_none_or(|line| *line == process.command_line())
        };
        let found = self.told.iter().position(same);
        found.is_some_and(|at| {
            self.told.swap_remove(at);
            true
        })
    }
}

impl ProcessSensor {
    /// Takes from the source in force what it has not told yet: another one is open by now. `since` is when that was about to be opened,
    /// 0 where this one may not have told everything by then.
    async fn leave(&mut self, next: Source, since: Timestamp, out: &mut Vec<Observation>) {
        tokio::time::sleep(OVERLAP).await;
        // The sensor's own turn may have told of some already, but of none that the next one knows.
        match &mut self.active {
            Active::Audit(stream) => {
                let mut events = Vec::new();
                stream.read_last(&mut events);
                self.hear_audited(events, out);
            }
            #[cfg(ebpf)]
            Active::Ebpf(_) | Active::EbpfEntry(_) => self.drain_ring(out),
            Active::Connector(connector) => {
                let mut announced = Vec::new();
                let _ = connector.drain(&mut announced);
                self.hear_announced(announced, out);
            }
            Active::Poll(_) => {}
        }
        self.lost_before += self.active.lost();
        let exact = |source| matches!(source, Source::Audit | Source::Ebpf);
        let exact = exact(self.active.source()) && exact(next);
        for observation in out.iter() {
            let Observation::Event(event) = observation else { continue };
            let EventKind::Process(activity) = &event.kind else { continue };
            if matches!(activity.change, Change::Exec { .. }) {
                let line = exact.then(|| activity.process.command_line());
                self.handover.told.push((activity.process.pid, line));
            }
        }
        let now = (self.settings.clock)().0;
        // These have no time of their own, and are read a little later.
        let late = if matches!(next, Source::Connector | Source::Poll) { 300 } else { 0 };
        self.handover.until = Timestamp(now + late);
        // These miss what ends soon, of which the new one may know.
        let complete = !matches!(self.active.source(), Source::Connector | Source::Poll);
        self.handover.since = if complete { since } else { Timestamp::default() };
    }

    /// Leaves the source in force as [`leave`](Self::leave) does, and puts the next in its place.
    async fn go_over(&mut self, next: Active, since: Timestamp, out: &mut Vec<Observation>) {
        self.leave(next.source(), since, out).await;
        std::mem::replace(&mut self.active, next).close();
        // Only now is the new one heard: that the old one's programs are gone takes seconds on a slow real-time kernel.
        self.handover.closes = Some(Instant::now() + WINDOW);
    }

    /// Takes the next source that works, for good or until a better one is tried again.
    pub(super) async fn fall_back(&mut self, unavailable: &Unavailable, out: &mut Vec<Observation>) {
        let failed = self.active.source();
        let order = self.settings.preference.order();
        let rest = order.iter().position(|source| *source == failed).map_or(order, |at| &order[at + 1..]);
        let mut declined = self.declined();
        declined.retain(|(source, _)| source.is_loaded());
        declined.push((failed, unavailable.to_string()));
        // Up to here everything was told, unless the source has failed to.
        let unsure = self.active.unsure_since();
        let since = if unsure.is_none() { (self.settings.clock)() } else { Timestamp::default() };
        let next = open_best(&self.settings, &self.writers, rest, &mut declined);
        let unseen = unsure.map(|since| since.elapsed());
        let mut words =
            format!("source {failed} failed: {unavailable}; now {}: {}", next.source(), next.detail());
        if std::fs::read_link(self.settings.proc.join("1/exe")).is_err() {
            words.push_str("; paths of programs cannot be read, rules about them are blind");
        }
        out.push(Observation::Health(Health::new(Kind::Degraded, "process", words)));
        if let Some(unseen) = unseen {
            self.went_unseen(unseen, out);
        }
        self.go_over(next, since, out).await;
        self.next_upgrade = Some(Instant::now() + self.settings.upgrade_interval);
        self.update_status(|status| status.declined = declined);
        self.resynchronise(out);
    }

    /// Nothing could be told for so long. How many programs were started meanwhile nobody knows.
    pub(super) fn went_unseen(&self, unseen: Duration, out: &mut Vec<Observation>) {
        // Rather too long than too short.
        let milliseconds = unseen.as_millis() as u64 + 1;
        let words = "for a while it was not told what programs were started; what still runs is found by comparing /proc";
        out.push(Observation::Health(
            Health::new(Kind::Lost, "process", words).with("milliseconds", milliseconds),
        ));
        self.tally(|status| status.unseen_ms += milliseconds);
    }

    /// Tries the sources that are better than the one in force.
    pub(super) async fn upgrade(&mut self, out: &mut Vec<Observation>) {
        let current = self.active.source();
        let better = self.settings.preference.order().iter().copied().take_while(|source| *source != current);
        // Loading programs was a privilege of the start: why that failed stays what it was.
        let mut declined = self.declined();
        declined.retain(|(source, _)| source.is_loaded());
        for source in better.filter(|source| !source.is_loaded()) {
            let since = (self.settings.clock)();
            match open(&self.settings, &self.writers, source) {
                Ok(active) => {
                    let words = format!("source {source} works again: {}", active.detail());
                    out.push(Observation::Health(Health::new(Kind::Recovered, "process", words)));
                    self.go_over(active, since, out).await;
                    self.resynchronise(out);
                    break;
                }
                Err(unavailable) => declined.push((source, unavailable.to_string())),
            }
        }
        let again = declined.iter().any(|(source, _)| !source.is_loaded());
        self.next_upgrade = again.then(|| Instant::now() + self.settings.upgrade_interval);
        self.update_status(|status| status.declined = declined);
    }
}
