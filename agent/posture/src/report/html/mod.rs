//! One HTML page that needs nothing else: score, bars, filters, remediation. It asks the network for nothing and prints well.
//!
//! Everything from the scanned root is escaped; a content security policy forbids the page all but its own style and script.

use std::fmt::Write as _;

use defender_model::order;

use super::junit::content as escape;
use crate::result::{CheckResult, PolicyResult, Report, Verdict};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Verdicts in the order of the bars, with the words people read.
const VERDICTS: [(&str, &str); 5] = [
    ("pass", "passed"),
    ("excepted", "excepted"),
    ("fail", "failed"),
    ("unknown", "cannot tell"),
    ("not_applicable", "not applicable"),
];

/// The report as a page.
#[must_use]
pub fn write(report: &Report) -> String {
    let name = if report.host.is_empty() { &report.root } else { &report.host };
    let mut out = String::with_capacity(64 * 1024);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\"><title>Posture of {}</title><style>{STYLE}</style></head><body>\n",
        escape(name)
    );
    let _ = writeln!(
        out,
        "<h1>Posture of {}</h1><p class=\"about\">{} {}, scanned {}</p>",
        escape(name),
        if report.live { "running system" } else { "image" },
        escape(&report.root),
        report.time
    );
    out.push_str("<div class=\"cards\">");
    let all: Vec<&CheckResult> = report.policies.iter().flat_map(|policy| &policy.checks).collect();
    card("All policies", report.score(), &all, &mut out);
    for policy in &report.policies {
        card(&policy.title, policy.score, &policy.checks.iter().collect::<Vec<_>>(), &mut out);
    }
    out.push_str("</div>\n");
    filters(&all, &mut out);
    for policy in &report.policies {
        section(policy, &mut out);
    }
    let _ = writeln!(out, "<script>{SCRIPT}</script></body></html>");
    out
}

fn card(title: &str, score: Option<f32>, checks: &[&CheckResult], out: &mut String) {
    let _ = write!(
        out,
        "<div class=\"card\"><div>{}</div><div class=\"score\">{}</div><div class=\"bar\">",
        escape(title),
        score.map_or_else(|| "–".to_owned(), |score| format!("{score:.1}"))
    );
    let count = |name: &str| checks.iter().filter(|result| result.verdict.name() == name).count();
    for (name, _) in VERDICTS {
        let _ = write!(out, "<i class=\"{name}\" style=\"flex:{}\"></i>", count(name));
    }
    out.push_str("</div><div class=\"key\">");
    for (name, words) in VERDICTS {
        let _ = write!(out, "<span><i class=\"{name}\"></i>{} {words}</span>", count(name));
    }
    out.push_str("</div></div>");
}

fn filters(checks: &[&CheckResult], out: &mut String) {
    let sections = order::set(checks.iter().map(|result| result.check.section.as_str()));
    out.push_str(
        "<form><select name=\"verdict\" aria-label=\"Verdict\"><option value=\"\">every verdict</option>",
    );
    for (name, words) in VERDICTS {
        let _ = write!(out, "<option value=\"{name}\">{words}</option>");
    }
    out.push_str("</select><select name=\"severity\" aria-label=\"Severity\"><option value=\"\">every severity</option>");
    for severity in ["critical", "high", "medium", "low"] {
        let _ = write!(out, "<option>{severity}</option>");
    }
    out.push_str(
        "</select><select name=\"section\" aria-label=\"Section\"><option value=\"\">every section</option>",
    );
    for section in sections {
        let _ = write!(out, "<option>{}</option>", escape(section));
    }
    out.push_str("</select><input name=\"words\" placeholder=\"words\" aria-label=\"Words\"><span id=\"shown\" class=\"about\"></span></form>\n");
}

fn section(policy: &PolicyResult, out: &mut String) {
    let _ = writeln!(
        out,
        "<section data-part><h2>{} <span class=\"id\">{} {}</span></h2>",
        escape(&policy.title),
        escape(&policy.id),
        escape(&policy.version)
    );
    for (section, checks) in super::by_section(policy) {
        let _ = writeln!(out, "<div data-part><h3>{}</h3>", escape(section));
        for result in checks {
            check(result, out);
        }
        out.push_str("</div>\n");
    }
    out.push_str("</section>\n");
    if !policy.excluded.is_empty() {
        let _ = write!(
            out,
            "<details><summary>{} items of the benchmark that cannot be judged on a device</summary><table>",
            policy.excluded.len()
        );
        for item in &policy.excluded {
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&item.reference),
                escape(&item.title),
                escape(&item.reason)
            );
        }
        out.push_str("</table></details>\n");
    }
}

fn check(result: &CheckResult, out: &mut String) {
    let check = &result.check;
    let name = result.verdict.name();
    let words = VERDICTS.iter().find(|(verdict, _)| *verdict == name).map_or(name, |(_, words)| words);
    let _ = write!(
        out,
        "<details data-verdict=\"{name}\" data-severity=\"{0}\" data-section=\"{1}\"><summary><span class=\"mark {name}\">{words}</span>\
         <span class=\"sev\">{0}</span>{2} <span class=\"id\">{3}</span></summary>",
        check.severity,
        escape(&check.section),
        escape(&check.title),
        escape(&check.id)
    );
    if let Some(reason) = result.verdict.reason() {
        let _ = write!(out, "<p>{}</p>", escape(reason));
    }
    if let Some(exception) = &result.exception {
        let _ = write!(
            out,
            "<p>Exception {} {}, {}: {}</p>",
            if exception.expired { "expired on" } else { "until" },
            escape(&exception.expires),
            escape(&exception.owner),
            escape(&exception.reason)
        );
    }
    if !result.evidence.is_empty() {
        let _ = write!(out, "<pre>{}</pre>", escape(&result.evidence.join("\n")));
    }
    out.push_str("<dl>");
    let mut entry = |term: &str, text: &str| {
        if !text.is_empty() {
            let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(term), escape(text));
        }
    };
    entry("Why", &check.rationale);
    if matches!(result.verdict, Verdict::Fail | Verdict::Unknown(_) | Verdict::Excepted) {
        entry("What to do", &check.remediation);
        entry("Yocto", check.yocto.as_deref().unwrap_or_default());
        entry("Buildroot", check.buildroot.as_deref().unwrap_or_default());
    }
    let references: Vec<String> =
        check.references.iter().map(|(catalogue, place)| format!("{catalogue} {place}")).collect();
    entry("References", &references.join(", "));
    out.push_str("</dl></details>\n");
}
