//! The `defender` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut options = defender_daemon::run::Options::default();
    if let Some(c) = std::env::args().nth(2) { options.config = c.into(); }
    defender_daemon::run::run(&options)
}
