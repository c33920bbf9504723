//! What changed between two scans, from their JSON lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use defender_model::compliance::Verdict;
use defender_model::order;
use defender_model::severity::Severity;
use defender_model::text::printable;
use serde_json::{json, Value};

use crate::result::weight;

/// Most checks of a report that are read.
const MOST: usize = 20_000;

/// What is kept of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// Title of the check.
    pub title: String,
    /// The verdict.
    pub verdict: Verdict,
    /// How bad it is when it fails.
    pub severity: Severity,
    /// Reason and evidence.
    pub details: Vec<String>,
}

/// The conclusions of a scan by check id.
pub type Conclusions = BTreeMap<String, Conclusion>;

/// Why a report cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl core::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "line {}: {}; compare files that `defender posture --format json` wrote",
            self.line, self.why
        )
    }
}

impl std::error::Error for Unreadable {}

/// Reads JSON lines of `defender posture --format json`. Other events among them, as in an event file, are passed over; of two
/// conclusions about a check the later one counts.
///
/// # Errors
/// A line that is not JSON or a compliance finding that lacks something, and a file without any.
pub fn read(bytes: &[u8]) -> Result<Conclusions, Unreadable> {
    let mut all = Conclusions::new();
    for (number, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
        if line.is_empty() {
            continue;
        }
        let wrong = |why: String| Unreadable { line: number, why };
        let value: Value =
            serde_json::from_slice(line).map_err(|error| wrong(format!("not JSON: {error}")))?;
        if value["class_uid"] != 2003 {
            continue;
        }
        let text = |value: &Value, name: &str| {
            value[name].as_str().map(str::to_owned).ok_or_else(|| wrong(format!("`{name}` is missing")))
        };
        let word = text(&value["unmapped"], "verdict")?;
        let level = text(&value["unmapped"], "check_severity")?;
        let conclusion = Conclusion {
            title: text(&value["finding_info"], "title")?,
            verdict: Verdict::from_name(&word)
                .ok_or_else(|| wrong(format!("no verdict is called `{word}`")))?,
            severity: Severity::from_level(&level)
                .ok_or_else(|| wrong(format!("no severity is called `{level}`")))?,
            details: value["compliance"]["status_details"]
                .as_array()
                .map(|lines| lines.iter().filter_map(|l| l.as_str().map(str::to_owned)).collect())
                .unwrap_or_default(),
        };
        all.insert(text(&value["finding_info"], "uid")?, conclusion);
        if all.len() > MOST {
            return Err(wrong(format!("more than {MOST} checks")));
        }
    }
    if all.is_empty() {
        return Err(Unreadable { line: 1, why: "no compliance finding in the file".to_owned() });
    }
    Ok(all)
}

/// What changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Checks whose verdict changed, that are new or gone: id, before, after.
    pub changes: Vec<(String, Option<Conclusion>, Option<Conclusion>)>,
    /// Scores before and after.
    pub scores: (Option<f32>, Option<f32>),
}

/// Compares two scans.
#[must_use]
pub fn compare(before: &Conclusions, after: &Conclusions) -> Difference {
    let mut ids: Vec<&String> = before.keys().chain(after.keys()).collect();
    order::sort(&mut ids);
    ids.dedup();
    let changes = ids
        .into_iter()
        .filter_map(|id| {
            let (old, new) = (before.get(id), after.get(id));
            let verdict = |c: Option<&Conclusion>| c.map(|c| c.verdict);
            (verdict(old) != verdict(new)).then(|| (id.clone(), old.cloned(), new.cloned()))
        })
        .collect();
    Difference { changes, scores: (score(before), score(after)) }
}

fn score(conclusions: &Conclusions) -> Option<f32> {
    let (mut good, mut all) = (0, 0);
    for conclusion in conclusions.values() {
        let weight = weight(conclusion.severity);
        match conclusion.verdict {
            Verdict::Pass | Verdict::Excepted => (good, all) = (good + weight, all + weight),
            Verdict::Fail => all += weight,
            Verdict::NotApplicable | Verdict::Unknown => {}
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "both are far below 2^24")]
    (all > 0).then(|| 100.0 * good as f32 / all as f32)
}

impl Difference {
    /// Nothing became worse: no check fails or cannot be told that was well or absent before.
    #[must_use]
    pub fn is_no_worse(&self) -> bool {
        let bad = |c: &Option<Conclusion>| {
            c.as_ref().is_some_and(|c| matches!(c.verdict, Verdict::Fail | Verdict::Unknown))
        };
        self.changes.iter().all(|(_, before, after)| !bad(after) || bad(before))
    }

    /// A line a change, worst first, and the scores.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut changes: Vec<_> = self.changes.iter().collect();
        let badness = |c: &Option<Conclusion>| match c {
            Some(c) if c.verdict == Verdict::Fail => Some(c.severity),
            _ => None,
        };
        order::sort_by_key(&mut changes, |(_, _, after)| std::cmp::Reverse(badness(after)));
        let word = |c: &Option<Conclusion>| c.as_ref().map_or("absent", |c| c.verdict.name());
        // Writing to a String cannot fail.
        for (id, before, after) in changes {
            let Some(either) = after.as_ref().or(before.as_ref()) else { continue };
            let _ = writeln!(
                out,
                "{} -> {}  {} {} [{}]",
                word(before),
                word(after),
                either.severity,
                printable(&either.title),
                printable(id)
            );
            for line in after.iter().flat_map(|c| &c.details) {
                let _ = writeln!(out, "    {}", printable(line));
            }
        }
        let shown = |score: Option<f32>| score.map_or_else(|| "-".to_owned(), |score| format!("{score:.1}"));
        let _ = writeln!(out, "score {} -> {}", shown(self.scores.0), shown(self.scores.1));
        out
    }

    /// The same as one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        let side = |c: &Option<Conclusion>| {
            c.as_ref().map_or(Value::Null, |c| json!({ "verdict": c.verdict.name(), "details": c.details }))
        };
        let changes: Vec<Value> = self
            .changes
            .iter()
            .map(|(id, before, after)| json!({ "check": id, "before": side(before), "after": side(after) }))
            .collect();
        json!({ "changes": changes, "score_before": self.scores.0, "score_after": self.scores.1 }).to_string()
    }
}
