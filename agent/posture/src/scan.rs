//! One scan: policies against a root, with what has been found out already shared by all checks.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

use defender_model::text::truncate;
use defender_model::time::Timestamp;

use crate::exception::Exceptions;
use crate::expression::{Outcome, Truth};
use crate::facts::accounts::Accounts;
use crate::facts::command_line::CommandLine;
use crate::facts::image;
use crate::facts::kernel_config::KernelConfig;
use crate::facts::modules::Modules;
use crate::facts::mounts::{self, Mounts};
use crate::facts::nftables::Ruleset;
use crate::facts::packages::Packages;
use crate::facts::services::Services;
use crate::facts::sysctl::Settings;
use crate::facts::walk::Walk;
use crate::policy::{Applies, Policy, Rule};
use crate::result::{score, CheckResult, PolicyResult, Report, Verdict, EVIDENCE_BYTES, EVIDENCE_LINES};
use crate::root::{Root, Unreadable};

/// What a scan is told besides the root.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The root is that of the running system: `/proc` and `/sys` are the kernel's.
    pub live: bool,
    /// The configuration the kernel was built with, when it does not lie in the image.
    pub kernel_config: Option<Vec<u8>>,
    /// The kernel command line, when it does not lie in the image.
    pub cmdline: Option<String>,
    /// The packet filter's ruleset as `nft -j list ruleset` prints it.
    pub ruleset: Option<String>,
    /// Ports the product may listen on.
    pub allowed_ports: Vec<u16>,
    /// The time of the scan: certificates and exceptions expire.
    pub time: Timestamp,
}

/// A scan under way.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) root: &'a Root,
    pub(crate) inputs: &'a Inputs,
    accounts: OnceCell<Result<Accounts, Unreadable>>,
    modules: OnceCell<Result<Modules, Unreadable>>,
    mounts: OnceCell<Result<Mounts, Unreadable>>,
    kernel_config: OnceCell<Result<KernelConfig, String>>,
    command_line: OnceCell<Result<CommandLine, String>>,
    packages: OnceCell<Result<Packages, Unreadable>>,
    ruleset: OnceCell<Result<Ruleset, String>>,
    services: OnceCell<Result<Services, Unreadable>>,
    sysctl: OnceCell<Result<Settings, Unreadable>>,
    walk: OnceCell<Result<Walk, Unreadable>>,
}

/// Judges every check of the policies against a root.
#[must_use]
pub fn scan(root: &Root, policies: &[Policy], exceptions: &Exceptions, inputs: &Inputs) -> Report {
    let scan = Scan::new(root, inputs);
    let judge = |policy: &Policy| {
        let checks: Vec<CheckResult> = policy.rules.iter().map(|rule| scan.check(rule, exceptions)).collect();
        PolicyResult {
            id: policy.id.clone(),
            title: policy.title.clone(),
            version: policy.version.clone(),
            score: score(&checks),
            checks,
            excluded: policy.excluded.clone(),
        }
    };
    Report {
        root: root.name().display().to_string(),
        live: inputs.live,
        time: inputs.time,
        host: image::pretty_name(root),
        policies: policies.iter().map(judge).collect(),
    }
}

/// Judges one check of a policy; `None` when it has none of that id.
#[must_use]
pub fn check(
    root: &Root,
    policy: &Policy,
    id: &str,
    exceptions: &Exceptions,
    inputs: &Inputs,
) -> Option<CheckResult> {
    let rule = policy.rules.iter().find(|rule| rule.check.id == id)?;
    Some(Scan::new(root, inputs).check(rule, exceptions))
}

impl<'a> Scan<'a> {
    pub(crate) fn new(root: &'a Root, inputs: &'a Inputs) -> Self {
        if inputs.live {
            // A service manager may show this process other things than the rest of the system sees.
            let read = |path: &str| root.read(path).ok().flatten().unwrap_or_default();
            let hidden = mounts::hidden(&read("/proc/self/mountinfo"), &read("/proc/1/mountinfo"));
            root.hide(hidden.into_iter().map(PathBuf::from).collect());
        }
        Self {
            root,
            inputs,
            accounts: OnceCell::new(),
            modules: OnceCell::new(),
            mounts: OnceCell::new(),
            kernel_config: OnceCell::new(),
            command_line: OnceCell::new(),
            packages: OnceCell::new(),
            ruleset: OnceCell::new(),
            services: OnceCell::new(),
            sysctl: OnceCell::new(),
            walk: OnceCell::new(),
        }
    }

    /// The account database.
    pub(crate) fn accounts(&self) -> Result<&Accounts, Unreadable> {
        self.accounts.get_or_init(|| Accounts::read(self.root)).as_ref().map_err(Clone::clone)
    }

    /// Kernel modules.
    pub(crate) fn modules(&self) -> Result<&Modules, Unreadable> {
        self.modules.get_or_init(|| Modules::read(self.root, self.inputs.live)).as_ref().map_err(Clone::clone)
    }

    /// The files that stand out.
    pub(crate) fn walk(&self) -> Result<&Walk, Unreadable> {
        self.walk.get_or_init(|| Walk::make(self)).as_ref().map_err(Clone::clone)
    }

    /// What is mounted, or would be.
    pub(crate) fn mounts(&self) -> Result<&Mounts, Unreadable> {
        self.mounts.get_or_init(|| Mounts::read(self.root, self.inputs.live)).as_ref().map_err(Clone::clone)
    }

    /// The configuration the kernel was built with; the error says why there is none.
    pub(crate) fn kernel_config(&self) -> Result<&KernelConfig, String> {
        self.kernel_config
            .get_or_init(|| KernelConfig::find(self.root, self.inputs))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// The kernel command line; the error says why it is not known.
    pub(crate) fn command_line(&self) -> Result<&CommandLine, String> {
        self.command_line
            .get_or_init(|| CommandLine::find(self.root, self.inputs))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Installed packages.
    pub(crate) fn packages(&self) -> Result<&Packages, Unreadable> {
        self.packages.get_or_init(|| Packages::read(self.root)).as_ref().map_err(Clone::clone)
    }

    /// The packet filter's ruleset; the error says why it is not known.
    pub(crate) fn ruleset(&self) -> Result<&Ruleset, String> {
        self.ruleset.get_or_init(|| Ruleset::find(self.root, self.inputs)).as_ref().map_err(Clone::clone)
    }

    /// What is started at boot and what runs.
    pub(crate) fn services(&self) -> Result<&Services, Unreadable> {
        self.services
            .get_or_init(|| Services::read(self.root, self.inputs.live))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// What the image would set by sysctl.
    pub(crate) fn sysctl(&self) -> Result<&Settings, Unreadable> {
        self.sysctl.get_or_init(|| Settings::read(self.root)).as_ref().map_err(Clone::clone)
    }

    fn check(&self, rule: &Rule, exceptions: &Exceptions) -> CheckResult {
        let Outcome { truth, evidence } = self.judge(rule);
        let mut verdict = match truth {
            Truth::Yes => Verdict::Pass,
            Truth::No => Verdict::Fail,
            Truth::Unknown(reason) => Verdict::Unknown(truncate(&reason, EVIDENCE_BYTES).to_owned()),
            Truth::Absent(what) => Verdict::NotApplicable(truncate(&what, EVIDENCE_BYTES).to_owned()),
        };
        let exception = match verdict {
            Verdict::Fail => exceptions.of(&rule.check.id, self.inputs.time),
            _ => None,
        };
        if exception.as_ref().is_some_and(|exception| !exception.expired) {
            verdict = Verdict::Excepted;
        }
        CheckResult { check: Arc::clone(&rule.check), verdict, evidence: bounded(evidence), exception }
    }

    fn judge(&self, rule: &Rule) -> Outcome {
        match (rule.applies, self.inputs.live) {
            (Applies::Live, false) => return Outcome::absent("only a running device shows it"),
            (Applies::Offline, true) => return Outcome::absent("only an image that is not running shows it"),
            _ => {}
        }
        if let Some(when) = &rule.when {
            let Outcome { truth, evidence } = when.judge(self);
            match truth {
                Truth::Yes => {}
                Truth::No => {
                    let why = evidence.first().map_or("its condition does not hold", String::as_str);
                    return Outcome::absent(why);
                }
                Truth::Absent(what) => return Outcome::absent(what),
                Truth::Unknown(reason) => {
                    return Outcome::unknown(format!("whether it applies is not known: {reason}"));
                }
            }
        }
        rule.expect.judge(self)
    }
}

fn bounded(mut evidence: Vec<String>) -> Vec<String> {
    let more = evidence.len().saturating_sub(EVIDENCE_LINES);
    if more > 0 {
        evidence.truncate(EVIDENCE_LINES - 1);
        evidence.push(format!("and {} more", more + 1));
    }
    for line in &mut evidence {
        if line.len() > EVIDENCE_BYTES {
            line.truncate(truncate(line, EVIDENCE_BYTES - 3).len());
            line.push_str("...");
        }
    }
    evidence
}
