//! The cost of each program start: nobody watching, the agent watching, auditd watching with the same rules.
//!
//! One core starts a static program that does nothing, as fast as it can; whoever watches has the other cores. The arms
//! take turns in one run, so that a change in the machine's mood hits all of them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::progress;

use super::audit::{Audit, EXCLUDE, EXEC, EXIT, NEVER};
use super::monitor::{self, Monitor};
use super::programs::Clock;
use super::spawn::{self, Arguments};
use super::table::{self, budget, median, percentile, spread};
use super::{machine, tail, Bench};

const ROUNDS: u32 = 11;
const EXECUTIONS: u64 = 4_000;

/// How long each measurement waits for the machine to become idle.
const QUIET: Duration = Duration::from_secs(15);

/// How long a sink may stay silent before what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// Audit off, no rules.
    Unmonitored,
    /// Audit as if it had never been switched on: the spawner has no audit context.
    NeverAudited,
    Agent,
    AgentWithoutExits,
    /// The agent with `process.source = "ebpf"`; audit stays off.
    Ebpf,
    EbpfWithoutExits,
    /// auditd as Debian ships it: names looked up (`ENRICHED`), written out in the background.
    AuditdShipped,
    /// auditd as cheap as it gets: `RAW`, never flushed.
    Auditd,
    AuditdExcluding,
    AuditdWithoutExits,
    /// The rules of the agent, and a reader that throws everything away.
    Drain,
}

impl Arm {
    const ALL: [Self; 11] = [
        Self::Unmonitored,
        Self::Agent,
        Self::Ebpf,
        Self::AuditdShipped,
        Self::Auditd,
        Self::AuditdExcluding,
        Self::AgentWithoutExits,
        Self::EbpfWithoutExits,
        Self::AuditdWithoutExits,
        Self::Drain,
        Self::NeverAudited,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Unmonitored => "unmonitored",
            Self::NeverAudited => "never audited",
            Self::Agent => "defender",
            Self::AgentWithoutExits => "defender, exits = false",
            Self::Ebpf => "defender, eBPF",
            Self::EbpfWithoutExits => "defender, eBPF, exits = false",
            Self::AuditdShipped => "auditd as Debian ships it, same rules",
            Self::Auditd => "auditd RAW, never flushed, same rules",
            Self::AuditdExcluding => "auditd, same rules and excludes",
            Self::AuditdWithoutExits => "auditd, exec rules only",
            Self::Drain => "reader that only drains, defender's rules",
        }
    }

    /// `only` names it, by a word of its name, or names nothing. What is compared with is always wanted.
    fn is_wanted(self, only: &[String]) -> bool {
        self == Self::Unmonitored || only.is_empty() || only.iter().any(|word| self.name().contains(word))
    }

    const fn is_ebpf(self) -> bool {
        matches!(self, Self::Ebpf | Self::EbpfWithoutExits)
    }

    /// The agent's settings in this arm; `None` where somebody else watches or nobody.
    fn settings(self) -> Option<&'static str> {
        match self {
            Self::Agent => Some(""),
            Self::AgentWithoutExits => Some("[process]\nexits = false\n"),
            Self::Ebpf => Some("[process]\nsource = \"ebpf\"\n"),
            Self::EbpfWithoutExits => Some("[process]\nsource = \"ebpf\"\nexits = false\n"),
            _ => None,
        }
    }
}

/// One arm's figures, one of each per round.
#[derive(Debug, Default)]
struct Figures {
    microseconds: Vec<f64>,
    cpu: Vec<f64>,
    kauditd: Vec<f64>,
    /// In eBPF programs, of all who run into them.
    programs: Vec<f64>,
    user_share: Vec<f64>,
    pss_before: Vec<f64>,
    pss_peak: Vec<f64>,
    pss_after: Vec<f64>,
    bytes: Vec<f64>,
    missing: u64,
    repeated: u64,
    kernel_lost: u64,
    foreign: u64,
    /// Rounds in which other programs used more than half a processor just before.
    disturbed: u32,
}

/// Runs all arms, prints the table, the ratios and the budgets.
///
/// # Errors
/// When audit is in use, a monitor does not start, or the agent lost an event.
pub fn run(bench: &Bench) -> Result<()> {
    let audit = Audit::claim()?;
    let rounds = bench.options.rounds.unwrap_or(ROUNDS);
    let count = bench.options.count.unwrap_or(EXECUTIONS);
    let arms: Vec<Arm> = Arm::ALL.into_iter().filter(|arm| arm.is_wanted(&bench.options.only)).collect();
    progress::say(format_args!("exec: {rounds} rounds of {count} executions in each of {} arms", arms.len()));
    let mut all: Vec<Figures> = arms.iter().map(|_| Figures::default()).collect();
    let mut rules = String::new();
    for round in 0..rounds {
        for turn in 0..arms.len() {
            // Another order in each round: who comes after whom should not matter.
            let index = (turn + round as usize) % arms.len();
            let first = u64::from(round) * count + 1;
            measure(bench, &audit, arms[index], first, count, &mut all[index], &mut rules)?;
        }
        let shown: Vec<String> = arms
            .iter()
            .zip(&all)
            .map(|(arm, f)| format!("{} {:.1}", arm.name(), f.microseconds.last().unwrap_or(&f64::NAN)))
            .collect();
        let load = machine::load();
        progress::say(format_args!("round {}: µs per exec: {}; load {load}", round + 1, shown.join(", ")));
    }
    progress::say("rules while the agent runs:");
    print!("{rules}");
    report(&arms, &all, rounds, count)
}

fn measure(
    bench: &Bench,
    audit: &Audit,
    arm: Arm,
    first: u64,
    count: u64,
    figures: &mut Figures,
    rules: &mut String,
) -> Result<()> {
    audit.off()?;
    let wanted: &[&'static str] = match arm {
        Arm::NeverAudited => &[NEVER],
        Arm::Auditd | Arm::AuditdShipped => &[EXEC[0], EXEC[1], EXIT[0], EXIT[1]],
        Arm::AuditdExcluding | Arm::Drain => {
            &[EXEC[0], EXEC[1], EXIT[0], EXIT[1], EXCLUDE[0], EXCLUDE[1], EXCLUDE[2], EXCLUDE[3]]
        }
        Arm::AuditdWithoutExits => &EXEC,
        _ => &[],
    };
    let monitor = match arm {
        Arm::Unmonitored | Arm::NeverAudited => None,
        Arm::Drain => {
            audit.like_debian()?;
            Some(Monitor::drain(bench)?)
        }
        _ if arm.settings().is_some() => {
            Some(Monitor::agent(bench, Netns::new()?, arm.settings().unwrap_or_default())?)
        }
        _ => {
            audit.like_debian()?;
            Some(Monitor::auditd(bench, arm == Arm::AuditdShipped)?)
        }
    };
    let _added = audit.rules(wanted)?;
    if arm == Arm::Agent && rules.is_empty() {
        *rules = audit.list()?;
    }
    audit.lost()?;
    if machine::wait_for_quiet(QUIET) > 0.5 {
        figures.disturbed += 1;
    }
    let pid = monitor.as_ref().map(Monitor::pid);
    let kauditd = monitor::kauditd();
    let usage = |pid: Option<u32>| pid.map(monitor::usage);
    let size = || monitor.as_ref().and_then(|m| fs::metadata(&m.sink).ok()).map_or(0, |data| data.len());
    // What happened until now is not counted below.
    let mut tail = monitor.as_ref().map(Monitor::tail).transpose()?;
    if let Some(tail) = &mut tail {
        tail.lines(|_| ())?;
    }
    // It costs a little itself, so only where there is something to measure.
    let clock = arm.is_ebpf().then(Clock::start);
    let ran = || clock.as_ref().and_then(Clock::nanoseconds);
    let ran_before = ran();
    let before = (usage(pid), usage(kauditd), pid.map(monitor::pss), size());

    let mut child = spawn::start(&bench.noop, Arguments::Serial, first, count, 0)?;
    let mut peak = before.2.unwrap_or(0);
    while child.try_wait().map_err(Error::io("cannot wait"))?.is_none() {
        thread::sleep(Duration::from_millis(100));
        peak = peak.max(pid.map_or(0, monitor::pss));
    }
    let took = spawn::finish(child)?;

    // The sink has everything once it stops growing; a quiet half second is part of every arm.
    let (mut last, mut since) = (size(), Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        thread::sleep(Duration::from_millis(20));
        if size() != last && since.elapsed() < SILENCE {
            (last, since) = (size(), Instant::now());
        }
    }
    let after = (usage(pid), usage(kauditd), pid.map(monitor::pss), size());
    let ran_after = ran();
    figures.microseconds.push(took.as_secs_f64() * 1e6 / count as f64);
    let Some(mut tail) = tail else { return Ok(()) };

    let mut seen = vec![0u32; usize::try_from(count).unwrap_or(0)];
    if arm == Arm::Drain {
        // It keeps nothing that could be counted.
        seen.fill(1);
    }
    let mut executions = 0u64;
    // A source that fell back to another one would be measured under the wrong name.
    let provider: &[u8] =
        if arm.is_ebpf() { b"\"log_provider\":\"ebpf\"" } else { b"\"log_provider\":\"audit\"" };
    let mut read = |seen: &mut Vec<u32>| {
        tail.lines(|line| {
            let execution = if arm.settings().is_some() {
                tail::find(line, b"\"class_uid\":1007").is_some()
                    && tail::find(line, b"\"activity_id\":1,").is_some()
                    && tail::find(line, provider).is_some()
            } else {
                tail::find(line, b"type=EXECVE").is_some()
            };
            if execution {
                executions += 1;
                let serial =
                    tail::number_after(line, b"serial=").and_then(|serial| serial.checked_sub(first));
                let slot = serial.and_then(|serial| seen.get_mut(usize::try_from(serial).ok()?));
                if let Some(slot) = slot {
                    *slot += 1;
                }
            }
        })
    };
    let mut quiet = Instant::now();
    loop {
        if read(&mut seen)? > 0 {
            quiet = Instant::now();
        }
        if seen.iter().all(|times| *times > 0) || quiet.elapsed() > SILENCE {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    if arm == Arm::Drain {
        executions = count;
    }
    figures.missing += seen.iter().filter(|times| **times == 0).count() as u64;
    figures.repeated += seen.iter().filter(|times| **times > 1).count() as u64;
    figures.foreign += executions.saturating_sub(count);
    figures.kernel_lost += audit.lost()?;
    // Other programs of the machine are watched as well: what that costs is spread over all executions.
    let per = |nanoseconds: u64| nanoseconds as f64 / 1e3 / executions.max(1) as f64;
    if let (Some(old), Some(new)) = (before.0, after.0) {
        figures.cpu.push(per(new.cpu - old.cpu));
        let (user, system) = (new.user_ticks - old.user_ticks, new.system_ticks - old.system_ticks);
        figures.user_share.push(100.0 * user as f64 / (user + system).max(1) as f64);
    }
    if let (Some(old), Some(new)) = (before.1, after.1) {
        figures.kauditd.push(per(new.cpu - old.cpu));
    }
    if let (Some(old), Some(new)) = (ran_before, ran_after) {
        figures.programs.push(per(new.saturating_sub(old)));
    }
    figures.bytes.push((after.3 - before.3) as f64 / executions.max(1) as f64);
    for (kib, into) in [
        (before.2.unwrap_or(0), &mut figures.pss_before),
        (peak, &mut figures.pss_peak),
        (after.2.unwrap_or(0), &mut figures.pss_after),
    ] {
        into.push(kib as f64 / 1024.0);
    }
    Ok(())
}

fn report(arms: &[Arm], all: &[Figures], rounds: u32, count: u64) -> Result<()> {
    let none = Figures::default();
    let of = |arm: Arm| arms.iter().position(|other| *other == arm).map_or(&none, |index| &all[index]);
    let base = of(Arm::Unmonitored);
    // Two views: the median of all rounds, and the least disturbed round of each.
    let added = |f: &Figures| median(&f.microseconds) - median(&base.microseconds);
    let least = |f: &Figures| percentile(&f.microseconds, 0.0) - percentile(&base.microseconds, 0.0);

    println!("\nTime. Medians of {rounds} rounds of {count} (smallest to largest); added: to the time of `unmonitored`.");
    let header = [
        "arm",
        "exec/s",
        "µs per exec",
        "added µs",
        "added, best rounds",
        "missing",
        "twice",
        "kernel lost",
        "others' execs",
        "disturbed",
    ];
    let mut rows = vec![header.map(String::from).to_vec()];
    for (arm, figures) in arms.iter().zip(all) {
        let watched = !figures.cpu.is_empty();
        let counter = |value: u64| if watched && *arm != Arm::Drain { value.to_string() } else { "-".into() };
        rows.push(vec![
            arm.name().into(),
            format!("{:.0}", 1e6 / median(&figures.microseconds)),
            spread(&figures.microseconds, 1),
            format!("{:.1}", added(figures)),
            format!("{:.1}", least(figures)),
            counter(figures.missing),
            counter(figures.repeated),
            counter(figures.kernel_lost),
            counter(figures.foreign),
            figures.disturbed.to_string(),
        ]);
    }
    table::print(&rows);

    println!("\nProcessor and memory of the monitoring process. PSS in MiB.");
    let header = [
        "arm",
        "CPU µs per exec",
        "in user mode",
        "kauditd µs per exec",
        "eBPF programs µs per exec",
        "PSS before",
        "peak",
        "after",
        "sink bytes per exec",
    ];
    let mut rows = vec![header.map(String::from).to_vec()];
    for (arm, figures) in arms.iter().zip(all).filter(|(_, figures)| !figures.cpu.is_empty()) {
        rows.push(vec![
            arm.name().into(),
            spread(&figures.cpu, 1),
            format!("{:.0} %", median(&figures.user_share)),
            spread(&figures.kauditd, 1),
            if figures.programs.is_empty() { "-".into() } else { spread(&figures.programs, 1) },
            spread(&figures.pss_before, 1),
            spread(&figures.pss_peak, 1),
            spread(&figures.pss_after, 1),
            format!("{:.0}", median(&figures.bytes)),
        ]);
    }
    table::print(&rows);
    println!();

    for (ours, theirs) in [
        (Arm::Agent, Arm::AuditdShipped),
        (Arm::Agent, Arm::Auditd),
        (Arm::Agent, Arm::AuditdExcluding),
        (Arm::AgentWithoutExits, Arm::AuditdWithoutExits),
        (Arm::Drain, Arm::Auditd),
        (Arm::Ebpf, Arm::Agent),
        (Arm::EbpfWithoutExits, Arm::AgentWithoutExits),
        (Arm::Ebpf, Arm::AuditdShipped),
    ] {
        if !arms.contains(&ours) || !arms.contains(&theirs) {
            continue;
        }
        let (a, b) = (of(ours), of(theirs));
        progress::say(format_args!(
            "ratio {} / {}: added time {:.2} (best rounds {:.2}), CPU {:.2} (best rounds {:.2}), CPU with kauditd {:.2}, \
             PSS {:.1}",
            ours.name(),
            theirs.name(),
            added(a) / added(b),
            least(a) / least(b),
            median(&a.cpu) / median(&b.cpu),
            percentile(&a.cpu, 0.0) / percentile(&b.cpu, 0.0),
            (median(&a.cpu) + median(&a.kauditd)) / (median(&b.cpu) + median(&b.kauditd)),
            median(&a.pss_peak) / median(&b.pss_peak),
        ));
    }
    let (ours, theirs) = (of(Arm::Agent), of(Arm::AuditdShipped));
    if arms.contains(&Arm::Agent) && arms.contains(&Arm::AuditdShipped) {
        budget("CPU per exec against auditd", median(&ours.cpu) / median(&theirs.cpu), 0.25, "times");
        budget("added time against auditd", added(ours) / added(theirs), 0.7, "times");
        budget("PSS at rest", median(&ours.pss_before), 8.0, "MiB");
        budget("PSS under a storm", percentile(&ours.pss_peak, 100.0), 16.0, "MiB");
    }
    if arms.contains(&Arm::Ebpf) {
        budget("time added per exec by eBPF", added(of(Arm::Ebpf)), 10.0, "µs");
        budget("of it in the programs", median(&of(Arm::Ebpf).programs), 10.0, "µs");
        budget("CPU per exec by eBPF", median(&of(Arm::Ebpf).cpu), 10.0, "µs");
    }
    let agents = || arms.iter().zip(all).filter(|(arm, _)| arm.settings().is_some());
    let lost: u64 = agents().map(|(_, figures)| figures.missing).sum();
    let repeated: u64 = agents().map(|(_, figures)| figures.repeated).sum();
    budget("exec events lost", lost as f64, 0.0, "events");
    if lost + repeated > 0 {
        return Err(Error::Unexpected(format!(
            "of {} executions the agent lost {lost} and reported {repeated} more than once",
            agents().count() as u64 * u64::from(rounds) * count
        )));
    }
    Ok(())
}
