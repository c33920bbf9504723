//! Authentication, 3002.

use super::{source, user, Object};
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
    record.said("message", &attempt.message);
    record.counted("count", (attempt.count > 1).then_some(attempt.count));
    let status = match attempt.outcome {
        Outcome::Success => 1u8,
        Outcome::Failure => 2,
    };
    record.number("status_id", status);
    // 2 Interactive, 3 Network.
    record.number("logon_type_id", if attempt.source.is_some() { 3u8 } else { 2 });
    record.flag("is_remote", attempt.source.is_some());
    if let Some(pid) = attempt.pid {
        record.object("actor", |actor| actor.object("process", |process| process.number("pid", pid)));
    }
    user(record, "user", None, Some(attempt.user.as_deref().unwrap_or("")));
    record.object("service", |service| service.text("name", &attempt.service));
    record.any("session", |session| session.known("terminal", attempt.tty.as_deref()));
    record.counted("duration", attempt.duration_ms);
    source(record, attempt);
    record.any("unmapped", |unmapped| {
        unmapped.known("method", attempt.method.as_deref());
        if let Some(known) = attempt.user_known {
            unmapped.flag("user_known", known);
        }
    });
}
