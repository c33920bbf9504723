//! Random mutations of every format a scan reads: a few seconds of what the fuzz targets in tests/fuzz do for hours. The seed of the
//! random numbers is fixed, so that a failure comes again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod image;

use std::time::{Duration, Instant};

use image::{Image, FORMATS};

/// Mutations of each format.
const MUTATIONS: usize = 200;
/// How long one scan of a small image may take in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Bytes that mean something to some format.
const WORDS: &[&[u8]] = &[
    b"\n",
    b"\\\n",
    b"\"",
    b"'",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"#",
    b"=",
    b":",
    b",",
    b"-",
    b"*",
    b"\0",
    b"\x1b[2J",
    b"\xff",
    b"\xc3\x28",
    b"4294967296",
    b"-1",
    b"99999999999999999999",
    b"0x",
    b"/../../",
    b"%i",
    b"${",
    b"rounds=999999999",
];

fn mutated(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(24)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            3 => bytes.truncate(at),
            4 => {
                let word = WORDS[random.below(WORDS.len())].repeat(1 + random.below(40));
                bytes.splice(at..at, word);
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..end, word.iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn no_mutation_of_any_format_harms_a_scan() {
    for (number, format) in FORMATS.iter().enumerate() {
        let image = Image::new(format.name);
        let seed = image.seed();
        let in_order = image.judge(&seed);
        let mut random = Random(number as u64);
        let mut different = 0;
        for round in 0..MUTATIONS {
            let input = mutated(&seed, &mut random);
            let began = Instant::now();
            different += usize::from(image.judge(&input) != in_order);
            assert!(began.elapsed() < LIMIT, "{} {round}: {:?}", format.name, began.elapsed());
        }
        assert!(
            different > 0,
            "{}: its content changes no verdict, so nobody reads it: {in_order:?}",
            format.name
        );
    }
}

#[test]
fn no_mutation_of_a_policy_harms_its_reader() {
    let seed = image::policy_seed();
    assert!(image::parse_policy(&seed));
    let mut random = Random(99);
    let refused = (0..MUTATIONS).filter(|_| !image::parse_policy(&mutated(&seed, &mut random))).count();
    assert!(refused > MUTATIONS / 2, "{refused}");
}
