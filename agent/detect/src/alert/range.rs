//! How many events of a kind there may be within a window.

use super::compile::{one_of, Draft};
use super::{AlertError, Range, MAX_WINDOW};
use crate::error::At;
use crate::exception;
use crate::expression::Expr;
use crate::field::{self, Class};
use crate::predicate::Comparison;
use crate::sigma::correlation::{CorrelationKind, CorrelationSpec, MAX_GROUP, MAX_THRESHOLD};
use crate::sigma::detection::{self, Placeholders, Scope};
use crate::sigma::document::Document;
use crate::sigma::logsource::{self, LogSource};

/// Connections that are open at some time of the window, rather than those that begin in it.
const ACTIVE_CONNECTIONS: &str = "active_connections";
/// Logins that failed, by whatever service.
const FAILED_LOGINS: &str = "failed_logins";

/// The rules of a range: which events count, and one for each bound.
pub(super) fn documents(
    draft: &Draft<'_>,
    range: &Range,
    placeholders: &Placeholders,
) -> Result<Vec<Document>, AlertError> {
    let (mut kind, mut replaces) = (CorrelationKind::EventCount, "");
    let counted = |name: &str, class: Class| {
        (LogSource { class, also: None, text: name.to_owned() }, Vec::<Expr>::new())
    };
    let (source, mut when) = match range.count.as_str() {
        ACTIVE_CONNECTIONS => {
            (kind, replaces) = (CorrelationKind::ActiveCount, "ActiveConnectionsNotInAllowedRange");
            counted("linux/network_flow", Class::NetworkFlow)
        }
        FAILED_LOGINS => {
            replaces = "FailedLocalLoginsNotInAllowedRange";
            let (source, mut when) = counted("linux/authentication", Class::Authentication);
            when.push(one_of(source.class, "outcome", &["failure"]).map_err(AlertError::at("count"))?);
            (source, when)
        }
        other => {
            let source = logsource::named(other).map_err(|At { cause, .. }| {
                let why = format!("{}; or {ACTIVE_CONNECTIONS} or {FAILED_LOGINS}", cause.detail());
                AlertError::new("count", why)
            })?;
            (source, Vec::new())
        }
    };
    if !range.select.is_empty() {
        let scope = Scope { class: source.class, placeholders };
        let search = detection::search(&exception::search(&range.select), &scope);
        when.push(search.map_err(|At { cause, .. }| AlertError { key: "select", cause })?);
    }
    if range.group_by.len() > MAX_GROUP {
        return Err(AlertError::new("group_by", format!("more than {MAX_GROUP} fields")));
    }
    for name in &range.group_by {
        field::resolve(source.class, name).map_err(AlertError::at("group_by"))?;
    }
    if range.window_ms == 0 || range.window_ms > MAX_WINDOW {
        let why = format!("the window is 1 to {} seconds long", MAX_WINDOW / 1000);
        return Err(AlertError::new("window_s", why));
    }
    let events = draft.id("events");
    let title = format!("{} (counted events)", draft.name());
    let mut documents = vec![draft.events("events", &title, source, Expr::all(when), false)];
    let bound = |key: &'static str, bound: Option<u64>, least: u64, comparison, floor: bool| {
        let Some(number) = bound else { return Ok(None) };
        if number < least || number > MAX_THRESHOLD {
            let why = format!("`{key}` is {number}; it must lie between {least} and {MAX_THRESHOLD}");
            return Err(AlertError::new(key, why));
        }
        let spec = CorrelationSpec {
            kind,
            rules: vec![events.clone()],
            generate: false,
            group_by: range.group_by.clone(),
            timespan_ms: range.window_ms,
            bounds: vec![(comparison, number)],
            field: None,
            aliases: Vec::new(),
            floor,
        };
        Ok(Some(draft.correlation(key, draft.name(), spec)))
    };
    let maximum = bound("maximum", range.maximum, 0, Comparison::Gt, false)?;
    // Nothing is below zero.
    let minimum = bound("minimum", range.minimum, 1, Comparison::Lt, true)?;
    if let (Some(minimum), Some(maximum)) = (range.minimum, range.maximum) {
        if minimum > maximum {
            let why =
                format!("`minimum` is {minimum} and `maximum` {maximum}: one of them would always alert");
            return Err(AlertError::new("minimum", why));
        }
    }
    if minimum.is_none() && maximum.is_none() {
        return Err(AlertError::new("count", "neither `minimum` nor `maximum` is given"));
    }
    for mut document in [maximum, minimum].into_iter().flatten() {
        if !replaces.is_empty() {
            document.own.replaces.push(replaces.to_owned());
        }
        documents.push(document);
    }
    Ok(documents)
}
