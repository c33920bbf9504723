//! Expressions over primitives, in three-valued logic: what cannot be told never counts as good.

use toml::de::DeValue;
use toml::Spanned;

use crate::policy::keys::{unknown, Fault, Keys};
use crate::primitive::{Primitive, PRIMITIVES};
use crate::scan::Scan;

/// Deepest nesting of an expression.
const MAX_DEPTH: usize = 16;

/// Whether something is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// It cannot be told; says why.
    Unknown(String),
    /// The question has no object on this image (no sshd, no such file system); says what is missing.
    Absent(String),
}

/// An answer and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) truth: Truth,
    pub(crate) evidence: Vec<String>,
}

impl Outcome {
    pub(crate) fn yes(evidence: Vec<String>) -> Self {
        Self { truth: Truth::Yes, evidence }
    }
    pub(crate) fn no(evidence: Vec<String>) -> Self {
        Self { truth: Truth::No, evidence }
    }
    /// Yes or no.
    pub(crate) fn of(holds: bool, evidence: Vec<String>) -> Self {
        Self { truth: if holds { Truth::Yes } else { Truth::No }, evidence }
    }
    pub(crate) fn unknown(reason: impl Into<String>) -> Self {
        Self { truth: Truth::Unknown(reason.into()), evidence: Vec::new() }
    }
    pub(crate) fn absent(reason: impl Into<String>) -> Self {
        Self { truth: Truth::Absent(reason.into()), evidence: Vec::new() }
    }
}

impl From<crate::root::Unreadable> for Outcome {
    fn from(unreadable: crate::root::Unreadable) -> Self {
        Self::unknown(unreadable.to_string())
    }
}

/// A condition over an image.
#[derive(Debug)]
pub(crate) enum Expression {
    /// Every one holds.
    All(Vec<Expression>),
    /// At least one holds.
    Any(Vec<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
    /// One question.
    Leaf(Box<dyn Primitive>),
}

impl Expression {
    /// Reads an expression.
    pub(crate) fn parse<'t>(key: &str, value: &'t Spanned<DeValue<'t>>) -> Result<Self, Fault> {
        Self::parse_at_depth(key, value, 0)
    }

    fn parse_at_depth<'t>(key: &str, value: &'t Spanned<DeValue<'t>>, depth: usize) -> Result<Self, Fault> {
        let at = value.span().start;
        if depth > MAX_DEPTH {
            return Err(Fault::new(at, format!("expressions nest more than {MAX_DEPTH} deep")));
        }
        let DeValue::Table(table) = value.get_ref() else {
            return Err(Fault::new(at, format!("`{key}` is an expression, a table such as {{ file = \"/etc/passwd\", mode_max = \"0644\" }}")));
        };
        let mut keys = Keys::new(table, at);
        for (combinator, build) in [("all", Self::All as fn(Vec<Self>) -> Self), ("any", Self::Any)] {
            let Some(value) = keys.value(combinator) else { continue };
            let DeValue::Array(items) = value.get_ref() else {
                return Err(keys.fault(combinator, format!("`{combinator}` is a list of expressions")));
            };
            if items.is_empty() {
                return Err(keys.fault(combinator, format!("`{combinator}` is empty")));
            }
            let parts = items.iter().map(|item| Self::parse_at_depth(combinator, item, depth + 1));
            let parts = parts.collect::<Result<_, _>>()?;
            alone(&keys, combinator)?;
            return Ok(build(parts));
        }
        if let Some(value) = keys.value("not") {
            let inner = Self::parse_at_depth("not", value, depth + 1)?;
            alone(&keys, "not")?;
            return Ok(Self::Not(Box::new(inner)));
        }
        let names = keys.names();
        for (name, _) in &names {
            if let Some((_, build)) = PRIMITIVES.iter().find(|(primitive, _)| primitive == name) {
                let mut keys = Keys::new(table, at);
                let built = build(&mut keys);
                // What a table as a whole lacks is often a key that is misspelt.
                if built.as_ref().map_or_else(|fault| fault.at == at, |_| true) {
                    keys.finish()?;
                }
                return built.map(Self::Leaf);
            }
        }
        let known = PRIMITIVES.iter().map(|(name, _)| *name).chain(["all", "any", "not"]);
        match names.first() {
            Some((name, at)) => Err(Fault::new(*at, unknown("primitive", name, known))),
            None => Err(Fault::new(at, "an empty expression")),
        }
    }

    /// Judges it.
    pub(crate) fn judge(&self, scan: &Scan<'_>) -> Outcome {
        match self {
            Self::Leaf(primitive) => primitive.judge(scan),
            Self::Not(inner) => {
                let Outcome { truth, evidence } = inner.judge(scan);
                let truth = match truth {
                    Truth::Yes => Truth::No,
                    Truth::No => Truth::Yes,
                    other => other,
                };
                Outcome { truth, evidence }
            }
            Self::All(parts) => combine(parts.iter().map(|part| part.judge(scan)), &Truth::No, Truth::Yes),
            Self::Any(parts) => combine(parts.iter().map(|part| part.judge(scan)), &Truth::Yes, Truth::No),
        }
    }
}

fn alone(keys: &Keys<'_>, combinator: &str) -> Result<(), Fault> {
    match keys.names().iter().find(|(name, _)| *name != combinator) {
        Some((name, at)) => Err(Fault::new(*at, format!("`{name}` beside `{combinator}`; put it inside"))),
        None => Ok(()),
    }
}

/// Kleene's logic: one part that decides, decides; else what is unknown stays unknown; else the parts agree. Parts without an object
/// do not count unless no part has one. The evidence is that of the parts that decided.
fn combine(outcomes: impl Iterator<Item = Outcome>, decides: &Truth, otherwise: Truth) -> Outcome {
    let (mut deciding, mut agreeing, mut undecided) = (None::<Vec<String>>, Vec::new(), None::<Outcome>);
    let (mut agrees, mut absent) = (false, None);
    for Outcome { truth, evidence } in outcomes {
        match truth {
            truth if truth == *decides => deciding.get_or_insert_with(Vec::new).extend(evidence),
            Truth::Unknown(_) if undecided.is_none() => undecided = Some(Outcome { truth, evidence }),
            Truth::Unknown(_) => {}
            Truth::Absent(_) => absent = absent.or(Some(Outcome { truth, evidence })),
            Truth::Yes | Truth::No => {
                agrees = true;
                agreeing.extend(evidence);
            }
        }
    }
    if let Some(evidence) = deciding {
        return Outcome { truth: decides.clone(), evidence };
    }
    match (undecided, absent) {
        (Some(undecided), _) => undecided,
        (None, Some(absent)) if !agrees => absent,
        _ => Outcome { truth: otherwise, evidence: agreeing },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(truth: &Truth, name: &str) -> Outcome {
        Outcome { truth: truth.clone(), evidence: vec![name.to_owned()] }
    }

    #[test]
    fn three_values_and_absence() {
        let (yes, no) = (Truth::Yes, Truth::No);
        let (unknown, absent) = (Truth::Unknown("u".into()), Truth::Absent("a".into()));
        // Parts, what `all` makes of them, what `any` makes of them.
        let table: &[(&[&Truth], &Truth, &Truth)] = &[
            (&[&yes, &yes], &yes, &yes),
            (&[&yes, &no], &no, &yes),
            (&[&no, &no], &no, &no),
            (&[&yes, &unknown], &unknown, &yes),
            (&[&no, &unknown], &no, &unknown),
            (&[&unknown, &absent], &unknown, &unknown),
            (&[&yes, &absent], &yes, &yes),
            (&[&no, &absent], &no, &no),
            (&[&absent, &absent], &absent, &absent),
        ];
        for (parts, all, any) in table {
            let outcomes = || parts.iter().enumerate().map(|(i, truth)| outcome(truth, &i.to_string()));
            assert_eq!(combine(outcomes(), &Truth::No, Truth::Yes).truth, **all, "all of {parts:?}");
            assert_eq!(combine(outcomes(), &Truth::Yes, Truth::No).truth, **any, "any of {parts:?}");
        }
    }

    #[test]
    fn evidence_is_that_of_what_decided() {
        let parts = || {
            [outcome(&Truth::Yes, "good"), outcome(&Truth::No, "bad"), outcome(&Truth::No, "worse")]
                .into_iter()
        };
        assert_eq!(combine(parts(), &Truth::No, Truth::Yes).evidence, ["bad", "worse"]);
        assert_eq!(combine(parts(), &Truth::Yes, Truth::No).evidence, ["good"]);
    }
}
