//! Correlation rules: what stands under `correlation`.

use crate::error::{At, Cause};
use crate::predicate::Comparison;
use crate::yaml::{Kind, Node};

/// Highest number a condition may compare with: bounds what a window must remember.
pub(crate) const MAX_THRESHOLD: u64 = 10_000;
/// Most rules one correlation may refer to.
const MAX_RULES: usize = 64;
/// Most fields to group by.
pub(crate) const MAX_GROUP: usize = 8;

/// What a correlation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CorrelationKind {
    /// Events.
    EventCount,
    /// Distinct values of a field.
    ValueCount,
    /// Connections that are open at some time of the timespan. Of custom alerts only; Sigma has nothing like it.
    ActiveCount,
    /// Rules that all fired within the timespan.
    Temporal,
    /// Rules that all fired within the timespan, in the order given.
    TemporalOrdered,
}

impl CorrelationKind {
    /// Sigma's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventCount => "event_count",
            Self::ValueCount => "value_count",
            Self::ActiveCount => "active_count",
            Self::Temporal => "temporal",
            Self::TemporalOrdered => "temporal_ordered",
        }
    }
}

/// A correlation as its author wrote it: names are not resolved yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CorrelationSpec {
    pub(crate) kind: CorrelationKind,
    /// Names or ids of the rules it refers to.
    pub(crate) rules: Vec<String>,
    /// The rules it refers to also alert by themselves.
    pub(crate) generate: bool,
    pub(crate) group_by: Vec<String>,
    pub(crate) timespan_ms: u64,
    /// All must hold.
    pub(crate) bounds: Vec<(Comparison, u64)>,
    /// The field whose distinct values are counted.
    pub(crate) field: Option<String>,
    /// Alias, then the field it stands for in each rule.
    pub(crate) aliases: Vec<(String, Vec<(String, String)>)>,
    /// The clock asks whether the bounds hold, rather than events: for what is missing. Of custom alerts only.
    pub(crate) floor: bool,
}

fn structure<T>(node: &Node, why: impl Into<String>) -> Result<T, At> {
    Err(At::new(node.line, Cause::Structure(why.into())))
}

/// Reads `correlation`.
pub(crate) fn parse(node: &Node) -> Result<CorrelationSpec, At> {
    let Some(entries) = node.map() else { return structure(node, "`correlation` must be a mapping") };
    for (key, value) in entries {
        let known = ["type", "rules", "generate", "group-by", "timespan", "condition", "aliases"];
        if !known.contains(&key.as_str()) {
            return structure(
                value,
                format!("`correlation.{key}` is not a key; there are {}", known.join(", ")),
            );
        }
    }
    let kind = match node.get("type").and_then(Node::text) {
        Some("event_count") => CorrelationKind::EventCount,
        Some("value_count") => CorrelationKind::ValueCount,
        Some("temporal") => CorrelationKind::Temporal,
        Some("temporal_ordered") => CorrelationKind::TemporalOrdered,
        Some(other @ ("value_sum" | "value_avg" | "value_percentile" | "value_median")) => {
            return structure(node, format!("the correlation type `{other}` is not supported"))
        }
        Some(other) => return structure(node, format!("`{other}` is not a correlation type")),
        None => return structure(node, "`correlation` lacks a `type`"),
    };
    let rules = match node.get("rules") {
        Some(list) => texts(list, "correlation.rules")?,
        None => return structure(node, "`correlation` lacks `rules`"),
    };
    if rules.is_empty() || rules.len() > MAX_RULES {
        return structure(node, format!("`correlation.rules` must name 1 to {MAX_RULES} rules"));
    }
    let group_by = node.get("group-by").map_or(Ok(Vec::new()), |list| texts(list, "correlation.group-by"))?;
    if group_by.len() > MAX_GROUP {
        return structure(node, format!("`correlation.group-by` has more than {MAX_GROUP} fields"));
    }
    let generate = match node.get("generate") {
        None => false,
        Some(Node { kind: Kind::Bool(b), .. }) => *b,
        Some(other) => return structure(other, "`correlation.generate` must be true or false"),
    };
    let timespan_ms = match node.get("timespan") {
        Some(value) => timespan(value)?,
        None => return structure(node, "`correlation` lacks a `timespan`"),
    };
    let (bounds, field) = match node.get("condition") {
        Some(value) => condition(value, kind)?,
        None if matches!(kind, CorrelationKind::Temporal | CorrelationKind::TemporalOrdered) => {
            (Vec::new(), None)
        }
        None => return structure(node, "`correlation` lacks a `condition`"),
    };
    if kind == CorrelationKind::ValueCount && field.is_none() {
        return structure(node, "`value_count` needs `condition.field`");
    }
    let aliases = node.get("aliases").map_or(Ok(Vec::new()), aliases)?;
    Ok(CorrelationSpec { kind, rules, generate, group_by, timespan_ms, bounds, field, aliases, floor: false })
}

/// A list of texts, or one text.
fn texts(node: &Node, name: &str) -> Result<Vec<String>, At> {
    node.list()
        .unwrap_or(std::slice::from_ref(node))
        .iter()
        .map(|item| match item.scalar_text() {
            Some(text) => Ok(text),
            None => structure(item, format!("`{name}` must be text or a list of texts")),
        })
        .collect()
}

/// `15s`, `30m`, `8h`, `14d`, in milliseconds.
fn timespan(node: &Node) -> Result<u64, At> {
    let text = node.scalar_text().unwrap_or_default();
    let parsed = text.char_indices().next_back().and_then(|(at, unit)| {
        let number: u64 = text[..at].parse().ok()?;
        let unit: u64 = match unit {
            's' => 1_000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            _ => return None,
        };
        number.checked_mul(unit)
    });
    match parsed {
        Some(ms) if ms > 0 && ms <= 366 * 86_400_000 => Ok(ms),
        Some(_) => structure(node, "`correlation.timespan` must be more than nothing and at most 366 days"),
        None => structure(node, format!("`{text}` is not a timespan; write 15s, 30m, 8h or 14d")),
    }
}

type Bounds = (Vec<(Comparison, u64)>, Option<String>);

fn condition(node: &Node, kind: CorrelationKind) -> Result<Bounds, At> {
    let Some(entries) = node.map() else {
        return structure(node, "a correlation's `condition` must be a mapping such as `gte: 5`");
    };
    let mut bounds = Vec::new();
    let mut field = None;
    for (key, value) in entries {
        if key == "field" {
            field = value.scalar_text();
            if field.is_none() {
                return structure(value, "`condition.field` must name one field");
            }
            continue;
        }
        let Some(comparison) = Comparison::from_name(key) else {
            return structure(
                value,
                format!("`condition.{key}` is not one of gt, gte, lt, lte, eq, neq, field"),
            );
        };
        match &value.kind {
            Kind::Int(n) => match u64::try_from(*n) {
                Ok(n) if n <= MAX_THRESHOLD => bounds.push((comparison, n)),
                _ => {
                    let why = format!("`condition.{key}` must be from 0 to {MAX_THRESHOLD}");
                    return Err(At::new(value.line, Cause::TooLarge(why)));
                }
            },
            _ => return structure(value, format!("`condition.{key}` must be a whole number")),
        }
    }
    if bounds.is_empty() && matches!(kind, CorrelationKind::EventCount | CorrelationKind::ValueCount) {
        return structure(node, "the `condition` compares with nothing");
    }
    Ok((bounds, field))
}

type Aliases = Vec<(String, Vec<(String, String)>)>;

fn aliases(node: &Node) -> Result<Aliases, At> {
    let Some(entries) = node.map() else { return structure(node, "`correlation.aliases` must be a mapping") };
    entries
        .iter()
        .map(|(alias, fields)| {
            let Some(fields) = fields.map() else {
                return structure(fields, format!("the alias `{alias}` must map rules to fields"));
            };
            let fields = fields
                .iter()
                .map(|(rule, field)| match field.scalar_text() {
                    Some(name) => Ok((rule.clone(), name)),
                    None => {
                        structure(field, format!("the alias `{alias}` must map each rule to a field name"))
                    }
                })
                .collect::<Result<_, _>>()?;
            Ok((alias.clone(), fields))
        })
        .collect()
}
