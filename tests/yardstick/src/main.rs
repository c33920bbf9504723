//! Rules against events: our detector beside crate `sigma-rust`, same rules, same events, same process.
//!
//! `defender-yardstick RULES EVENTS`: a directory of rule files, and a file of program starts, one `image|command line` a line.
//! Rules are the single-event rules about program starts that both sides read; what either leaves out is counted and printed.

mod memory;
mod rules;
mod starts;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use defender_detect::{Detector, Limits, RuleSet};

use rules::Document;
use starts::Start;

/// How long one side is measured at a time, in seconds. The sides take turns.
const SLICE: f64 = 0.4;
/// Turns of each side; the median counts.
const TURNS: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rules, events] = arguments.as_slice() else {
        eprintln!("usage: defender-yardstick RULES EVENTS");
        return ExitCode::from(2);
    };
    match compare(Path::new(rules), Path::new(events)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(3)
        }
    }
}

/// Prints the table; false if the two disagree about an event.
fn compare(rules: &Path, events: &Path) -> Result<bool, String> {
    let starts = starts::read(events)?;
    let shipped = rules::read(rules)?;
    println!("{} program starts from {}", starts.len(), events.display());
    println!("| rules | load ms | compiled KiB | defender ns/event | sigma-rust ns/event | times faster | held | disagree |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut agree = true;
    for extra in [0, 100, 1000] {
        let mut documents = shipped.clone();
        documents.extend((0..extra).map(rules::synthetic));
        let label = if extra == 0 { "shipped".to_owned() } else { format!("shipped and {extra} synthetic") };
        agree &= row(&label, &documents, &starts);
    }
    Ok(agree)
}

fn row(label: &str, documents: &[Document], starts: &[Start]) -> bool {
    let theirs: Vec<(usize, sigma_rust::Rule)> = documents
        .iter()
        .enumerate()
        .filter_map(|(i, d)| sigma_rust::rule_from_yaml(&d.text).ok().map(|rule| (i, rule)))
        .collect();
    let before = memory::in_use();
    let began = Instant::now();
    let mut builder = RuleSet::builder();
    for (i, _) in &theirs {
        builder = builder.add_source(&documents[*i].name, documents[*i].text.as_bytes());
    }
    let (set, errors) = builder.build();
    let load = began.elapsed().as_secs_f64() * 1e3;
    let compiled = (memory::in_use() - before) / 1024;
    for error in &errors {
        eprintln!("left out by us: {error}");
    }
    let count = set.rules().count();
    let mut detector = Detector::new(set, Limits::default());
    let mut findings = Vec::new();

    // Verdicts first: a fast wrong answer is worth nothing. It also lets every cache warm up.
    let (mut held, mut disagree) = (0, 0);
    for start in starts {
        let before = detector.stats().matches;
        detector.inspect(&start.ours, &mut findings);
        let ours = detector.stats().matches - before;
        let expected = theirs.iter().filter(|(_, rule)| rule.is_match(&start.theirs)).count() as u64;
        held += ours;
        if ours != expected {
            disagree += 1;
            eprintln!("{label}: {ours} of ours and {expected} of theirs hold for {}", start.line);
        }
    }

    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        fast.push(per_event(starts, |start| {
            detector.inspect(&start.ours, &mut findings);
            findings.clear();
        }));
        slow.push(per_event(starts, |start| {
            for (_, rule) in &theirs {
                black_box(rule.is_match(&start.theirs));
            }
        }));
    }
    let (fast, slow) = (median(&mut fast), median(&mut slow));
    println!(
        "| {label}: {count} | {load:.1} | {compiled} | {fast:.0} | {slow:.0} | {:.0} | {held} | {disagree} |",
        slow / fast
    );
    disagree == 0
}

/// Nanoseconds one event takes, over whole rounds for about [`SLICE`].
fn per_event(starts: &[Start], mut judge: impl FnMut(&Start)) -> f64 {
    let began = Instant::now();
    let mut events = 0u32;
    while began.elapsed().as_secs_f64() < SLICE {
        for start in starts {
            judge(black_box(start));
            events += 1;
        }
    }
    began.elapsed().as_nanos() as f64 / f64::from(events)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
