//! The words of the command line: which commands there are, what they take, and their help, from one table.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use lexopt::{Arg, Parser};

/// What can be told to a command besides its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    Json,
    Config,
    Socket,
    Limit,
    Seconds,
    Reason,
    Rules,
    Root,
    Live,
    Policy,
    Policies,
    FailOn,
    MinScore,
    Strict,
    Format,
    Output,
    All,
    KernelConfig,
    Cmdline,
    DeviceTable,
    AssumeRootOwned,
    Summary,
    Events,
}

impl Flag {
    const ALL: [Self; 23] = [
        Self::Json,
        Self::Config,
        Self::Socket,
        Self::Limit,
        Self::Seconds,
        Self::Reason,
        Self::Rules,
        Self::Root,
        Self::Live,
        Self::Policy,
        Self::Policies,
        Self::FailOn,
        Self::MinScore,
        Self::Strict,
        Self::Format,
        Self::Output,
        Self::All,
        Self::KernelConfig,
        Self::Cmdline,
        Self::DeviceTable,
        Self::AssumeRootOwned,
        Self::Summary,
        Self::Events,
    ];

    /// Its name, the word for its value (empty when it takes none) and what it means.
    const fn describe(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Json => ("json", "", "print JSON for programs instead of text for people"),
            Self::Config => {
                ("config", "FILE", "the configuration file (default /etc/defender/defender.toml)")
            }
            Self::Socket => {
                ("socket", "FILE", "the agent's control socket (default control.sock in the run directory)")
            }
            Self::Limit => ("limit", "N", "at most so many, the newest (default 100)"),
            Self::Seconds => {
                ("seconds", "N", "for how long, at most 2592000, of isolate 86400 (default: as configured)")
            }
            Self::Reason => ("reason", "TEXT", "why, for the record"),
            Self::Root => {
                ("root", "DIR", "the root directory of an image that is not running (default: this device)")
            }
            Self::Live => ("live", "", "the system of --root runs: its /proc and /sys are mounted there"),
            Self::Policy => {
                ("policy", "ID|FILE", "a policy by id or file; may be repeated (default: as configured)")
            }
            Self::Policies => ("policies", "DIR", "the directory of policies (default: as configured)"),
            Self::FailOn => {
                ("fail-on", "LEVEL", "answer \"no\" when a check of this severity or above fails")
            }
            Self::MinScore => {
                ("min-score", "N", "answer \"no\" below this score, 0 to 100 (default: as configured)")
            }
            Self::Strict => ("strict", "", "take what could not be told for failed"),
            Self::Format => ("format", "FORMAT", "text, json, junit, sarif or html (default text)"),
            Self::Output => ("output", "FILE", "write it there"),
            Self::All => ("all", "", "name what passed and what does not apply, too"),
            Self::KernelConfig => ("kernel-config", "FILE", "the configuration the kernel was built with"),
            Self::Cmdline => ("cmdline", "TEXT", "the kernel command line"),
            Self::DeviceTable => (
                "device-table",
                "FILE",
                "owners, modes and devices (makedevs); may be repeated; the rest is root's",
            ),
            Self::AssumeRootOwned => ("assume-root-owned", "", "take everything for root's"),
            Self::Summary => ("summary", "", "print the numbers only"),
            Self::Events => ("events", "FILE", "a recording; may be repeated, `-` is standard input"),
            Self::Rules => ("rules", "PATH", "a rule file or directory; may be repeated"),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Run,
    Status,
    Alerts,
    Events,
    Block,
    Unblock,
    Blocked,
    Isolate,
    IsolateOff,
    Replay,
    Posture,
    PostureList,
    PostureExplain,
    PostureDiff,
    RulesCheck,
    RulesList,
    ProfileLearn,
    ProfileCheck,
    ProfileDiff,
    ConfigCheck,
    ConfigShow,
    ConfigReference,
    ConfigDefault,
}

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) verb: Verb,
    pub(super) words: &'static [&'static str],
    /// Its arguments, as the usage line shows them.
    arguments: &'static str,
    /// Fewest and most arguments.
    count: (usize, usize),
    flags: &'static [Flag],
    about: &'static str,
    /// What else there is to know, exit codes among it.
    details: &'static str,
}

use Flag::{
    All, AssumeRootOwned, Cmdline, Config, DeviceTable, Events, FailOn, Format, Json, KernelConfig, Limit,
    Live, MinScore, Output, Policies, Policy, Reason, Root, Rules, Seconds, Socket, Strict, Summary,
};

/// Every command, in the order of the help.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        verb: Verb::Run,
        words: &["run"],
        arguments: "",
        count: (0, 0),
        flags: &[Config],
        about: "Run the agent in the foreground.",
        details: "Started as root it confines itself. Exit codes: 0 after SIGTERM or SIGINT, 3 if it could not run, among others \
                  because another agent runs already.",
    },
    Command {
        verb: Verb::Status,
        words: &["status"],
        arguments: "",
        count: (0, 0),
        flags: &[Json, Config, Socket],
        about: "Show how the agent is.",
        details: "Exit codes: 0 when it is armed, 1 when it runs and is not armed, 3 when it does not answer.",
    },
    Command {
        verb: Verb::Alerts,
        words: &["alerts"],
        arguments: "",
        count: (0, 0),
        flags: &[Json, Limit, Config, Socket],
        about: "Show the latest alerts, oldest first.",
        details: "With --json one OCSF Detection Finding a line.",
    },
    Command {
        verb: Verb::Events,
        words: &["events"],
        arguments: "",
        count: (0, 0),
        flags: &[Json, Limit, Config, Socket],
        about: "Show the latest events of every kind, oldest first.",
        details: "With --json one OCSF event a line.",
    },
    Command {
        verb: Verb::Block,
        words: &["block"],
        arguments: "ADDRESS",
        count: (1, 1),
        flags: &[Seconds, Reason, Json, Config, Socket],
        about: "Drop all packets from and to an address.",
        details: "Blocking an address again sets its time anew. Exit codes: 0 when the block was read back from the kernel, 1 when \
                  policy forbids it (an allowed address), 3 when it failed.",
    },
    Command {
        verb: Verb::Unblock,
        words: &["unblock"],
        arguments: "ADDRESS",
        count: (1, 1),
        flags: &[Json, Config, Socket],
        about: "Let an address through again.",
        details: "Exit codes: 0 when its block was ended, 1 when it was not blocked, 3 when it failed.",
    },
    Command {
        verb: Verb::Blocked,
        words: &["blocked"],
        arguments: "",
        count: (0, 0),
        flags: &[Json, Config, Socket],
        about: "Show which addresses are blocked, soonest to expire first.",
        details: "",
    },
    Command {
        verb: Verb::Isolate,
        words: &["isolate"],
        arguments: "",
        count: (0, 0),
        flags: &[Seconds, Reason, Json, Config, Socket],
        about: "Isolate the device: let only loopback, the allowed peers, the sinks' servers and DHCP through.",
        details: "It ends by itself. An isolation in force is made longer, never shorter. Exit codes: 0 when it was read back from \
                  the kernel, 3 when it failed.",
    },
    Command {
        verb: Verb::IsolateOff,
        words: &["isolate", "off"],
        arguments: "",
        count: (0, 0),
        flags: &[Json, Config, Socket],
        about: "End the isolation.",
        details: "Exit codes: 0 when it was ended, 1 when the device was not isolated, 3 when it failed.",
    },
    Command {
        verb: Verb::Replay,
        words: &["replay"],
        arguments: "FILE",
        count: (1, 1),
        flags: &[Rules, Config, Json],
        about: "Judge a recording by the rules and print the alerts; needs no agent and no privileges.",
        details: "FILE holds audit log text, events of ours as OCSF JSON lines, or lines of a syslog daemon, mixed as they may be; `-` \
                  is standard input. The same input and rules give the same output, byte for byte. Without --rules the \
                  configuration's rules and changes to them are used. A summary goes to standard error. Exit codes: 0 whatever \
                  was found, 2 when there are no rules, 3 when the file cannot be read.",
    },
    Command {
        verb: Verb::Posture,
        words: &["posture"],
        arguments: "",
        count: (0, 0),
        flags: &[
            Root,
            Live,
            Policy,
            Policies,
            FailOn,
            MinScore,
            Strict,
            Format,
            Output,
            All,
            Config,
            KernelConfig,
            Cmdline,
            DeviceTable,
            AssumeRootOwned,
        ],
        about: "Grade this device, or an image that is not running, against policies.",
        details: "With --root nothing outside of DIR is followed and no privileges are needed: owners come from fakeroot or pseudo, from \
                  --device-table, or everything is taken for root's. The configuration (exceptions, allowed ports) is then DIR's own \
                  unless --config names one. Exit codes: 0 when it is good enough, 1 when not, 2 for a mistake in policy or \
                  configuration, 3 when it could not run.",
    },
    Command {
        verb: Verb::PostureList,
        words: &["posture", "list"],
        arguments: "",
        count: (0, 0),
        flags: &[Policy, Policies, Config, Json],
        about: "List policies and their checks: severity, id, title.",
        details: "Exit codes: 0, or 2 when a policy has mistakes.",
    },
    Command {
        verb: Verb::PostureExplain,
        words: &["posture", "explain"],
        arguments: "CHECK",
        count: (1, 1),
        flags: &[Policy, Policies, Config],
        about: "Explain a check: why it matters and what to do about it.",
        details: "Exit codes: 0, 1 when there is no such check, 2 when a policy has mistakes.",
    },
    Command {
        verb: Verb::PostureDiff,
        words: &["posture", "diff"],
        arguments: "OLD NEW",
        count: (2, 2),
        flags: &[Json],
        about: "Show what changed between two scans, reports of --format json.",
        details: "Exit codes: 0 when nothing got worse, 1 when something did, 3 when a report cannot be read.",
    },
    Command {
        verb: Verb::RulesCheck,
        words: &["rules", "check"],
        arguments: "PATH...",
        count: (1, usize::MAX),
        flags: &[Config, Json],
        about: "Check rule files and directories of them.",
        details: "Every mistake is listed with file, line, rule and cause, and every rule in order that cannot hold with the sensors \
                  of the configuration, with the reason. Placeholders have the values of the configuration. Exit codes: 0 when \
                  there is no mistake, 1 when there are some.",
    },
    Command {
        verb: Verb::RulesList,
        words: &["rules", "list"],
        arguments: "",
        count: (0, 0),
        flags: &[Rules, Summary, Config, Json],
        about: "List the rules: id, level, tactic, response, title; and their numbers by ATT&CK tactic.",
        details: "Without --rules those of the configuration, its changes to them applied. In place of the level stands `off` of rules \
                  switched off, `idle` of those that need what no sensor supplies, `feeds` of those that only feed a correlation. Exit codes: 0 when every file is in \
                  order, 1 when something had to be left out.",
    },
    Command {
        verb: Verb::ProfileLearn,
        words: &["profile", "learn"],
        arguments: "[FILE...]",
        count: (0, usize::MAX),
        flags: &[Events, Output, Json],
        about: "Learn from recordings what the product does, and print it as a profile.",
        details: "Recordings are what `replay` reads, above all the event files that an agent wrote while the product's tests ran. \
                  Order and number of events make no difference. Exit codes: 0, 1 when nothing could be learned, 3 when a file \
                  cannot be read.",
    },
    Command {
        verb: Verb::ProfileCheck,
        words: &["profile", "check"],
        arguments: "FILE",
        count: (1, 1),
        flags: &[Json],
        about: "Check a profile: mistakes, sizes, entries that allow too much.",
        details: "Exit codes: 0 when all is well, 1 when an entry allows more than a review should let pass, 2 when the agent would \
                  not take it, 3 when it cannot be read.",
    },
    Command {
        verb: Verb::ProfileDiff,
        words: &["profile", "diff"],
        arguments: "OLD NEW",
        count: (2, 2),
        flags: &[Json],
        about: "Show what only the one of two profiles allows.",
        details: "Lines with - are of OLD, those with + of NEW. Exit codes: 0 when both allow the same, 1 when not, 2 when one has a \
                  mistake, 3 when one cannot be read.",
    },
    Command {
        verb: Verb::ConfigCheck,
        words: &["config", "check"],
        arguments: "[FILE]",
        count: (0, 1),
        flags: &[Json],
        about: "Check a configuration file and the drop-ins beside it.",
        details: "FILE is /etc/defender/defender.toml unless given. Exit codes: 0 when all is well, 2 when something is not.",
    },
    Command {
        verb: Verb::ConfigShow,
        words: &["config", "show"],
        arguments: "[FILE]",
        count: (0, 1),
        flags: &[Json],
        about: "Show the configuration in force: defaults, file and drop-ins together.",
        details: "Exit codes: 0, or 2 when a file had to be left out.",
    },
    Command {
        verb: Verb::ConfigReference,
        words: &["config", "reference"],
        arguments: "",
        count: (0, 0),
        flags: &[],
        about: "Print the reference of every key as Markdown.",
        details: "",
    },
    Command {
        verb: Verb::ConfigDefault,
        words: &["config", "default"],
        arguments: "",
        count: (0, 0),
        flags: &[],
        about: "Print the commented default file.",
        details: "",
    },
];

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

/// What was told to `posture`.
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
                Json => Some(&mut given.json),
                Summary => Some(&mut given.summary),
                Live => Some(&mut posture.live),
                Strict => Some(&mut posture.strict),
                All => Some(&mut posture.all),
                AssumeRootOwned => Some(&mut posture.assume_root_owned),
                _ => None,
            };
            if let Some(switch) = switch {
                *switch = true;
                continue;
            }
            let value = parser.value().map_err(text)?;
            let words = |value: &OsString| defender_model::text::from_bytes(value.as_encoded_bytes());
            match flag {
                Root => posture.root = Some(value.into()),
                Policy => posture.policy.push(words(&value)),
                Policies => posture.policies = Some(value.into()),
                FailOn => posture.fail_on = Some(words(&value)),
                MinScore => posture.min_score = Some(number(&name, &value)?),
                Format => posture.format = Some(words(&value)),
                Output => posture.output = Some(value.into()),
                KernelConfig => posture.kernel_config = Some(value.into()),
                Cmdline => posture.cmdline = Some(words(&value)),
                DeviceTable => posture.device_tables.push(value.into()),
                Config => given.config = Some(value.into()),
                Socket => given.socket = Some(value.into()),
                Events => given.arguments.push(value),
                Rules => given.rules.push(value.into()),
                Limit => given.limit = Some(number(&name, &value)?),
                Seconds => given.seconds = Some(number(&name, &value)?),
                Reason => given.reason = words(&value),
                Json | Summary | Live | Strict | All | AssumeRootOwned => {}
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
