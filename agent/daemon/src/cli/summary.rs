//! The numbers of rules: by what they do here, and by ATT&CK tactic.

use std::collections::BTreeMap;
use std::io::{self, Write};

use defender_detect::{Rule, RuleSet};
use defender_model::text::printable;
use serde_json::{json, Value};

use crate::config::Config;
use crate::supply;

/// Tactics in the order of ATT&CK's matrix for enterprises.
const TACTICS: [&str; 14] = [
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "defense-evasion",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
];
/// What stands in the place of a tactic for rules without one.
const NONE: &str = "-";

/// What a rule does with this configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is switched off.
    Off,
    /// It needs what no sensor supplies.
    Idle,
    /// It raises nothing itself: it only feeds a correlation.
    Feeds,
    /// It raises alerts.
    Alerts,
}

impl Standing {
    pub(super) fn of(rule: &Rule, config: &Config) -> Self {
        if !rule.enabled {
            Self::Off
        } else if supply::idle(rule.needs, config).is_some() {
            Self::Idle
        } else if rule.alerts {
            Self::Alerts
        } else {
            Self::Feeds
        }
    }

    /// The word in lists.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Idle => "idle",
            Self::Feeds => "feeds",
            Self::Alerts => "alerts",
        }
    }
}

/// How many rules do what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    alerts: usize,
    feeds: usize,
    idle: usize,
    off: usize,
}

impl Count {
    fn add(&mut self, standing: Standing) {
        *match standing {
            Standing::Off => &mut self.off,
            Standing::Idle => &mut self.idle,
            Standing::Feeds => &mut self.feeds,
            Standing::Alerts => &mut self.alerts,
        } += 1;
    }

    const fn rules(self) -> usize {
        self.alerts + self.feeds + self.idle + self.off
    }

    fn json(self) -> Value {
        json!({
            "rules": self.rules(),
            "alerts": self.alerts,
            "feeds": self.feeds,
            "idle": self.idle,
            "off": self.off,
        })
    }
}

/// The numbers of a set.
#[derive(Debug, Default)]
pub(super) struct Summary {
    all: Count,
    /// By place in the matrix, tactics of other makes behind it. A rule counts for each of its tactics.
    tactics: BTreeMap<(usize, String), Count>,
}

impl Summary {
    pub(super) fn of(rules: &RuleSet, config: &Config) -> Self {
        let mut summary = Self::default();
        for rule in rules.rules() {
            let standing = Standing::of(rule, config);
            summary.all.add(standing);
            let tactics = rule.info.tactics.iter().map(String::as_str);
            for tactic in tactics.chain(rule.info.tactics.is_empty().then_some(NONE)) {
                let place = TACTICS.iter().position(|name| *name == tactic).unwrap_or(TACTICS.len());
                summary.tactics.entry((place, tactic.to_owned())).or_default().add(standing);
            }
        }
        summary
    }

    pub(super) fn json(&self) -> Value {
        let mut answer = self.all.json();
        let tactics = self.tactics.iter().map(|((_, tactic), count)| {
            let mut entry = count.json();
            entry["tactic"] = json!(tactic);
            entry
        });
        answer["tactics"] = tactics.collect();
        answer
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:>6} {:>6} {:>6} {:>6} {:>6}  TACTIC", "RULES", "ALERT", "FEED", "IDLE", "OFF")?;
        let all = ((0, "all, those of several tactics counted once".to_owned()), self.all);
        let rows = self.tactics.iter().map(|(key, count)| (key.clone(), *count));
        for ((_, tactic), count) in rows.chain([all]) {
            let Count { alerts, feeds, idle, off } = count;
            let rules = count.rules();
            writeln!(out, "{rules:>6} {alerts:>6} {feeds:>6} {idle:>6} {off:>6}  {}", printable(&tactic))?;
        }
        Ok(())
    }
}
