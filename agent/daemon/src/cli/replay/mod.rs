//! `replay`: a recording judged by the rules. How rules are developed, regressions pinned and incidents examined again.
//!
//! | Module | Holds |
//! |---|---|
//! | `recording` | lines of every kind to events |
//! | `stamp` | the time a syslog line states |
//!
//! The output depends on the input and the rules alone: time comes from the recording, events are numbered from 1, and the device
//! is called `replay`. Memory is bounded: one line at a time, and what detection remembers.

mod recording;
mod stamp;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use defender_detect::{Detector, Limits};
use defender_model::event::Event;
use defender_model::finding::Finding;
use defender_model::health::Kind;
use defender_model::identity::DeviceIdentity;
use defender_model::ocsf;
use defender_model::time::Timestamp;

use super::arguments::Given;
use super::{complain, rules, shown, Failure, Outcome, Streams};
use crate::feeds::{News, Reader};
use recording::{Counts, Recording};

/// Longest line, in bytes: the longest event of ours (an argument vector of 6 MiB, escaped) fits.
const MAX_LINE: u64 = 40 << 20;

/// Milliseconds by which time passes between two events.
const STEP: i64 = 10_000;
/// Longest pause between two events that time passes through.
const LONGEST_PAUSE: i64 = 7 * 86_400_000;

/// Judges the recording and prints the alerts.
pub(super) fn replay(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let rules::InForce { rules, errors, config } = rules::in_force(given, streams);
    for error in &errors {
        complain(streams, error);
    }
    let mut detector = Detector::new(rules, Limits::default());
    for news in Reader::new(&config).look() {
        match news {
            News::Set(feed) => detector.set_feed(*feed),
            News::Said(health) if health.kind == Kind::Degraded => {
                complain(streams, &format!("{}: {}", health.component, health.message));
            }
            News::Remove(_) | News::Said(_) => {}
        }
    }
    if let Some(health) = crate::profile::enforce(&config, &mut detector) {
        if health.kind == Kind::Degraded {
            complain(streams, &format!("{}: {}", health.component, health.message));
        }
    }
    if detector.rules().rules().len() == 0 && detector.threat_feeds().next().is_none() {
        return Err(Failure::usage("no rules to judge by; name a directory of them with --rules"));
    }
    let path = given.arguments.first().cloned().unwrap_or_default();
    let mut printer = Printer {
        output: &mut *streams.output,
        json: given.json,
        colour: streams.colour,
        encoder: ocsf::Encoder::new(&device()),
        line: Vec::new(),
    };
    let mut judge = Judge { detector, sequence: 0, findings: Vec::new(), clock: None };
    let counts = read(&path, &mut *streams.input, &mut |events| Ok(judge.events(events, &mut printer)?))?;
    let stats = judge.detector.stats();
    let words = format!(
        "{} lines: {} events, {} lines about something else, {} lines not understood; {} alerts",
        counts.lines, counts.events, counts.other, counts.not_understood, stats.findings
    );
    streams.output.flush()?;
    complain(streams, &words);
    if stats.evictions > 0 {
        let words = format!("{} groups of events were forgotten early for want of room", stats.evictions);
        complain(streams, &words);
    }
    Ok(Outcome::Fine)
}

/// Reads a recording, `-` for standard input, and hands on its events as they become complete.
pub(super) fn read(
    path: &OsStr,
    input: &mut dyn BufRead,
    each: &mut dyn FnMut(&mut Vec<Event>) -> Result<(), Failure>,
) -> Result<Counts, Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("{}: cannot be read: {error}", path.to_string_lossy()));
    let mut file;
    let input: &mut dyn BufRead = if path == "-" {
        input
    } else {
        file = BufReader::with_capacity(64 * 1024, File::open(path).map_err(failed)?);
        &mut file
    };
    let mut recording = Recording::default();
    let (mut line, mut events) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let Some(whole) = read_line(input, &mut line).map_err(failed)? else { break };
        recording.line(&line, whole, &mut events);
        each(&mut events)?;
    }
    recording.finish(&mut events);
    each(&mut events)?;
    Ok(recording.counts())
}

/// Who speaks in a replay: always the same, so that output can be compared.
fn device() -> DeviceIdentity {
    DeviceIdentity {
        uid: "replay".into(),
        boot_id: "00000000-0000-0000-0000-000000000000".into(),
        hostname: "replay".into(),
        agent_version: "replay".into(),
    }
}

/// Numbers events and findings as the pipeline does, one after the other.
struct Judge {
    detector: Detector,
    sequence: u64,
    findings: Vec<Finding>,
    /// Up to when time has passed; kept only where rules wait for what does not happen.
    clock: Option<Timestamp>,
}

impl Judge {
    /// Lets time pass up to an event, as the clock of a device would. A recording that stops for longer than a week was cut there.
    fn pass(&mut self, to: Timestamp, printer: &mut Printer<'_>) -> io::Result<()> {
        if !self.detector.wants_ticks() {
            return Ok(());
        }
        let from = self.clock.filter(|from| (0..LONGEST_PAUSE).contains(&to.since(*from))).unwrap_or(to);
        let mut now = from;
        loop {
            self.detector.tick(now, &mut self.findings);
            self.print(now, printer)?;
            if now >= to {
                break;
            }
            now = to.min(now + STEP);
        }
        self.clock =
            Some(self.clock.map_or(to, |clock| if clock.since(to) > STEP { to } else { clock.max(to) }));
        Ok(())
    }

    fn print(&mut self, time: Timestamp, printer: &mut Printer<'_>) -> io::Result<()> {
        for finding in self.findings.drain(..) {
            self.sequence += 1;
            let alert = Event { time, sequence: self.sequence, kind: finding.into() };
            printer.alert(&alert)?;
        }
        Ok(())
    }

    fn events(&mut self, events: &mut Vec<Event>, printer: &mut Printer<'_>) -> io::Result<()> {
        for event in events.drain(..) {
            self.pass(event.time, printer)?;
            self.sequence += 1;
            self.detector.inspect(&event, &mut self.findings);
            self.print(event.time, printer)?;
        }
        Ok(())
    }
}

struct Printer<'a> {
    output: &'a mut dyn Write,
    json: bool,
    colour: bool,
    encoder: ocsf::Encoder,
    line: Vec<u8>,
}

impl Printer<'_> {
    fn alert(&mut self, alert: &Event) -> io::Result<()> {
        if self.json {
            self.line.clear();
            self.encoder.encode(alert, &mut self.line);
            self.line.push(b'\n');
            return self.output.write_all(&self.line);
        }
        let defender_model::event::EventKind::Finding(finding) = &alert.kind else { return Ok(()) };
        let text = match (finding.response, finding.source) {
            (response, _) if response.is_empty() => finding.message.clone(),
            (response, Some(source)) => format!("{} [{response} {source}]", finding.message),
            (response, None) => format!("{} [{response}]", finding.message),
        };
        shown::entry(self.output, alert.time, alert.severity(), &text, self.colour)
    }
}

/// The next line without its end, and whether it is whole. What is longer than the bound is passed over. `None` at the end.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    if (&mut *input).take(MAX_LINE).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    let mut whole = true;
    loop {
        let available = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        if available.is_empty() {
            return Ok(Some(whole));
        }
        whole = false;
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        input.consume(taken);
        if end.is_some() {
            return Ok(Some(false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_bound() {
        let long = vec![b'x'; MAX_LINE as usize + 3];
        let mut input = BufReader::new(b"a\n\n".chain(long.as_slice()).chain(&b"\nb"[..]));
        let mut line = Vec::new();
        let mut next = || {
            line.clear();
            read_line(&mut input, &mut line).unwrap().map(|whole| (whole, line.len()))
        };
        assert_eq!(next(), Some((true, 1)));
        assert_eq!(next(), Some((true, 0)));
        assert_eq!(next(), Some((false, MAX_LINE as usize)));
        assert_eq!(next(), Some((true, 1)));
        assert_eq!(next(), None);
    }
}
