//! What a device at rest sends in a day: its heartbeat and the words that keep a connection, counted by the packet filter.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::device::Device;
use super::{Plan, Site};
use crate::bench::table;
use crate::command;
use crate::error::{Error, Result};
use crate::progress;
use crate::servers::broker;

const DAY: f64 = 86_400.0;
/// How often the heartbeat comes while it is counted; and how long is counted.
const HEARTBEAT_S: u64 = 5;
const BEATS: u64 = 10;

/// Measures and prints bytes of IP packets in both directions, with TLS and acknowledgements.
///
/// # Errors
/// When something cannot be run or measured.
pub fn run(plan: &Plan) -> Result<()> {
    let mut site = Site::open(&plan.directory)?;
    let mut device = Device::new(&site.netns, &plan.agent, &plan.directory.join("device"), &site.tls, 4096)?;
    site.nft("add table inet counted; add chain inet counted in { type filter hook input priority -10; }; add rule inet counted in tcp dport 8883 counter; add rule inet counted in tcp sport 8883 counter")?;
    site.start()?;
    // Shortest that is taken, so that a word goes every five seconds.
    let port = format!("port = {}\n", broker::PORT);
    device.configure(&port, &format!("{port}keep_alive_s = 10\n"))?;
    let before = meter(&site)?;
    device.start()?;
    device.armed()?;
    let connected = quiet(&site)? - before;
    let words = rate(&site, Duration::from_secs(50))? * 5.0;
    device.kill();

    device.configure("keep_alive_s = 10", "keep_alive_s = 3600")?;
    device.configure("statistics_interval_s = 0", &format!("statistics_interval_s = {HEARTBEAT_S}"))?;
    device.start()?;
    let events = site.messages.lock().distinct();
    thread::sleep(Duration::from_secs(HEARTBEAT_S));
    let beat = rate(&site, Duration::from_secs(HEARTBEAT_S * BEATS))? * HEARTBEAT_S as f64;
    let told = site.messages.lock().distinct()[0] - events[0];
    progress::say(format_args!("{told} events in {} s of heartbeats", HEARTBEAT_S * (BEATS + 1)));
    let row = |cells: [String; 3]| cells.to_vec();
    let kib = |bytes: f64| format!("{:.0} KiB", bytes / 1024.0);
    let keep = |every: f64| DAY / every * words;
    let day = |beats: f64, every: f64| kib(beats * beat + keep(every));
    table::print(&[
        row(["".into(), "bytes".into(), "a day".into()]),
        row(["start: TLS, login, the agent's first words".into(), format!("{connected:.0}"), "".into()]),
        row([
            "a word and its answer, every 50 s (keep_alive_s = 60)".into(),
            format!("{words:.0}"),
            kib(keep(50.0)),
        ]),
        row(["the same every 1757 s (keep_alive_s = 1767)".into(), format!("{words:.0}"), kib(keep(1757.0))]),
        row(["a heartbeat, hourly".into(), format!("{beat:.0}"), kib(24.0 * beat)]),
        row(["at rest, as it comes".into(), "".into(), day(24.0, 50.0)]),
        row(["at rest, keep_alive_s = 1767".into(), "".into(), day(24.0, 1757.0)]),
        row(["the same, statistics_interval_s = 86400".into(), "".into(), day(1.0, 1757.0)]),
    ]);
    Ok(())
}

/// Bytes a second.
fn rate(site: &Site, time: Duration) -> Result<f64> {
    let (start, before) = (Instant::now(), meter(site)?);
    thread::sleep(time);
    Ok((meter(site)? - before) / start.elapsed().as_secs_f64())
}

/// The meter when nothing has passed for two seconds.
fn quiet(site: &Site) -> Result<f64> {
    let mut last = meter(site)?;
    for _ in 0..60 {
        thread::sleep(Duration::from_secs(2));
        let now = meter(site)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    Err(Error::Unexpected("the device is never at rest".into()))
}

/// Bytes that have passed so far.
fn meter(site: &Site) -> Result<f64> {
    let mut nft = Command::new("nsenter");
    nft.arg(format!("--net={}", site.netns.path())).args(["nft", "list", "table", "inet", "counted"]);
    let text = command::run(&mut nft, Duration::from_secs(60))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut words = text.split_whitespace();
    let mut bytes = 0.0;
    while let Some(word) = words.next() {
        if word == "bytes" {
            bytes += words.next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    Ok(bytes)
}
