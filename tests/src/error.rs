//! The one error type of this crate.

use std::fmt;
use std::io;
use std::time::Duration;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a step of the validation could not be done, or what it found to be wrong.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused.
    Io {
        /// What was attempted, on what.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// A program on the build machine failed.
    Command {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// Something did not happen in time.
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// What was seen instead.
        seen: String,
    },
    /// The machine under test ended or panicked.
    Machine(String),
    /// Something this needs is not there.
    Missing {
        /// The thing.
        what: String,
        /// How to get it.
        next: String,
    },
    /// The command line is wrong.
    Usage(String),
    /// A scenario saw something else than it expects.
    Unexpected(String),
    /// A scenario that does not apply here, with the reason.
    Skipped(String),
}

impl Error {
    /// For `map_err`: an I/O error with what was attempted.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Command { command, status, said } => {
                write!(f, "`{command}` failed ({status}): {}", said.trim_end())
            }
            Self::TimedOut { what, after, seen } => {
                write!(f, "{what}: not within {:.1} s", after.as_secs_f64())?;
                if seen.is_empty() {
                    Ok(())
                } else {
                    write!(f, "; last seen: {}", seen.trim_end())
                }
            }
            Self::Machine(what) => write!(f, "the machine under test: {what}"),
            Self::Missing { what, next } => write!(f, "{what} is missing: {next}"),
            Self::Usage(what) => write!(f, "{what} (try --help)"),
            Self::Unexpected(what) | Self::Skipped(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
