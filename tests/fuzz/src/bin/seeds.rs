//! Writes content in order of every format a scan reads into the corpora the fuzzers start from: `cargo run --bin seeds` in tests/fuzz.

use std::fs;
use std::path::Path;

use defender_fuzz::image::{policy_seed, Image, FORMATS};

fn main() -> std::io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let formats = FORMATS.iter().map(|format| (format.name, Image::new(format.name).seed()));
    for (name, seed) in formats.chain([("policy", policy_seed())]) {
        let corpus = corpora.join(format!("posture_{name}"));
        fs::create_dir_all(&corpus)?;
        fs::write(corpus.join("seed"), seed)?;
    }
    Ok(())
}
