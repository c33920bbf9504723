//! What happens to an observation: it is numbered, judged, acted on, encoded once and handed to every sink.
//!
//! | Module | Holds |
//! |---|---|
//! | `sequence` | sequence numbers |
//! | `respond` | what is done about a finding |
//! | `responder` | the task that owns the firewall |
//! | `isolator` | isolation of the device, within that task |
//! | `sinks` | the sinks of the configuration |
//! | `certificate` | a certificate the device shows, and how long it lasts |
//! | `recent` | the latest events, for who asks |
//! | `silence` | sensors that should have spoken and did not |
//! | `clock_step` | steps of the wall clock |
//! | `heartbeat` | what is said at intervals |
//! | `answer` | what is asked of the agent, and answered |
//! | `vitals` | what the agent itself takes of the device |
//! | `standing` | how the agent is, from what its parts say |

mod answer;
#[cfg(feature = "tls")]
mod certificate;
mod clock_step;
mod heartbeat;
mod isolator;
mod recent;
mod respond;
mod responder;
mod sequence;
mod silence;
mod sinks;
mod standing;
mod vitals;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use defender_detect::suppression::Suppressor;
use defender_detect::Detector;
use defender_model::event::{Event, EventKind};
use defender_model::finding::Finding;
use defender_model::health::{Health, Kind};
use defender_model::identity::DeviceIdentity;
use defender_model::ocsf;
use defender_model::remediation::{Action, Outcome, Remediation};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_sensors::{file, network, process, Observation};
use tokio::sync::{mpsc, Notify};

use crate::posture::schedule::concerns;
use crate::request::{BlockedAddress, Desk, EventCounts, IsolationStatus, Notice, Requests};
use crate::response::hook::Hook;
use crate::{feeds, files, logins};
use clock_step::ClockStep;
use recent::{text, Recent};
use responder::{Done, Responder};
use sequence::Sequence;
use silence::Silence;
use sinks::Sinks;
use standing::Standing;

/// Observations taken from the channel at a time.
const BATCH: usize = 256;
/// Alerts and events kept for who asks, and the bytes they may take.
const ALERTS: (usize, usize) = (200, 256 << 10);
const EVENTS: (usize, usize) = (256, 256 << 10);
/// How long the firewall may take to carry out its last orders.
const LAST_ORDERS: Duration = Duration::from_secs(2);
/// Capacity that the buffer for encoding keeps: an event with hostile arguments must not hold megabytes for ever.
const BUFFER: usize = 256 << 10;
/// Seconds between two reports of alerts that went over their rule's rate.
const WITHHELD_S: u32 = 60;
/// Milliseconds that an observation may take from the sensor to detection.
const UNDER_WAY_MS: i64 = 2000;
/// How long sinks may take to write what they hold when the agent stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the pipeline is made of.
pub struct Parts {
    /// Who the device is.
    pub device: DeviceIdentity,
    /// Detection, with its rules.
    pub detector: Detector,
    /// Rules and files that were left out.
    pub rule_errors: Vec<String>,
    /// Sections `response` and `sink.*` of the configuration.
    pub config: crate::config::Config,
    /// What the process sensor is doing; `None` when it is off.
    pub process: Option<Arc<Mutex<process::Status>>>,
    /// What the network sensor is doing; `None` when it is off.
    pub network: Option<Arc<Mutex<network::Status>>>,
    /// The file sensor; `None` when it is off.
    pub files: Option<files::Handle>,
    /// What the peripheral sensor is doing; `None` when it is off.
    pub peripherals: Option<Arc<Mutex<file::Status>>>,
    /// The login sensor; `None` when it is off.
    pub logins: Option<logins::Handle>,
    /// What the watch on the packet filter is doing; `None` when it is off.
    pub packet_filter: Option<Arc<Mutex<file::Status>>>,
    /// What the watch on kernel modules is doing; `None` when it is off.
    pub modules: Option<Arc<Mutex<file::Status>>>,
    /// What the watch on services is doing; `None` when it is off.
    pub services: Option<Arc<Mutex<file::Status>>>,
    /// What became of what other services submitted; `None` without D-Bus.
    pub submissions: Option<Arc<Mutex<file::Status>>>,
    /// The watch on accounts.
    pub accounts: Option<Arc<Mutex<file::Status>>>,
    /// The list of what the device consists of.
    pub inventory: Option<Arc<Mutex<file::Status>>>,
    /// Told when another program changed a table of the agent.
    pub disturbed: Arc<Notify>,
    /// Measures of confinement, as `measure: state`.
    pub confinement: Vec<String>,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
    /// When the daemon began to start.
    pub began: Instant,
    /// Told when something happened that the posture may depend on; `None` when it is not judged.
    pub posture: Option<Arc<Notify>>,
}

/// The pipeline.
pub struct Pipeline {
    parts: Parts,
    desk: Desk,
    responder: Responder,
    done: mpsc::Receiver<Done>,
    hook: Option<Hook>,
    hooked: Option<mpsc::Receiver<Remediation>>,
    feeds: mpsc::Receiver<feeds::News>,
    sinks: Sinks,
    encoder: ocsf::Encoder,
    sequence: Sequence,
    /// Sequence number at which this run of the agent began; 0 for the first of a boot.
    resumed_at: u64,
    standing: Standing,
    silence: Silence,
    clock_step: ClockStep,
    /// Observations that found no room in the pipeline.
    drops: Arc<AtomicU64>,
    alerts: Recent,
    events: Recent,
    counts: EventCounts,
    armed_after: Option<Duration>,
    ready: bool,
    firewall_error: String,
    /// When the isolation of the device ends, and why there is one.
    isolated: Option<(Instant, String)>,
    buffer: Vec<u8>,
    findings: Vec<Finding>,
    /// Findings that suppression lets out.
    due: Vec<Finding>,
    suppressor: Suppressor,
    /// By exception: its end was said.
    ended: Vec<bool>,
}

impl Pipeline {
    /// Starts the firewall's task and the sinks. Needs a runtime. `drops` counts observations that found no room.
    #[must_use]
    pub fn start(parts: Parts, desk: Desk, drops: Arc<AtomicU64>) -> Self {
        let response = &parts.config.response;
        let firewall = defender_firewall::Config {
            nft: response.nft.clone(),
            state_file: Some(parts.config.agent.state_dir.join("blocks.json")),
            allow: response.allow.iter().map(|prefix| prefix.0).collect(),
            allow_gateway: response.allow_gateway,
            ..defender_firewall::Config::default()
        };
        let peers = response.isolate_allow.iter().map(|prefix| prefix.0).collect();
        let (responder, done) = Responder::start(firewall, peers, parts.clock, Arc::clone(&parts.disturbed));
        let (hook, hooked) = (!response.hook.as_os_str().is_empty())
            .then(|| Hook::start(response.hook.clone(), Duration::from_secs(response.hook_timeout_s)))
            .unzip();
        let ended = vec![false; parts.detector.rules().exceptions().len()];
        let feeds = feeds::start(&parts.config);
        let sequence = Sequence::open(&parts.config.agent.run_dir.join("sequence"));
        Self {
            responder,
            done,
            hook,
            hooked,
            feeds,
            sinks: Sinks::start(&parts.config, &parts.device),
            encoder: ocsf::Encoder::new(&parts.device),
            resumed_at: sequence.last(),
            sequence,
            standing: Standing::default(),
            clock_step: ClockStep::default(),
            silence: Silence::new(Duration::from_secs(parts.config.agent.silent_after_s), Instant::now()),
            drops,
            alerts: Recent::new(ALERTS.0, ALERTS.1),
            events: Recent::new(EVENTS.0, EVENTS.1),
            counts: EventCounts::default(),
            armed_after: None,
            ready: false,
            firewall_error: String::new(),
            isolated: None,
            buffer: Vec::new(),
            findings: Vec::new(),
            due: Vec::new(),
            suppressor: Suppressor::new(crate::rules::suppression(&parts.config)),
            ended,
            desk,
            parts,
        }
    }

    /// Works until every sensor is gone, then lets the sinks finish.
    ///
    /// `armed` is called once, when detection and response stand; `beat` about once a second, as long as the pipeline turns.
    pub async fn run(
        mut self,
        mut observations: mpsc::Receiver<Observation>,
        mut requests: Requests,
        armed: impl FnOnce(),
        beat: impl Fn(),
    ) {
        let mut armed = Some(armed);
        let mut batch = Vec::with_capacity(BATCH);
        let mut heart = tokio::time::interval(Duration::from_secs(1));
        heart.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let every = self.parts.config.agent.statistics_interval_s;
        let mut until_statistics = every;
        let mut until_withheld = WITHHELD_S;
        loop {
            tokio::select! {
                biased;
                Some(done) = self.done.recv() => {
                    self.answer_of_firewall(done);
                    if self.ready {
                        if let Some(armed) = armed.take() {
                            self.arm();
                            armed();
                        }
                    }
                }
                Some(done) = next(&mut self.hooked) => self.remediated(done),
                Some((request, answer)) = requests.recv() => self.serve(request, answer),
                Some(news) = self.feeds.recv() => self.feed(news),
                _ = heart.tick() => {
                    beat();
                    self.miss();
                    self.thin_out();
                    self.notice_silence();
                    self.notice_clock_step();
                    until_withheld -= 1;
                    if until_withheld == 0 {
                        until_withheld = WITHHELD_S;
                        self.say_withheld();
                    }
                    for health in self.sinks.changes() {
                        self.say(health);
                    }
                    until_statistics = until_statistics.saturating_sub(1);
                    if every > 0 && until_statistics == 0 {
                        until_statistics = every;
                        self.statistics();
                    }
                }
                count = observations.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    for observation in batch.drain(..) {
                        match observation {
                            Observation::Event(event) => self.judge(event),
                            Observation::Health(health) => self.say(health),
                        }
                        if self.sinks.is_full() {
                            self.sinks.flush().await;
                        }
                    }
                }
            }
            self.sinks.flush().await;
        }
        let mut due = Vec::new();
        self.suppressor.flush(&mut due);
        for finding in due {
            self.alert(finding);
        }
        self.say_withheld();
        self.say(Health::new(Kind::Stopping, "agent", "the agent was told to stop"));
        self.responder.close();
        let outcomes = async {
            while let Some(done) = self.done.recv().await {
                self.answer_of_firewall(done);
            }
        };
        if tokio::time::timeout(LAST_ORDERS, outcomes).await.is_err() {
            tracing::warn!("the firewall did not finish in time");
        }
        self.sequence.close();
        if tokio::time::timeout(FAREWELL, self.sinks.close()).await.is_err() {
            tracing::warn!("sinks did not finish in time; what they held is lost");
        }
    }

    fn arm(&mut self) {
        let after = self.parts.began.elapsed();
        self.armed_after = Some(after);
        let loaded = self.parts.detector.rules().rules().filter(|rule| rule.enabled).count() as u64;
        let health = Health::new(Kind::Armed, "agent", "sensors, detection and response are in place")
            .with("rules", loaded)
            .with("milliseconds", after.as_millis() as u64);
        self.say(health);
    }

    fn feed(&mut self, news: feeds::News) {
        match news {
            feeds::News::Set(feed) => self.parts.detector.set_feed(*feed),
            feeds::News::Remove(name) => {
                self.parts.detector.remove_feed(&name);
            }
            feeds::News::Said(health) => self.say(health),
        }
    }

    /// One event of a sensor: findings and orders first, so that nothing delays a block.
    fn judge(&mut self, event: Event) {
        if let Some(posture) = self.parts.posture.as_ref().filter(|_| concerns(&event)) {
            posture.notify_one();
        }
        if let EventKind::Finding(finding) = event.kind {
            // Concluded elsewhere than by rules: the posture got worse.
            self.alert(*finding);
            return;
        }
        self.counts.received += 1;
        let mut findings = std::mem::take(&mut self.findings);
        self.parts.detector.inspect(&event, &mut findings);
        self.act_on(&mut findings);
        match &event.kind {
            EventKind::Process(_) => self.counts.process += 1,
            EventKind::Authentication(_) => self.counts.authentication += 1,
            EventKind::Network(_) | EventKind::Listener(_) | EventKind::Dns(_) => self.counts.network += 1,
            EventKind::File(_) => self.counts.files += 1,
            EventKind::Peripheral(_) => self.counts.peripherals += 1,
            _ => {}
        }
        self.emit(event);
        self.tell(&mut findings);
        self.findings = findings;
    }

    /// Names findings apart from those before a restart, and orders the responses to them.
    fn act_on(&mut self, findings: &mut [Finding]) {
        if self.resumed_at > 0 {
            // Detection counts from one again after a restart; a receiver must not take the finding for one it has.
            for finding in &mut *findings {
                finding.uid = format!("{}.{}", finding.uid, self.resumed_at);
            }
        }
        for finding in findings {
            self.respond(finding);
        }
    }

    /// Sends of the findings what suppression lets out.
    fn tell(&mut self, findings: &mut Vec<Finding>) {
        let now = (self.parts.clock)();
        let mut due = std::mem::take(&mut self.due);
        for finding in findings.drain(..) {
            self.suppressor.admit(finding, now, &mut due);
        }
        for finding in due.drain(..) {
            self.alert(finding);
        }
        self.due = due;
    }

    /// Once a second: what did not happen. Observations under way are given time to arrive.
    fn miss(&mut self) {
        let mut findings = std::mem::take(&mut self.findings);
        self.parts.detector.tick((self.parts.clock)() - UNDER_WAY_MS, &mut findings);
        self.act_on(&mut findings);
        self.tell(&mut findings);
        self.findings = findings;
    }

    /// Once a second: repeats whose window is over, and exceptions that ended.
    fn thin_out(&mut self) {
        let now = (self.parts.clock)();
        let mut due = std::mem::take(&mut self.due);
        self.suppressor.tick(now, &mut due);
        for finding in due.drain(..) {
            self.alert(finding);
        }
        self.due = due;
        let over: Vec<String> = self
            .parts
            .detector
            .exceptions()
            .zip(&mut self.ended)
            .filter(|((exception, _), said)| !**said && exception.is_expired(now))
            .map(|((exception, _), said)| {
                *said = true;
                let spec = &exception.spec;
                format!(
                    "the exception for rule `{}` has expired: {} ({})",
                    spec.rule, spec.reason, spec.owner
                )
            })
            .collect();
        for words in over {
            let mut health = Health::new(Kind::Changed, "rules", words);
            health.severity = Severity::Medium;
            self.say(health);
        }
    }

    /// What went over its rule's rate, and what correlations had no room for.
    fn say_withheld(&mut self) {
        for (title, groups) in self.parts.detector.take_evicted() {
            let words = format!(
                "correlation \"{title}\" forgot groups of events early: more at once than it may remember; somebody may be \
                 making noise on purpose"
            );
            self.say(Health::new(Kind::Lost, "rules", words).with("groups", groups));
        }
        for withheld in self.suppressor.take_withheld() {
            let words =
                format!("alerts of rule \"{}\" were withheld: it exceeds its hourly bound", withheld.title);
            self.say(Health::new(Kind::Lost, "rules", words).with("alerts", withheld.count));
        }
    }

    fn alert(&mut self, finding: Finding) {
        self.counts.findings += 1;
        let title = finding.rule.title.as_str().into();
        let severity = finding.severity.level();
        let now = (self.parts.clock)();
        let line = self.emit(Event::new(now, finding.into()));
        self.desk.announce(Notice::Alert { severity, title, ocsf: text(&line) });
        self.alerts.push(line);
    }

    fn answer_of_firewall(&mut self, done: Done) {
        match done {
            Done::Ready(result) => {
                self.ready = true;
                match result {
                    Ok(notes) => notes.into_iter().for_each(|note| self.say(note)),
                    Err(error) => {
                        self.firewall_error.clone_from(&error);
                        let words = format!("addresses cannot be blocked: {error}");
                        self.say(Health::new(Kind::Degraded, "firewall", words));
                    }
                }
            }
            Done::Remediation(remediation) => self.remediated(remediation),
            Done::Health(health) => self.say(health),
            Done::Isolation(isolation) => {
                let now = Instant::now();
                let ends = |status: &IsolationStatus| now + Duration::from_secs(status.seconds_left);
                self.isolated = isolation.clone().map(|status| (ends(&status), status.reason));
                self.desk.announce(Notice::Isolation(isolation));
            }
        }
    }

    fn isolation(&self) -> Option<IsolationStatus> {
        let (ends, reason) = self.isolated.as_ref()?;
        let left = ends.saturating_duration_since(Instant::now());
        Some(IsolationStatus { seconds_left: left.as_secs(), reason: reason.clone() })
    }

    fn remediated(&mut self, remediation: Remediation) {
        self.counts.remediations += 1;
        if let (Outcome::Verified, Some(address)) = (&remediation.outcome, remediation.address) {
            self.desk.announce(match remediation.action {
                Action::Unblock => Notice::Unblocked(address),
                Action::Kill | Action::RunHook | Action::Isolate | Action::EndIsolation => return,
                Action::Block | Action::Restore => Notice::Blocked(BlockedAddress {
                    address,
                    seconds_left: remediation.seconds.unwrap_or_default(),
                    reason: remediation.reason.clone(),
                }),
            });
        }
        let now = (self.parts.clock)();
        self.emit(Event::new(now, remediation.into()));
    }

    /// The agent speaks of itself: a health event, and a change of its standing.
    pub fn say(&mut self, health: Health) {
        self.counts.health += 1;
        match health.severity {
            Severity::Informational | Severity::Low => {
                tracing::info!(component = health.component, "{}", health.message);
            }
            _ => tracing::warn!(component = health.component, "{}", health.message),
        }
        if health.component == "firewall" {
            match health.kind {
                Kind::Degraded => self.firewall_error.clone_from(&health.message),
                Kind::Recovered => self.firewall_error.clear(),
                _ => {}
            }
        }
        let changed = self.standing.hear(&health);
        if changed || matches!(health.kind, Kind::Armed | Kind::Changed) {
            let (health, reasons) = (self.health_word(), self.standing.reasons());
            self.desk.announce(Notice::Health { health, reasons });
        }
        let now = (self.parts.clock)();
        self.emit(Event::new(now, health.into()));
    }

    fn health_word(&self) -> &'static str {
        if self.armed_after.is_some() {
            self.standing.word()
        } else {
            "starting"
        }
    }

    /// Numbers, encodes and hands on.
    fn emit(&mut self, mut event: Event) -> Arc<[u8]> {
        event.sequence = self.sequence.next();
        self.counts.emitted += 1;
        self.buffer.clear();
        self.encoder.encode(&event, &mut self.buffer);
        let line = Arc::from(self.buffer.as_slice());
        if self.buffer.capacity() > BUFFER {
            self.buffer = Vec::new();
        }
        self.events.push(Arc::clone(&line));
        self.sinks.push(&event, &line);
        line
    }
}

/// The next outcome of the hook; never, where there is no hook.
async fn next(outcomes: &mut Option<mpsc::Receiver<Remediation>>) -> Option<Remediation> {
    match outcomes {
        Some(outcomes) => outcomes.recv().await,
        None => std::future::pending().await,
    }
}
