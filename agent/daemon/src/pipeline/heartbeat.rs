//! What the agent says of itself at intervals: figures since the start, and sensors that fell silent.

use std::sync::atomic::Ordering;
use std::sync::PoisonError;
use std::time::Instant;

use defender_model::health::{Health, Kind};
use defender_model::process::Source;
use defender_model::text::truncate;

use super::answer::part_status;
use super::clock_step::since_boot;
use super::silence::Told;
use super::{vitals, Pipeline};

/// Longest list of what is degraded in a heartbeat, in bytes.
const REASONS: usize = 1024;

impl Pipeline {
    /// Sensors that tell nothing while the kernel's counters move.
    pub(super) fn notice_silence(&mut self) {
        let parts = &self.parts;
        let told = || {
            let process = parts.process.as_ref().and_then(|shared| {
                let status = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let complete = !matches!(status.source, None | Some(Source::Poll));
                complete.then_some(status.execs + status.exits + status.lost)
            });
            let network = parts.network.as_ref().and_then(|shared| {
                let status = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let network = &parts.config.network;
                let all = network.include_interfaces.is_empty() && network.exclude_interfaces.is_empty();
                let tracked = status.modes.iter().any(|mode| mode.starts_with("connections"));
                (all && tracked).then_some(status.flows_seen + status.overruns)
            });
            Told { process, network }
        };
        for health in self.silence.turn(Instant::now(), told, &parts.config.response.nft) {
            self.say(health);
        }
    }

    /// The wall clock was set.
    pub(super) fn notice_clock_step(&mut self) {
        let (before, wall, after) = (since_boot(), (self.parts.clock)(), since_boot());
        let (Some(before), Some(after)) = (before, after) else { return };
        if let Some(health) = self.clock_step.turn([before, after], wall.0, self.sequence.last()) {
            self.say(health);
        }
    }

    pub(super) fn statistics(&mut self) {
        let counts = self.counts.clone();
        let lost = self.process_status().lost;
        let reasons = self.standing.reasons();
        let mut words = format!("heartbeat: {}; events since start", self.health_word());
        for reason in &reasons {
            words.push_str("; ");
            words.push_str(reason);
        }
        words.truncate(truncate(&words, REASONS).len());
        let health = Health::new(Kind::Statistics, "agent", words)
            .with("process", counts.process)
            .with("authentication", counts.authentication)
            .with("findings", counts.findings)
            .with("remediations", counts.remediations)
            .with("alerts_repeated", self.suppressor.stats().repeats)
            .with("alerts_withheld", self.suppressor.stats().withheld)
            .with("excepted", self.parts.detector.exceptions().map(|(_, count)| count).sum())
            .with("groups_forgotten", self.parts.detector.stats().evictions)
            .with("process_lost", lost)
            .with("network", counts.network)
            .with("files", counts.files)
            .with("peripherals", counts.peripherals)
            .with("received", counts.received)
            .with("emitted", counts.emitted)
            .with("queue_dropped", self.drops.load(Ordering::Relaxed))
            .with("degraded", reasons.len() as u64)
            .with("uptime_s", self.parts.began.elapsed().as_secs())
            .with("rss_kib", vitals::resident_kib())
            .with("cpu_ms", vitals::processor_ms())
            .with("sinks_dropped", self.sinks.status().iter().map(|sink| sink.dropped).sum());
        self.say(health);
        if let Some(shared) = &self.parts.process {
            let status = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let source = status.source.map_or("none", Source::name);
            let mut health =
                Health::new(Kind::Statistics, "process", format!("since start; source {source}"));
            health.counters = self.process_status().counters;
            self.say(health);
        }
        let parts = [
            ("login", self.logins_status()),
            ("network", self.network_status()),
            ("files", self.files_status()),
            ("peripheral", self.peripherals_status()),
            ("packet_filter", self.packet_filter_status()),
            ("module", part_status(self.parts.modules.as_ref())),
            ("services", part_status(self.parts.services.as_ref())),
            ("submissions", part_status(self.parts.submissions.as_ref())),
            ("accounts", part_status(self.parts.accounts.as_ref())),
            ("inventory", part_status(self.parts.inventory.as_ref())),
        ];
        for (name, part) in parts {
            if !part.counters.is_empty() {
                let mut health = Health::new(Kind::Statistics, name, "since start");
                health.counters = part.counters;
                self.say(health);
            }
        }
    }
}
