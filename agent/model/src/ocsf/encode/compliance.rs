//! Compliance Finding, 2003.

use super::super::wire::{self, FindingInfo, Record, Unmapped};
use super::{class, some};
use crate::compliance::{Compliance, Verdict};

pub(super) fn record(compliance: &Compliance) -> Record<'_> {
    // `compliance.status_id`: 0 Unknown, 1 Pass, 2 Warning, 3 Fail, 99 Other.
    let (status_id, status) = match compliance.verdict {
        Verdict::Pass => (1, "Pass"),
        Verdict::Fail => (3, "Fail"),
        Verdict::Excepted => (2, "Warning"),
        Verdict::NotApplicable => (99, "Not applicable"),
        Verdict::Unknown => (0, "Unknown"),
    };
    let details: Vec<&str> =
        compliance.reason.iter().chain(&compliance.evidence).map(String::as_str).collect();
    let requirements: Vec<String> =
        compliance.references.iter().map(|(catalogue, place)| format!("{catalogue} {place}")).collect();
    Record {
        class_uid: Some(class::COMPLIANCE_FINDING),
        // 1: Create, 2: Update.
        activity_id: Some(if compliance.changed { 2 } else { 1 }),
        message: Some(compliance.title.as_str()),
        // 1: New.
        status_id: Some(1),
        finding_info: Some(FindingInfo {
            uid: Some(compliance.check.as_str()),
            title: Some(compliance.title.as_str()),
            ..FindingInfo::default()
        }),
        compliance: Some(wire::Compliance {
            control: Some(compliance.check.as_str()),
            category: some(&compliance.section),
            standards: Some(vec![compliance.policy.as_str()]),
            requirements: (!requirements.is_empty()).then_some(requirements),
            status_id: Some(status_id),
            status: Some(status),
            status_details: (!details.is_empty()).then_some(details),
            ..wire::Compliance::default()
        }),
        remediation: some(&compliance.remediation)
            .map(|desc| wire::Remediation { desc: Some(desc), ..wire::Remediation::default() }),
        unmapped: Some(Unmapped {
            verdict: Some(compliance.verdict.name()),
            check_severity: Some(compliance.severity.level()),
            recommendation: compliance.recommendation.as_deref(),
            ..Unmapped::default()
        }),
        ..Record::default()
    }
}
