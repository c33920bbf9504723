//! A storm of everything at once on one processor, and the agent's balance sheet after it: what each sensor's source produced was delivered,
//! aggregated, no news, or dropped for a cause that is counted; what was planted amid it is there, and what is not is among counted drops.
//!
//! The storm is made in the guest by `src/bin/storm.rs`.

use std::time::Duration;

use serde_json::Value;

use crate::device::class;
use crate::error::{Error, Result};
use crate::progress;
use crate::qemu::{Machine, PROGRAMS};

/// KiB of memory (PSS) that a storm may bring the agent to (design: 16 MiB).
const MEMORY: u64 = 16 << 10;
/// Where the storm's files are made, in memory.
const DIRECTORY: &str = "/run/validation-storm";
/// A network interface: its messages take the way of every device's, and no program of the image minds that it comes and goes.
const DEVICE: &str = "/sys/class/net/lo";
/// How long the storm may last, and then the agent until it has told everything.
const STORM: Duration = Duration::from_secs(900);
const CALM: Duration = Duration::from_secs(180);

/// What the agent is told for the time of the storm: the event file keeps everything, the directory is watched.
pub const CONFIGURATION: &str = "[sink.file]\nmax_kib = 98304\nkeep = 1\n[posture]\nenabled = false\n\
     [files]\npaths = [\"/etc/passwd\", \"/run/validation-storm\"]\n";

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Starts of a program.
    pub execs: u64,
    /// Alerts planted amid them.
    pub alerts: u64,
    /// TCP connections over loopback.
    pub connections: u64,
    /// Files made; of a hundred one stays.
    pub files: u64,
    /// Names looked up and answered.
    pub names: u64,
    /// Lines of failed logins.
    pub failures: u64,
    /// Times that a device goes and comes.
    pub devices: u64,
}

/// A sensor's sheet, as `defender status` has it.
#[derive(Debug)]
struct Sheet {
    name: String,
    counters: Vec<(String, u64)>,
}

impl Sheet {
    fn of(status: &Value, name: &str) -> Self {
        let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_u64()?));
        let counters = status[name]["counters"].as_array().into_iter().flatten().filter_map(pair).collect();
        Self { name: name.to_owned(), counters }
    }

    fn get(&self, name: &str) -> u64 {
        self.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
    }

    fn dropped(&self) -> u64 {
        let drops = self.counters.iter().filter(|(name, _)| name.starts_with("dropped_"));
        drops.map(|(_, count)| count).sum()
    }

    fn became(&self) -> u64 {
        ["delivered", "aggregated", "unchanged", "held"].map(|name| self.get(name)).iter().sum::<u64>()
            + self.dropped()
    }
}

/// Sensors with a sheet, by their names in the status.
const SENSORS: [&str; 11] = [
    "process",
    "logins",
    "network",
    "files",
    "peripherals",
    "packet_filter",
    "modules",
    "services",
    "submissions",
    "accounts",
    "inventory",
];

/// Lets the storm loose on the machine's agent, which has [`CONFIGURATION`] and has just been started; prints what came of it.
///
/// # Errors
/// When a sheet does not add up, memory goes beyond its budget, a planted alert or a start of a program is missing, or the agent ends.
pub fn run(machine: &mut Machine, scale: &Scale) -> Result<()> {
    machine.install_programs()?;
    let pid =
        machine.agent_pid()?.ok_or_else(|| Error::Unexpected("the agent does not run".into()))?.to_string();
    let before = processor(machine, &pid)?;
    let log = machine.login_log();
    let Scale { execs, alerts, connections, files, names, failures, devices } = *scale;
    // Memory is looked at each second, and the peak of what is resident set anew (proc_pid_clear_refs(5)).
    let said = machine.run_within(
        &format!(
            "echo 5 >/proc/{pid}/clear_refs; : >/run/validation-pss; \
             (while [ -e /run/validation-pss ]; do grep ^Pss: /proc/{pid}/smaps_rollup >>/run/validation-pss.log; sleep 1; done) & \
             {PROGRAMS}/storm program={PROGRAMS}/noop execs={execs} alerts={alerts} connections={connections} \
             files={files} directory={DIRECTORY} names={names} failures={failures} log={log} devices={devices} device={DEVICE}; \
             code=$?; rm /run/validation-pss; exit $code"
        ),
        STORM,
    )?;
    expect(said.status == 0, || format!("the storm: {said:?}"))?;
    for line in said.output.lines() {
        progress::say(format_args!("     {line}"));
    }
    let status = calm(machine)?;
    let after = processor(machine, &pid)?;
    let peak = machine.ok(&format!(
        "sort -k2 -n /run/validation-pss.log | tail -n 1 | tr -s ' ' | cut -d' ' -f2; grep VmHWM /proc/{pid}/status | tr -dc 0-9; \
         rm -rf /run/validation-pss.log {DIRECTORY}"
    ))?;
    let figures: Vec<u64> = peak.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [pss, resident] = figures[..] else { return Err(Error::Unexpected(format!("memory: {peak}"))) };
    progress::say(format_args!(
        "     agent: PSS {pss} KiB at most, {resident} KiB resident at most, {} ms of processor",
        (after - before) * 10
    ));
    let sheets: Vec<Sheet> = SENSORS.iter().map(|name| Sheet::of(&status, name)).collect();
    for sheet in &sheets {
        let entries: Vec<String> =
            sheet.counters.iter().map(|(name, count)| format!("{count} {name}")).collect();
        progress::say(format_args!("     {}: {}", sheet.name, entries.join(", ")));
    }
    let sheet = |name: &str| sheets.iter().find(|sheet| sheet.name == name).map_or(0, |s| s.get("delivered"));
    for sheet in &sheets {
        let (produced, became) = (sheet.get("produced"), sheet.became());
        expect(produced == became, || format!("{} does not add up: {produced} is not {became}", sheet.name))?;
    }
    // What sensors delivered is what the pipeline received. A login is delivered in attempts, several of which may be one event.
    let events = &status["events"];
    let count = |name: &str| events[name].as_u64().unwrap_or_default();
    progress::say(format_args!("     pipeline: {events}"));
    for (sensor, kind) in
        [("process", "process"), ("network", "network"), ("files", "files"), ("peripherals", "peripherals")]
    {
        expect(sheet(sensor) == count(kind), || {
            format!("{sensor} delivered {}, and {} arrived", sheet(sensor), count(kind))
        })?;
    }
    let delivered: u64 =
        SENSORS.iter().filter(|name| **name != "logins").map(|name| sheet(name)).sum::<u64>()
            + count("authentication");
    // The state of the posture and of the packet filter has no sheet, and between two answers there is time.
    expect(delivered <= count("received") && count("received") < delivered + 20, || {
        format!("sensors delivered {delivered}, the pipeline received {}", count("received"))
    })?;
    // What the file that is looked at below did not get.
    let mut unwritten = 0;
    for sink in status["sinks"].as_array().into_iter().flatten() {
        let figure = |name: &str| sink[name].as_u64().unwrap_or_default();
        let [handed, written, dropped, waiting] = ["handed", "written", "dropped", "waiting"].map(figure);
        let name = sink["name"].as_str().unwrap_or_default();
        progress::say(format_args!(
            "     sink {name}: {handed} handed, {written} written, {dropped} dropped, {waiting} waiting"
        ));
        expect(handed == written + dropped + waiting, || format!("a sink does not add up: {sink}"))?;
        if name == "file" {
            expect(handed == count("emitted"), || format!("{} emitted: {sink}", count("emitted")))?;
            unwritten = dropped;
        }
    }
    // Each source was heard: a sensor that sleeps has a sheet that adds up too.
    for (name, least) in [
        ("process", execs),
        ("logins", failures),
        ("network", connections + names),
        ("files", files / 100),
        ("peripherals", devices),
    ] {
        let produced =
            sheets.iter().find(|sheet| sheet.name == name).map_or(0, |sheet| sheet.get("produced"));
        expect(produced >= least, || format!("{name}: {produced} produced, {least} and more were made"))?;
    }
    let lost = sheets.iter().find(|sheet| sheet.name == "process").map_or(0, Sheet::dropped);
    planted(machine, scale, lost, unwritten)?;
    expect(pss <= MEMORY, || format!("{pss} KiB of memory (PSS), more than {MEMORY}"))?;
    expect(machine.agent_pid()?.map(|now| now.to_string()).as_ref() == Some(&pid), || {
        "the agent was restarted".into()
    })
}

/// Everything that was planted is there, and every start of the program once, but for what is among counted drops: `lost` starts or ends
/// on the way to the agent, and `unwritten` records on the way to the file.
fn planted(machine: &mut Machine, scale: &Scale, lost: u64, unwritten: u64) -> Result<()> {
    let events = "cat /var/log/defender/events.jsonl*";
    let alerts = format!(
        "{events} | grep -F '\"class_uid\":{}' | grep -o 'planted=[a-z]* ' | sort -u | wc -l",
        class::FINDING
    );
    let starts = format!(
        "{events} | grep -F '\"class_uid\":1007' | grep -F '\"activity_id\":1,' | \
         grep -o 'cmd_line\":\"{PROGRAMS}/noop serial=[0-9]*\"' | sort | uniq -c | \
         awk '$1 == 1 {{ once++ }} $1 > 1 {{ more++ }} END {{ print once + 0, more + 0 }}'"
    );
    let said = machine.run_within(&format!("{alerts}; {starts}"), CALM)?.output;
    let found: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [alerts, once, more] = found[..] else { return Err(Error::Unexpected(format!("planted: {said}"))) };
    progress::say(format_args!(
        "     {alerts} of {} planted alerts, {once} of {} starts once and {more} more than once",
        scale.alerts, scale.execs
    ));
    let missing = |found: u64, made: u64| made.saturating_sub(found);
    expect(more == 0 && missing(once, scale.execs) <= lost + unwritten, || {
        format!("of {} starts {once} are told once and {more} more than once; {lost} and {unwritten} drops are counted", scale.execs)
    })?;
    // An alert needs the start it is about, and has the last place that a full queue gives up.
    expect(missing(alerts, scale.alerts) <= lost, || {
        format!("of {} planted alerts {alerts} are there", scale.alerts)
    })
}

/// Waits until nothing is held or waits, and nothing more comes.
fn calm(machine: &mut Machine) -> Result<Value> {
    let mut last = Vec::new();
    machine.wait("the agent has told everything", CALM, |machine| {
        let status = machine.query("status")?;
        let sheets: Vec<Sheet> = SENSORS.iter().map(|name| Sheet::of(&status, name)).collect();
        let held: u64 = sheets.iter().map(|sheet| sheet.get("held")).sum();
        let sinks = status["sinks"].as_array().into_iter().flatten();
        let waiting: u64 = sinks.filter_map(|sink| sink["waiting"].as_u64()).sum();
        // The question itself is a start of a program and its end; storms are not.
        let now: Vec<u64> = sheets.iter().skip(1).map(|sheet| sheet.get("produced")).collect();
        let still = now == last;
        last = now;
        Ok(if still && held == 0 && waiting == 0 {
            Ok(status)
        } else {
            Err(format!("{held} held, {waiting} wait for sinks, produced {last:?}"))
        })
    })
}

/// Hundredths of a second that the agent took of the processor (`utime` and `stime`, proc_pid_stat(5)).
fn processor(machine: &mut Machine, pid: &str) -> Result<u64> {
    let text = machine.ok(&format!("cut -d' ' -f14,15 /proc/{pid}/stat"))?;
    Ok(text.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).sum())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Unexpected(otherwise()))
    }
}
