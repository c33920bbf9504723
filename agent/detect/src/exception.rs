//! Exceptions: events that a rule, or every rule, is not to be held against, with a reason and mostly an end.
//!
//! What an exception covers it covers altogether: the event neither alerts nor counts for a correlation.

use defender_model::time::Timestamp;

use crate::error::Cause;
use crate::expression::Expr;
use crate::field::{Class, Values};
use crate::predicate::Predicate;
use crate::sigma::detection::{self, Placeholders, Scope};
use crate::yaml::{Kind, Node};

/// Most exceptions: each is looked at whenever a rule holds.
pub(crate) const MAX_EXCEPTIONS: usize = 256;

/// A value of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// Text, in Sigma's writing: `*` and `?` are wildcards.
    Text(String),
    /// A number.
    Number(i64),
    /// True or false, for `exists`.
    Truth(bool),
}

/// An exception as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExceptionSpec {
    /// Id or title of the rule; `*` for every rule.
    pub rule: String,
    /// What the event must be like: Sigma's `field|modifier` and its values, any of which will do. All must hold.
    pub when: Vec<(String, Vec<Scalar>)>,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// From then on it no longer holds.
    pub expires: Option<Timestamp>,
}

/// An exception in force, as lists show it.
#[derive(Debug)]
pub struct Exception {
    /// As the configuration has it.
    pub spec: ExceptionSpec,
    /// Number of the rule; `None` for every rule.
    pub(crate) rule: Option<u32>,
    /// By class of events; empty when it covers whatever the rule holds for.
    conditions: Vec<(Class, Condition)>,
}

impl Exception {
    /// Compiles the conditions for the classes `classes`, which are those the rule may be about.
    ///
    /// # Errors
    /// When the conditions fit none of them.
    pub(crate) fn compile(
        spec: ExceptionSpec,
        rule: Option<u32>,
        classes: &[Class],
        placeholders: &Placeholders,
    ) -> Result<Self, Cause> {
        if spec.reason.trim().is_empty() {
            return Err(Cause::Exception("it has no reason".to_owned()));
        }
        let mut conditions = Vec::new();
        if spec.when.is_empty() {
            if rule.is_none() {
                return Err(Cause::Exception("for every rule and every event: give it a `when`".to_owned()));
            }
            return Ok(Self { spec, rule, conditions });
        }
        let node = search(&spec.when);
        let mut refused = None;
        for class in classes {
            let scope = Scope { class: *class, placeholders };
            match detection::search(&node, &scope).map_err(|at| at.cause).and_then(Condition::compile) {
                Ok(condition) => conditions.push((*class, condition)),
                Err(cause) => {
                    refused.get_or_insert(cause);
                }
            }
        }
        match refused {
            Some(cause) if conditions.is_empty() => Err(cause),
            _ => Ok(Self { spec, rule, conditions }),
        }
    }

    /// It is over at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.spec.expires.is_some_and(|end| now >= end)
    }

    /// It covers an event of `class` with these values that happened at `time`.
    pub(crate) fn covers(&self, class: Class, values: &Values<'_>, time: Timestamp) -> bool {
        !self.is_expired(time)
            && (self.conditions.is_empty()
                || self.conditions.iter().any(|(of, condition)| *of == class && condition.holds(values)))
    }
}

/// The conditions as a search of a rule.
pub(crate) fn search(when: &[(String, Vec<Scalar>)]) -> Node {
    let node = |kind| Node { line: 1, kind };
    let value = |scalar: &Scalar| {
        node(match scalar {
            Scalar::Text(text) => Kind::Text(text.clone()),
            Scalar::Number(number) => Kind::Int(*number),
            Scalar::Truth(truth) => Kind::Bool(*truth),
        })
    };
    let entries = when.iter().map(|(field, values)| match values.as_slice() {
        [only] => (field.clone(), value(only)),
        several => (field.clone(), node(Kind::List(several.iter().map(value).collect()))),
    });
    node(Kind::Map(entries.collect()))
}

/// A compiled expression that is evaluated by itself, without the shared matcher: it is looked at only when a rule holds.
#[derive(Debug)]
enum Condition {
    Ask(Box<Predicate>),
    Not(Box<Condition>),
    All(Vec<Condition>),
    AtLeast(usize, Vec<Condition>),
}

impl Condition {
    fn compile(expr: Expr) -> Result<Self, Cause> {
        let each = |parts: Vec<Expr>| parts.into_iter().map(Self::compile).collect::<Result<Vec<_>, _>>();
        Ok(match expr {
            Expr::Ask(question) => Self::Ask(Box::new(Predicate::new(question)?)),
            Expr::Not(inner) => Self::Not(Box::new(Self::compile(*inner)?)),
            Expr::All(parts) => Self::All(each(parts)?),
            Expr::Any(parts) => Self::AtLeast(1, each(parts)?),
            Expr::AtLeast(least, parts) => Self::AtLeast(least, each(parts)?),
        })
    }

    fn holds(&self, values: &Values<'_>) -> bool {
        match self {
            Self::Ask(predicate) => predicate.holds(values),
            Self::Not(inner) => !inner.holds(values),
            Self::All(parts) => parts.iter().all(|part| part.holds(values)),
            Self::AtLeast(least, parts) => {
                parts.iter().filter(|part| part.holds(values)).take(*least).count() == *least
            }
        }
    }
}
