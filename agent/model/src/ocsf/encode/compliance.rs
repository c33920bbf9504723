//! Compliance Finding, 2003.

use super::{name, Object};
use crate::compliance::{Compliance, Verdict};
use crate::ocsf::class;

pub(super) fn class(compliance: &Compliance) -> (u32, u32) {
    // 1: Create, 2: Update.
    (class::COMPLIANCE_FINDING, if compliance.changed { 2 } else { 1 })
}

pub(super) fn write(record: &mut Object<'_>, compliance: &Compliance) {
    // `compliance.status_id`: 0 Unknown, 1 Pass, 2 Warning, 3 Fail, 99 Other.
    let (status_id, status) = match compliance.verdict {
        Verdict::Pass => (1u8, "Pass"),
        Verdict::Fail => (3, "Fail"),
        Verdict::Excepted => (2, "Warning"),
        Verdict::NotApplicable => (99, "Not applicable"),
        Verdict::Unknown => (0, "Unknown"),
    };
    record.text(name!("message"), &compliance.title);
    // 1: New.
    record.number(name!("status_id"), 1u8);
    record.object(name!("finding_info"), |info| {
        info.text(name!("uid"), &compliance.check);
        info.text(name!("title"), &compliance.title);
    });
    record.object(name!("compliance"), |object| {
        object.text(name!("control"), &compliance.check);
        object.said(name!("category"), &compliance.section);
        object.texts(name!("standards"), &mut [compliance.policy.as_str()].into_iter());
        let requirements: Vec<String> =
            compliance.references.iter().map(|(catalogue, place)| format!("{catalogue} {place}")).collect();
        object.texts(name!("requirements"), &mut requirements.iter().map(String::as_str));
        object.number(name!("status_id"), status_id);
        object.text(name!("status"), status);
        let details = compliance.reason.iter().chain(&compliance.evidence);
        object.texts(name!("status_details"), &mut details.map(String::as_str));
    });
    record.any(name!("remediation"), |remediation| remediation.said(name!("desc"), &compliance.remediation));
    record.object(name!("unmapped"), |unmapped| {
        unmapped.text(name!("verdict"), compliance.verdict.name());
        unmapped.text(name!("check_severity"), compliance.severity.level());
        unmapped.known(name!("recommendation"), compliance.recommendation.as_deref());
    });
}
