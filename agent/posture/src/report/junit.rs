//! JUnit XML for build systems: a policy is a test suite, a check a test case.
//!
//! The format has no specification of its own; elements and attributes are those of Apache Ant's `JUnitTask` that Jenkins, GitLab
//! and others read.

use std::fmt::Write as _;

use crate::result::{CheckResult, Report, Verdict};

/// The report as JUnit XML. What fails is a failure, what could not be told an error, the rest of what does not count is skipped.
#[must_use]
pub fn write(report: &Report) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all = || report.policies.iter().flat_map(|policy| &policy.checks);
    // Writing to a String cannot fail.
    let _ = writeln!(out, "<testsuites name=\"defender posture\"{}>", counts(all()));
    for policy in &report.policies {
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\"{}>",
            attribute(&policy.title),
            counts(policy.checks.iter())
        );
        for result in &policy.checks {
            case(&policy.id, result, &mut out);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn counts<'a>(checks: impl Iterator<Item = &'a CheckResult>) -> String {
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    for result in checks {
        tests += 1;
        match result.verdict {
            Verdict::Pass => {}
            Verdict::Fail => failures += 1,
            Verdict::Unknown(_) => errors += 1,
            Verdict::NotApplicable(_) | Verdict::Excepted => skipped += 1,
        }
    }
    format!(" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"")
}

fn case(policy: &str, result: &CheckResult, out: &mut String) {
    let check = &result.check;
    let _ = write!(
        out,
        "    <testcase classname=\"{}.{}\" name=\"{}: {}\"",
        attribute(policy),
        attribute(&check.section),
        attribute(&check.id),
        attribute(&check.title)
    );
    let (element, message, kind) = match &result.verdict {
        Verdict::Pass => return out.push_str("/>\n"),
        Verdict::Fail => ("failure", check.title.as_str(), check.severity.level()),
        Verdict::Unknown(reason) => ("error", reason.as_str(), "unknown"),
        Verdict::NotApplicable(reason) => ("skipped", reason.as_str(), ""),
        Verdict::Excepted => {
            ("skipped", result.exception.as_ref().map_or("excepted", |e| e.reason.as_str()), "")
        }
    };
    let _ = write!(out, ">\n      <{element} message=\"{}\"", attribute(message));
    if !kind.is_empty() {
        let _ = write!(out, " type=\"{kind}\"");
    }
    if matches!(result.verdict, Verdict::Fail | Verdict::Unknown(_)) {
        out.push('>');
        for line in &result.evidence {
            let _ = writeln!(out, "{}", content(line));
        }
        let _ = write!(out, "{}</{element}>\n    </testcase>\n", content(&check.remediation));
    } else {
        out.push_str("/>\n    </testcase>\n");
    }
}

/// Text of an element: markup escaped, and characters XML 1.0 forbids (section 2.2) replaced.
pub(super) fn content(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The same for the value of an attribute, where a line end would become a blank anyway.
fn attribute(text: &str) -> String {
    content(text).replace(['\n', '\t'], " ")
}
