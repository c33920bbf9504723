//! What is wrong with a rule, said so that its author can mend it.

use core::fmt;

/// One thing wrong with one rule file, document or override. Never fatal: the rest of the rules load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// Name of the source as given to the builder; empty for overrides.
    pub file: String,
    /// Line in that file, from 1, where it is known.
    pub line: Option<u32>,
    /// Title or id of the rule, where it got that far.
    pub rule: Option<String>,
    /// What is wrong.
    pub cause: Cause,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The file is not YAML, or uses a part of YAML that rules may not (aliases, tags).
    Yaml(String),
    /// A bound on size, depth or number was exceeded.
    TooLarge(String),
    /// A key is missing, misspelt or of the wrong type.
    Structure(String),
    /// A modifier that Sigma does not define, or that does not fit its value.
    Modifier(String),
    /// The condition does not parse or names what does not exist.
    Condition(String),
    /// The value of a field does not fit: a bad regular expression, network, number.
    Value(String),
    /// No sensor of this agent supplies the log source or the field.
    Unsupplied(String),
    /// Another rule has the same id.
    DuplicateId(String),
    /// A correlation refers to a rule that was not loaded.
    UnknownRule(String),
    /// Correlations refer to each other in a circle.
    Cycle(String),
    /// An override names a rule or a property that does not exist.
    Override(String),
    /// An exception names no rule, or lacks its reason.
    Exception(String),
    /// A custom alert says something that cannot be.
    Alert(String),
}

impl Cause {
    /// Short name of the kind of error, stable for tests and machine-readable output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Yaml(_) => "yaml",
            Self::TooLarge(_) => "too_large",
            Self::Structure(_) => "structure",
            Self::Modifier(_) => "modifier",
            Self::Condition(_) => "condition",
            Self::Value(_) => "value",
            Self::Unsupplied(_) => "unsupplied",
            Self::DuplicateId(_) => "duplicate_id",
            Self::UnknownRule(_) => "unknown_rule",
            Self::Cycle(_) => "cycle",
            Self::Override(_) => "override",
            Self::Exception(_) => "exception",
            Self::Alert(_) => "alert",
        }
    }

    /// What the author or operator can do next.
    #[must_use]
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Yaml(_) => "mend the YAML at that line; aliases and tags are not accepted in rules",
            Self::TooLarge(_) => "split the rule or shorten the value",
            Self::Structure(_) => "compare with the Sigma rules specification 2 and docs/rules.md",
            Self::Modifier(_) => "use one of the modifiers listed in docs/rules.md",
            Self::Condition(_) => "name only the searches the detection defines",
            Self::Value(_) => "correct the value, or the modifier that interprets it",
            Self::Unsupplied(_) => {
                "remove the rule, or write it for a log source and fields listed in docs/rules.md"
            }
            Self::DuplicateId(_) => "give the rule a new UUID, or remove one of the two",
            Self::UnknownRule(_) => "correct the name or id, or mend the rule it refers to",
            Self::Cycle(_) => {
                "break the circle: a correlation may only refer to rules that do not depend on it"
            }
            Self::Override(_) => "see `defender rules list` for ids and kinds",
            Self::Exception(_) => "correct the `[[exception]]` in the configuration; see docs/rules.md",
            Self::Alert(_) => "correct the `[[alert]]` in the configuration; see docs/custom-alerts.md",
        }
    }

    pub(crate) fn detail(&self) -> &str {
        match self {
            Self::Yaml(s)
            | Self::TooLarge(s)
            | Self::Structure(s)
            | Self::Modifier(s)
            | Self::Condition(s)
            | Self::Value(s)
            | Self::Unsupplied(s)
            | Self::DuplicateId(s)
            | Self::UnknownRule(s)
            | Self::Cycle(s)
            | Self::Override(s)
            | Self::Exception(s)
            | Self::Alert(s) => s,
        }
    }
}

impl fmt::Display for RuleError {
    /// `file:line: rule "title": cause; next step`. Text from the file is escaped for terminals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use defender_model::text::printable;
        if !self.file.is_empty() {
            write!(f, "{}:", printable(&self.file))?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, "rule \"{}\": ", printable(rule))?;
        }
        write!(f, "{}; {}", printable(self.cause.detail()), self.cause.next_step())
    }
}

impl std::error::Error for RuleError {}

/// A cause and the line it was found at: what the inner rooms pass up until file and rule are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) line: u32,
    pub(crate) cause: Cause,
}

impl At {
    pub(crate) fn new(line: u32, cause: Cause) -> Self {
        Self { line, cause }
    }
}
