//! Plain text: what failed, what could not be told, and the score.

use std::fmt::Write as _;

use defender_model::text::printable;

use crate::result::{Report, Verdict};

/// The report as text. Everything from the scanned root is made safe for a terminal.
#[must_use]
pub fn write(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for policy in &report.policies {
        let _ = match policy.score {
            Some(score) => writeln!(out, "{} ({}): score {score:.1}", policy.title, policy.id),
            None => writeln!(out, "{} ({}): nothing could be judged", policy.title, policy.id),
        };
        for result in &policy.checks {
            if matches!(result.verdict, Verdict::Pass | Verdict::NotApplicable(_)) {
                continue;
            }
            let _ = writeln!(
                out,
                "  {:<8} {:<8} {}: {}",
                result.verdict.name(),
                result.check.severity,
                result.check.id,
                printable(&result.check.title)
            );
            if let Some(reason) = result.verdict.reason() {
                let _ = writeln!(out, "           {}", printable(reason));
            }
            for line in &result.evidence {
                let _ = writeln!(out, "           {}", printable(line));
            }
        }
    }
    out
}
