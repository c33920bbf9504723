//! What is looked after every second: losses, the kernel's state, our rules.

use std::io;
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};
use defender_model::severity::Severity;

use super::{deliver, explain, AuditStream, Role, Turn};
use crate::process::audit::assembly::Audited;
use crate::process::audit::control::{Rule, Setting, UNREAD};
use crate::process::Unavailable;

/// Ticks between two looks at the kernel's state.
const STATUS_EVERY: u32 = 5;
/// How long after a loss nobody is asked who writes to watched files.
const SHED: Duration = Duration::from_secs(60);
/// The part of the sensor that tells who does.
const WRITERS: &str = "process.writers";

impl AuditStream {
    pub(super) fn tick(&mut self, events: &mut Vec<Audited>, turn: &mut Turn) -> Result<(), Unavailable> {
        self.tracker.settle();
        for stream in &mut self.streams {
            let tracker = &mut self.tracker;
            stream.assembler.flush(self.highest_flushed, |event| deliver(event, tracker, events));
        }
        self.highest_flushed = self.highest;
        if std::mem::take(&mut self.restored) {
            self.exclude();
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks % STATUS_EVERY == 0 || self.overruns > self.reported_overruns {
            self.check(turn)?;
        }
        let on_the_way = self.tracker.lost();
        let incomplete = self.incomplete();
        if on_the_way > self.lost_on_the_way
            || self.overruns > self.reported_overruns
            || incomplete > self.reported_incomplete
        {
            let words = "audit events were lost between kernel and agent; processes among them are found by comparing /proc";
            turn.notes.push(
                Health::new(Kind::Lost, "process", words)
                    .with("events", on_the_way - self.lost_on_the_way)
                    .with("incomplete", incomplete - self.reported_incomplete)
                    .with("overruns", self.overruns - self.reported_overruns),
            );
            turn.resynchronise = true;
            self.lost_on_the_way = on_the_way;
            self.reported_overruns = self.overruns;
            self.reported_incomplete = incomplete;
            self.shed(turn);
        }
        if self.shed_until.is_some_and(|until| until <= Instant::now()) {
            self.shed_until = None;
            self.paths.refresh(&mut self.control);
            turn.notes.push(Health::new(
                Kind::Recovered,
                WRITERS,
                "it is told again who writes to watched files",
            ));
        }
        Ok(())
    }

    /// A start of a program is worth more than who wrote to a file, and a flood of writes is what mostly fills the queues.
    fn shed(&mut self, turn: &mut Turn) {
        if self.shed_until.is_none() {
            if self.paths.held().is_empty() {
                return;
            }
            let words = "records of programs are being lost: for a minute it is not told who writes to watched files, to make room";
            turn.notes.push(Health::new(Kind::Degraded, WRITERS, words));
        }
        self.shed_until = Some(Instant::now() + SHED);
        self.paths.remove(&mut self.control);
    }

    /// Compares the kernel's state with what it should be.
    pub(super) fn check(&mut self, turn: &mut Turn) -> Result<(), Unavailable> {
        let status = self.control.status();
        let Some(status) = self.tolerate("read the audit status", status)? else { return Ok(()) };
        let dropped = self.count_dropped(status.lost);
        if dropped > 0 {
            let words = format!("the kernel dropped audit records (backlog limit {})", status.backlog_limit);
            turn.notes.push(Health::new(Kind::Lost, "process", words).with("records", dropped.into()));
            turn.resynchronise = true;
        }
        let courtesy = self.courtesy_until.is_some_and(|until| Instant::now() < until);
        let other = self.daemon_is_alive(status.pid);
        match self.role() {
            Role::Daemon if status.pid != std::process::id() => {
                // Somebody took the place although the kernel should not allow it, or reset it.
                let words = format!("no longer the audit daemon (now process {})", status.pid);
                turn.notes.push(Health::new(Kind::Changed, "process", words));
                if other {
                    self.listen()?;
                    self.stop_excluding();
                } else {
                    self.register()?;
                }
            }
            Role::Listener if !other && !courtesy => {
                self.courtesy_until = None;
                self.register()?;
                if self.role() == Role::Daemon {
                    let words = "the audit daemon is gone: registered in its place";
                    turn.notes.push(Health::new(Kind::Changed, "process", words));
                }
            }
            Role::Listener if other => self.courtesy_until = None,
            _ => {}
        }
        if status.enabled == 0 {
            if self.role() == Role::Listener {
                return Err(Unavailable::new(
                    "auditing was switched off while an audit daemon runs (auditctl -e 0)",
                ));
            }
            self.control
                .set(Setting::Enabled(1))
                .map_err(|error| explain("switch auditing back on", &error))?;
            let mut note =
                Health::new(Kind::Changed, "process", "auditing had been switched off; switched on again");
            note.severity = Severity::High;
            turn.notes.push(note);
            turn.resynchronise = true;
            turn.unseen += self.vigil.tells_again(Instant::now());
        }
        let present = self.control.present(&self.rules);
        let present = self.tolerate("list the audit rules", present)?;
        if present.is_some_and(|present| present < self.rules.len()) {
            self.restore_rules(turn)?;
        }
        let now = Instant::now();
        if self.vigil.is_deaf() {
            // Whoever switched auditing off had it on again before this look.
            turn.resynchronise = true;
            turn.unseen += self.vigil.tells_again(now);
        }
        if present.is_some() {
            self.vigil.sure(now);
        }
        if status.enabled != 2 && self.shed_until.is_none() {
            self.check_paths();
        }
        Ok(())
    }

    /// Takes the kernel's counter of what it dropped, and returns what is new. It can be set back to zero (auditctl --reset-lost).
    pub(super) fn count_dropped(&mut self, counter: u32) -> u32 {
        let dropped = counter.checked_sub(self.kernel_counter).unwrap_or(counter);
        self.kernel_counter = counter;
        self.lost_by_kernel += u64::from(dropped);
        dropped
    }

    /// Adds rules about paths that came to be, and those the kernel dropped when a directory went.
    fn check_paths(&mut self) {
        let held = self.paths.held();
        match self.control.present(&held) {
            Ok(present) if present < held.len() => self.paths.renew(&mut self.control),
            _ => self.paths.refresh(&mut self.control),
        }
    }

    /// One question that fails (no memory, a held lock) is no reason to give up the best source; three in a row are.
    fn tolerate<T>(&mut self, action: &str, answer: io::Result<T>) -> Result<Option<T>, Unavailable> {
        match answer {
            Ok(value) => {
                self.failures = 0;
                Ok(Some(value))
            }
            Err(_) if self.failures < 2 => {
                self.failures += 1;
                Ok(None)
            }
            Err(error) => Err(explain(action, &error)),
        }
    }

    /// Spares the kernel the records that nobody reads, as long as nobody else does.
    fn exclude(&mut self) {
        if self.role() == Role::Daemon {
            for unread in UNREAD {
                let _ = self.control.add(&Rule::exclude(*unread));
            }
        }
    }

    pub(super) fn restore_rules(&mut self, turn: &mut Turn) -> Result<(), Unavailable> {
        self.add_rules(false)?;
        self.add_optional();
        self.paths.renew(&mut self.control);
        if self.shed_until.is_some() {
            self.paths.remove(&mut self.control);
        }
        self.exclude();
        self.restored = true;
        let words = "audit rules of the agent had been removed by another program and were added again; \
                     what ran meanwhile is found by comparing /proc";
        let mut note = Health::new(Kind::Changed, "process", words);
        note.severity = Severity::High;
        turn.notes.push(note);
        turn.resynchronise = true;
        turn.unseen += self.vigil.tells_again(Instant::now());
        Ok(())
    }
}
