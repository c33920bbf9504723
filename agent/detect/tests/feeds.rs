//! Memory and speed of a feed of 100,000 entries.
//!
//! `cargo test --release -p defender-detect --test feeds -- --ignored --nocapture --test-threads 1`

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use defender_detect::feed::{Kind, List};

const ENTRIES: u32 = 100_000;
/// The bound of issue and documentation.
const MOST_BYTES: usize = 8 << 20;

type Entry<'a> = &'a dyn Fn(u32) -> String;
type Find<'a> = &'a dyn Fn(&List, &str) -> bool;

/// Numbers that are spread over all of them, the same in each run.
fn scatter(n: u32) -> u32 {
    let n = (n ^ n >> 16).wrapping_mul(0x7feb_352d);
    let n = (n ^ n >> 15).wrapping_mul(0x846c_a68b);
    n ^ n >> 16
}

fn report(name: &str, text: &str, probes: &[String], find: impl Fn(&List, &str) -> bool) {
    let began = Instant::now();
    let list = List::parse(text.as_bytes(), Kind::Any, ENTRIES as usize).unwrap();
    let load = began.elapsed();
    let (mut hits, mut slowest) = (0, 0);
    let began = Instant::now();
    for probe in probes {
        hits += usize::from(black_box(find(&list, probe)));
    }
    let each = began.elapsed().as_nanos() / probes.len() as u128;
    for probe in probes.iter().step_by(97) {
        let began = Instant::now();
        black_box(find(&list, probe));
        slowest = slowest.max(began.elapsed().as_nanos());
    }
    println!(
        "{name:8} {} entries, file {} KiB, memory {} KiB, loaded in {} ms, {each} ns a look-up (slowest seen {slowest}), {hits} of {} found",
        list.len(),
        text.len() / 1024,
        list.bytes() / 1024,
        load.as_millis(),
        probes.len()
    );
    assert!(list.len() > 99_000, "{name}: {} entries", list.len());
    assert!(list.bytes() <= MOST_BYTES, "{name}: {} bytes", list.bytes());
    assert!(hits >= probes.len() / 3 && hits < probes.len(), "{name}: {hits} of {}", probes.len());
    assert!(each < 20_000, "{name}: {each} ns a look-up");
}

#[test]
#[ignore = "measures; run it in release"]
fn a_hundred_thousand_entries() {
    let address = |n| IpAddr::V4((scatter(n) | 0x1000_0000).into());
    let wide = |n: u32| {
        IpAddr::V6(
            (0x2001_0db8_u128 << 96 | u128::from(scatter(n)) << 64 | u128::from(scatter(n + 7))).into(),
        )
    };
    let domain = |n: u32| format!("{:x}.host-{}.{}.example", scatter(n), n % 977, scatter(n) % 5000);
    let digest = |n: u32| (0..8).map(|i| format!("{:08x}", scatter(n * 8 + i))).collect::<String>();
    let kinds: [(&str, Entry<'_>, Find<'_>); 4] = [
        ("IPv4", &|n| address(n).to_string(), &|list, probe| list.address(probe.parse().unwrap()).is_some()),
        ("IPv6", &|n| wide(n).to_string(), &|list, probe| list.address(probe.parse().unwrap()).is_some()),
        ("domain", &domain, &|list, probe| list.domain(probe).is_some()),
        ("SHA-256", &digest, &|list, probe| list.digest(probe.parse().unwrap()).is_some()),
    ];
    for (name, entry, find) in kinds {
        let mut text = String::from("# synthetic\n");
        for n in 0..ENTRIES {
            writeln!(text, "{} family-{}", entry(n), n % 300).unwrap();
        }
        // Half of them are listed.
        let probes: Vec<String> = (0..ENTRIES).map(|n| entry(n * 2)).collect();
        report(name, &text, &probes, find);
    }
}

#[test]
fn the_longest_names_stay_within_the_bound_on_memory() {
    // As many entries as a list of long names may have, each with a label of its own.
    let mut text = String::new();
    for n in 0..ENTRIES * 48 / 253 {
        let long = "abcdefghi.".repeat(24);
        writeln!(text, "x{n:05}.{long}xyzxyz {n:x}{}", "label ".repeat(20)).unwrap();
    }
    let list = List::parse(text.as_bytes(), Kind::Any, ENTRIES as usize).unwrap();
    assert!(list.bytes() <= MOST_BYTES, "{}", list.bytes());
    let more = format!("{text}{text}");
    assert!(List::parse(more.as_bytes(), Kind::Any, ENTRIES as usize).is_err());
}
