//! The sinks of the configuration: each a task of its own behind a bounded queue.

use std::net::IpAddr;
use std::path::Path;
#[cfg(feature = "mqtt")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use defender_model::event::{Event, EventKind};
use defender_model::health::{Health, Kind};
use defender_model::identity::DeviceIdentity;
use defender_model::severity::Severity;
use defender_report::pace::Schedule;
use defender_report::record::Record;
use defender_report::sink::{channel, Intake, Limits, SinkHandle};
use defender_report::spool::{self, Spool};
use defender_report::{file, syslog};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

#[cfg(feature = "tls")]
use super::certificate::{self, Certificate};
use crate::config::value::{Priority, Transport, Urgency};
use crate::config::{self, Config};
use crate::request::SinkStatus;

/// Statements of sinks that may wait for the pipeline.
const NOTICES: usize = 64;

/// Component of the spool, and name of the queue in front of it.
const SPOOL: &str = "spool";
/// Encoded bytes that may wait for [`Sinks::flush`].
const OUTGOING: usize = 512 << 10;
/// How long a sink that is waited for may take to make room.
const PATIENCE: Duration = Duration::from_millis(500);

struct Sink {
    handle: SinkHandle,
    task: JoinHandle<()>,
    /// What it had written when it last kept the pipeline waiting too long; it is not waited for until it moves on.
    stalled: Option<u64>,
    /// A local file keeps up or fails; the pipeline waits for it rather than lose telemetry in a burst. Others drop the oldest.
    waits: bool,
    /// Gets its records from the spool, by this task.
    feeding: Option<JoinHandle<()>>,
}

/// Where a sink's records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a file of this device: written at once or failing.
    Flash,
    /// With another daemon of this device.
    Local,
    /// Over the network, by way of the spool.
    Remote,
}

/// Every sink.
pub(super) struct Sinks {
    sinks: Vec<Sink>,
    notices: mpsc::Receiver<Health>,
    sender: mpsc::Sender<Health>,
    outgoing: Vec<Record>,
    /// Sequence numbers of those that are in the spool's files already.
    spooled: Vec<u64>,
    outgoing_bytes: usize,
    /// Mildest severity that some sink wants as text.
    text_from: Option<Severity>,
    no_text: Arc<str>,
    refused: Vec<Health>,
    spool: Option<Arc<Spool>>,
    #[cfg(feature = "tls")]
    certificates: Vec<Certificate>,
    #[cfg(feature = "tls")]
    certificates_due: Option<std::time::Instant>,
}

impl Sinks {
    /// Starts the sinks that are switched on.
    pub(super) fn start(config: &Config, device: &DeviceIdentity) -> Self {
        let (spool, priorities) = (&config.spool, &config.priorities);
        let state = config.agent.state_dir.as_path();
        let directory = state.join("spool");
        let run_dir = &config.agent.run_dir;
        let config = &config.sink;
        let (sender, notices) = mpsc::channel(NOTICES);
        let mut this = Self {
            sinks: Vec::new(),
            notices,
            sender,
            outgoing: Vec::new(),
            spooled: Vec::new(),
            outgoing_bytes: 0,
            text_from: None,
            no_text: "".into(),
            refused: Vec::new(),
            spool: None,
            #[cfg(feature = "tls")]
            certificates: certificates(config),
            #[cfg(feature = "tls")]
            certificates_due: None,
        };
        if config.file.enabled {
            let file = file::Config {
                path: config.file.path.clone(),
                max_size: config.file.max_kib.saturating_mul(1024),
                keep: config.file.keep,
                sync_alerts: config.file.sync_alerts,
            };
            this.spawn("file", Limits::default(), Place::Flash, |intake| file::run(file, intake));
        }
        if config.syslog.enabled {
            let local = syslog::Config {
                transport: syslog::Transport::Local { path: config.syslog.socket.clone() },
                format: syslog::Format::default(),
                facility: syslog::Facility::DAEMON,
                hostname: device.hostname.clone(),
            };
            let limits = Limits { minimum: config.syslog.minimum_level.0, ..Limits::default() };
            this.spawn_text("syslog", limits, Place::Local, local);
        }
        // Without a remote sink nothing is to leave the device.
        if spool.enabled && (config.remote_syslog.enabled || config.mqtt.enabled) {
            let minimum = [
                (config.remote_syslog.enabled, config.remote_syslog.minimum_level.0),
                (config.mqtt.enabled, config.mqtt.minimum_level.0),
            ];
            let minimum =
                minimum.into_iter().filter(|(enabled, _)| *enabled).map(|(_, minimum)| minimum).min();
            let limits = spool::Config {
                directory,
                max_size: spool.max_kib.saturating_mul(1024),
                sync_alerts: spool.sync_alerts,
                ledger: Some(run_dir.join("spool-ledger")),
            };
            this.spawn_spool(limits, minimum.unwrap_or(Severity::Informational));
        }
        if config.remote_syslog.enabled {
            match remote(&config.remote_syslog) {
                Ok(transport) => {
                    let remote = syslog::Config {
                        transport,
                        format: config.remote_syslog.format.0,
                        facility: syslog::Facility::DAEMON,
                        hostname: device.hostname.clone(),
                    };
                    let sink = &config.remote_syslog;
                    let schedule = schedule(priorities, sink.alerts, sink.telemetry, sink.daily_kib);
                    let limits = Limits { minimum: sink.minimum_level.0, schedule, ..Limits::default() };
                    this.spawn_text("remote_syslog", limits, Place::Remote, remote);
                }
                Err(missing) => this.refuse("remote_syslog", &missing),
            }
        }
        if config.mqtt.enabled {
            let sink = &config.mqtt;
            let schedule = schedule(priorities, sink.alerts, sink.telemetry, sink.daily_kib);
            let limits = Limits { minimum: sink.minimum_level.0, schedule, ..Limits::default() };
            this.spawn_mqtt(sink, device, limits, priorities, state);
        }
        this
    }

    fn spawn<F>(&mut self, name: &str, limits: Limits, place: Place, run: impl FnOnce(Intake) -> F)
    where
        F: std::future::Future<Output = ()> + Send + 'static,
    {
        let (handle, mut intake) = channel(name, limits, self.sender.clone());
        let mut feeding = None;
        if let (Place::Remote, Some(spool)) = (place, &self.spool) {
            spool.seat(&handle, &mut intake);
            feeding = Some(tokio::spawn(spool::feed(Arc::clone(spool), handle.clone())));
        }
        let task = tokio::spawn(run(intake));
        self.sinks.push(Sink { handle, task, stalled: None, waits: place == Place::Flash, feeding });
    }

    fn spawn_spool(&mut self, config: spool::Config, minimum: Severity) {
        match Spool::open(config) {
            Ok(spool) => {
                let spool = Arc::new(spool);
                self.spool = Some(Arc::clone(&spool));
                let [alerts, others] = spool.missing();
                if alerts + others > 0 {
                    let words = "records that were not written yet when the agent was killed";
                    let lost = Health::new(Kind::Lost, SPOOL, words);
                    self.refused.push(lost.with("alerts", alerts).with("other_records", others));
                }
                let limits = Limits { minimum, ..Limits::default() };
                self.spawn(SPOOL, limits, Place::Flash, |intake| spool::run(spool, intake));
            }
            Err(error) => {
                let words = format!("{error}; records for remote sinks wait in memory only");
                self.refused.push(Health::new(Kind::Degraded, SPOOL, words));
            }
        }
    }

    fn spawn_text(&mut self, name: &str, limits: Limits, place: Place, config: syslog::Config) {
        let minimum = limits.minimum;
        self.text_from = Some(self.text_from.map_or(minimum, |already| already.min(minimum)));
        self.spawn(name, limits, place, |intake| syslog::run(config, intake));
    }

    fn refuse(&mut self, name: &str, missing: &str) {
        let words = format!("the sink is configured, but this agent was built without {missing}");
        self.refused.push(Health::new(Kind::Degraded, format!("sink.{name}"), words));
    }

    #[cfg(feature = "mqtt")]
    fn spawn_mqtt(
        &mut self,
        config: &config::MqttSink,
        device: &DeviceIdentity,
        limits: Limits,
        periods: &config::Priorities,
        state: &Path,
    ) {
        use defender_report::mqtt;
        if config.tls && !cfg!(feature = "tls") {
            return self.refuse("mqtt", "TLS");
        }
        let mut password = String::new();
        if !config.password_file.as_os_str().is_empty() {
            match std::fs::read_to_string(&config.password_file) {
                Ok(text) => text.trim_end().clone_into(&mut password),
                Err(error) => {
                    let words =
                        format!("{}: {error}; the broker will refuse us", config.password_file.display());
                    self.refused.push(Health::new(Kind::Degraded, "sink.mqtt", words));
                }
            }
        }
        let login = (!config.username.is_empty()).then(|| (config.username.clone(), password));
        let mqtt = mqtt::Config {
            host: config.host.clone(),
            port: config.port,
            device: device.uid.clone(),
            topic: config.topic.clone(),
            format: if config.format.0 { mqtt::Format::SecurityMessage } else { mqtt::Format::Ocsf },
            login,
            iot_hub: hub(config, &device.uid, state.join("iot-hub")),
            periods: mqtt::Periods {
                periods: [periods.high_s, periods.medium_s, periods.low_s].map(Duration::from_secs),
                alerts: level(config.alerts),
                telemetry: level(config.telemetry),
            },
            unsigned_twin: config.unsigned_twin,
            remote: (!config.configuration_keys.is_empty()).then(|| mqtt::Remote {
                keys: config.configuration_keys.iter().map(|key| key.0.clone()).collect(),
                kept: state.join("mqtt-configuration"),
            }),
            token_lifetime: mqtt::TOKEN_LIFETIME,
            keep_alive: Duration::from_secs(config.keep_alive_s),
            #[cfg(feature = "tls")]
            tls: config
                .tls
                .then(|| tls(&config.ca_file, &config.crl_file, &config.certificate_file, &config.key_file)),
        };
        self.spawn("mqtt", limits, Place::Remote, |intake| mqtt::run(mqtt, intake));
    }

    #[cfg(not(feature = "mqtt"))]
    fn spawn_mqtt(
        &mut self,
        _: &config::MqttSink,
        _: &DeviceIdentity,
        _: Limits,
        _: &config::Priorities,
        _: &Path,
    ) {
        self.refuse("mqtt", "MQTT");
    }

    /// Queues an event for [`Sinks::flush`].
    pub(super) fn push(&mut self, event: &Event, line: &Arc<[u8]>) {
        let severity = event.severity();
        let alert = match &event.kind {
            EventKind::Finding(_) | EventKind::Remediation(_) => true,
            EventKind::Health(health) => health.kind != Kind::Statistics,
            _ => false,
        };
        let text = alert || self.text_from.is_some_and(|from| severity >= from);
        self.outgoing_bytes += line.len();
        let record = Record {
            severity,
            alert,
            ocsf: Arc::clone(line),
            summary: if text { event.to_string().into() } else { Arc::clone(&self.no_text) },
            time: event.time,
            sequence: event.sequence,
            ticket: None,
        };
        if let (true, Some(spool)) = (alert, &self.spool) {
            // Before anybody hears of it: from here on a SIGKILL does not take it.
            let writer = self.sinks.iter().find(|sink| sink.handle.name() == SPOOL);
            if writer.is_some_and(|writer| spool.take(&writer.handle, &record)) {
                self.spooled.push(record.sequence);
            }
        }
        self.outgoing.push(record);
    }

    /// Hands what was queued to every sink.
    pub(super) async fn flush(&mut self) {
        self.outgoing_bytes = 0;
        let records = std::mem::take(&mut self.outgoing);
        // Numbers grow, so these are in order.
        let spooled = std::mem::take(&mut self.spooled);
        for sink in self.sinks.iter_mut().filter(|sink| sink.feeding.is_none()) {
            let mut handed = 0;
            let is_spool = sink.handle.name() == SPOOL;
            let taken = |record: &Record| is_spool && spooled.binary_search(&record.sequence).is_ok();
            if let Some(spool) = self.spool.as_ref().filter(|_| is_spool) {
                spool.expect(&sink.handle, &records, taken);
            }
            if sink.stalled.is_some_and(|written| sink.handle.stats().written != written) {
                sink.stalled = None;
            }
            if sink.waits && sink.stalled.is_none() {
                if !is_spool {
                    handed = sink.handle.fill(&records);
                }
                let waiting = async {
                    for record in &records[handed..] {
                        if !taken(record) {
                            sink.handle.push(record.clone()).await;
                        }
                        handed += 1;
                    }
                };
                if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
                    // Flash that hangs must not stop detection.
                    sink.stalled = Some(sink.handle.stats().written);
                }
            }
            for record in records[handed..].iter().filter(|record| !taken(record)) {
                sink.handle.try_push(record.clone());
            }
        }
        (self.outgoing, self.spooled) = (records, spooled);
        self.outgoing.clear();
        self.spooled.clear();
    }

    /// So much is queued that it should be handed on before more is encoded.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing_bytes > OUTGOING
    }

    /// What sinks have to say since the last call.
    pub(super) fn changes(&mut self) -> Vec<Health> {
        let mut changes = std::mem::take(&mut self.refused);
        if let Some(spool) =
            self.spool.as_ref().filter(|_| changes.iter().any(|health| health.kind == Kind::Lost))
        {
            spool.told_missing();
        }
        while let Ok(health) = self.notices.try_recv() {
            changes.push(health);
        }
        #[cfg(feature = "tls")]
        {
            let now = std::time::Instant::now();
            if self.certificates_due.is_none_or(|due| due <= now) {
                self.certificates_due = Some(now + certificate::INTERVAL);
                changes.extend(self.certificates.iter_mut().filter_map(Certificate::look));
            }
        }
        changes
    }

    pub(super) fn status(&self) -> Vec<SinkStatus> {
        let (now, wall) = (std::time::Instant::now(), crate::clock::wall_clock());
        let one = |sink: &Sink| {
            let stats = sink.handle.stats();
            let spooled = self.spool.as_ref().filter(|_| sink.feeding.is_some());
            let oldest = spooled.map_or(stats.oldest, |spool| spool.oldest(&sink.handle));
            SinkStatus {
                name: sink.handle.name().to_owned(),
                state: stats.state.name().to_owned(),
                handed: stats.handed,
                waiting: (stats.queued + stats.in_hand) as u64,
                written: stats.written,
                dropped: stats.dropped + stats.dropped_alerts,
                spooled: self.spool.as_ref().map_or(0, |spool| spool.behind(&sink.handle)),
                // Rounded up, and never "in 0 s" for what is still waited for.
                next_try_s: stats.next_try.map_or(0, |at| at.saturating_duration_since(now).as_secs() + 1),
                lag_s: oldest.map_or(0, |at| wall.since(at).max(0).unsigned_abs() / 1000),
                last_error: stats.last_error.unwrap_or_default(),
            }
        };
        self.sinks.iter().map(one).collect()
    }

    /// Servers that sinks are or were connected to.
    pub(super) fn peers(&self) -> Vec<IpAddr> {
        self.sinks.iter().filter_map(|sink| sink.handle.stats().peer).collect()
    }

    /// Lets every sink write what it holds, and waits for it.
    pub(super) async fn close(mut self) {
        self.flush().await;
        // The spool first: what it takes in now is there after the next start.
        let (fed, direct): (Vec<_>, Vec<_>) = self.sinks.into_iter().partition(|sink| sink.feeding.is_some());
        for sinks in [direct, fed] {
            for sink in &sinks {
                sink.handle.close();
            }
            for sink in sinks {
                if let Some(feeding) = sink.feeding {
                    feeding.abort();
                }
                // A task that panicked has nothing left to write.
                let _ = sink.task.await;
            }
        }
        if let Some(spool) = self.spool {
            spool.save();
        }
    }
}

/// Place of a priority among high, medium and low; `None`: at once.
const fn level(priority: Priority) -> Option<usize> {
    match priority.0 {
        Urgency::Immediate => None,
        Urgency::High => Some(0),
        Urgency::Medium => Some(1),
        Urgency::Low => Some(2),
    }
}

/// When a sink may send.
fn schedule(periods: &config::Priorities, alerts: Priority, telemetry: Priority, daily_kib: u64) -> Schedule {
    let seconds = [periods.high_s, periods.medium_s, periods.low_s];
    let period = |priority| Duration::from_secs(level(priority).map_or(0, |level| seconds[level]));
    let daily_bytes = daily_kib.saturating_mul(1024);
    Schedule { alerts: period(alerts), telemetry: period(telemetry), daily_bytes }
}

/// How the device knows its hub, if it has one. What the provisioning service says is kept in a file.
#[cfg(feature = "mqtt")]
fn hub(config: &config::MqttSink, device: &str, kept: PathBuf) -> Option<defender_report::mqtt::Hub> {
    use defender_report::mqtt::{Hub, Provisioning};
    let set = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    if config.dps_id_scope.is_empty() {
        return set(&config.connection_string_file).map(Hub::ConnectionString);
    }
    let registration =
        if config.dps_registration_id.is_empty() { device } else { &config.dps_registration_id };
    Some(Hub::Provisioned(Provisioning {
        host: config.dps_host.clone(),
        id_scope: config.dps_id_scope.clone(),
        registration_id: registration.to_owned(),
        key_file: set(&config.dps_key_file),
        group: config.dps_group_key,
        kept,
    }))
}

#[cfg_attr(not(feature = "tls"), allow(clippy::unnecessary_wraps))]
fn remote(config: &config::RemoteSyslogSink) -> Result<syslog::Transport, String> {
    let (host, port) = (config.host.clone(), config.port);
    match config.transport {
        Transport::Udp => Ok(syslog::Transport::Udp { host, port }),
        Transport::Tcp => Ok(syslog::Transport::Tcp { host, port }),
        #[cfg(feature = "tls")]
        Transport::Tls => {
            let tls = tls(&config.ca_file, &config.crl_file, &config.certificate_file, &config.key_file);
            Ok(syslog::Transport::Tls { host, port, tls })
        }
        #[cfg(not(feature = "tls"))]
        Transport::Tls => Err("TLS".to_owned()),
    }
}

/// Files of a sink's TLS; what is not configured is empty.
#[cfg(feature = "tls")]
fn tls(ca: &Path, crl: &Path, certificate: &Path, key: &Path) -> defender_report::tls::Tls {
    let set = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    let client = set(certificate)
        .map(|certificate_file| defender_report::tls::Client { certificate_file, key_file: key.to_owned() });
    defender_report::tls::Tls { ca_file: Some(ca.to_owned()), crl_file: set(crl), server_name: None, client }
}

/// The certificates that this device shows.
#[cfg(feature = "tls")]
fn certificates(config: &config::Sinks) -> Vec<Certificate> {
    let (syslog, mqtt) = (&config.remote_syslog, &config.mqtt);
    let mut shown = Vec::new();
    if syslog.enabled && syslog.transport == Transport::Tls {
        shown.push(("remote_syslog", &syslog.certificate_file, syslog.expiry_warning_days));
    }
    if mqtt.enabled && mqtt.tls {
        shown.push(("mqtt", &mqtt.certificate_file, mqtt.expiry_warning_days));
    }
    shown.retain(|(_, file, _)| !file.as_os_str().is_empty());
    shown.into_iter().map(|(sink, file, warning)| Certificate::new(sink, file.clone(), warning)).collect()
}
