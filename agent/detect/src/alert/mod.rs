//! Custom alerts: what a product may do and how often, from its configuration. They become rules like any other.
//!
//! | Module | Holds |
//! |---|---|
//! | here | an alert as the configuration has it |
//! | `allow` | lists of what is allowed: whatever is not on the list alerts |
//! | `range` | numbers of events within a window |
//! | `compile` | from the alert to the rules it stands for |

mod allow;
mod compile;
mod range;

use defender_model::finding::Responses;
use defender_model::severity::Severity;

use crate::error::{Cause, RuleError};
use crate::exception::Scalar;
use crate::ruleset::RuleSet;
use crate::sigma::detection::Placeholders;

pub(crate) use compile::documents;

/// Most entries of one list.
pub const MAX_ENTRIES: usize = 1000;
/// Longest window, in milliseconds: a week.
pub const MAX_WINDOW: u64 = 7 * 86_400_000;

/// A custom alert as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSpec {
    /// What findings are called.
    pub name: String,
    /// Id of its rule; empty: made of the name.
    pub id: String,
    /// What it means and what to do, for whoever reads the finding.
    pub description: String,
    /// How bad a finding is.
    pub level: Severity,
    /// What the agent does about it.
    pub response: Responses,
    /// What it watches.
    pub watch: Watch,
}

/// What a custom alert watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Accounts that may log in.
    Users(Vec<String>),
    /// Programs that may run.
    Processes(Vec<Program>),
    /// Where the device may connect to: `PROTOCOL HOST PORT`.
    Outbound(Vec<String>),
    /// Who may connect to the device: `PROTOCOL HOST PORT`.
    Inbound(Vec<String>),
    /// Names that may be looked up.
    Dns(Vec<String>),
    /// How many events of a kind there may be.
    Count(Range),
}

impl Watch {
    /// The configuration's key for it.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Users(_) => "allow_users",
            Self::Processes(_) => "allow_processes",
            Self::Outbound(_) => "allow_outbound",
            Self::Inbound(_) => "allow_inbound",
            Self::Dns(_) => "allow_dns",
            Self::Count(_) => "count",
        }
    }
}

/// A program that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Absolute path; `?` and `*` stand for characters within a directory, `**` for any.
    pub path: String,
    /// What its content may be, as SHA-256 digests; empty: anything.
    pub sha256: Vec<String>,
}

/// How many events of a kind there may be within a window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    /// `active_connections`, `failed_logins`, or a category or service of Sigma's log sources.
    pub count: String,
    /// Which of these count, as in an exception; empty: all.
    pub select: Vec<(String, Vec<Scalar>)>,
    /// Fields by whose values events are counted apart.
    pub group_by: Vec<String>,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// Fewer alert.
    pub minimum: Option<u64>,
    /// More alert.
    pub maximum: Option<u64>,
}

/// What is wrong with an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertError {
    /// The configuration's key; empty where it is the whole.
    pub key: &'static str,
    /// What is wrong.
    pub cause: Cause,
}

impl AlertError {
    fn new(key: &'static str, why: impl Into<String>) -> Self {
        Self { key, cause: Cause::Alert(why.into()) }
    }

    /// For [`Result::map_err`]: an error of that key.
    fn at(key: &'static str) -> impl Fn(Cause) -> Self {
        move |cause| Self { key, cause }
    }
}

impl core::fmt::Display for AlertError {
    /// The cause alone; whoever has the file says where.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&defender_model::text::printable(self.cause.detail()))
    }
}

impl std::error::Error for AlertError {}

impl AlertSpec {
    /// Id of its rule, or, of a range, what the ids of its rules begin with.
    #[must_use]
    pub fn id(&self) -> String {
        if !self.id.is_empty() {
            return self.id.clone();
        }
        let mut id = String::from("alert.");
        for c in self.name.chars() {
            match c {
                c if c.is_ascii_alphanumeric() => id.push(c.to_ascii_lowercase()),
                _ if id.ends_with(['-', '.']) => {}
                _ => id.push('-'),
            }
        }
        id.truncate(id.trim_end_matches('-').len());
        id
    }

    /// Compiles it, to see whether that goes.
    ///
    /// # Errors
    /// What is wrong, with the key it is wrong in.
    pub fn check(&self, placeholders: &Placeholders) -> Result<(), AlertError> {
        documents(self, placeholders)?;
        // Size of the whole shows only now.
        let (_, errors) =
            RuleSet::builder().placeholders(placeholders.clone()).alerts(vec![self.clone()]).build();
        match errors.into_iter().next() {
            None => Ok(()),
            Some(RuleError { cause, .. }) => Err(AlertError { key: self.watch.key(), cause }),
        }
    }
}
