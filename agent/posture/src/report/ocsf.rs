//! JSON lines: each check an OCSF Compliance Finding, as the agent sends it too.

use defender_model::compliance::{Compliance, Verdict};
use defender_model::event::Event;
use defender_model::identity::DeviceIdentity;
use defender_model::ocsf;

use crate::result::{self, CheckResult, Report};

/// The report as JSON lines, numbered from 1, about the device or image that `device` names.
#[must_use]
pub fn write(report: &Report, device: &DeviceIdentity) -> String {
    let (mut encoder, mut out) = (ocsf::Encoder::new(device), Vec::new());
    let all = report.policies.iter().flat_map(|policy| policy.checks.iter().map(|check| (&policy.id, check)));
    for (sequence, (policy, result)) in (1..).zip(all) {
        let mut event = Event::new(report.time, compliance(policy, result).into());
        event.sequence = sequence;
        encoder.encode(&event, &mut out);
        out.push(b'\n');
    }
    // JSON that serde wrote is UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

/// What a check concluded as the agent's own event.
#[must_use]
pub fn compliance(policy: &str, result: &CheckResult) -> Compliance {
    let check = &result.check;
    let reason = match (&result.verdict, &result.exception) {
        (_, Some(exception)) if exception.expired => {
            Some(format!("the exception of {} expired on {}", exception.owner, exception.expires))
        }
        (_, Some(exception)) => {
            Some(format!("{} ({}, until {})", exception.reason, exception.owner, exception.expires))
        }
        (verdict, None) => verdict.reason().map(str::to_owned),
    };
    Compliance {
        policy: policy.to_owned(),
        check: check.id.clone(),
        title: check.title.clone(),
        section: check.section.clone(),
        verdict: match result.verdict {
            result::Verdict::Pass => Verdict::Pass,
            result::Verdict::Fail => Verdict::Fail,
            result::Verdict::NotApplicable(_) => Verdict::NotApplicable,
            result::Verdict::Unknown(_) => Verdict::Unknown,
            result::Verdict::Excepted => Verdict::Excepted,
        },
        severity: check.severity,
        reason,
        evidence: result.evidence.clone(),
        remediation: check.remediation.clone(),
        references: check.references.clone(),
        recommendation: check.finding.clone(),
        changed: false,
    }
}
