//! The command line.
//!
//! | Module | Holds |
//! |---|---|
//! | `arguments` | which commands there are, what they take, their help |
//! | `posture` | `posture`, `posture list`, `explain`, `diff` |
//! | `profile` | `profile learn`, `check`, `diff` |
//! | `query` | commands that ask the running agent |
//! | `shown` | replies and events as text for people |
//! | `sbom` | `sbom` |
//! | `rules` | `rules check`, `rules list` |
//! | `summary` | the numbers of rules by ATT&CK tactic |
//! | `settings` | `config check`, `show`, `reference`, `default` |
//! | `replay` | recordings judged by the rules |
//!
//! Standard output carries the answer, standard error everything else. Exit codes: 0 fine, 1 the answer is "no", 2 usage or
//! configuration, 3 could not run.

mod arguments;
mod posture;
mod profile;
mod query;
mod replay;
mod rules;
mod sbom;
mod settings;
mod shown;
mod summary;

use std::ffi::OsString;
use std::io::{self, BufRead, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{Given, Invocation, Verb};
use defender_model::text::printable;

use crate::control;
use crate::run::{run, Options};
use crate::{onlooker, pam};

/// The configuration file read unless another is named.
pub const CONFIGURATION: &str = "/etc/defender/defender.toml";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Fine = 0,
    /// The answer is "no".
    No = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// It could not run.
    Failed = 3,
}

/// Why a command gave no answer: how it ended and what to say about it.
#[derive(Debug)]
struct Failure {
    outcome: Outcome,
    words: String,
}

impl Failure {
    fn usage(words: impl Into<String>) -> Self {
        Self { outcome: Outcome::Usage, words: words.into() }
    }

    fn failed(words: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, words: words.into() }
    }
}

impl From<io::Error> for Failure {
    /// Writing the answer failed. A reader that has seen enough (`| head`) is no failure.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { outcome: Outcome::Fine, words: String::new() },
            _ => Self::failed(format!("cannot write the answer: {error}")),
        }
    }
}

/// Where a command reads and writes.
pub struct Streams<'a> {
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Standard output.
    pub output: &'a mut dyn Write,
    /// Standard error.
    pub errors: &'a mut dyn Write,
    /// Standard output is a terminal that takes colours.
    pub colour: bool,
}

/// The program: carries out the command line (which begins with the program's name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|word| word == onlooker::WORD) {
        // Started by the agent, never by a person.
        return onlooker::run(arguments.into_iter().nth(2));
    }
    if arguments.get(1).is_some_and(|word| word == pam::WORD)
        && !arguments.iter().any(|word| word == "--help")
    {
        // Before anything that could fail.
        return pam::run(arguments.into_iter().skip(2));
    }
    let invocation = arguments::parse(arguments);
    if let Ok(Invocation::Do(Verb::Run, given)) = &invocation {
        // The daemon keeps no buffers of the standard streams.
        return run(&Options { config: configuration(given) });
    }
    let stdout = io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut output = BufWriter::new(stdout.lock());
    let streams = Streams {
        input: &mut io::stdin().lock(),
        output: &mut output,
        errors: &mut io::stderr().lock(),
        colour,
    };
    ExitCode::from(perform(invocation, streams) as u8)
}

/// Carries out a command line (which begins with the program's name), all but `run`.
pub fn execute(arguments: impl IntoIterator<Item = OsString>, streams: Streams<'_>) -> Outcome {
    perform(arguments::parse(arguments), streams)
}

fn perform(invocation: Result<Invocation, String>, mut streams: Streams<'_>) -> Outcome {
    let done = match invocation {
        Err(words) => Err(Failure::usage(words)),
        Ok(Invocation::Print(text)) => {
            streams.output.write_all(text.as_bytes()).map_err(Failure::from).map(|()| Outcome::Fine)
        }
        Ok(Invocation::Do(verb, given)) => carry_out(verb, &given, &mut streams),
    };
    let done = done.and_then(|outcome| {
        streams.output.flush()?;
        Ok(outcome)
    });
    done.unwrap_or_else(|failure| {
        if !failure.words.is_empty() {
            complain(&mut streams, &failure.words);
        }
        failure.outcome
    })
}

fn carry_out(verb: Verb, given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    match verb {
        Verb::Run => Err(Failure::usage("`run` is not carried out here")),
        Verb::Status
        | Verb::Alerts
        | Verb::Events
        | Verb::Block
        | Verb::Unblock
        | Verb::Blocked
        | Verb::Isolate
        | Verb::IsolateOff
        | Verb::BaselineAccept
        | Verb::BaselineAcceptNext
        // Never comes here: it has been carried out before.
        | Verb::Pam => query::ask(verb, given, streams),
        Verb::Replay => replay::replay(given, streams),
        Verb::Posture => posture::scan(given, streams),
        Verb::PostureList => posture::list(given, streams),
        Verb::PostureExplain => posture::explain(given, streams),
        Verb::PostureDiff => posture::diff(given, streams),
        Verb::Sbom => sbom::write(given, streams),
        Verb::RulesCheck => rules::check(given, streams),
        Verb::RulesList => rules::list(given, streams),
        Verb::ProfileLearn => profile::learn(given, streams),
        Verb::ProfileCheck => profile::check(given, streams),
        Verb::ProfileDiff => profile::diff(given, streams),
        Verb::ConfigCheck => settings::check(given, streams),
        Verb::ConfigShow => settings::show(given, streams),
        Verb::ConfigReference => {
            streams.output.write_all(crate::config::reference::markdown().as_bytes())?;
            Ok(Outcome::Fine)
        }
        Verb::ConfigDefault => {
            streams.output.write_all(crate::config::reference::default_file().as_bytes())?;
            Ok(Outcome::Fine)
        }
    }
}

/// A line on standard error, safe on a terminal. There is nowhere to tell of its own failure.
fn complain(streams: &mut Streams<'_>, words: &str) {
    let _ = writeln!(streams.errors, "defender: {}", printable(words));
}

fn configuration(given: &Given) -> PathBuf {
    given.config.clone().unwrap_or_else(|| CONFIGURATION.into())
}

/// The agent's socket: named, or in the run directory of a configuration that can be read, or where it is by default.
fn socket(given: &Given) -> PathBuf {
    if let Some(socket) = &given.socket {
        return socket.clone();
    }
    crate::config::load::load(&configuration(given)).config.agent.run_dir.join(control::SOCKET_NAME)
}
