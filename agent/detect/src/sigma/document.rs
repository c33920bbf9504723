//! A rule's document: its metadata and what it detects.

use defender_model::finding::Responses;
use defender_model::severity::Severity;

use crate::error::{At, Cause};
use crate::expression::Expr;
use crate::sigma::correlation::{self, CorrelationSpec};
use crate::sigma::detection::{self, Placeholders, Scope};
use crate::sigma::logsource::{self, LogSource};
use crate::yaml::{Kind, Node};

/// Most alerts of other products one rule may stand for.
const MAX_REPLACED: usize = 32;

/// A parsed document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    pub(crate) line: u32,
    pub(crate) title: String,
    /// The id, else the name, else the title: what overrides and findings call the rule.
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) description: String,
    pub(crate) level: Severity,
    pub(crate) status: Option<String>,
    pub(crate) techniques: Vec<String>,
    pub(crate) tactics: Vec<String>,
    pub(crate) own: Own,
    pub(crate) body: Body,
}

/// What stands under our own key, `defender`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Own {
    pub(crate) response: Responses,
    /// False: the rule only feeds correlations, even ones that let the rules they refer to alert.
    pub(crate) alert: bool,
    /// What alerts of other products the rule stands for.
    pub(crate) replaces: Vec<String>,
}

impl Default for Own {
    fn default() -> Self {
        Self { response: Responses::NONE, alert: true, replaces: Vec::new() }
    }
}

/// What a document detects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Events { source: LogSource, expr: Expr },
    Correlation { spec: CorrelationSpec, line: u32 },
}

/// What a document is called, for errors: whatever of title and id can be read.
pub(crate) fn label(node: &Node) -> Option<String> {
    ["title", "id", "name"].into_iter().find_map(|key| node.get(key).and_then(Node::scalar_text))
}

/// Reads a document.
pub(crate) fn parse(node: &Node, placeholders: &Placeholders) -> Result<Document, At> {
    let structure = |line, why: &str| Err(At::new(line, Cause::Structure(why.to_owned())));
    if node.map().is_none() {
        return structure(node.line, "a rule must be a mapping");
    }
    if let Some(action) = node.get("action") {
        return structure(action.line, "`action` (global, reset, repeat) is not part of Sigma 2");
    }
    let text = |key: &str| match node.get(key) {
        None => Ok(None),
        Some(value) => value
            .scalar_text()
            .map(Some)
            .ok_or_else(|| At::new(value.line, Cause::Structure(format!("`{key}` must be text")))),
    };
    let Some(title) = text("title")? else { return structure(node.line, "the rule lacks a `title`") };
    if title.len() > 256 {
        return structure(node.line, "the `title` is longer than 256 bytes");
    }
    let name = text("name")?;
    let id = text("id")?.or_else(|| name.clone()).unwrap_or_else(|| title.clone());
    let level = match node.get("level") {
        None => Severity::Medium,
        Some(value) => value.text().and_then(Severity::from_level).ok_or_else(|| {
            let why = "`level` must be informational, low, medium, high or critical";
            At::new(value.line, Cause::Structure(why.to_owned()))
        })?,
    };
    if let Some(taxonomy) = text("taxonomy")?.filter(|taxonomy| taxonomy != "sigma") {
        let why = format!("the taxonomy `{taxonomy}` is not known here; convert the rule to `sigma`");
        return Err(At::new(node.line, Cause::Unsupplied(why)));
    }
    let (techniques, tactics) = tags(node.get("tags"))?;
    let own = node.get("defender").map_or(Ok(Own::default()), own_key)?;
    let body = match (node.get("detection"), node.get("correlation")) {
        (Some(detection), None) => {
            let Some(source) = node.get("logsource") else {
                return structure(node.line, "the rule lacks a `logsource`");
            };
            let source = logsource::parse(source)?;
            let expr = detection::parse(detection, &Scope { class: source.class, placeholders })?;
            Body::Events { source, expr }
        }
        (None, Some(c)) => Body::Correlation { spec: correlation::parse(c)?, line: c.line },
        (Some(_), Some(_)) => {
            return structure(node.line, "a rule has either `detection` or `correlation`, not both")
        }
        (None, None) => return structure(node.line, "the rule has neither `detection` nor `correlation`"),
    };
    Ok(Document {
        line: node.line,
        title,
        id,
        name,
        description: text("description")?.unwrap_or_default().trim().to_owned(),
        level,
        status: text("status")?,
        techniques,
        tactics,
        own,
        body,
    })
}

/// ATT&CK techniques and tactics among the tags.
fn tags(node: Option<&Node>) -> Result<(Vec<String>, Vec<String>), At> {
    let (mut techniques, mut tactics) = (Vec::new(), Vec::new());
    let Some(node) = node else { return Ok((techniques, tactics)) };
    if node.kind == Kind::Null {
        return Ok((techniques, tactics));
    }
    let Some(items) = node.list() else {
        return Err(At::new(node.line, Cause::Structure("`tags` must be a list".to_owned())));
    };
    for item in items {
        let Some(tag) = item.text() else {
            return Err(At::new(item.line, Cause::Structure("a tag must be text".to_owned())));
        };
        let Some(name) = tag.strip_prefix("attack.") else { continue };
        let technique = name
            .strip_prefix(['t', 'T'])
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
        if technique {
            techniques.push(name.to_ascii_uppercase());
        } else if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name.len() < 5 || is_software(name)
        {
            // Groups and software (`attack.g0007`, `attack.s0154`) are not tactics.
        } else {
            tactics.push(name.replace('_', "-"));
        }
    }
    Ok((techniques, tactics))
}

fn is_software(name: &str) -> bool {
    name.starts_with(['g', 's', 'G', 'S']) && name[1..].bytes().all(|b| b.is_ascii_digit())
}

/// Identifiers of alerts, one or a list.
fn identifiers(node: &Node) -> Result<Vec<String>, At> {
    let items = node.list().unwrap_or(std::slice::from_ref(node));
    let name = |item: &Node| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
        item.scalar_text()
            .filter(|text| !text.is_empty() && text.len() <= 100 && text.chars().all(plain))
            .ok_or_else(|| {
                let why = "`defender.replaces` takes identifiers of letters, digits and any of _ - . :";
                At::new(item.line, Cause::Structure(why.to_owned()))
            })
    };
    if items.len() > MAX_REPLACED {
        let why = format!("`defender.replaces` has more than {MAX_REPLACED} identifiers");
        return Err(At::new(node.line, Cause::TooLarge(why)));
    }
    items.iter().map(name).collect()
}

/// Reads our own key: `defender: {response: block_source}`.
fn own_key(node: &Node) -> Result<Own, At> {
    let Some(entries) = node.map() else {
        return Err(At::new(node.line, Cause::Structure("`defender` must be a mapping".to_owned())));
    };
    let mut own = Own::default();
    for (key, value) in entries {
        match key.as_str() {
            "response" => {
                let names = value.list().unwrap_or(std::slice::from_ref(value));
                let names: Option<Vec<&str>> = names.iter().map(Node::text).collect();
                own.response =
                    names.and_then(|names| Responses::from_names(names).ok()).ok_or_else(|| {
                        let why = "`defender.response` must be none, or one or a list of block_source, block_destination, \
                                   kill_process, run_hook and isolate";
                        At::new(value.line, Cause::Structure(why.to_owned()))
                    })?;
            }
            "alert" => match value.kind {
                Kind::Bool(alert) => own.alert = alert,
                _ => {
                    let why = "`defender.alert` must be true or false".to_owned();
                    return Err(At::new(value.line, Cause::Structure(why)));
                }
            },
            "replaces" => own.replaces = identifiers(value)?,
            _ => {
                let why = format!("`defender.{key}` is not a key; there are response, alert and replaces");
                return Err(At::new(value.line, Cause::Structure(why)));
            }
        }
    }
    Ok(own)
}
