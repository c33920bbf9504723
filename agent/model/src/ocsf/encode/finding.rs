//! Detection Finding, 2004.

use super::{observables, observed, process, source, user, Object};
use crate::finding::{Evidence, Finding, RuleInfo};
use crate::ocsf::class;
use crate::text::truncate;

/// Bytes of a command line that a finding carries.
const COMMAND_LINE: usize = 16 << 10;

pub(super) fn class(finding: &Finding) -> (u32, u32) {
    // 1: Create, 2: Update.
    (class::DETECTION_FINDING, if finding.update { 2 } else { 1 })
}

pub(super) fn write(record: &mut Object<'_>, finding: &Finding) {
    let rule = &*finding.rule;
    record.text("message", &finding.message);
    record.number("count", finding.count);
    record.flag("is_alert", true);
    // 1: New.
    record.number("status_id", 1u8);
    record.object("finding_info", |info| {
        info.text("uid", &finding.uid);
        info.text("title", &rule.title);
        info.said("desc", &rule.description);
        info.object("analytic", |analytic| {
            // 1: Rule.
            analytic.number("type_id", 1u8);
            analytic.text("uid", &rule.id);
            analytic.text("name", &rule.title);
        });
        attacks(info, rule);
        info.signed("first_seen_time", finding.first_seen.millis());
        info.signed("last_seen_time", finding.last_seen.millis());
    });
    record.list("evidences", |evidences| {
        for evidence in &finding.evidence {
            evidences.object(|object| self::evidence(object, evidence));
        }
    });
    let named =
        [("evidences.src_endpoint.ip", finding.source), ("evidences.dst_endpoint.ip", finding.destination)];
    observables(record, &named);
    record.object("unmapped", |unmapped| {
        unmapped.shown("response", &finding.response);
        unmapped.pairs("group", &finding.group);
        unmapped.texts("replaces", &mut rule.replaces.iter().map(String::as_str));
    });
}

fn evidence(object: &mut Object<'_>, evidence: &Evidence) {
    match evidence {
        Evidence::Process(subject) => object.object("process", |described| {
            process::described(described, subject, truncate(&subject.command_line(), COMMAND_LINE));
            process::lineage(described, subject.parent.as_deref());
        }),
        Evidence::Authentication(attempt) => {
            user(object, "user", None, Some(attempt.user.as_deref().unwrap_or("")));
            source(object, attempt);
            object.object("data", |data| {
                data.text("service", &attempt.service);
                data.text("message", &attempt.message);
            });
        }
        Evidence::Observed(kind) => observed::evidence(object, kind),
    }
}

/// ATT&CK references of a rule. A tactic is tied to a technique only where the rule leaves no doubt: it names just one.
fn attacks(info: &mut Object<'_>, rule: &RuleInfo) {
    let only = match rule.tactics.as_slice() {
        [one] => Some(one),
        _ => None,
    };
    info.list("attacks", |attacks| {
        for id in &rule.techniques {
            attacks.object(|attack| {
                if let Some(tactic) = only {
                    attack.object("tactic", |label| label.text("name", tactic));
                }
                let base = id.split('.').next().unwrap_or(id);
                attack.object("technique", |label| label.text("uid", base));
                if base != id {
                    attack.object("sub_technique", |label| label.text("uid", id));
                }
            });
        }
        if rule.techniques.is_empty() || only.is_none() {
            for tactic in &rule.tactics {
                attacks.object(|attack| attack.object("tactic", |label| label.text("name", tactic)));
            }
        }
    });
}
