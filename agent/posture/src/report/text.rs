//! Plain text for a terminal: what failed and what could not be told, by section, and the score.

use std::fmt::Write as _;

use defender_model::severity::Severity;
use defender_model::text::printable;

use super::by_section;
use crate::result::{CheckResult, Report, Verdict};

/// Narrowest width lines are broken at.
const NARROWEST: usize = 40;

/// How the text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Columns lines are broken at.
    pub width: usize,
    /// The reader is a terminal that takes colours (ECMA-48, SGR).
    pub colour: bool,
    /// Name what passed and what does not apply, too.
    pub all: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { width: 100, colour: false, all: false }
    }
}

/// The report as text. Everything from the scanned root is made safe for a terminal.
#[must_use]
pub fn write(report: &Report, layout: Layout) -> String {
    let mut page = Page { out: String::new(), layout };
    for policy in &report.policies {
        page.line(0, "1", &format!("{}: {}", policy.title, words(policy.score)));
        for (section, checks) in by_section(policy) {
            let shown: Vec<_> = checks.into_iter().filter(|result| layout.all || counts(result)).collect();
            if shown.is_empty() {
                continue;
            }
            page.line(2, "4", section);
            shown.into_iter().for_each(|result| page.check(result));
        }
        let count = |name: &str| policy.checks.iter().filter(|r| r.verdict.name() == name).count();
        let totals = format!(
            "{} passed, {} failed, {} excepted, {} not applicable, {} cannot be told",
            count("pass"),
            count("fail"),
            count("excepted"),
            count("not_applicable"),
            count("unknown")
        );
        page.line(2, "", &totals);
        page.out.push('\n');
    }
    page.line(0, "1", &format!("Total: {}", words(report.score())));
    page.out
}

fn words(score: Option<f32>) -> String {
    score.map_or_else(|| "nothing could be judged".to_owned(), |score| format!("score {score:.1} of 100"))
}

/// What a reader must see: everything but what is well and what does not apply.
fn counts(result: &CheckResult) -> bool {
    !matches!(result.verdict, Verdict::Pass | Verdict::NotApplicable(_))
}

struct Page {
    out: String,
    layout: Layout,
}

impl Page {
    fn check(&mut self, result: &CheckResult) {
        let check = &result.check;
        let (mark, colour) = match (&result.verdict, check.severity) {
            (Verdict::Fail, Severity::Critical | Severity::High) => ("FAIL", "1;31"),
            (Verdict::Fail, _) => ("FAIL", "31"),
            (Verdict::Unknown(_), _) => ("?", "33"),
            (Verdict::Excepted, _) => ("excepted", "35"),
            (Verdict::Pass, _) => ("pass", "32"),
            (Verdict::NotApplicable(_), _) => ("n/a", "2"),
        };
        self.line(4, colour, &format!("{mark} {}: {} [{}]", check.severity, check.title, check.id));
        if let Some(reason) = result.verdict.reason() {
            self.line(6, "", reason);
        }
        if let Some(exception) = &result.exception {
            let until = if exception.expired { "exception expired on" } else { "exception until" };
            let text = format!("{until} {} ({}): {}", exception.expires, exception.owner, exception.reason);
            self.line(6, "", &text);
        }
        for line in &result.evidence {
            self.line(6, "", line);
        }
        if result.verdict == Verdict::Fail {
            self.line(6, "2", &check.remediation);
        }
    }

    /// One paragraph, broken at blanks.
    fn line(&mut self, indent: usize, colour: &str, text: &str) {
        let colour = if self.layout.colour { colour } else { "" };
        let room = self.layout.width.max(NARROWEST) - indent;
        let text = printable(text);
        let mut row = String::new();
        let mut used = 0;
        for word in text.split(' ') {
            let long = word.chars().count();
            if used > 0 && used + 1 + long > room {
                self.row(indent, colour, &row);
                row.clear();
                used = 0;
            }
            if used > 0 {
                row.push(' ');
                used += 1;
            }
            row.push_str(word);
            used += long;
        }
        self.row(indent, colour, &row);
    }

    fn row(&mut self, indent: usize, colour: &str, text: &str) {
        // Writing to a String cannot fail.
        let _ = if colour.is_empty() {
            writeln!(self.out, "{:indent$}{text}", "")
        } else {
            writeln!(self.out, "{:indent$}\u{1b}[{colour}m{text}\u{1b}[0m", "")
        };
    }
}
