use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::sink::tests::record;

const SIZES: Sizes = Sizes { most: 4000, segment: 500 };

fn sequences(store: &Store, lane: Lane) -> Vec<u64> {
    let (mut at, mut all) = (Position::default(), Vec::new());
    loop {
        let reading = store.read(lane, at, 3, 200).unwrap();
        assert!(!reading.damaged);
        if reading.next == at {
            return all;
        }
        assert_eq!(reading.records.last().unwrap().1, reading.next);
        at = reading.next;
        all.extend(reading.records.iter().map(|(record, _)| record.sequence));
    }
}

fn add(store: &mut Store, record: &Record) -> Result<usize, Error> {
    let mut refused = Vec::new();
    store.append(Lane::of(record), [record], &mut 0, &mut refused)?;
    Ok(refused.len())
}

fn fill(store: &mut Store, sequences: std::ops::Range<u64>, alert: bool) {
    for sequence in sequences {
        assert_eq!(add(store, &record(sequence, alert)).unwrap(), 0);
    }
}

#[test]
fn each_lane_keeps_its_order_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("spool");
    let mut store = Store::open(&directory, SIZES).unwrap();
    fill(&mut store, 0..20, false);
    fill(&mut store, 100..110, true);
    drop(store);
    let mut store = Store::open(&directory, SIZES).unwrap();
    fill(&mut store, 20..25, false);
    assert_eq!(sequences(&store, Lane::Telemetry), (0..25).collect::<Vec<_>>());
    assert_eq!(sequences(&store, Lane::Alerts), (100..110).collect::<Vec<_>>());
}

#[test]
fn the_oldest_telemetry_goes_first_and_alerts_last() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path(), SIZES).unwrap();
    fill(&mut store, 1000..1030, true);
    fill(&mut store, 0..200, false);
    let gone = store.evict();
    assert!(!gone.is_empty() && gone.iter().all(|gone| gone.lane == Lane::Telemetry));
    assert!(store.bytes() <= SIZES.most);
    let kept = sequences(&store, Lane::Telemetry);
    assert_eq!(kept.last(), Some(&199));
    assert_eq!(sequences(&store, Lane::Alerts).len(), 30);
    let in_gone: usize = gone
        .iter()
        .map(|gone| {
            let (mut at, mut count) = (0, 0);
            while let Found::Whole(_, used) = frame::decode(&gone.content[at..]) {
                (at, count) = (at + used, count + 1);
            }
            count
        })
        .sum();
    assert_eq!(in_gone + kept.len(), 200, "what went and what is left is all there was");
    // A flood of alerts: when no telemetry is left but the segment being written, the oldest alerts go.
    fill(&mut store, 1030..1300, true);
    assert!(store.evict().iter().any(|gone| gone.lane == Lane::Alerts));
    assert!(store.bytes() <= SIZES.most);
    assert_eq!(sequences(&store, Lane::Alerts).last(), Some(&1299));
}

#[test]
fn a_number_that_a_reader_remembers_is_not_given_out_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path(), SIZES).unwrap();
    let at = Position { segment: 7, offset: 100 };
    assert_eq!(store.settle(Lane::Alerts, at), Position { segment: 7, offset: 0 });
    fill(&mut store, 0..1, true);
    let reading = store.read(Lane::Alerts, at, 9, 999).unwrap();
    assert_eq!((reading.records.len(), reading.next.segment), (1, 8));
}

#[test]
fn what_everybody_has_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path(), SIZES).unwrap();
    fill(&mut store, 0..30, false);
    let half = store.read(Lane::Telemetry, Position { segment: 3, offset: 0 }, 1, 1).unwrap().next;
    store.forget(Lane::Telemetry, half);
    assert!(sequences(&store, Lane::Telemetry).first() > Some(&0));
    let mut at = half;
    while store.read(Lane::Telemetry, at, 99, 9999).unwrap().next != at {
        at = store.read(Lane::Telemetry, at, 99, 9999).unwrap().next;
    }
    store.forget(Lane::Telemetry, at);
    fill(&mut store, 30..33, false);
    assert_eq!(sequences(&store, Lane::Telemetry).last(), Some(&32));
    assert!(store.bytes() < 600);
}

#[test]
fn damage_costs_the_rest_of_its_segment_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path(), SIZES).unwrap();
    fill(&mut store, 0..30, false);
    let first = directory.path().join("telemetry.0000000001");
    let mut bytes = fs::read(&first).unwrap();
    bytes[100] ^= 1;
    fs::write(&first, bytes).unwrap();
    fs::remove_file(directory.path().join("telemetry.0000000003")).unwrap();
    let (mut at, mut all, mut damaged) = (Position::default(), BTreeSet::new(), 0);
    loop {
        let reading = store.read(Lane::Telemetry, at, 100, 9999).unwrap();
        if reading.next == at {
            break;
        }
        at = reading.next;
        damaged += usize::from(reading.damaged);
        all.extend(reading.records.iter().map(|(record, _)| record.sequence));
    }
    assert_eq!(damaged, 2);
    assert!(all.contains(&0) && all.contains(&29) && all.len() > 10, "{all:?}");
}

#[test]
fn links_and_strange_names_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    fs::write(directory.path().join("telemetry.x"), "").unwrap();
    fs::write(directory.path().join("sink.mqtt.cursor"), "").unwrap();
    let mut store = Store::open(directory.path(), SIZES).unwrap();
    std::os::unix::fs::symlink(&victim, directory.path().join("alerts.0000000001")).unwrap();
    assert!(add(&mut store, &record(1, true)).is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

/// Power may be lost at any byte of what is written: everything before the record that was cut is still there, and the spool goes on.
#[test]
fn cut_at_every_byte() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let mut store = Store::open(&whole, SIZES).unwrap();
    let mut ends = Vec::new();
    for sequence in 0..6 {
        fill(&mut store, sequence..sequence + 1, true);
        ends.push(store.bytes());
    }
    let bytes = fs::read(whole.join("alerts.0000000001")).unwrap();
    assert_eq!(bytes.len() as u64, ends[5], "one segment");
    for cut in 0..=bytes.len() {
        let place = directory.path().join(format!("cut-{cut}"));
        fs::create_dir(&place).unwrap();
        fs::write(place.join("alerts.0000000001"), &bytes[..cut]).unwrap();
        let mut store = Store::open(&place, SIZES).unwrap();
        let before = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        // A cursor that knows more than there is, since it reached the medium and the records did not.
        let cursor = store.settle(Lane::Alerts, Position { segment: 1, offset: bytes.len() as u64 });
        fill(&mut store, 90..91, true);
        let all: Vec<u64> = (0..before).chain([90]).collect();
        assert_eq!(sequences(&store, Lane::Alerts), all, "cut at {cut}");
        let new = store.read(Lane::Alerts, cursor, 9, 9999).unwrap();
        assert_eq!(new.records.iter().map(|(r, _)| r.sequence).collect::<Vec<_>>(), [90], "cut at {cut}");
        fs::remove_dir_all(&place).unwrap();
    }
}

proptest! {
    #[test]
    fn any_bytes_as_segments_never_panic(bytes: Vec<u8>, number in 0u64..u64::MAX) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(format!("alerts.{:010}", number / 2)), &bytes).unwrap();
        let mut store = Store::open(directory.path(), SIZES).unwrap();
        fill(&mut store, 1..3, true);
        let at = Position { segment: number, offset: number };
        let _ = store.read(Lane::Alerts, at, 9, 9);
        prop_assert_eq!(sequences(&store, Lane::Alerts).last().copied(), Some(2));
    }
}
