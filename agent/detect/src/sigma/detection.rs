//! Searches: what stands under `detection`.

use std::collections::BTreeMap;

use crate::error::{At, Cause};
use crate::expression::Expr;
use crate::field::{self, Class, Field};
use crate::predicate::Question;
use crate::sigma::{condition, modifier};
use crate::yaml::{Kind, Node};

/// Values for the placeholders (`%name%`) of the modifier `expand`.
pub type Placeholders = BTreeMap<String, Vec<String>>;

/// What searches are read with.
pub(crate) struct Scope<'a> {
    pub(crate) class: Class,
    pub(crate) placeholders: &'a Placeholders,
}

/// Reads `detection`: its searches and its condition.
pub(crate) fn parse(node: &Node, scope: &Scope<'_>) -> Result<Expr, At> {
    let Some(entries) = node.map() else {
        return Err(At::new(node.line, Cause::Structure("`detection` must be a mapping".to_owned())));
    };
    let mut searches = Vec::new();
    let mut conditions = None;
    for (key, value) in entries {
        match key.as_str() {
            "condition" => conditions = Some(value),
            "timeframe" => {
                let why = "`timeframe` is not part of Sigma 2; write a correlation rule".to_owned();
                return Err(At::new(value.line, Cause::Structure(why)));
            }
            _ => searches.push((key.clone(), search(value, scope)?)),
        }
    }
    let Some(conditions) = conditions else {
        return Err(At::new(node.line, Cause::Structure("`detection` lacks a `condition`".to_owned())));
    };
    let one = |node: &Node| {
        let Some(text) = node.scalar_text() else {
            return Err(At::new(node.line, Cause::Structure("`condition` must be text".to_owned())));
        };
        condition::parse(&text, &searches).map_err(|cause| At::new(node.line, cause))
    };
    match conditions.list() {
        Some([]) => Err(At::new(conditions.line, Cause::Structure("`condition` is empty".to_owned()))),
        Some(items) => Ok(Expr::any(items.iter().map(one).collect::<Result<_, _>>()?)),
        None => one(conditions),
    }
}

/// One search: a mapping (all of its items), a list (any of its elements), or a keyword.
pub(crate) fn search(node: &Node, scope: &Scope<'_>) -> Result<Expr, At> {
    match &node.kind {
        Kind::Map(entries) if entries.is_empty() => Err(At::new(
            node.line,
            Cause::Structure("a search without items would match everything".to_owned()),
        )),
        Kind::Map(entries) => Ok(Expr::all(
            entries.iter().map(|(key, value)| item(key, value, scope)).collect::<Result<_, _>>()?,
        )),
        Kind::List(items) if items.is_empty() => {
            Err(At::new(node.line, Cause::Structure("a search without items would match nothing".to_owned())))
        }
        Kind::List(items) => {
            Ok(Expr::any(items.iter().map(|item| search(item, scope)).collect::<Result<_, _>>()?))
        }
        _ => keywords(&[], std::slice::from_ref(node), scope),
    }
}

/// One item: `field|modifier|modifier: value or list`.
fn item(key: &str, value: &Node, scope: &Scope<'_>) -> Result<Expr, At> {
    let mut words = key.split('|');
    let name = words.next().unwrap_or_default();
    let modifiers: Vec<&str> = words.collect();
    let values = value.list().unwrap_or(std::slice::from_ref(value));
    if values.is_empty() {
        return Err(At::new(value.line, Cause::Structure(format!("`{key}` has an empty list"))));
    }
    if name.is_empty() {
        return keywords(&modifiers, values, scope);
    }
    let at = |cause| At::new(value.line, cause);
    let field = field::resolve(scope.class, name).map_err(at)?;
    field_item(field, &modifiers, values, scope)
}

fn field_item(field: Field, modifiers: &[&str], values: &[Node], scope: &Scope<'_>) -> Result<Expr, At> {
    let chain = modifier::Chain::parse(modifiers)
        .map_err(|cause| At::new(values.first().map_or(0, |v| v.line), cause))?;
    let mut parts = Vec::with_capacity(values.len());
    for value in values {
        let tests = chain.tests(value, scope).map_err(|cause| At::new(value.line, cause))?;
        let asks = tests.into_iter().map(|test| match test {
            modifier::Outcome::Holds(test) => Expr::Ask(Question { field, test }),
            modifier::Outcome::Fails(test) => Expr::Ask(Question { field, test }).not(),
        });
        parts.push(Expr::any(asks.collect()));
    }
    let linked = if chain.all { Expr::all(parts) } else { Expr::any(parts) };
    Ok(if chain.negated { linked.not() } else { linked })
}

/// Keywords: the value stands somewhere in one of the event's texts.
fn keywords(modifiers: &[&str], values: &[Node], scope: &Scope<'_>) -> Result<Expr, At> {
    let line = values.first().map_or(0, |v| v.line);
    let chain = modifier::Chain::parse(modifiers).map_err(|cause| At::new(line, cause))?;
    let fields: Vec<Field> = scope
        .class
        .fields()
        .iter()
        .zip(0u8..)
        .filter(|(spec, _)| spec.keyword)
        .map(|(_, i)| Field(i))
        .collect();
    let mut parts = Vec::with_capacity(values.len());
    for value in values {
        if value.kind == Kind::Null {
            return Err(At::new(value.line, Cause::Structure("null cannot be a keyword".to_owned())));
        }
        let tests = chain.keyword_tests(value, scope).map_err(|cause| At::new(value.line, cause))?;
        let asks = fields.iter().flat_map(|field| {
            tests.iter().map(|test| Expr::Ask(Question { field: *field, test: test.clone() }))
        });
        parts.push(Expr::any(asks.collect()));
    }
    let linked = if chain.all { Expr::all(parts) } else { Expr::any(parts) };
    Ok(if chain.negated { linked.not() } else { linked })
}
