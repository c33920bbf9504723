//! The options there are.

/// What can be told to a command besides its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Flag {
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
    Manifest,
}

impl Flag {
    pub(super) const ALL: [Self; 24] = [
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
        Self::Manifest,
    ];

    /// Its name, the word for its value (empty when it takes none) and what it means.
    pub(super) const fn describe(self) -> (&'static str, &'static str, &'static str) {
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
            Self::Manifest => {
                ("manifest", "FILE", "a list of packages the build wrote (default: as configured)")
            }
            Self::Rules => ("rules", "PATH", "a rule file or directory; may be repeated"),
        }
    }
}
