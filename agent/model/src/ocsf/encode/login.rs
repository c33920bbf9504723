//! Authentication, 3002.

use super::{name, source, user, Object};
use crate::authentication::{Activity, Authentication, Outcome};
use crate::ocsf::class;

pub(super) fn class(attempt: &Authentication) -> (u32, u32) {
    let activity = match attempt.activity {
        Activity::Logon => 1,
        Activity::Logoff => 2,
        Activity::AccountSwitch => 7,
    };
    (class::AUTHENTICATION, activity)
}

pub(super) fn write(record: &mut Object<'_>, attempt: &Authentication) {
    record.said(name!("message"), &attempt.message);
    record.counted(name!("count"), (attempt.count > 1).then_some(attempt.count));
    let status = match attempt.outcome {
        Outcome::Success => 1u8,
        Outcome::Failure => 2,
    };
    record.number(name!("status_id"), status);
    // 2 Interactive, 3 Network.
    record.number(name!("logon_type_id"), if attempt.source.is_some() { 3u8 } else { 2 });
    record.flag(name!("is_remote"), attempt.source.is_some());
    if let Some(pid) = attempt.pid {
        record.object(name!("actor"), |actor| {
            actor.object(name!("process"), |process| process.number(name!("pid"), pid));
        });
    }
    user(record, name!("user"), None, Some(attempt.user.as_deref().unwrap_or("")));
    record.object(name!("service"), |service| service.text(name!("name"), &attempt.service));
    record.any(name!("session"), |session| session.known(name!("terminal"), attempt.tty.as_deref()));
    record.counted(name!("duration"), attempt.duration_ms);
    source(record, attempt);
    record.any(name!("unmapped"), |unmapped| {
        unmapped.known(name!("method"), attempt.method.as_deref());
        if let Some(known) = attempt.user_known {
            unmapped.flag(name!("user_known"), known);
        }
    });
}
