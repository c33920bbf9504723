//! The process sensor: picks a source, runs it, falls back when it fails, and tries for a better one again.

mod deeds;
#[cfg(ebpf)]
mod ebpf;
mod handover;
mod told;

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use defender_model::event::{Event, EventKind};
use defender_model::health::{Health, Kind};
use defender_model::process::{Ancestor, Change, ExitReason, Process, ProcessActivity, Source};
use defender_model::text::file_name;
use defender_model::time::Timestamp;
use tokio::sync::mpsc;

use super::active::{open_best, Active};
use super::audit::assembly::Audited;
use super::audit::stream::Turn;
use super::connector::Announced;
use super::directory::Directory;
use super::module_file::ModuleFiles;
use super::poll::Found;
use super::preference::Preference;
use super::procfs::{self, Entry};
use super::recording::into_process;
use super::table::ProcessTable;
use super::writers::Writers;
use super::Unavailable;
use crate::account;
use crate::accounts::Accounts;
use crate::balance::Balance;
use crate::login::audit::Records;
use crate::login::report::Reports;
use crate::module::Told;
use crate::network::Owners;
use crate::{Observation, Outlet};

use self::handover::Handover;

/// How often the table is compared with `/proc` for processes that ended without a record.
const SWEEP: Duration = Duration::from_secs(5);
/// How many generations are looked at for the ancestors of an unknown process, and to find out which program it runs.
const ANCESTORS: usize = Ancestor::LEVELS;
/// Longest short name of a process, `TASK_COMM_LEN` (linux/sched.h) less its end.
const SHORT_NAME: usize = 15;
/// How often a better source is tried after a fall-back, usually.
pub const UPGRADE: Duration = Duration::from_secs(60);

/// What the sensor needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which source to use.
    pub preference: Preference,
    /// Report process exits too.
    pub exits: bool,
    /// The network sensor asks whose connections are, which eBPF tells.
    pub connections: bool,
    /// Pause between two rounds of polling.
    pub poll_interval: Duration,
    /// Most processes in the table.
    pub table_capacity: usize,
    /// Bytes of the kernel's buffer for what the agent has not read yet.
    pub receive_buffer: u32,
    /// Audit records the kernel queues before it holds processes up, while the agent is the audit daemon.
    pub audit_backlog_limit: u32,
    /// How long it holds a process up for them, in jiffies (a quarter of a second to ten milliseconds each, by CONFIG_HZ).
    pub audit_backlog_wait: u32,
    /// Mount point of procfs, usually `/proc`.
    pub proc: PathBuf,
    /// Types of the running kernel, usually `/sys/kernel/btf/vmlinux`. The source `ebpf` needs them.
    pub btf: PathBuf,
    /// Account database, usually `/etc/passwd`.
    pub passwd: PathBuf,
    /// What uname(2) calls the machine, such as `x86_64`.
    pub machine: String,
    /// Paths, with stars, of which is to be told who writes there, where audit can tell.
    pub watched: Vec<PathBuf>,
    /// How often a better source is tried after a fall-back, usually [`UPGRADE`].
    pub upgrade_interval: Duration,
    /// Wall clock.
    pub clock: fn() -> Timestamp,
}

/// What the sensor is doing, for `defender status`.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The source in force.
    pub source: Option<Source>,
    /// How it is read, in words.
    pub detail: String,
    /// Better sources and why they are not used.
    pub declined: Vec<(Source, String)>,
    /// Exec events sent.
    pub execs: u64,
    /// Exit events sent.
    pub exits: u64,
    /// Events known to be lost before they reached the agent.
    pub lost: u64,
    /// Milliseconds in which nothing was told of starts, however many there were: a source had failed, or was silenced.
    pub unseen_ms: u64,
    /// Word of whose a connection is, lost likewise: somebody else has to look for it.
    pub owners_lost: u64,
    /// Processes in the table.
    pub table: usize,
    /// Processes that left the table for want of room.
    pub evicted: u64,
    /// What the source told of starts and ends, and of what else processes do. What it lost is the kernel's drops: records of audit, announcements of others. The end
    /// of a process whose start was no event is not counted, as it says nothing.
    pub balance: Balance,
}

impl Status {
    /// The figures, with the names they have in statistics.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = vec![
            ("execs", self.execs),
            ("exits", self.exits),
            ("lost", self.lost),
            ("unseen_ms", self.unseen_ms),
            ("owners_lost", self.owners_lost),
            ("table", self.table as u64),
            ("evicted", self.evicted),
        ];
        counters.extend(self.balance.counters());
        counters
    }
}

/// The sensor, opened but not running.
pub struct ProcessSensor {
    settings: Settings,
    active: Active,
    table: Arc<Mutex<ProcessTable>>,
    accounts: Accounts,
    status: Arc<Mutex<Status>>,
    suspects: HashSet<u32>,
    /// Room for what a turn hears, kept for the next one's.
    #[cfg(ebpf)]
    heard: Vec<super::ebpf::Told>,
    next_sweep: Instant,
    next_upgrade: Option<Instant>,
    lost_before: u64,
    handover: Handover,
    /// Who is told of logins in the audit stream.
    logins: Option<(Reports, Records)>,
    /// What it tells of accounts.
    account_records: account::audit::Records,
    /// Who is told of kernel modules in the audit stream.
    modules: Option<mpsc::Sender<Told>>,
    module_files: ModuleFiles,
    writers: Writers,
    owners: Owners,
    deeds: deeds::Deeds,
}

impl ProcessSensor {
    /// Opens the best source there is and takes stock of the processes that run. To be called while the process still has what
    /// privileges it starts with.
    #[must_use]
    pub fn open(settings: Settings) -> Self {
        let mut declined = Vec::new();
        let writers = Writers::default();
        let active = open_best(&settings, &writers, settings.preference.order(), &mut declined);
        let now = Instant::now();
        let mut this = Self {
            table: Arc::new(Mutex::new(ProcessTable::new(settings.table_capacity))),
            accounts: Accounts::new(settings.passwd.clone()),
            status: Arc::default(),
            suspects: HashSet::new(),
            #[cfg(ebpf)]
            heard: Vec::new(),
            next_sweep: now + SWEEP,
            next_upgrade: (!declined.is_empty()).then(|| now + settings.upgrade_interval),
            logins: None,
            account_records: account::audit::Records::default(),
            modules: None,
            module_files: ModuleFiles::default(),
            writers,
            owners: Owners::default(),
            deeds: deeds::Deeds::default(),
            lost_before: 0,
            handover: Handover::default(),
            active,
            settings,
        };
        // The table is filled after the source has begun, so that nothing starts unseen in between.
        for pid in procfs::pids(&this.settings.proc) {
            this.adopt(pid, ANCESTORS);
        }
        this.update_status(|status| status.declined = declined);
        this
    }

    /// What the sensor is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Hands what the audit stream tells of logins to the login sensor.
    pub fn tell_logins(&mut self, logins: Reports) {
        self.logins = Some((logins, Records::default()));
    }

    /// Tells other sensors which process had an id.
    #[must_use]
    pub fn directory(&self) -> Directory {
        Directory::new(Arc::clone(&self.table), self.settings.proc.clone())
    }

    fn table(&self) -> MutexGuard<'_, ProcessTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source in force reads other processes' `/proc/PID/exe`, which a Landlock domain would forbid.
    #[must_use]
    pub fn reads_foreign_proc(&self) -> bool {
        !matches!(self.active.source(), Source::Audit | Source::Ebpf)
    }

    /// Runs until the pipeline is gone or `stop` is ready, then takes the agent's rules out of the kernel.
    pub async fn run(mut self, outlet: Outlet, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let words = format!("source {}: {}", self.active.source(), self.active.detail());
        let mut told = outlet.send(Observation::Health(Health::new(Kind::Changed, "process", words))).await;
        for (source, reason) in self.declined() {
            let words = format!("source {source} cannot be used: {reason}");
            told &= outlet.send(Observation::Health(Health::new(Kind::Degraded, "process", words))).await;
        }
        let mut out = Vec::new();
        while told {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = self.turn(&mut out) => {}
            }
            told &= outlet.send_all(&mut out).await;
        }
        self.active.close();
    }

    fn declined(&self) -> Vec<(Source, String)> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).declined.clone()
    }

    /// One turn: waits for the source, at most about a second, and appends what there is to say.
    ///
    /// Cancelled only at the end: what a cancelled turn had read would be lost.
    async fn turn(&mut self, out: &mut Vec<Observation>) {
        let result = match &mut self.active {
            Active::Audit(_) => self.audit_turn(out).await,
            #[cfg(ebpf)]
            Active::Ebpf(_) | Active::EbpfEntry(_) => self.ebpf_turn(out).await,
            Active::Connector(_) => self.connector_turn(out).await,
            Active::Poll(_) => {
                self.poll_turn(out).await;
                Ok(())
            }
        };
        if let Err(unavailable) = result {
            self.fall_back(&unavailable, out).await;
        }
        let now = Instant::now();
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.sweep(out);
        }
        if self.next_upgrade.is_some_and(|at| now >= at) {
            self.upgrade(out).await;
        }
        self.update_status(|_| {});
    }

    async fn audit_turn(&mut self, out: &mut Vec<Observation>) -> Result<(), Unavailable> {
        let Active::Audit(stream) = &mut self.active else { return Ok(()) };
        let mut events = Vec::new();
        let mut turn = Turn::default();
        let result = stream.read(&mut events, &mut turn).await;
        self.hear_audited(events, out);
        out.extend(turn.notes.into_iter().map(Observation::Health));
        if !turn.unseen.is_zero() {
            self.went_unseen(turn.unseen, out);
        }
        if turn.resynchronise {
            self.resynchronise(out);
        }
        result
    }

    fn hear_audited(&mut self, events: Vec<Audited>, out: &mut Vec<Observation>) {
        for event in events {
            match event {
                Audited::Exec(exec) => {
                    let (time, ppid, truncated) = (exec.stamp.time, exec.ppid, exec.truncated);
                    self.module_files.note(exec.pid, &exec.cwd, &exec.argv);
                    let activity = ProcessActivity::exec(into_process(*exec), Source::Audit, truncated);
                    self.exec(activity, ppid, time, out);
                }
                Audited::Exit { stamp, pid, reason } => {
                    self.exit(pid, reason, stamp.time, Source::Audit, out);
                }
                Audited::Said { stamp, record, fields } => {
                    self.told_account(stamp, record, &fields);
                    if let Some((logins, records)) = &mut self.logins {
                        if let Some(report) = records.read(record, &fields, Instant::now()) {
                            // The process sensor waits for nobody.
                            logins.tell(report);
                        }
                    }
                }
                Audited::Wrote { watch, effect, by } => self.wrote(watch, effect, &by),
                Audited::Module { loaded, name, by } => self.module(loaded, name, &by),
                Audited::Traced { target, by } => {
                    let process = self.doer(&by);
                    self.told_traced(by.stamp.time, process, target, Source::Audit, out);
                }
                Audited::Program { by } => {
                    let process = self.doer(&by);
                    // Neither the name nor the type is in the record.
                    self.told_program(by.stamp.time, process, String::new(), 0, out);
                }
                Audited::ConfigChange { stamp, words } => {
                    tracing::debug!(serial = stamp.serial, words, "audit configuration changed");
                }
            }
        }
    }

    async fn connector_turn(&mut self, out: &mut Vec<Observation>) -> Result<(), Unavailable> {
        let Active::Connector(connector) = &mut self.active else { return Ok(()) };
        connector.readable(Duration::from_secs(1)).await?;
        let mut announced = Vec::new();
        let overrun = connector.drain(&mut announced);
        self.hear_announced(announced, out);
        if overrun? {
            let words =
                "the kernel dropped announcements of processes; what still runs is found by comparing /proc";
            out.push(Observation::Health(Health::new(Kind::Lost, "process", words).with("overruns", 1)));
            self.resynchronise(out);
        }
        Ok(())
    }

    fn hear_announced(&mut self, announced: Vec<Announced>, out: &mut Vec<Observation>) {
        let time = (self.settings.clock)();
        for event in announced {
            match event {
                Announced::Fork { parent, child } => self.table().fork(child, parent),
                Announced::Exec { pid } => {
                    let entry = procfs::read(&self.settings.proc, pid).unwrap_or_else(|| self.vanished(pid));
                    let activity = ProcessActivity::exec(entry.process, Source::Connector, false);
                    self.exec(activity, entry.ppid, time, out);
                }
                Announced::Exit { pid, reason } => self.exit(pid, reason, time, Source::Connector, out),
            }
        }
    }

    /// A process that was gone before its details could be read: its id and its parent are all there is.
    fn vanished(&self, pid: u32) -> Entry {
        let ppid = self.table().get(pid).map(|known| known.ppid).unwrap_or_default();
        Entry { process: Process { pid, ..Process::default() }, ppid, start: 0, name: Vec::new() }
    }

    async fn poll_turn(&mut self, out: &mut Vec<Observation>) {
        tokio::time::sleep(self.settings.poll_interval).await;
        let Active::Poll(poller) = &mut self.active else { return };
        let mut found = Vec::new();
        poller.round(&self.settings.proc, &mut found);
        let time = (self.settings.clock)();
        for change in found {
            match change {
                Found::Fork { pid, parent } => self.table().fork(pid, parent),
                Found::Exec(entry) => {
                    let activity = ProcessActivity::exec(entry.process, Source::Poll, false);
                    self.exec(activity, entry.ppid, time, out);
                }
                Found::Exit { pid } => self.exit(pid, ExitReason::Unknown, time, Source::Poll, out),
            }
        }
    }

    fn exec(
        &mut self,
        mut activity: Box<ProcessActivity>,
        ppid: u32,
        time: Timestamp,
        out: &mut Vec<Observation>,
    ) {
        let source = activity.source;
        let process = &mut activity.process;
        let told = self.handover.was_told(process, time);
        let found = self.table().was_found(process, source) || told;
        if found {
            self.tally(|status| {
                status.balance.produced += 1;
                status.balance.aggregated += 1;
            });
            return;
        }
        process.user = process.uid.and_then(|uid| self.accounts.name(uid));
        self.adopt(ppid, ANCESTORS);
        process.parent = self.table().ancestor(ppid);
        if process.parent.is_none() && ppid != 0 {
            process.parent = Some(Arc::new(Ancestor { pid: ppid, ..Ancestor::default() }));
        }
        let was = self.table().insert_exec(process, ppid, time, source);
        if let Some((from, actor)) = was {
            self.told_root(time, actor, from, source, out);
        }
        if !self.suspects.is_empty() {
            self.suspects.remove(&process.pid);
        }
        out.push(Observation::Event(Event::new(time, EventKind::Process(activity))));
        self.tally(|status| {
            status.execs += 1;
            status.balance.produced += 1;
            status.balance.delivered += 1;
        });
    }

    /// Takes a running process into the table that is not there: one that forked and has not become another program since.
    fn adopt(&mut self, pid: u32, depth: usize) {
        if pid == 0 || depth == 0 || self.table().get(pid).is_some() {
            return;
        }
        let Some(mut entry) = procfs::read(&self.settings.proc, pid) else { return };
        // A finding about a child names those further up too.
        self.adopt(entry.ppid, depth - 1);
        self.inherit(&mut entry);
        entry.process.parent = self.table().ancestor(entry.ppid);
        self.table().insert(&entry.process, entry.ppid, None, false);
    }

    /// The executable of a process may not be readable (Landlock, or another user's process). A process that forked runs its
    /// parent's program, and shows it by the same command line or by the short name; otherwise its parent may be gone and
    /// another in its place.
    fn inherit(&self, entry: &mut Entry) {
        if !entry.process.executable.is_empty() {
            return;
        }
        let table = self.table();
        let Some(parent) = table.get(entry.ppid) else { return };
        let name = file_name(&parent.image.executable).as_bytes();
        let same_name = !name.is_empty() && name[..name.len().min(SHORT_NAME)] == *entry.name;
        if same_name || parent.runs(&entry.process) {
            entry.process.executable = Arc::clone(&parent.image.executable);
        }
    }

    fn exit(
        &mut self,
        pid: u32,
        reason: ExitReason,
        time: Timestamp,
        source: Source,
        out: &mut Vec<Observation>,
    ) {
        let ended = self.table().exit(pid).filter(|known| known.reported).map(|known| {
            let executable = Arc::clone(&known.image.executable);
            let process = Process { pid, executable, uid: known.uid, ..Process::default() };
            ProcessActivity { process, change: Change::Exit(reason), source, started: known.started }
        });
        let Some(ended) = ended.filter(|_| self.settings.exits) else { return };
        out.push(Observation::Event(Event::new(time, ended.into())));
        self.tally(|status| {
            status.exits += 1;
            status.balance.produced += 1;
            status.balance.delivered += 1;
        });
    }

    /// Finds processes that ended without a record (killed by a signal, say). One that is missing twice in a row is gone: its
    /// record would have come by then.
    fn sweep(&mut self, out: &mut Vec<Observation>) {
        let gone: HashSet<u32> = self
            .table()
            .running()
            .into_iter()
            .filter(|pid| !self.settings.proc.join(pid.to_string()).exists())
            .collect();
        let time = (self.settings.clock)();
        let confirmed: Vec<u32> = gone.intersection(&self.suspects).copied().collect();
        for pid in confirmed {
            self.exit(pid, ExitReason::Unknown, time, self.active.source(), out);
        }
        self.suspects = gone;
    }

    /// The table has not what runs there.
    fn is_news(&self, pid: u32) -> bool {
        let table = self.table();
        let Some(known) = table.get(pid).filter(|known| !known.has_ended()) else { return true };
        // The fork may have been announced, and what it became not. Only these sources name files as `/proc` does, whatever root the
        // process has.
        let named = matches!(self.active.source(), Source::Connector | Source::Poll);
        let then = &*known.image.executable;
        let differs = |now: &str| now != then && now.strip_suffix(" (deleted)") != Some(then);
        named
            && !then.is_empty()
            && procfs::executable(&self.settings.proc, pid).as_deref().is_some_and(differs)
    }

    /// After a loss: whatever runs and is not in the table started unseen.
    fn resynchronise(&mut self, out: &mut Vec<Observation>) {
        let time = (self.settings.clock)();
        for pid in procfs::pids(&self.settings.proc) {
            if !self.is_news(pid) {
                continue;
            }
            let Some(mut entry) = procfs::read(&self.settings.proc, pid) else { continue };
            self.adopt(entry.ppid, ANCESTORS);
            self.inherit(&mut entry);
            // Kernel threads have neither.
            if !entry.process.argv.is_empty() || !entry.process.executable.is_empty() {
                let activity = ProcessActivity::exec(entry.process, Source::Snapshot, false);
                self.exec(activity, entry.ppid, time, out);
                self.table().mark_found(pid);
            }
        }
    }

    fn update_status(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.source = Some(self.active.source());
        status.detail.clear();
        status.detail.push_str(self.active.detail());
        status.table = self.table().len();
        status.evicted = self.table().evicted();
        let owners_lost = self.active.owners_lost();
        self.owners.set_live(owners_lost.is_some(), self.active.accepts());
        status.owners_lost = owners_lost.unwrap_or(status.owners_lost);
        let lost = self.lost_before + self.active.lost();
        let more = lost.saturating_sub(status.lost);
        status.balance.produced += more;
        status.balance.kernel += more;
        status.lost += more;
        change(&mut status);
    }

    /// Counts.
    fn tally(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
