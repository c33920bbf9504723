//! What is in force, what is not, and why.

use std::fmt;

/// One way in which the agent confines itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Nothing ran beside the thread that was confined, and the result could be verified.
    Threads,
    /// Runs as its own user.
    User,
    /// Holds no capability beyond those it uses.
    Capabilities,
    /// Its children can acquire no capability beyond those they use.
    BoundingSet,
    /// No set-user-ID file or file capability gives it or a child more (`PR_SET_NO_NEW_PRIVS`).
    NoNewPrivileges,
    /// Leaves no core file, which could hold a key.
    CoreDumps,
    /// Other processes of the same user can neither trace it nor read its memory (`PR_SET_DUMPABLE`).
    Undumpable,
    /// What it creates is closed to others.
    Umask,
    /// Reads, writes and executes only the files it was given.
    Landlock,
    /// System calls it never needs fail.
    Seccomp,
}

impl Measure {
    /// Its name in messages and in `defender status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::User => "user",
            Self::Capabilities => "capabilities",
            Self::BoundingSet => "bounding-set",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::CoreDumps => "core-dumps",
            Self::Undumpable => "undumpable",
            Self::Umask => "umask",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }
}

/// How far a measure is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As wanted.
    InForce,
    /// In part; the reason says which part is not.
    Partial,
    /// Not at all, against what was wanted.
    Missing,
    /// Not at all, because it was switched off.
    Off,
}

impl State {
    /// Its name in messages and in `defender status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::Partial => "partial",
            Self::Missing => "missing",
            Self::Off => "off",
        }
    }
}

/// What became of one measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The measure.
    pub measure: Measure,
    /// How far it is in force.
    pub state: State,
    /// What exactly is in force, or why something is not.
    pub reason: String,
}

impl Entry {
    pub(super) fn new(measure: Measure, state: State, reason: String) -> Self {
        Self { measure, state, reason }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.measure.name(), self.state.name(), self.reason)
    }
}

/// What became of every measure, one entry each, in the order in which they were taken. Displayed one a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    entries: Vec<Entry>,
}

impl Report {
    /// Every measure.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The measures that are not in force as wanted; those switched off are not among them.
    pub fn shortfalls(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.state, State::Partial | State::Missing))
    }

    /// How far one measure is in force; nothing if it was never tried.
    pub fn state(&self, measure: Measure) -> Option<State> {
        self.entries.iter().find(|entry| entry.measure == measure).map(|entry| entry.state)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Takes back what an entry claimed.
    pub(super) fn contradict(&mut self, measure: Measure, reason: &str) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.measure == measure) {
            if entry.state == State::InForce {
                entry.state = State::Partial;
            }
            entry.reason = format!("{}; but {reason}", entry.reason);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            writeln!(f, "{entry}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_switched_off_is_no_shortfall() {
        let mut report = Report::default();
        report.push(Entry::new(Measure::Umask, State::InForce, "0027".into()));
        report.push(Entry::new(Measure::Landlock, State::Off, "switched off".into()));
        report.push(Entry::new(Measure::Seccomp, State::Missing, "no kernel support".into()));
        assert_eq!(report.shortfalls().map(|e| e.measure).collect::<Vec<_>>(), [Measure::Seccomp]);
        assert_eq!(
            report.to_string(),
            "umask: in force (0027)\nlandlock: off (switched off)\nseccomp: missing (no kernel support)\n"
        );
    }

    #[test]
    fn a_contradiction_lowers_the_state_and_keeps_both_reasons() {
        let mut report = Report::default();
        report.push(Entry::new(Measure::User, State::InForce, "defender".into()));
        report.contradict(Measure::User, "the kernel reports 0");
        assert_eq!(report.to_string(), "user: partial (defender; but the kernel reports 0)\n");
    }
}
