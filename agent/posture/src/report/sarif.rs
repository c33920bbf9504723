//! SARIF 2.1.0 (OASIS), as code hosting sites and editors read it: every failed check is a result.

use defender_model::severity::Severity;
use serde_json::{json, Value};

use crate::policy::Check;
use crate::result::{CheckResult, Report, Verdict};

/// The report as a SARIF log with one run.
#[must_use]
pub fn write(report: &Report) -> String {
    let all: Vec<&CheckResult> = report.policies.iter().flat_map(|policy| &policy.checks).collect();
    let rules: Vec<Value> = all.iter().map(|result| rule(&result.check)).collect();
    let results: Vec<Value> = all.iter().enumerate().filter_map(|(i, result)| finding(i, result)).collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "defender posture",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "results": results,
        }],
    });
    // A `Value` with text keys always serializes.
    serde_json::to_string_pretty(&log).unwrap_or_default()
}

fn rule(check: &Check) -> Value {
    let mut help = check.remediation.clone();
    for (name, way) in [("Yocto", &check.yocto), ("Buildroot", &check.buildroot)] {
        if let Some(way) = way {
            help.push_str(&format!("\n{name}: {way}"));
        }
    }
    let tags: Vec<String> =
        check.references.iter().map(|(catalogue, place)| format!("{catalogue}/{place}")).collect();
    json!({
        "id": check.id,
        "shortDescription": { "text": check.title },
        "fullDescription": { "text": check.rationale },
        "help": { "text": help },
        "defaultConfiguration": { "level": level(check.severity) },
        "properties": { "tags": tags, "security-severity": score(check.severity) },
    })
}

fn finding(index: usize, result: &CheckResult) -> Option<Value> {
    let (kind, level, text) = match &result.verdict {
        Verdict::Fail | Verdict::Excepted => {
            ("fail", level(result.check.severity), result.evidence.join("\n"))
        }
        Verdict::Unknown(reason) => ("open", "none", reason.clone()),
        Verdict::Pass | Verdict::NotApplicable(_) => return None,
    };
    let text = if text.is_empty() { result.check.title.clone() } else { text };
    let mut value = json!({
        "ruleId": result.check.id,
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": { "text": text },
        "locations": locations(&result.evidence),
    });
    if let (Verdict::Excepted, Some(exception)) = (&result.verdict, &result.exception) {
        value["suppressions"] = json!([{
            "kind": "external",
            "status": "accepted",
            "justification": format!("{} ({}, until {})", exception.reason, exception.owner, exception.expires),
        }]);
    }
    Some(value)
}

/// Files that the evidence names: lines of the form `/path: what is wrong`.
fn locations(evidence: &[String]) -> Vec<Value> {
    evidence
        .iter()
        .filter_map(|line| line.strip_prefix('/').and_then(|rest| rest.split_once(": ")))
        .map(|(path, _)| path)
        .filter(|path| !path.is_empty() && !path.contains(' '))
        .map(|path| json!({ "physicalLocation": { "artifactLocation": { "uri": uri(path), "uriBaseId": "ROOT" } } }))
        .collect()
}

/// A path as a relative URI reference (RFC 3986, section 3.3).
fn uri(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/+@,=!$&()*;".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Informational => "note",
    }
}

/// What viewers sort by: the middle of each band of CVSS 3.1, section 5.
const fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Medium => "5.5",
        Severity::Low => "2.0",
        Severity::Informational => "0.0",
    }
}
