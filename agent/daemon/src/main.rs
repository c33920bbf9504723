//! The `defender` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    defender_daemon::cli::main(std::env::args_os())
}
