//! From one source to the next: the new one is open before the old one is left, and what both tell is told once.

use std::time::{Duration, Instant};

use defender_model::event::EventKind;
use defender_model::process::{Change, Process, Source};
use defender_model::time::Timestamp;

use super::ProcessSensor;
use crate::process::active::Active;
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
    /// 0 where this one had failed by then.
    pub(super) async fn leave(&mut self, next: Source, since: Timestamp, out: &mut Vec<Observation>) {
        tokio::time::sleep(OVERLAP).await;
        // The sensor's own turn may have told of some already, but of none that the next one knows.
        match &mut self.active {
            // What it says of itself does not matter any more.
            Active::Audit(_) => drop(self.audit_turn(out).await),
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
        self.handover.closes = Some(Instant::now() + WINDOW);
    }
}
