//! The commands there are, in one table.

use super::flag::Flag::{
    self, All, AssumeRootOwned, Cmdline, Config, DeviceTable, Events, FailOn, Format, Json, KernelConfig,
    Limit, Live, Manifest, MinScore, Output, Policies, Policy, Reason, Root, Rules, Seconds, Socket, Strict,
    Summary,
};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Verb {
    Run,
    Status,
    Alerts,
    Events,
    Block,
    Unblock,
    Blocked,
    Isolate,
    IsolateOff,
    BaselineAccept,
    BaselineAcceptNext,
    Pam,
    Replay,
    Posture,
    PostureList,
    PostureExplain,
    PostureDiff,
    Sbom,
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
pub(in crate::cli) struct Command {
    pub(in crate::cli) verb: Verb,
    pub(in crate::cli) words: &'static [&'static str],
    /// Its arguments, as the usage line shows them.
    pub(super) arguments: &'static str,
    /// Fewest and most arguments.
    pub(super) count: (usize, usize),
    pub(super) flags: &'static [Flag],
    pub(super) about: &'static str,
    /// What else there is to know, exit codes among it.
    pub(super) details: &'static str,
}

/// Every command, in the order of the help.
pub(in crate::cli) const COMMANDS: &[Command] = &[
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
        verb: Verb::BaselineAccept,
        words: &["baseline", "accept"],
        arguments: "",
        count: (0, 0),
        flags: &[Json, Config, Socket],
        about: "Take over all watched files as they are: one event instead of one for each file.",
        details: "For after an update on the running system. Exit codes: 0 when the agent has begun, 3 when it failed.",
    },
    Command {
        verb: Verb::BaselineAcceptNext,
        words: &["baseline", "accept-next"],
        arguments: "",
        count: (0, 0),
        flags: &[Json, Config, Socket],
        about: "Take over all watched files as the next start of the agent finds them.",
        details: "For an update that takes effect by a reboot: to be called by its last hook before that. Holds for one start. Exit \
                  codes: 0 when the agent has taken note, 3 when it failed.",
    },
    Command {
        verb: Verb::Pam,
        words: &["pam"],
        arguments: "",
        count: (0, 0),
        flags: &[Socket],
        about: "For pam_exec(8): tell the agent that a session begins or ends.",
        details: "The PAM line is `session optional pam_exec.so quiet /usr/bin/defender pam`. Exit code: always 0, after 200 ms at most.",
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
        verb: Verb::Sbom,
        words: &["sbom"],
        arguments: "",
        count: (0, 0),
        flags: &[Root, Manifest, Output, Json, Config],
        about: "List what the image consists of; with --json as CycloneDX 1.6.",
        details: "Read from the databases of dpkg, opkg and apk and from the manifests of Buildroot and Yocto. Needs no running agent. \
                  The same image gives the same document. Exit codes: 0 when something was found, 1 when nothing was, 2 for a \
                  manifest that is none, 3 when it could not be read.",
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
