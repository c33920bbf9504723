//! The daemon's start and end. The order matters, and is that of docs/architecture.md, "Start".

use std::fs;
use std::io;
use std::os::unix::fs::{lchown, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use defender_detect::{Detector, Limits};
use defender_model::health::{Health, Kind};
use defender_model::severity::Severity;
use defender_sensors::account::AccountSensor;
use defender_sensors::file::FileSensor;
use defender_sensors::firewall::FirewallSensor;
use defender_sensors::module::ModuleSensor;
use defender_sensors::network::NetworkSensor;
use defender_sensors::peripheral::PeripheralSensor;
use defender_sensors::process::{Directory, ProcessSensor, Settings};
use defender_sensors::{Observation, Outlet};
use tokio::sync::watch;

use crate::clock::wall_clock;
use crate::config::load::{load, Loaded};
use crate::config::value::Transport;
use crate::config::Config;
use crate::confinement::{self, landlock, Capability, Confinement, Setting, State};
use crate::control::{self, Operators};
use crate::pipeline::{Parts, Pipeline};
use crate::request::Desk;
use crate::tally::Tally;
use crate::{
    allocator, device, files, inventory, logins, network, onlooker, packet_filter, peripherals, posture,
    profile, rules, services, stop, syslog,
};

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { config: "/etc/defender/defender.toml".into() }
    }
}

/// Exit status for "could not run".
const COULD_NOT_RUN: u8 = 3;

/// Runs the agent until it is told to stop.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let began = Instant::now();
    let handed = syslog::handed();
    allocator::keep_little();
    let Loaded { config, problems, .. } = load(&options.config);
    log_to_stderr(&config);

    let mut news: Vec<Health> =
        vec![Health::new(Kind::Started, "agent", format!("version {}", env!("CARGO_PKG_VERSION")))];
    for problem in &problems {
        let words = format!("{problem}; {}", problem.consequence());
        let mut health = Health::new(Kind::Degraded, format!("config {}", problem.file.display()), words);
        health.severity = Severity::High;
        news.push(health);
    }

    make_directories(&config, &mut news);
    let _lock = match confinement::lock::acquire(&config.agent.run_dir.join("defender.pid")) {
        Ok(lock) => lock,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(COULD_NOT_RUN);
        }
    };

    // Before anything is opened that it should not have.
    let (onlooker, _watched) = match config.network.enabled.then(|| onlooker::start(&config)).transpose() {
        Ok(started) => started.unzip(),
        Err(error) => {
            let words =
                format!("whose connections are is not known: the second process cannot be started: {error}");
            news.push(Health::new(Kind::Degraded, "network.who", words));
            (None, None)
        }
    };
    // What needs the privileges of the start is opened before they are given up.
    let mut process = config.process.enabled.then(|| ProcessSensor::open(process_settings(&config)));
    let mut network = network::open(&config, onlooker);
    if let (Some(process), Some(network)) = (&process, &mut network) {
        network.hear(process.owners());
    }
    let writers = process.as_ref().map(ProcessSensor::writers).unwrap_or_default();
    let accounts = config.accounts.enabled.then(|| {
        AccountSensor::new(defender_sensors::account::Settings {
            etc: "/etc".into(),
            state_dir: config.agent.state_dir.clone(),
            writers: writers.clone(),
            records: process.as_ref().map(ProcessSensor::account_records).unwrap_or_default(),
            clock: wall_clock,
        })
    });
    let files = files::open(&config, writers).unzip();
    let peripherals = peripherals::open(&config);
    let logins = config.login.enabled.then(logins::open).unzip();
    if let (Some(process), Some(logins)) = (&mut process, &logins.0) {
        process.tell_logins(logins.reports.clone());
    }
    let disturbed = packet_filter::Disturbed::default();
    let directory =
        process.as_ref().map_or_else(|| Directory::of_proc("/proc".into()), ProcessSensor::directory);
    let packet_filter = packet_filter::open(&config, directory, disturbed.clone());
    let mut modules = config.module.enabled.then(|| {
        ModuleSensor::open(defender_sensors::module::Settings {
            interval: Duration::from_secs(config.module.interval_s.max(1)),
            proc: "/proc".into(),
            clock: wall_clock,
        })
    });
    if let (Some(process), Some(modules)) = (&mut process, &mut modules) {
        process.tell_modules(modules.teller());
    }
    let syslog = syslog::socket(&config, handed, &mut news);
    let (set, rule_errors) = rules::load(&config);
    for error in &rule_errors {
        news.push(Health::new(Kind::Degraded, "rules", format!("left out: {error}")));
    }

    let mut detector = Detector::new(set, Limits::default());
    news.extend(profile::enforce(&config, &mut detector));
    allocator::give_back();

    #[cfg(feature = "tls")]
    hold_keys(&config, &mut news);
    let foreign_proc = process.as_ref().is_some_and(ProcessSensor::reads_foreign_proc);
    let confined = confine(&config, foreign_proc, &mut news);
    for entry in confined.shortfalls() {
        // What the configuration or an older kernel leaves out is said once; what should work and does not is a lasting fault.
        let kind = if entry.state == State::Missing { Kind::Degraded } else { Kind::Changed };
        news.push(Health::new(kind, format!("confinement {}", entry.measure.name()), entry.to_string()));
    }

    // Its directory belongs to the agent's user by now: nothing in there is for root to follow.
    let control = control_socket(&config, &mut news);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start the runtime: {error}");
            return ExitCode::from(COULD_NOT_RUN);
        }
    };
    let (watched, submissions, listed) = (Tally::default(), Tally::default(), Tally::default());
    let parts = Parts {
        device: device::identify(Path::new("/"), &config.device.id),
        detector,
        rule_errors,
        process: process.as_ref().map(ProcessSensor::status),
        network: network.as_ref().map(NetworkSensor::status),
        files: files.1,
        peripherals: peripherals.as_ref().map(PeripheralSensor::status),
        logins: logins.0,
        packet_filter: packet_filter.as_ref().map(FirewallSensor::status),
        modules: modules.as_ref().map(ModuleSensor::status),
        services: config.services.enabled.then(|| watched.status()),
        accounts: accounts.as_ref().map(AccountSensor::status),
        inventory: config.inventory.enabled.then(|| listed.status()),
        submissions: (cfg!(feature = "dbus") && config.dbus.enabled).then(|| submissions.status()),
        disturbed: Arc::clone(&disturbed.blocks),
        confinement: confined.entries().iter().map(ToString::to_string).collect(),
        clock: wall_clock,
        began,
        posture: config.posture.enabled.then(Arc::default),
        config,
    };
    let opened = Opened {
        process,
        network,
        accounts,
        files: files.0,
        peripherals,
        packet_filter,
        modules,
        disturbed,
        services: watched,
        inventory: listed,
        submissions,
        syslog,
        reports: logins.1,
        control,
        news,
    };
    // A task like the others: what the runtime itself waits for is woken by a system call.
    let served = runtime.block_on(runtime.spawn(serve(parts, opened)));
    // A name server that does not answer, or flash that does not, must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    // Only a build that unwinds, for tests, gets to see a panic here.
    served.map_or(ExitCode::from(COULD_NOT_RUN), |()| ExitCode::SUCCESS)
}

/// What was opened before confinement.
struct Opened {
    process: Option<ProcessSensor>,
    network: Option<NetworkSensor>,
    files: Option<FileSensor>,
    accounts: Option<AccountSensor>,
    peripherals: Option<PeripheralSensor>,
    packet_filter: Option<FirewallSensor>,
    modules: Option<ModuleSensor>,
    disturbed: packet_filter::Disturbed,
    services: Tally,
    inventory: Tally,
    #[cfg_attr(not(feature = "dbus"), allow(dead_code))]
    submissions: Tally,
    syslog: Option<(UnixDatagram, PathBuf)>,
    reports: Option<defender_sensors::login::report::Inbox>,
    control: Option<std::os::unix::net::UnixListener>,
    news: Vec<Health>,
}

async fn serve(parts: Parts, opened: Opened) {
    let (stop, stopped) = watch::channel(false);
    let (outlet, observations) = Outlet::channel(parts.config.agent.queue);
    let (desk, requests) = Desk::open();
    let config = parts.config.clone();
    let posture = parts.posture.clone();
    let logins = parts.logins.clone();
    let orders = parts.files.as_ref().map(|files| files.orders.clone());
    let mut pipeline = Pipeline::start(parts, desk.clone(), outlet.drops());
    for health in opened.news {
        pipeline.say(health);
    }
    if let Some(sensor) = opened.process {
        tokio::spawn(sensor.run(outlet.clone(), stop::told(stopped.clone())));
    }
    if let Some(sensor) = opened.files {
        tokio::spawn(sensor.run(outlet.clone(), stop::told(stopped.clone())));
    }
    if let Some(sensor) = opened.accounts {
        tokio::spawn(sensor.run(outlet.clone(), stop::told(stopped.clone())));
    }
    if let Some(sensor) = opened.peripherals {
        tokio::spawn(sensor.run(outlet.clone(), stop::told(stopped.clone())));
    }
    if let Some(sensor) = opened.modules {
        tokio::spawn(sensor.run(outlet.clone(), stop::told(stopped.clone())));
    }
    if let Some(sensor) = opened.packet_filter {
        tokio::spawn(sensor.run(outlet.clone(), stop::told(stopped.clone())));
    }
    if let Some(sensor) = opened.network {
        let disturbed = opened.disturbed.watch;
        tokio::spawn(network::run(sensor, config.clone(), outlet.clone(), disturbed, stopped));
    }
    let operators = operators(&config);
    let mut tasks = services::start(&config, wall_clock, orders, &outlet, &opened.services);
    if config.inventory.enabled {
        tasks.push(tokio::spawn(inventory::watch(config.clone(), outlet.clone(), opened.inventory)));
    }
    let mut kept = None;
    if let Some(listener) = opened.control {
        let outlet = outlet.clone();
        let serving = control::serve(listener, desk.clone(), operators);
        tasks.push(tokio::spawn(async move {
            let Err(error) = serving.await;
            let words = format!("the control socket cannot be served: {error}");
            outlet.send(Observation::Health(Health::new(Kind::Degraded, "control", words))).await;
        }));
    }
    #[cfg(feature = "dbus")]
    if config.dbus.enabled {
        let serving = crate::dbus::serve(
            desk.clone(),
            None,
            operators,
            config.dbus.submissions_per_second,
            outlet.clone(),
            opened.submissions,
        );
        tasks.push(tokio::spawn(async move {
            serving.await;
        }));
    }
    if let Some((logins, reports)) = logins.zip(opened.reports) {
        let [sensor, keeper] =
            logins::start(&config, opened.syslog, logins.status, reports, wall_clock, outlet.clone());
        tasks.push(sensor);
        kept = Some(keeper);
    }
    if let Some(changed) = posture {
        tasks.push(posture::schedule::start(&config, wall_clock, outlet.clone(), changed));
    }
    // The sensors hold the last outlets: when they end, so does the pipeline.
    drop(outlet);
    tokio::spawn(async move {
        stop::signalled().await;
        // Everybody gone already is a stop as well.
        let _ = stop.send(true);
        for task in tasks {
            task.abort();
        }
    });
    let notify = |states: &[sd_notify::NotifyState<'_>]| {
        // Not under systemd, or its socket is gone: nothing to be done about either.
        let _ = sd_notify::notify(states);
    };
    let ready = || notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("armed")]);
    let beat = || notify(&[sd_notify::NotifyState::Watchdog]);
    pipeline.run(observations, requests, ready, beat).await;
    if let Some(keeper) = kept {
        // It writes two small files; flash that hangs is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), keeper).await;
    }
}

/// Who may ask everything: root, the agent's own user and the group of that user.
fn operators(config: &Config) -> Operators {
    let group = confinement::identity::lookup(Path::new("/"), &config.agent.user).ok().map(|owner| owner.gid);
    // SAFETY: geteuid(2) takes nothing, changes nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    Operators { uid, gid: group }
}

fn log_to_stderr(config: &Config) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(config.agent.log_level.0)
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        // It would complain of a full disk on the very stream that is full, and abort.
        .log_internal_errors(false)
        .finish();
    // Only a second call in one process could fail.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Makes the directories the agent writes to, where init did not, and gives those to its user. A directory that is there is left
/// as it is, whoever owns it: a configuration may name `/data` or `/var/log`, which others need too.
fn make_directories(config: &Config, news: &mut Vec<Health>) {
    let owner = confinement::identity::lookup(Path::new("/"), &config.agent.user).ok();
    let mut directories = vec![config.agent.run_dir.clone(), config.agent.state_dir.clone()];
    if config.sink.file.enabled {
        directories.extend(config.sink.file.path.parent().map(Path::to_path_buf));
    }
    for directory in directories {
        if let Err(error) = make_directory(&directory, owner.as_ref()) {
            let words =
                format!("{}: {error}; what belongs there is kept in memory only", directory.display());
            news.push(Health::new(Kind::Degraded, format!("directory {}", directory.display()), words));
        }
    }
}

fn make_directory(directory: &Path, owner: Option<&confinement::identity::Identity>) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o750))?;
    match owner {
        Some(owner) if is_root() => lchown(directory, Some(owner.uid), Some(owner.gid)),
        _ => Ok(()),
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing, changes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn process_settings(config: &Config) -> Settings {
    let process = &config.process;
    Settings {
        preference: process.source.0,
        exits: process.exits,
        connections: config.network.enabled,
        poll_interval: Duration::from_millis(process.poll_interval_ms),
        table_capacity: process.table_capacity,
        receive_buffer: process.receive_buffer_kib.saturating_mul(1024),
        audit_backlog_limit: process.audit_backlog_limit,
        audit_backlog_wait: process.audit_backlog_wait,
        watched: if config.files.enabled { config.files.paths.clone() } else { Vec::new() },
        proc: "/proc".into(),
        btf: "/sys/kernel/btf/vmlinux".into(),
        upgrade_interval: defender_sensors::process::UPGRADE,
        passwd: "/etc/passwd".into(),
        machine: machine(),
        clock: wall_clock,
    }
}

/// What uname(2) calls the machine, by way of procfs where the kernel offers it.
pub(crate) fn machine() -> String {
    let arch = fs::read_to_string("/proc/sys/kernel/arch").unwrap_or_default();
    if !arch.trim().is_empty() {
        return arch.trim().to_owned();
    }
    // SAFETY: all zeroes is a valid utsname.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call, which fills it.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return String::new();
    }
    let bytes: Vec<u8> = name.machine.iter().take_while(|c| **c != 0).map(|c| c.to_ne_bytes()[0]).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn control_socket(config: &Config, news: &mut Vec<Health>) -> Option<std::os::unix::net::UnixListener> {
    let path = config.agent.run_dir.join(control::SOCKET_NAME);
    match control::bind(&path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            let words = format!(
                "{} cannot be made: {error}; the command line cannot reach the agent",
                path.display()
            );
            news.push(Health::new(Kind::Degraded, "control", words));
            None
        }
    }
}

/// Files that sinks read when they connect, as far as they are in use.
fn credentials(config: &Config) -> Vec<PathBuf> {
    let (syslog, mqtt) = (&config.sink.remote_syslog, &config.sink.mqtt);
    let mut files = Vec::new();
    if syslog.enabled && syslog.transport == Transport::Tls {
        files.extend([&syslog.ca_file, &syslog.crl_file, &syslog.certificate_file, &syslog.key_file]);
    }
    if mqtt.enabled {
        files.extend([
            &mqtt.ca_file,
            &mqtt.crl_file,
            &mqtt.certificate_file,
            &mqtt.key_file,
            &mqtt.password_file,
            &mqtt.connection_string_file,
            &mqtt.dps_key_file,
        ]);
    }
    // A key in a token is no file.
    files.into_iter().filter(|file| file.is_absolute()).cloned().collect()
}

/// Finds keys that lie in tokens, while the agent may still open what their libraries need.
#[cfg(feature = "tls")]
fn hold_keys(config: &Config, news: &mut Vec<Health>) {
    let (syslog, mqtt) = (&config.sink.remote_syslog, &config.sink.mqtt);
    let used = [
        ("remote_syslog", syslog.enabled && syslog.transport == Transport::Tls, &syslog.key_file),
        ("mqtt", mqtt.enabled && mqtt.tls, &mqtt.key_file),
    ];
    for (sink, _, key) in used.into_iter().filter(|(_, enabled, _)| *enabled) {
        if let Err(error) = defender_report::tls::hold(key) {
            let words = format!(
                "the key in the token is not found: {error}; it is looked for again at each connection"
            );
            news.push(Health::new(Kind::Degraded, format!("sink.{sink}.key"), words));
        }
    }
}

/// Gives up what is not needed from here on.
fn confine(config: &Config, foreign_proc: bool, news: &mut Vec<Health>) -> confinement::Report {
    let wanted = &config.confinement;
    let mut capabilities = vec![Capability::CAP_NET_ADMIN];
    if config.process.enabled {
        capabilities.extend([
            Capability::CAP_AUDIT_CONTROL,
            Capability::CAP_AUDIT_READ,
            Capability::CAP_SYS_PTRACE,
        ]);
    }
    if config.login.enabled
        || config.posture.enabled
        || config.files.enabled
        || config.accounts.enabled
        || !credentials(config).is_empty()
    {
        capabilities.push(Capability::CAP_DAC_READ_SEARCH);
    }
    if config.response.kill_process {
        capabilities.push(Capability::CAP_KILL);
    }
    let log = config.sink.file.path.parent().unwrap_or(Path::new("/")).to_path_buf();
    let landlock = if !wanted.landlock {
        Setting::Off("switched off in the configuration".to_owned())
    } else if foreign_proc {
        Setting::Off("the process source reads /proc/PID/exe, which a Landlock domain forbids".to_owned())
    } else {
        Setting::On(landlock::Paths {
            read: [
                "/etc", "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/proc", "/sys", "/run", "/var",
                "/dev",
            ]
            .map(PathBuf::from)
            .into_iter()
            .chain(
                config
                    .login
                    .files
                    .iter()
                    .chain(&config.login.accounting)
                    .filter_map(|file| file.parent().map(Path::to_path_buf)),
            )
            .chain(files::tops(config))
            .chain(config.rules.directories.iter().cloned())
            // A scan of the posture looks everywhere. Writing and executing stay closed.
            .chain(config.posture.enabled.then(|| PathBuf::from("/")))
            .chain(config.feeds.directories.iter().cloned())
            .chain(config.feed.iter().filter_map(|feed| feed.path.parent().map(Path::to_path_buf)))
            .chain(credentials(config).into_iter().filter_map(|file| file.parent().map(Path::to_path_buf)))
            .collect(),
            write: vec![
                config.agent.state_dir.clone(),
                config.agent.run_dir.clone(),
                log,
                "/dev/null".into(),
            ],
            execute: std::iter::once(&config.response.nft)
                .chain([&config.response.hook])
                .filter(|program| !program.as_os_str().is_empty())
                .cloned()
                .collect(),
            signals: config.response.kill_process,
            abstract_sockets: true,
        })
    };
    if !wanted.drop_privileges {
        let words = "drop_privileges = false: nothing of section confinement is done";
        news.push(Health::new(Kind::Degraded, "confinement", words));
        return confinement::Report::default();
    }
    Confinement {
        root: "/".into(),
        user: config.agent.user.clone(),
        capabilities,
        child_capabilities: vec![Capability::CAP_NET_ADMIN],
        landlock,
        seccomp: if wanted.seccomp {
            Setting::On(())
        } else {
            Setting::Off("switched off in the configuration".to_owned())
        },
    }
    .apply()
}
