//! A storm of connections: nobody watching, the agent with audit and who looks for sockets in `/proc`, the agent with eBPF. Once all from
//! one process, once each from a process of its own that ends at once.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::command;
use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::progress;

use super::audit::Audit;
use super::monitor::{self, Monitor};
use super::programs::Clock;
use super::{spawn, table, tail, Bench};

const ROUNDS: u32 = 3;
const CONNECTIONS: u64 = 5_000;
/// How long a sink may stay silent before what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(4);

const ARMS: [(&str, Option<&str>); 3] = [
    ("unmonitored", None),
    ("defender, audit", Some("")),
    ("defender, eBPF", Some("[process]\nsource = \"ebpf\"\n")),
];
/// All connections are counted, and found again by their port.
const NETWORK: &str = "[network]\nevents_per_second = 0\nflow_table = 65536\ndns = false\n";

#[derive(Debug, Default)]
struct Figures {
    microseconds: Vec<f64>,
    agent: Vec<f64>,
    onlooker: Vec<f64>,
    programs: Vec<f64>,
    /// Connections without an event, events without a process, with another's, and words of the kernel that were lost.
    missing: u64,
    nameless: u64,
    wrong: u64,
    lost: u64,
}

/// Runs all arms and prints the table.
///
/// # Errors
/// When audit is in use, or the agent or a connection fails.
pub fn run(bench: &Bench) -> Result<()> {
    let audit = Audit::claim()?;
    let rounds = bench.options.rounds.unwrap_or(ROUNDS);
    let count = bench.options.count.unwrap_or(CONNECTIONS);
    let program = bench.programs.join("connect");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-static", "-s", "-o"]).arg(&program).arg(bench.source.join("tests/guest/connect.c"));
    command::run(&mut cc, Duration::from_secs(60))?;
    progress::say(format_args!("connect: {rounds} rounds of {count} connections"));
    let header = [
        "arm",
        "connections",
        "µs each",
        "agent CPU µs each",
        "second process CPU µs each",
        "eBPF programs µs each",
        "missing",
        "no process",
        "another's",
        "kernel's words lost",
    ];
    let mut rows = vec![header.map(String::from).to_vec()];
    for each in [false, true] {
        let mut all: [Figures; 3] = Default::default();
        for round in 0..rounds as usize {
            for turn in 0..ARMS.len() {
                let index = (turn + round) % ARMS.len();
                audit.off()?;
                let settings = ARMS[index].1;
                measure(bench, settings, each.then_some(&*program), count, &mut all[index])?;
            }
        }
        for ((name, settings), figures) in ARMS.iter().zip(&all) {
            let shown = |values: &[f64]| {
                if values.is_empty() {
                    "-".into()
                } else {
                    table::spread(values, 1)
                }
            };
            let counter = |value: u64| if settings.is_some() { value.to_string() } else { "-".into() };
            rows.push(vec![
                (*name).into(),
                if each { "a process each" } else { "one process" }.into(),
                shown(&figures.microseconds),
                shown(&figures.agent),
                shown(&figures.onlooker),
                shown(&figures.programs),
                counter(figures.missing),
                counter(figures.nameless),
                counter(figures.wrong),
                counter(figures.lost),
            ]);
        }
    }
    println!("\nConnections over loopback. Medians of {rounds} rounds of {count} (smallest to largest); the counts are of all rounds.");
    table::print(&rows);
    Ok(())
}

/// One round: `program` makes each connection, or this process does.
fn measure(
    bench: &Bench,
    settings: Option<&str>,
    program: Option<&Path>,
    count: u64,
    figures: &mut Figures,
) -> Result<()> {
    let netns = Arc::new(Netns::new()?);
    command::run(netns.command("ip").args(["link", "set", "lo", "up"]), Duration::from_secs(10))?;
    let monitor = match settings {
        Some(settings) => {
            let settings = format!("{settings}{NETWORK}");
            Some(Monitor::agent(bench, Arc::clone(&netns), &settings)?)
        }
        None => None,
    };
    let clock = settings.filter(|settings| !settings.is_empty()).map(|_| Clock::start());
    let ran = || clock.as_ref().and_then(Clock::nanoseconds);
    let pid = monitor.as_ref().map(Monitor::pid);
    let second = pid.and_then(child_of);
    let used = || [pid, second].map(|pid| pid.map(|pid| monitor::usage(pid).cpu));
    let mut tail = monitor.as_ref().map(Monitor::tail).transpose()?;
    if let Some(tail) = &mut tail {
        tail.lines(|_| ())?;
    }
    let (used_before, ran_before) = (used(), ran());
    let (took, port) = netns.within(|| storm(program, count))?;

    let Some(mut tail) = tail else {
        figures.microseconds.push(took.as_secs_f64() * 1e6 / count as f64);
        return Ok(());
    };
    // By its own port, as no two connections share one.
    let mut seen = HashSet::new();
    let own = program.map_or_else(std::env::current_exe, |program| Ok(program.into()));
    let own = own.map_err(Error::io("cannot find this program"))?;
    let name = format!("\"path\":\"{}\"", own.display());
    let destination = format!("\"dst_endpoint\":{{\"ip\":\"127.0.0.1\",\"port\":{port}");
    let (mut nameless, mut wrong) = (0, 0);
    let mut quiet = Instant::now();
    while (seen.len() as u64) < count && quiet.elapsed() < SILENCE {
        let read = tail.lines(|line| {
            let is = |words: &str| tail::find(line, words.as_bytes()).is_some();
            if !is("\"class_uid\":4001") || !is("\"activity_id\":1,") || !is(&destination) {
                return;
            }
            let source = tail::find(line, b"\"src_endpoint\"").map_or(&line[..0], |at| &line[at..]);
            if let Some(port) = tail::number_after(source, b"\"port\":") {
                if seen.insert(port) {
                    nameless += u64::from(!is("\"actor\":{\"process\""));
                    wrong += u64::from(is("\"actor\":{\"process\"") && !is(&name));
                }
            }
        })?;
        if read > 0 {
            quiet = Instant::now();
        }
        thread::sleep(Duration::from_millis(20));
    }
    let (used_after, ran_after) = (used(), ran());
    let per = |nanoseconds: u64| nanoseconds as f64 / 1e3 / count as f64;
    figures.microseconds.push(took.as_secs_f64() * 1e6 / count as f64);
    for (index, into) in [(0, &mut figures.agent), (1, &mut figures.onlooker)] {
        if let (Some(before), Some(after)) = (used_before[index], used_after[index]) {
            into.push(per(after.saturating_sub(before)));
        }
    }
    if let (Some(before), Some(after)) = (ran_before, ran_after) {
        figures.programs.push(per(after.saturating_sub(before)));
    }
    figures.missing += count - (seen.len() as u64).min(count);
    figures.nameless += nameless;
    figures.wrong += wrong;
    if let Some(monitor) = &monitor {
        let mut status = Command::new(&bench.options.agent);
        status.args(["status", "--json", "--socket"]).arg(monitor.directory().join("run/control.sock"));
        let told = command::run(&mut status, Duration::from_secs(10))?;
        figures.lost += tail::number_after(&told, b"\"owners_lost\",").unwrap_or(0);
    }
    Ok(())
}

/// Makes the connections, and takes each; how long it took, and to which port.
fn storm(program: Option<&Path>, count: u64) -> Result<(Duration, u16)> {
    let failed = |error: io::Error| Error::io("cannot connect over loopback")(error);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let server = thread::spawn(move || (0..count).try_for_each(|_| listener.accept().map(drop)));
    let begin = Instant::now();
    match program {
        Some(program) => {
            let program = spawn::text(&program.display().to_string())?;
            let port = spawn::text(&address.port().to_string())?;
            for _ in 0..count {
                spawn::spawn(&program, &[&program, &port]).map_err(failed)?;
            }
        }
        None => {
            for _ in 0..count {
                // Until the other side has taken it and is gone: a full queue would be measured otherwise.
                let mut stream = TcpStream::connect(address).map_err(failed)?;
                let _ = stream.read(&mut [0]);
            }
        }
    }
    let took = begin.elapsed();
    server.join().unwrap_or(Ok(())).map_err(failed)?;
    Ok((took, address.port()))
}

/// The process that a process has started.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_ascii_whitespace().next()?.parse().ok()
}
