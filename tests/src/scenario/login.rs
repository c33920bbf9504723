//! One login, which several sources tell of.

use std::time::Duration;

use crate::device::{class, Event};
use crate::error::Result;
use crate::image::{DEVICE_PASSWORD, DEVICE_USER};
use crate::lab::GUEST_V4;

use super::{expect, World};

const REPORT: Duration = Duration::from_secs(20);

pub(super) fn a_login_is_one_event(world: &mut World<'_>) -> Result<()> {
    let visitor = world.node()?;
    let source = visitor.v4.to_string();
    // With a terminal: only such a session is in utmp and wtmp.
    let mut session = visitor.session(GUEST_V4, DEVICE_USER, DEVICE_PASSWORD)?;
    session.complete("sleep 2; echo told", Duration::from_secs(60))?;
    session.type_line("exit")?;
    let machine = world.machine()?;
    let logout = machine.event("the logout is told", "\"activity_id\":2", REPORT, |event| {
        is(event, 2) && event.at("/user/name") == DEVICE_USER && event.at("/duration").as_u64() >= Some(1000)
    })?;
    let logins: Vec<Event> = machine.events(&source)?.into_iter().filter(|event| is(event, 1)).collect();
    expect(logins.len() == 1, || format!("{} events of one login: {logins:?}", logins.len()))?;
    expect(logins[0].at("/status_id") == 1 && logins[0].at("/user/name") == DEVICE_USER, || {
        format!("the login: {}; the logout: {}", logins[0].0, logout.0)
    })
}

fn is(event: &Event, activity: u64) -> bool {
    event.class() == class::AUTHENTICATION && event.at("/activity_id") == activity
}
