//! From rule files to one compiled set of rules.
//!
//! | Module | Holds |
//! |---|---|
//! | here | the set, its rules as lists show them, the builder that takes in files |
//! | `compile` | documents, with the configuration's changes to them, become matchers |
//! | `link` | correlations find the rules they refer to |

use std::sync::Arc;

use defender_model::finding::{Responses, RuleInfo};
use defender_model::severity::Severity;

use crate::alert::{self, AlertSpec};
use crate::error::{At, Cause, RuleError};
use crate::exception::{Exception, ExceptionSpec};
use crate::field::Field;
use crate::matcher::Matcher;
use crate::predicate::Comparison;
use crate::profile::Lack;
use crate::sigma::correlation::CorrelationKind;
use crate::sigma::detection::Placeholders;
use crate::sigma::document::{self, Document};
use crate::source::DataSources;
use crate::yaml;

mod compile;
mod link;

/// Most rules in a set.
const MAX_RULES: usize = 20_000;
/// Most errors kept per file: a file of another kind would fill the log otherwise.
const MAX_ERRORS_PER_FILE: usize = 100;

/// What kind of rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// Judges one event at a time.
    Event,
    /// Judges several events together.
    Correlation(CorrelationKind),
}

impl RuleKind {
    /// `event`, or the type of the correlation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Correlation(kind) => kind.name(),
        }
    }
}

/// A loaded rule, as lists show it.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What findings carry.
    pub info: Arc<RuleInfo>,
    /// How bad a finding of it is, overrides applied.
    pub level: Severity,
    /// What the agent does about a finding, overrides applied.
    pub response: Responses,
    /// What kind of rule.
    pub kind: RuleKind,
    /// Its log source, such as `linux/process_creation`; of a correlation, empty.
    pub logsource: String,
    /// Data sources without which it cannot hold.
    pub needs: DataSources,
    /// The file it came from.
    pub file: String,
    /// Switched off by an override: it is listed and does nothing.
    pub enabled: bool,
    /// It yields findings itself. False for rules that only feed a correlation.
    pub alerts: bool,
    /// Sigma's `status`, where the rule has one.
    pub status: Option<String>,
}

/// A change to a rule from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleOverride {
    /// Id of the rule.
    pub id: String,
    /// Switch it on or off.
    pub enabled: Option<bool>,
    /// Another severity.
    pub level: Option<Severity>,
    /// Another response.
    pub response: Option<Responses>,
    /// Correlations: another number in the condition.
    pub count: Option<u32>,
    /// Correlations: another timespan, in milliseconds.
    pub timespan_ms: Option<u64>,
}

/// How a correlation gets a value: from a field of the event, or from the group of the correlation it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Field(Field),
    Group(usize),
}

/// One rule a correlation refers to.
#[derive(Debug)]
pub(crate) struct Input {
    /// Positions of the rule in the correlation's list.
    pub(crate) positions: Vec<u8>,
    pub(crate) group: Vec<Key>,
    pub(crate) value: Option<Key>,
}

/// A compiled correlation.
#[derive(Debug)]
pub(crate) struct Correlation {
    pub(crate) rule: u32,
    pub(crate) kind: CorrelationKind,
    pub(crate) span: i64,
    pub(crate) bounds: Vec<(Comparison, u64)>,
    pub(crate) group_by: Vec<String>,
    pub(crate) counted: String,
    pub(crate) inputs: Vec<Input>,
    pub(crate) rules: usize,
    /// Position in the group of the address events came from. Only what every input takes from that field counts as one: a user may
    /// be called `192.0.2.1`.
    pub(crate) source_at: Option<usize>,
    /// The clock asks whether the bounds hold, rather than events.
    pub(crate) floor: bool,
}

/// What a rule that held is told to: a correlation, and which of its inputs the rule is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feed {
    pub(crate) correlation: u32,
    pub(crate) input: u32,
}

/// Compiled rules.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(crate) rules: Vec<Rule>,
    /// By the number of the class; none where there are no rules at all.
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) correlations: Vec<Correlation>,
    /// By rule: the correlations it feeds.
    pub(crate) feeds: Vec<Vec<Feed>>,
    pub(crate) exceptions: Vec<Exception>,
    /// Number of the first of the rules about the learned profile, which stand in the order of [`Lack::ALL`].
    pub(crate) profile: Option<u32>,
}

impl RuleSet {
    /// Starts a set.
    #[must_use]
    pub fn builder() -> RuleSetBuilder {
        RuleSetBuilder::default()
    }

    /// The rules, in the order they were added.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The exceptions, in the order they were given.
    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = &Exception> {
        self.exceptions.iter()
    }

    /// Bytes of the automatons that find literals: most of what the set takes.
    #[must_use]
    pub fn automaton_bytes(&self) -> usize {
        self.matchers.iter().map(Matcher::automaton_bytes).sum()
    }

    /// Rules that have to be evaluated for every event because no literal rules them out, and single-event rules in all.
    #[must_use]
    pub fn always_evaluated(&self) -> (usize, usize) {
        self.matchers.iter().map(Matcher::always_evaluated).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }
}

/// Collects rule files, then compiles them.
#[derive(Debug, Default)]
pub struct RuleSetBuilder {
    placeholders: Placeholders,
    documents: Vec<(String, Document)>,
    overrides: Vec<RuleOverride>,
    exceptions: Vec<ExceptionSpec>,
    /// Level and response of the rules about the learned profile.
    profile: Option<(Severity, Responses)>,
    errors: Vec<RuleError>,
}

impl RuleSetBuilder {
    /// Values for the placeholders of the modifier `expand`. Give them before the sources.
    #[must_use]
    pub fn placeholders(mut self, placeholders: Placeholders) -> Self {
        self.placeholders = placeholders;
        self
    }

    /// Changes to rules, from the configuration.
    #[must_use]
    pub fn overrides(mut self, overrides: Vec<RuleOverride>) -> Self {
        self.overrides.extend(overrides);
        self
    }

    /// Events that rules are not to be held against, from the configuration.
    #[must_use]
    pub fn exceptions(mut self, exceptions: Vec<ExceptionSpec>) -> Self {
        self.exceptions.extend(exceptions);
        self
    }

    /// Adds the rules about the learned profile, with the level and response that each has unless an override says otherwise.
    #[must_use]
    pub fn profile(mut self, level: Severity, response: Responses) -> Self {
        self.profile = Some((level, response));
        self
    }

    /// Takes in a rule file. What is wrong with it is kept for [`RuleSetBuilder::build`]; the rest of it, and of the others, loads.
    #[must_use]
    pub fn add_source(mut self, file_name: &str, bytes: &[u8]) -> Self {
        let mut errors = 0;
        for document in yaml::documents(bytes) {
            let (label, parsed) = match document {
                Ok(node) => (document::label(&node), document::parse(&node, &self.placeholders)),
                Err(at) => (None, Err(at)),
            };
            match parsed {
                Ok(_) if self.documents.len() >= MAX_RULES => {
                    let cause = Cause::TooLarge(format!("more than {MAX_RULES} rules"));
                    self.errors.push(RuleError {
                        file: file_name.to_owned(),
                        line: None,
                        rule: label,
                        cause,
                    });
                    break;
                }
                Ok(document) => self.documents.push((file_name.to_owned(), document)),
                Err(At { line, cause }) => {
                    errors += 1;
                    if errors <= MAX_ERRORS_PER_FILE {
                        let line = Some(line);
                        self.errors.push(RuleError { file: file_name.to_owned(), line, rule: label, cause });
                    }
                }
            }
        }
        self
    }

    /// Takes in custom alerts, from the configuration. One that is wrong is left out and named; see [`AlertSpec::check`].
    #[must_use]
    pub fn alerts(mut self, specs: Vec<AlertSpec>) -> Self {
        const FILE: &str = "[[alert]]";
        for spec in specs {
            let documents = alert::documents(&spec, &self.placeholders).map_err(|error| error.cause);
            let documents = documents.and_then(|documents| match self.documents.len() + documents.len() {
                0..=MAX_RULES => Ok(documents),
                _ => Err(Cause::TooLarge(format!("more than {MAX_RULES} rules"))),
            });
            match documents {
                Ok(documents) => {
                    self.documents.extend(documents.into_iter().map(|document| (FILE.to_owned(), document)));
                }
                Err(cause) => self.errors.push(RuleError {
                    file: FILE.to_owned(),
                    line: None,
                    rule: Some(spec.name),
                    cause,
                }),
            }
        }
        self
    }

    /// Compiles what was taken in. The errors name everything that was left out and why.
    #[must_use]
    pub fn build(self) -> (RuleSet, Vec<RuleError>) {
        let Self { documents, mut overrides, mut exceptions, placeholders, profile, mut errors } = self;
        let mut of_profile: Vec<Rule> =
            profile.map(|(level, response)| lacks(level, response)).unwrap_or_default();
        // A product may switch its profile off without taking back what it says about the rules of it.
        overrides.retain(|change| {
            let about = Lack::ALL.iter().position(|lack| lack.rule() == change.id);
            if let Some(rule) = about.and_then(|at| of_profile.get_mut(at)) {
                rule.change(change);
            }
            about.is_none()
        });
        if of_profile.is_empty() {
            exceptions.retain(|exception| Lack::ALL.iter().all(|lack| lack.rule() != exception.rule));
        }
        let mut compiler = compile::Compiler { entries: compile::unique(documents, &mut errors), errors };
        compiler.apply(&overrides);
        let mut set = compiler.compile();
        if !of_profile.is_empty() {
            set.profile = Some(compile::to_u32(set.rules.len()));
            set.feeds.extend(of_profile.iter().map(|_| Vec::new()));
            set.rules.append(&mut of_profile);
        }
        compiler.except(&mut set, exceptions, &placeholders);
        (set, compiler.errors)
    }
}

impl Rule {
    /// Applies an override to a rule that is no document.
    fn change(&mut self, change: &RuleOverride) {
        self.enabled = change.enabled.unwrap_or(self.enabled);
        self.alerts = self.enabled;
        self.level = change.level.unwrap_or(self.level);
        self.response = change.response.unwrap_or(self.response);
    }
}

/// The rules about the learned profile.
fn lacks(level: Severity, response: Responses) -> Vec<Rule> {
    let rule = |lack: Lack| Rule {
        info: Arc::new(RuleInfo {
            id: lack.rule().to_owned(),
            title: lack.title().to_owned(),
            description: "The product did not do this while its profile was learned.".to_owned(),
            tactics: lack.tactic().map(str::to_owned).into_iter().collect(),
            ..RuleInfo::default()
        }),
        level,
        response,
        kind: RuleKind::Event,
        logsource: "profile".to_owned(),
        needs: lack.needs(),
        file: "profile".to_owned(),
        enabled: true,
        alerts: true,
        status: None,
    };
    Lack::ALL.map(rule).into()
}
