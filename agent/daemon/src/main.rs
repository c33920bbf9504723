//! The `defender` command.

#[cfg(without_unwind_tables)]
mod backtrace;

use std::process::ExitCode;

fn main() -> ExitCode {
    defender_daemon::cli::main(std::env::args_os())
}
