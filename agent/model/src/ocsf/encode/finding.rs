//! Detection Finding, 2004.

use super::{name, observables, observed, process, source, user, Object};
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
    record.text(name!("message"), &finding.message);
    record.number(name!("count"), finding.count);
    record.flag(name!("is_alert"), true);
    // 1: New.
    record.number(name!("status_id"), 1u8);
    record.object(name!("finding_info"), |info| {
        info.text(name!("uid"), &finding.uid);
        info.text(name!("title"), &rule.title);
        info.said(name!("desc"), &rule.description);
        info.object(name!("analytic"), |analytic| {
            // 1: Rule.
            analytic.number(name!("type_id"), 1u8);
            analytic.text(name!("uid"), &rule.id);
            analytic.text(name!("name"), &rule.title);
        });
        attacks(info, rule);
        info.signed(name!("first_seen_time"), finding.first_seen.millis());
        info.signed(name!("last_seen_time"), finding.last_seen.millis());
    });
    record.list(name!("evidences"), |evidences| {
        for evidence in &finding.evidence {
            evidences.object(|object| self::evidence(object, evidence));
        }
    });
    let named =
        [("evidences.src_endpoint.ip", finding.source), ("evidences.dst_endpoint.ip", finding.destination)];
    observables(record, &named);
    record.object(name!("unmapped"), |unmapped| {
        unmapped.shown(name!("response"), &finding.response);
        unmapped.pairs(name!("group"), &finding.group);
        unmapped.texts(name!("replaces"), &mut rule.replaces.iter().map(String::as_str));
    });
}

fn evidence(object: &mut Object<'_>, evidence: &Evidence) {
    match evidence {
        Evidence::Process(subject) => object.object(name!("process"), |described| {
            process::described(described, subject, truncate(&subject.command_line(), COMMAND_LINE));
            process::lineage(described, subject.parent.as_deref());
        }),
        Evidence::Authentication(attempt) => {
            user(object, name!("user"), None, Some(attempt.user.as_deref().unwrap_or("")));
            source(object, attempt);
            object.object(name!("data"), |data| {
                data.text(name!("service"), &attempt.service);
                data.text(name!("message"), &attempt.message);
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
    info.list(name!("attacks"), |attacks| {
        for id in &rule.techniques {
            attacks.object(|attack| {
                if let Some(tactic) = only {
                    attack.object(name!("tactic"), |label| label.text(name!("name"), tactic));
                }
                let base = id.split('.').next().unwrap_or(id);
                attack.object(name!("technique"), |label| label.text(name!("uid"), base));
                if base != id {
                    attack.object(name!("sub_technique"), |label| label.text(name!("uid"), id));
                }
            });
        }
        if rule.techniques.is_empty() || only.is_none() {
            for tactic in &rule.tactics {
                attacks.object(|attack| {
                    attack.object(name!("tactic"), |label| label.text(name!("name"), tactic));
                });
            }
        }
    });
}
