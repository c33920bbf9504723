//! What the agent did: Remediation Activity, 7001, Process Remediation Activity, 7003, Network Remediation Activity, 7004.

use super::{name, observables, process, Object};
use crate::ocsf::class;
use crate::remediation::{Action, Outcome, Remediation};

pub(super) fn class(done: &Remediation) -> (u32, u32) {
    // 1 Isolate, 2 Evict, 3 Restore, 99 Other.
    match done.action {
        Action::Block | Action::Restore | Action::Isolate => (class::NETWORK_REMEDIATION, 1),
        Action::Unblock | Action::EndIsolation => (class::NETWORK_REMEDIATION, 3),
        Action::Kill => (class::PROCESS_REMEDIATION, 2),
        Action::RunHook => (class::REMEDIATION, 99),
    }
}

pub(super) fn write(record: &mut Object<'_>, done: &Remediation) {
    record.said(name!("message"), &done.reason);
    let (status, code, detail) = match &done.outcome {
        Outcome::Verified => (1u8, None, None),
        Outcome::Refused(why) => (2, Some("refused"), Some(why.as_str())),
        Outcome::Failed(why) => (2, Some("failed"), Some(why.as_str())),
    };
    record.number(name!("status_id"), status);
    record.known(name!("status_code"), code);
    record.known(name!("status_detail"), detail);
    record.text(name!("command_uid"), done.finding.as_deref().unwrap_or("operator"));
    if let Some(killed) = &done.process {
        record.object(name!("process"), |object| process::ancestor(object, killed));
    }
    if !matches!(done.action, Action::Kill | Action::RunHook) {
        // 99: both directions are dropped.
        record.object(name!("connection_info"), |connection| connection.number(name!("direction_id"), 99u8));
    }
    observables(record, &[("blocked.ip", done.address)]);
    record.any(name!("unmapped"), |unmapped| {
        unmapped.counted(name!("seconds"), done.seconds);
        unmapped.known(name!("finding_uid"), done.finding.as_deref());
    });
}
