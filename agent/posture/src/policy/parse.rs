//! From a TOML file to a policy. Every mistake is told with its line; a policy with a mistake is not used.

use std::collections::HashMap;
use std::sync::Arc;

use defender_model::severity::Severity;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::keys::{Fault, Keys};
use super::{Applies, Check, Excluded, Policy, Rule};
use crate::error::PolicyError;
use crate::expression::Expression;

/// Most mistakes told of one file.
const MAX_ERRORS: usize = 50;
/// The catalogues a check may refer to.
const CATALOGUES: &[&str] =
    &["cis", "etsi", "nist", "iec62443", "kspp", "cce", "microsoft", "cwe", "rfc", "owasp"];

const SEVERITIES: &[(&str, Severity)] = &[
    ("low", Severity::Low),
    ("medium", Severity::Medium),
    ("high", Severity::High),
    ("critical", Severity::Critical),
];

impl Policy {
    /// Reads a policy; `file` is its name in messages.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Vec<PolicyError>> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            vec![PolicyError { file: file.to_owned(), line, check: None, message: "not UTF-8".to_owned() }]
        })?;
        let mut reader = Reader { file, text, errors: Vec::new() };
        match DeTable::parse(text) {
            Ok(table) => {
                let policy = reader.policy(table.get_ref());
                match policy {
                    Some(policy) if reader.errors.is_empty() => Ok(policy),
                    _ => Err(reader.errors),
                }
            }
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                reader.tell(None, Fault::new(at, error.message()));
                Err(reader.errors)
            }
        }
    }
}

/// Ids that stand in more than one policy: over all policies a check has one meaning. Policies come with the names of their files.
#[must_use]
pub fn duplicates(policies: &[(String, Policy)]) -> Vec<PolicyError> {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    let mut errors = Vec::new();
    for (file, policy) in policies {
        for check in policy.checks() {
            if let Some(other) = seen.insert(&check.id, file) {
                let message = format!("the id is used in {other} as well; ids are unique over all policies");
                errors.push(PolicyError {
                    file: file.clone(),
                    line: 1,
                    check: Some(check.id.clone()),
                    message,
                });
            }
        }
    }
    errors
}

struct Reader<'f> {
    file: &'f str,
    text: &'f str,
    errors: Vec<PolicyError>,
}

impl Reader<'_> {
    fn tell(&mut self, check: Option<&str>, fault: Fault) {
        if self.errors.len() >= MAX_ERRORS {
            return;
        }
        let upto = self.text.as_bytes().get(..fault.at).unwrap_or_default();
        let line = 1 + upto.iter().filter(|byte| **byte == b'\n').count();
        let check = check.map(str::to_owned);
        self.errors.push(PolicyError { file: self.file.to_owned(), line, check, message: fault.message });
    }

    fn policy<'t>(&mut self, table: &'t DeTable<'t>) -> Option<Policy> {
        let mut keys = Keys::new(table, 0);
        let head = keys.value("policy");
        let checks = keys.value("check");
        let excluded = keys.value("excluded");
        if let Err(fault) = keys.finish() {
            self.tell(None, fault);
        }
        let mut policy =
            match head.ok_or_else(|| Fault::new(0, "the section [policy] is missing")).and_then(head_of) {
                Ok(policy) => policy,
                Err(fault) => {
                    self.tell(None, fault);
                    return None;
                }
            };
        for item in self.tables("check", checks) {
            match rule_of(item) {
                Ok(rule) => {
                    if policy.checks().any(|check| check.id == rule.check.id) {
                        let fault = Fault::new(
                            item.span().start,
                            "the id is used twice; ids are unique over all policies",
                        );
                        self.tell(Some(&rule.check.id), fault);
                    }
                    policy.rules.push(rule);
                }
                Err((id, fault)) => self.tell(id.as_deref(), fault),
            }
        }
        for item in self.tables("excluded", excluded) {
            match excluded_of(item) {
                Ok(excluded) => policy.excluded.push(excluded),
                Err(fault) => self.tell(None, fault),
            }
        }
        if policy.rules.is_empty() && self.errors.is_empty() {
            self.tell(None, Fault::new(0, "the policy has no [[check]]"));
        }
        Some(policy)
    }

    fn tables<'t>(
        &mut self,
        key: &str,
        value: Option<&'t Spanned<DeValue<'t>>>,
    ) -> &'t [Spanned<DeValue<'t>>] {
        match value.map(|value| (value.span().start, value.get_ref())) {
            None => &[],
            Some((_, DeValue::Array(items))) => items,
            Some((at, _)) => {
                self.tell(None, Fault::new(at, format!("`{key}` is a list of tables: [[{key}]]")));
                &[]
            }
        }
    }
}

fn table_of<'t>(what: &str, value: &'t Spanned<DeValue<'t>>) -> Result<Keys<'t>, Fault> {
    match value.get_ref() {
        DeValue::Table(table) => Ok(Keys::new(table, value.span().start)),
        _ => Err(Fault::new(value.span().start, format!("`{what}` is a table"))),
    }
}

fn head_of<'t>(value: &'t Spanned<DeValue<'t>>) -> Result<Policy, Fault> {
    let mut keys = table_of("policy", value)?;
    let policy = Policy {
        id: id_of(&mut keys)?,
        title: keys.required_text("title")?,
        description: keys.text("description")?.unwrap_or_default(),
        version: keys.scalar("version")?.unwrap_or_default(),
        excluded: Vec::new(),
        rules: Vec::new(),
    };
    keys.finish()?;
    Ok(policy)
}

fn id_of(keys: &mut Keys<'_>) -> Result<String, Fault> {
    let id = keys.required_text("id")?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    if id.is_empty() || id.len() > 100 || !id.chars().all(fits) {
        return Err(keys.fault("id", "an id has 1 to 100 characters of a-z, 0-9, `.` and `-`"));
    }
    Ok(id)
}

fn rule_of<'t>(value: &'t Spanned<DeValue<'t>>) -> Result<Rule, (Option<String>, Fault)> {
    let mut keys = table_of("check", value).map_err(|fault| (None, fault))?;
    let id = id_of(&mut keys).map_err(|fault| (None, fault))?;
    let name = Some(id.clone());
    rest_of(id, keys).map_err(|fault| (name, fault))
}

fn rest_of(id: String, mut keys: Keys<'_>) -> Result<Rule, Fault> {
    let at = keys.at;
    let missing = |key: &str| Fault::new(at, format!("`{key}` is missing"));
    let check = Check {
        id,
        title: keys.required_text("title")?,
        section: keys.required_text("section")?,
        severity: keys.word("severity", SEVERITIES)?.ok_or_else(|| missing("severity"))?,
        level: keys.count("level")?.and_then(|level| u8::try_from(level).ok()),
        rationale: keys.required_text("rationale")?,
        remediation: keys.required_text("remediation")?,
        yocto: keys.text("yocto")?,
        buildroot: keys.text("buildroot")?,
        references: references_of(&mut keys)?,
        finding: keys.text("finding")?,
    };
    let applies = [("both", Applies::Both), ("live", Applies::Live), ("offline", Applies::Offline)];
    let rule = Rule {
        check: Arc::new(check),
        applies: keys.word("applies", &applies)?.unwrap_or(Applies::Both),
        when: keys.value("when").map(|value| Expression::parse("when", value)).transpose()?,
        expect: Expression::parse("expect", keys.value("expect").ok_or_else(|| missing("expect"))?)?,
    };
    keys.finish()?;
    Ok(rule)
}

fn references_of(keys: &mut Keys<'_>) -> Result<Vec<(String, String)>, Fault> {
    let Some(value) = keys.value("references") else { return Ok(Vec::new()) };
    let mut keys = table_of("references", value)?;
    let mut references = Vec::new();
    for catalogue in CATALOGUES {
        if let Some(places) = keys.list(catalogue)? {
            references.push(((*catalogue).to_owned(), places.join(", ")));
        }
    }
    keys.finish()?;
    Ok(references)
}

fn excluded_of<'t>(value: &'t Spanned<DeValue<'t>>) -> Result<Excluded, Fault> {
    let mut keys = table_of("excluded", value)?;
    let excluded = Excluded {
        reference: keys.required_text("reference")?,
        title: keys.required_text("title")?,
        reason: keys.required_text("reason")?,
    };
    keys.finish()?;
    Ok(excluded)
}
