//! The words of the command line: which commands there are, what they take, and their help, from one table.
//!
//! | Module | Holds |
//! |---|---|
//! | `commands` | the table of commands |
//! | `flag` | the options |
//! | here | reading a command line, and the help |

mod commands;
mod flag;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use lexopt::{Arg, Parser};

pub(super) use commands::{Command, Verb, COMMANDS};
use flag::Flag;

/// What was told to a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) json: bool,
    pub(super) config: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
    pub(super) limit: Option<usize>,
    pub(super) seconds: Option<u64>,
    pub(super) reason: String,
    pub(super) rules: Vec<PathBuf>,
    pub(super) summary: bool,
    pub(super) posture: Box<PostureOptions>,
    pub(super) arguments: Vec<OsString>,
}

/// What was told to `posture` and `sbom`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PostureOptions {
    pub(super) root: Option<PathBuf>,
    pub(super) live: bool,
    pub(super) policy: Vec<String>,
    pub(super) policies: Option<PathBuf>,
    pub(super) fail_on: Option<String>,
    pub(super) min_score: Option<u32>,
    pub(super) strict: bool,
    pub(super) format: Option<String>,
    pub(super) output: Option<PathBuf>,
    pub(super) all: bool,
    pub(super) kernel_config: Option<PathBuf>,
    pub(super) cmdline: Option<String>,
    pub(super) device_tables: Vec<PathBuf>,
    pub(super) assume_root_owned: bool,
    pub(super) manifest: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Invocation {
    /// Do it.
    Do(Verb, Given),
    /// Print this and be done.
    Print(String),
}

/// Reads the command line; `arguments` begin with the program's name.
///
/// # Errors
/// What is wrong with it and where the help is.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    let mut parser = Parser::from_iter(arguments);
    let usage = |what: String, command: Option<&Command>| {
        let words = command.map_or_else(String::new, |command| format!(" {}", command.words.join(" ")));
        format!("{what}; see `defender{words} --help`")
    };
    let first = match parser.next().map_err(|error| usage(error.to_string(), None))? {
        None => return Err(usage("no command".to_owned(), None)),
        Some(Arg::Long("help") | Arg::Short('h')) => return Ok(Invocation::Print(overview())),
        Some(Arg::Long("version") | Arg::Short('V')) => {
            return Ok(Invocation::Print(format!("defender {}\n", env!("CARGO_PKG_VERSION"))))
        }
        Some(Arg::Value(word)) => word.to_string_lossy().into_owned(),
        Some(other) => return Err(usage(other.unexpected().to_string(), None)),
    };
    if first == "help" {
        return Ok(Invocation::Print(overview()));
    }
    let group: Vec<&Command> = COMMANDS.iter().filter(|command| command.words[0] == first).collect();
    let command = match group.as_slice() {
        [] => return Err(usage(format!("no command is called `{first}`"), None)),
        [only] if only.words.len() == 1 => *only,
        several if several.iter().any(|command| command.words.len() == 1) => {
            // A word after the group's own command: `posture` and `posture list`.
            let second = parser
                .try_raw_args()
                .and_then(|arguments| Some(arguments.peek()?.to_string_lossy().into_owned()));
            let found =
                several.iter().copied().find(|command| command.words.get(1).copied() == second.as_deref());
            match found.filter(|command| command.words.len() == 2) {
                Some(found) => {
                    parser.next().map_err(|error| usage(error.to_string(), None))?;
                    found
                }
                None => {
                    several.iter().copied().find(|command| command.words.len() == 1).unwrap_or(several[0])
                }
            }
        }
        several => {
            let choice = || several.iter().map(|command| command.words[1]).collect::<Vec<_>>().join(", ");
            match parser.next().map_err(|error| usage(error.to_string(), None))? {
                Some(Arg::Long("help") | Arg::Short('h')) => {
                    return Ok(Invocation::Print(several.iter().map(|command| command.line()).collect()))
                }
                Some(Arg::Value(word)) => {
                    let word = word.to_string_lossy();
                    let found = several.iter().copied().find(|command| command.words[1] == word);
                    found.ok_or_else(|| {
                        usage(format!("`{first} {word}` is none of `{first}` {}", choice()), None)
                    })?
                }
                _ => return Err(usage(format!("`{first}` needs one of: {}", choice()), None)),
            }
        }
    };
    command.read(&mut parser).map_err(|what| usage(what, Some(command)))
}

impl Command {
    fn read(&self, parser: &mut Parser) -> Result<Invocation, String> {
        let text = |error: lexopt::Error| error.to_string();
        let mut given = Given::default();
        while let Some(argument) = parser.next().map_err(text)? {
            let name = match argument {
                Arg::Long("help") | Arg::Short('h') => return Ok(Invocation::Print(self.help())),
                Arg::Value(value) if given.arguments.len() < self.count.1 => {
                    given.arguments.push(value);
                    continue;
                }
                Arg::Long(name) => name.to_owned(),
                other => return Err(other.unexpected().to_string()),
            };
            let flag = Flag::ALL.into_iter().find(|flag| flag.describe().0 == name);
            let flag = flag.filter(|flag| self.flags.contains(flag));
            let flag = flag.ok_or_else(|| format!("invalid option '--{name}'"))?;
            let posture = &mut given.posture;
            let switch = match flag {
                Flag::Json => Some(&mut given.json),
                Flag::Summary => Some(&mut given.summary),
                Flag::Live => Some(&mut posture.live),
                Flag::Strict => Some(&mut posture.strict),
                Flag::All => Some(&mut posture.all),
                Flag::AssumeRootOwned => Some(&mut posture.assume_root_owned),
                _ => None,
            };
            if let Some(switch) = switch {
                *switch = true;
                continue;
            }
            let value = parser.value().map_err(text)?;
            let words = |value: &OsString| defender_model::text::from_bytes(value.as_encoded_bytes());
            match flag {
                Flag::Root => posture.root = Some(value.into()),
                Flag::Policy => posture.policy.push(words(&value)),
                Flag::Policies => posture.policies = Some(value.into()),
                Flag::FailOn => posture.fail_on = Some(words(&value)),
                Flag::MinScore => posture.min_score = Some(number(&name, &value)?),
                Flag::Format => posture.format = Some(words(&value)),
                Flag::Manifest => posture.manifest = Some(value.into()),
                Flag::Output => posture.output = Some(value.into()),
                Flag::KernelConfig => posture.kernel_config = Some(value.into()),
                Flag::Cmdline => posture.cmdline = Some(words(&value)),
                Flag::DeviceTable => posture.device_tables.push(value.into()),
                Flag::Config => given.config = Some(value.into()),
                Flag::Socket => given.socket = Some(value.into()),
                Flag::Events => given.arguments.push(value),
                Flag::Rules => given.rules.push(value.into()),
                Flag::Limit => given.limit = Some(number(&name, &value)?),
                Flag::Seconds => given.seconds = Some(number(&name, &value)?),
                Flag::Reason => given.reason = words(&value),
                Flag::Json
                | Flag::Summary
                | Flag::Live
                | Flag::Strict
                | Flag::All
                | Flag::AssumeRootOwned => {}
            }
        }
        if given.arguments.len() < self.count.0 {
            return Err(format!("{} is missing", self.arguments));
        }
        Ok(Invocation::Do(self.verb, given))
    }

    /// One line of a list of commands.
    fn line(&self) -> String {
        let call = format!("{} {}", self.words.join(" "), self.arguments);
        format!("  {:<20} {}\n", call.trim_end(), self.about)
    }

    fn help(&self) -> String {
        let mut call = format!("defender {}", self.words.join(" "));
        if !self.flags.is_empty() {
            call.push_str(" [OPTIONS]");
        }
        if !self.arguments.is_empty() {
            call = format!("{call} {}", self.arguments);
        }
        let mut help = format!("{}\n\nUsage: {call}\n", self.about);
        if !self.details.is_empty() {
            help.push('\n');
            wrap(&mut help, self.details);
        }
        if !self.flags.is_empty() {
            help.push_str("\nOptions:\n");
        }
        for flag in self.flags {
            let (name, value, meaning) = flag.describe();
            let option = format!("--{name} {value}");
            // Writing to a String cannot fail.
            let _ = writeln!(help, "  {:<20} {meaning}", option.trim_end());
        }
        help
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &std::ffi::OsStr) -> Result<T, String> {
    let text = value.to_string_lossy();
    text.parse().map_err(|_| format!("--{name} needs a number, not `{text}`"))
}

fn overview() -> String {
    let mut help = String::from("Device security agent.\n\nUsage: defender COMMAND\n\nCommands:\n");
    help.extend(COMMANDS.iter().map(Command::line));
    help.push_str(
        "\n`defender COMMAND --help` says more; `defender --version` prints the version.\n\
         Exit codes: 0 fine, 1 the answer is \"no\", 2 usage or configuration, 3 could not run.\n",
    );
    help
}

/// Lines of at most 78 columns.
fn wrap(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split_whitespace() {
        if width > 0 && width + 1 + word.len() > 78 {
            out.push('\n');
            width = 0;
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Invocation, String> {
        parse(std::iter::once("defender").chain(line.split_whitespace()).map(OsString::from))
    }

    fn done(line: &str) -> (Verb, Given) {
        match read(line) {
            Ok(Invocation::Do(verb, given)) => (verb, given),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_come_before_and_after_arguments() {
        let (verb, given) = done("block --seconds 60 192.0.2.1 --reason=noise --json");
        assert_eq!(verb, Verb::Block);
        assert_eq!((given.seconds, given.reason.as_str(), given.json), (Some(60), "noise", true));
        assert_eq!(given.arguments, ["192.0.2.1"]);
        let (verb, given) = done("replay --rules a --rules b -");
        assert_eq!((verb, given.rules.len(), given.arguments.len()), (Verb::Replay, 2, 1));
        assert_eq!(done("rules check a b c").1.arguments.len(), 3);
        assert_eq!(done("replay -- -x").1.arguments, ["-x"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_next_step() {
        for (line, says) in [
            ("", "no command"),
            ("staus", "no command is called `staus`"),
            ("block", "ADDRESS is missing; see `defender block --help`"),
            ("block a b", "unexpected argument \"b\"; see `defender block --help`"),
            ("block a --seconds x", "--seconds needs a number, not `x`"),
            ("block a --seconds -1", "--seconds needs a number"),
            ("block a --seconds", "missing argument for option '--seconds'"),
            ("status --limit 3", "invalid option '--limit'; see `defender status --help`"),
            ("status --json=yes", "unexpected argument for option '--json'"),
            ("rules", "`rules` needs one of: check, list"),
            ("rules chekc", "`rules chekc` is none of `rules` check, list"),
            ("config show a b", "unexpected argument"),
            ("--json status", "invalid option '--json'"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
            assert!(error.contains("--help`"), "{line}: {error}");
        }
    }

    #[test]
    fn every_command_has_its_help() {
        for command in COMMANDS {
            let line = format!("{} --help", command.words.join(" "));
            match read(&line) {
                Ok(Invocation::Print(help)) => {
                    assert!(help.contains(command.about) && help.contains("Usage: defender "), "{help}");
                    for flag in command.flags {
                        assert!(help.contains(&format!("--{}", flag.describe().0)), "{help}");
                    }
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        assert!(
            matches!(read("--version"), Ok(Invocation::Print(v)) if v.contains(env!("CARGO_PKG_VERSION")))
        );
        assert!(matches!(read("rules -h"), Ok(Invocation::Print(help)) if help.contains("rules check")));
    }
}
