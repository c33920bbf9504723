//! `spawner PROGRAM FIRST COUNT`: starts PROGRAM COUNT times as fast as one process can, each with the next serial number
//! as `serial=N`, waiting for each to end; prints how long that took in microseconds.
//!
//! Compiled by `rustc` alone as a static program; see `image::guest`.

use std::process::{Command, ExitCode};
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let parsed = match &arguments[..] {
        [_, program, first, count] => {
            first.parse::<u64>().ok().zip(count.parse::<u64>().ok()).map(|n| (program, n))
        }
        _ => None,
    };
    let Some((program, (first, count))) = parsed else {
        println!("usage: spawner PROGRAM FIRST COUNT");
        return ExitCode::from(2);
    };
    let start = Instant::now();
    for serial in first..first + count {
        match Command::new(program).arg(format!("serial={serial}")).status() {
            Ok(status) if status.success() => {}
            other => {
                println!("serial {serial}: {other:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{}", start.elapsed().as_micros());
    ExitCode::SUCCESS
}
