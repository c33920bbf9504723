//! What the last scan concluded, kept over restarts, and what changed since.
//!
//! The file has a line `score N` and one for each check: verdict and id. A line of another version is passed over.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use defender_model::compliance::Verdict;
use defender_model::event::Event;
use defender_model::finding::{Finding, Responses, RuleInfo};
use defender_model::order;
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_posture::report::ocsf::compliance;
use defender_posture::result::{CheckResult, Report};

use crate::small_file;

/// Longest file read, in bytes.
const LIMIT: u64 = 1 << 20;
/// The finding about a score that fell; made once for this purpose.
const DROPPED: &str = "b7f7f6a4-3c0e-4b53-9a55-5a1f0c8f2d61";
/// Checks named in its message.
const NAMED: usize = 10;

/// Verdicts by check, and the score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conclusions {
    score: Option<f32>,
    verdicts: BTreeMap<String, Verdict>,
}

impl Conclusions {
    /// Of a report.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let checks =
            report.policies.iter().flat_map(|policy| policy.checks.iter().map(move |check| (policy, check)));
        let verdicts =
            checks.map(|(policy, check)| (check.check.id.clone(), compliance(&policy.id, check).verdict));
        Self { score: report.score(), verdicts: order::map(verdicts) }
    }

    /// Reads what was kept; `None` when there is nothing to be read.
    #[must_use]
    pub fn read(file: &Path) -> Option<Self> {
        let text = String::from_utf8(small_file::read(file, LIMIT).ok()?).ok()?;
        let mut conclusions = Self::default();
        for line in text.lines() {
            let Some((word, rest)) = line.split_once(' ') else { continue };
            if word == "score" {
                conclusions.score = rest.parse().ok().filter(|score: &f32| score.is_finite());
            } else if let Some(verdict) = Verdict::from_name(word) {
                conclusions.verdicts.insert(rest.to_owned(), verdict);
            }
        }
        (!conclusions.verdicts.is_empty()).then_some(conclusions)
    }

    /// Keeps them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut text = self.score.map_or_else(String::new, |score| format!("score {score}\n"));
        for (check, verdict) in &self.verdicts {
            text.extend([verdict.name(), " ", check, "\n"]);
        }
        small_file::replace(file, text.as_bytes())
    }

    /// The events that tell what changed: each check with another verdict, and an alert when the score fell. After the first scan of a
    /// device: each check that applies.
    pub fn changes(
        &self,
        before: Option<&Self>,
        results: Vec<(String, CheckResult)>,
        now: Timestamp,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let mut worse: Vec<(Severity, String)> = Vec::new();
        for (policy, result) in results {
            let mut compliance = compliance(&policy, &result);
            let old = before.map(|before| before.verdicts.get(&compliance.check).copied());
            let told = match old {
                None => compliance.verdict != Verdict::NotApplicable,
                Some(old) => old != Some(compliance.verdict),
            };
            if !told {
                continue;
            }
            compliance.changed = old.flatten().is_some();
            if compliance.verdict == Verdict::Fail && old.is_some() {
                worse.push((compliance.severity, compliance.check.clone()));
            }
            events.push(Event::new(now, compliance.into()));
        }
        if let Some((old, new)) = before.and_then(|before| Some((before.score?, self.score?))) {
            // The score is a share of hundreds: what is less than a tenth of a point is rounding.
            if new < old - 0.05 {
                events.push(Event::new(now, dropped(old, new, worse, now).into()));
            }
        }
        events
    }
}

/// The alert about a score that fell.
fn dropped(old: f32, new: f32, mut worse: Vec<(Severity, String)>, now: Timestamp) -> Finding {
    order::sort_by(&mut worse, |a, b| b.cmp(a));
    let severity = worse.first().map_or(Severity::Medium, |(severity, _)| *severity);
    let count = worse.len();
    let mut names: Vec<&str> = worse.iter().take(NAMED).map(|(_, check)| check.as_str()).collect();
    let more = format!("{} more", count.saturating_sub(NAMED));
    if count > NAMED {
        names.push(&more);
    }
    let failing = match names.is_empty() {
        true => "no check fails that passed before; others can no longer be told".to_owned(),
        false => format!("now failing: {}", names.join(", ")),
    };
    Finding {
        uid: format!("{DROPPED}-{}", now.millis()),
        rule: Arc::new(RuleInfo {
            id: DROPPED.to_owned(),
            title: "The posture of the device got worse".to_owned(),
            description: "A scan gave the device a lower score than the one before.".to_owned(),
            replaces: vec!["IoT_Baseline".to_owned()],
            ..RuleInfo::default()
        }),
        severity,
        message: format!("the posture score fell from {old:.1} to {new:.1}; {failing}"),
        count: u32::try_from(count.max(1)).unwrap_or(u32::MAX),
        first_seen: now,
        last_seen: now,
        group: Vec::new(),
        source: None,
        destination: None,
        evidence: Vec::new(),
        response: Responses::NONE,
        update: false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use defender_model::event::EventKind;
    use defender_posture::{scan, Exceptions, Inputs, Policy, Root};

    use super::*;

    fn scanned(root: &Path) -> Report {
        let check = |id: &str, severity: &str, path: &str| {
            format!("[[check]]\nid = \"{id}\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"{severity}\"\nrationale = \"R\"\nremediation = \"M\"\nexpect = {{ file = \"{path}\", exists = false }}\n")
        };
        let text = format!(
            "[policy]\nid = \"p\"\ntitle = \"P\"\n{}{}{}",
            check("a", "high", "/a"),
            check("b", "low", "/b"),
            "[[check]]\nid = \"n\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"low\"\nrationale = \"R\"\nremediation = \"M\"\nexpect = { listen = \"any\" }\n"
        );
        let policy = Policy::parse("p.toml", text.as_bytes()).unwrap();
        scan(&Root::open(root).unwrap(), &[policy], &Exceptions::default(), &Inputs::default())
    }

    fn results(report: Report) -> Vec<(String, CheckResult)> {
        report
            .policies
            .into_iter()
            .flat_map(|p| p.checks.into_iter().map(move |c| (p.id.clone(), c)))
            .collect()
    }

    #[test]
    fn only_changes_are_told_and_a_fall_is_an_alert() {
        let root = tempfile::tempdir().unwrap();
        let kept = root.path().join("posture");
        let tell = |before: Option<&Conclusions>| {
            let report = scanned(root.path());
            let conclusions = Conclusions::of(&report);
            let events = conclusions.changes(before, results(report), Timestamp(1));
            let told: Vec<(String, bool)> = events
                .iter()
                .map(|event| match &event.kind {
                    EventKind::Compliance(c) => (format!("{} {}", c.check, c.verdict.name()), c.changed),
                    EventKind::Finding(f) => (f.message.clone(), true),
                    other => panic!("{other:?}"),
                })
                .collect();
            conclusions.write(&kept).unwrap();
            assert_eq!(Conclusions::read(&kept).as_ref(), Some(&conclusions));
            (conclusions, told)
        };
        let (first, told) = tell(None);
        assert_eq!(told, [("a pass".to_owned(), false), ("b pass".to_owned(), false)]);
        let (second, told) = tell(Some(&first));
        assert!(told.is_empty(), "{told:?}");
        fs::write(root.path().join("a"), "").unwrap();
        let (third, told) = tell(Some(&second));
        assert_eq!(
            told,
            [
                ("a fail".to_owned(), true),
                ("the posture score fell from 100.0 to 14.3; now failing: a".to_owned(), true)
            ]
        );
        fs::remove_file(root.path().join("a")).unwrap();
        let (_, told) = tell(Some(&third));
        assert_eq!(told, [("a pass".to_owned(), true)], "a rise is no alert");
    }

    #[test]
    fn a_damaged_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("posture");
        assert_eq!(Conclusions::read(&file), None);
        for text in ["", "score NaN\n", "\u{0}", "nonsense here\n"] {
            fs::write(&file, text).unwrap();
            assert_eq!(Conclusions::read(&file), None, "{text:?}");
        }
    }
}
