//! The stream of audit records, as the audit daemon or beside one.
//!
//! ```text
//!            no daemon registered                       a daemon is registered
//!  ┌──────────────────────────────┐  auditd starts  ┌──────────────────────────────────┐
//!  │ Daemon: registered, unicast; │ ──────────────► │ Listener: multicast group, reads │
//!  │ the kernel waits for us      │ ◄────────────── │ along; auditd is not disturbed   │
//!  └──────────────────────────────┘   auditd gone   └──────────────────────────────────┘
//! ```
//!
//! Changing roles overlaps: the new socket listens before the old one is given up, and copies are told apart by their serial
//! numbers, so nothing falls between the two. Whatever is missed all the same is a gap in the serial numbers, and counted.
//!
//! | Module | Holds |
//! |---|---|
//! | here | opening, reading, closing |
//! | `role` | becoming the daemon, reading along, making way |
//! | `upkeep` | what is looked after every second |
//! | `vigil` | since when the kernel may have told of nothing |

mod role;
mod upkeep;
mod vigil;

pub(crate) use role::Role;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use defender_model::health::Health;

use super::arch;
use super::assembly::{Assembler, Audited};
use super::control::{Control, Rule, Setting, Status, KEY, UNREAD, WATCH_KEY};
use super::record::{kind, split};
use super::serial::SerialTracker;
use super::watch::PathRules;
use crate::netlink::{acknowledgement, Batch, Socket, ERROR};
use crate::process::writers::Writers;
use crate::process::Unavailable;

use self::vigil::Vigil;

/// How long records are left to gather after some were read. The socket is not watched meanwhile, so that a storm costs one
/// wake-up per pause and not one per record.
const PAUSE: Duration = Duration::from_millis(3);
/// System calls' worth of records taken before others get their turn.
const BATCHES: usize = 64;
const TICK: Duration = Duration::from_secs(1);

/// What to ask of the audit subsystem.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What uname(2) calls the machine.
    pub(crate) machine: String,
    /// `/proc`.
    pub(crate) proc: PathBuf,
    /// Ask for process exits too.
    pub(crate) exits: bool,
    /// Bytes of the sockets' receive buffers.
    pub(crate) receive_buffer: i32,
    /// Records the kernel queues before it holds processes up, while the agent is the audit daemon.
    pub(crate) backlog_limit: u32,
    /// How long it holds a process up for them, in jiffies.
    pub(crate) backlog_wait: u32,
    /// Paths, with stars, of which is told who writes there.
    pub(crate) watched: Vec<PathBuf>,
    /// Who is told.
    pub(crate) writers: Writers,
}

struct Stream {
    socket: Socket,
    assembler: Assembler,
    role: Role,
    /// Read until then, and then closed.
    retire: Option<Instant>,
    acknowledged: Option<io::Result<()>>,
    /// Serial number of the first record read.
    first: Option<u64>,
    /// Events up to this number are another stream's: the kernel hands a new daemon what it held back while there was none, and
    /// that went to the multicast group already.
    since: u64,
}

/// What one turn of reading brought besides events.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Statements about the source.
    pub(crate) notes: Vec<Health>,
    /// Records were lost: the process table should be compared with `/proc`.
    pub(crate) resynchronise: bool,
    /// The kernel told of nothing for so long, and tells again.
    pub(crate) unseen: Duration,
}

/// The source. Dropping it without [`AuditStream::close`] leaves the rules in the kernel, as a crash does; the next start finds them.
pub(crate) struct AuditStream {
    settings: Settings,
    control: Control,
    rules: Vec<Rule>,
    /// Rules about modules, without which there is still `/proc/modules`, and about what else processes do to others and the kernel.
    optional: Vec<Rule>,
    paths: PathRules,
    streams: Vec<Stream>,
    tracker: SerialTracker,
    batch: Batch,
    before: Status,
    /// The kernel's counter at the last look, and what it has grown by since the start.
    kernel_counter: u32,
    lost_by_kernel: u64,
    /// Questions to the kernel that failed in a row.
    failures: u32,
    lost_on_the_way: u64,
    /// Incomplete events of streams closed since.
    incomplete_before: u64,
    reported_incomplete: u64,
    overruns: u64,
    reported_overruns: u64,
    highest_flushed: u64,
    highest: u64,
    courtesy_until: Option<Instant>,
    next_tick: Instant,
    ticks: u32,
    active: bool,
    rules_removed: bool,
    /// Rules were restored while who removed them may have gone on: what is on the other list is added once more.
    restored: bool,
    switched_on: bool,
    /// A record says that auditing is switched off.
    said_off: bool,
    vigil: Vigil,
    /// Rules about paths are left out until then.
    shed_until: Option<Instant>,
    /// Events that came before the kernel's answer to a registration.
    early: Vec<Audited>,
}

impl AuditStream {
    /// Takes up the stream and adds the rules.
    ///
    /// # Errors
    /// [`Unavailable`] with the cause when this kernel, or this process's privileges, do not allow it.
    pub(crate) fn open(settings: Settings) -> Result<Self, Unavailable> {
        let arches = arch::of_machine(&settings.machine);
        if arches.is_empty() {
            return Err(Unavailable::new(format!(
                "no audit system call table for machine {}",
                settings.machine
            )));
        }
        let mut control = Control::open().map_err(|error| explain("open the audit socket", &error))?;
        let before = control.status().map_err(|error| explain("read the audit status", &error))?;
        let rules: Vec<Rule> = arches
            .iter()
            .flat_map(|arch| [Some(Rule::exec(*arch)), settings.exits.then(|| Rule::exit(*arch))])
            .flatten()
            .collect();
        let mut optional = Vec::new();
        for arch in arches {
            optional.push(Rule::modules(*arch));
            Rule::deeds(*arch, &mut optional);
        }
        let now = Instant::now();
        let mut this = Self {
            optional,
            paths: PathRules::new(arches, settings.watched.clone(), settings.writers.clone()),
            settings,
            control,
            rules,
            streams: Vec::new(),
            tracker: SerialTracker::new(),
            batch: Batch::new(),
            before,
            kernel_counter: before.lost,
            lost_by_kernel: 0,
            failures: 0,
            lost_on_the_way: 0,
            incomplete_before: 0,
            reported_incomplete: 0,
            overruns: 0,
            reported_overruns: 0,
            highest_flushed: 0,
            highest: 0,
            courtesy_until: None,
            next_tick: now + TICK,
            ticks: 0,
            active: false,
            rules_removed: false,
            restored: false,
            switched_on: before.enabled == 0,
            said_off: false,
            vigil: Vigil::new(now),
            shed_until: None,
            early: Vec::new(),
        };
        if this.daemon_is_alive(before.pid) {
            this.listen()?;
            this.stop_excluding();
        } else {
            this.register()?;
        }
        if before.enabled == 0 {
            if this.role() == Role::Listener {
                return Err(Unavailable::new(
                    "an audit daemon runs but auditing is switched off (auditctl -e 0)",
                ));
            }
            this.control.set(Setting::Enabled(1)).map_err(|error| explain("switch auditing on", &error))?;
        }
        if let Err(unavailable) = this.add_rules(before.enabled == 2) {
            this.close();
            return Err(unavailable);
        }
        if before.enabled != 2 {
            this.add_optional();
        }
        Ok(this)
    }

    /// The role in force.
    pub(crate) fn role(&self) -> Role {
        self.streams.last().map_or(Role::Listener, |stream| stream.role)
    }

    /// Events known to be lost: dropped by the kernel, missing from the serial numbers, or without records that belong to them.
    pub(crate) fn lost(&self) -> u64 {
        self.lost_by_kernel + self.tracker.lost() + self.incomplete()
    }

    /// Since when it cannot be said that nothing went unseen, of a source that failed.
    pub(crate) fn unsure_since(&self) -> Instant {
        self.vigil.unsure_since()
    }

    /// Nothing will be read any more after this: appends what waits, and counts what is missing.
    pub(crate) fn read_last(&mut self, events: &mut Vec<Audited>) {
        events.append(&mut self.early);
        // It may have failed for good.
        let _ = self.drain(events, &mut Turn::default());
        // Up to what was there the last time, and up to now.
        self.tracker.settle();
        self.tracker.settle();
        if let Ok(status) = self.control.status() {
            self.count_dropped(status.lost);
        }
    }

    fn incomplete(&self) -> u64 {
        self.incomplete_before + self.streams.iter().map(|stream| stream.assembler.incomplete()).sum::<u64>()
    }

    /// Waits for records, at most a second, and appends the events they complete.
    ///
    /// # Errors
    /// [`Unavailable`] when the source is gone for good and another should take over. What was appended until then holds.
    pub(crate) async fn read(
        &mut self,
        events: &mut Vec<Audited>,
        turn: &mut Turn,
    ) -> Result<(), Unavailable> {
        let until_tick = self.next_tick.saturating_duration_since(Instant::now());
        if self.active || self.streams.len() > 1 {
            tokio::time::sleep(PAUSE.min(until_tick)).await;
        } else if let Some(stream) = self.streams.first() {
            if let Err(error) = stream.socket.readable(until_tick).await {
                self.vigil.deaf();
                return Err(explain("watch the audit socket", &error));
            }
        }
        events.append(&mut self.early);
        self.active = self.drain(events, turn)?;
        if self.rules_removed {
            self.rules_removed = false;
            self.restore_rules(turn)?;
        }
        if std::mem::take(&mut self.said_off) {
            self.check(turn)?;
        }
        if self.streams.len() > 1 {
            let now = Instant::now();
            if self.streams.iter().any(|stream| stream.retire.is_some_and(|until| until <= now)) {
                self.retire(events);
            }
        }
        if Instant::now() >= self.next_tick {
            self.next_tick = Instant::now() + TICK;
            self.tick(events, turn)?;
        }
        Ok(())
    }

    /// Gives the source up cleanly: our rules out, the place of the daemon free, settings as they were.
    pub(crate) fn close(mut self) {
        let excludes = UNREAD.iter().map(|unread| Rule::exclude(*unread));
        for rule in self.rules.drain(..).chain(self.optional.drain(..)).chain(excludes) {
            // A rule that cannot be removed is found again by its key at the next start.
            let _ = self.control.remove(&rule);
        }
        self.paths.remove(&mut self.control);
        if self.role() == Role::Daemon {
            if self.switched_on {
                let _ = self.control.set(Setting::Enabled(0));
            }
            self.restore_backlog();
            let _ = self.control.set(Setting::Pid(0));
        }
    }

    fn add_rules(&mut self, locked: bool) -> Result<(), Unavailable> {
        if locked {
            let present =
                self.control.present(&self.rules).map_err(|error| explain("list the audit rules", &error))?;
            if present == self.rules.len() {
                return Ok(());
            }
            return Err(Unavailable::new(
                "audit rules are locked until reboot (auditctl -e 2) and ours are not among them; add them to the locked set",
            ));
        }
        for rule in &self.rules {
            self.control.add(rule).map_err(|error| explain("add an audit rule", &error))?;
        }
        Ok(())
    }

    /// Adds what makes other sensors know more. A kernel that refuses leaves them as they were without.
    fn add_optional(&mut self) {
        for rule in &self.optional {
            let _ = self.control.add(rule);
        }
        self.paths.refresh(&mut self.control);
    }

    /// Reads what waits on every socket; true when there was something.
    fn drain(&mut self, events: &mut Vec<Audited>, turn: &mut Turn) -> Result<bool, Unavailable> {
        let mut any = false;
        let before = events.len();
        let mut announced = false;
        let began = Instant::now();
        let mut emptied = true;
        for stream in &mut self.streams {
            for round in 1..=BATCHES {
                emptied &= round < BATCHES;
                match stream.socket.receive(&mut self.batch) {
                    Ok(()) => {
                        any = true;
                        let seen = take(stream, &self.batch, &mut self.tracker, events);
                        announced |= seen.replace && stream.role == Role::Daemon;
                        self.highest = self.highest.max(seen.highest);
                        if !self.batch.is_full() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                        any = true;
                        self.overruns += 1;
                        turn.resynchronise = true;
                    }
                    Err(error) => {
                        self.vigil.deaf();
                        return Err(explain("read the audit stream", &error));
                    }
                }
            }
        }
        for event in &events[before..] {
            match event {
                Audited::Exec(exec) if self.streams.last().is_some_and(|s| s.role == Role::Daemon) => {
                    // Only root can become the audit daemon; anybody may call a program so.
                    announced |= exec.euid == Some(0) && exec.executable.rsplit('/').next() == Some("auditd");
                }
                Audited::ConfigChange { words, .. } => {
                    // List 4 is the exit filter; what we exclude on list 5 we put in and out ourselves.
                    // With a path it is the kernel's own doing, of a rule about one that is gone.
                    let kernel = words.contains(" path=") || words.contains(" dir=");
                    let ours = words.contains("op=remove_rule") && words.contains(KEY) && !kernel;
                    let shed = self.shed_until.is_some() && words.contains(WATCH_KEY);
                    self.rules_removed |= ours && !shed && words.contains("list=4");
                    self.said_off |= words.contains("audit_enabled=0") && words.contains("res=1");
                }
                _ => {}
            }
        }
        if self.rules_removed || self.said_off {
            self.vigil.deaf();
        }
        if emptied {
            self.vigil.heard(began);
        }
        if announced && self.courtesy_until.is_none() {
            self.make_way(turn)?;
        }
        Ok(any)
    }
}

/// What a batch showed besides events.
#[derive(Default)]
struct Seen {
    highest: u64,
    replace: bool,
}

/// Puts a batch's records together and appends the events they complete.
fn take(stream: &mut Stream, batch: &Batch, tracker: &mut SerialTracker, events: &mut Vec<Audited>) -> Seen {
    let mut seen = Seen::default();
    for message in batch.messages() {
        match message.kind {
            ERROR => stream.acknowledged = Some(acknowledgement(message.payload)),
            kind::REPLACE => seen.replace = true,
            _ => {
                let Some((stamp, fields)) = split(message.payload) else { continue };
                tracker.see(stamp.serial);
                if stamp.serial <= stream.since {
                    continue;
                }
                stream.first.get_or_insert(stamp.serial);
                seen.highest = seen.highest.max(stamp.serial);
                if let Some(event) = stream.assembler.push(message.kind, stamp, fields) {
                    deliver(event, tracker, events);
                }
            }
        }
    }
    seen
}

fn deliver(event: Audited, tracker: &mut SerialTracker, events: &mut Vec<Audited>) {
    if tracker.first_time(event.stamp().serial) {
        events.push(event);
    }
}

/// The usual reasons, in words that name the next step.
fn explain(action: &str, error: &io::Error) -> Unavailable {
    let reason = match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT) => "the kernel lacks CONFIG_AUDIT",
        Some(libc::ECONNREFUSED) => {
            "audit is off for this boot (audit=0 on the kernel command line) or not in this network namespace"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "not permitted: CAP_AUDIT_CONTROL and CAP_AUDIT_READ in the initial PID and user namespaces are needed"
        }
        Some(libc::EINVAL) => "the kernel lacks CONFIG_AUDITSYSCALL or a field of the rule",
        _ => return Unavailable::new(format!("cannot {action}: {error}")),
    };
    Unavailable::new(format!("cannot {action}: {error}: {reason}"))
}
