//! One login, which several sources tell of.

use std::time::Duration;

use serde_json::Value;

use crate::device::{class, Event};
use crate::error::Result;
use crate::image::{DEVICE_PASSWORD, DEVICE_USER};
use crate::lab::{Node, GUEST_V4};
use crate::qemu::Machine;

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

/// What of Debian's rsyslog lies in `/etc/systemd/system`; in an image without it there is nothing.
const RSYSLOG: &str = "syslog.service multi-user.target.wants/rsyslog.service";
const UNITS: &str = "/run/validation-units";

pub(super) fn journald_alone(world: &mut World<'_>) -> Result<()> {
    let visitor = world.node()?;
    let machine = world.machine()?;
    machine.ok(&format!(
        "cp -a /etc/systemd/system {UNITS} && (cd {UNITS} && rm {RSYSLOG}) && mount --bind {UNITS} /etc/systemd/system"
    ))?;
    let result =
        in_turn(machine, &["systemctl stop syslog.socket rsyslog", "systemctl daemon-reload", RESTART])
            .and_then(|()| logs_in_without_rsyslog(machine, &visitor));
    let remove = format!("umount /etc/systemd/system && rm -r {UNITS}");
    in_turn(
        machine,
        &["systemctl stop defender", &remove, "systemctl daemon-reload", "systemctl start rsyslog", RESTART],
    )?;
    machine.wait_armed()?;
    result?;
    let status = machine.query("status")?;
    expect(!takes_messages(&status), || {
        format!("beside rsyslog the agent takes its socket: {}", status["logins"])
    })
}

fn takes_messages(status: &Value) -> bool {
    status["logins"]["modes"].to_string().contains("syslog datagrams")
}

const RESTART: &str = "systemctl restart defender";

/// Each with the time that a command has.
fn in_turn(machine: &mut Machine, commands: &[&str]) -> Result<()> {
    commands.iter().try_for_each(|command| machine.ok(command).map(drop))
}

fn logs_in_without_rsyslog(machine: &mut Machine, visitor: &Node) -> Result<()> {
    machine.wait_armed()?;
    let status = machine.query("status")?;
    expect(takes_messages(&status), || format!("the agent has no socket: {}", status["logins"]))?;
    visitor.ssh(GUEST_V4, DEVICE_USER, DEVICE_PASSWORD, 1, "true")?;
    // The port is in sshd's line only.
    machine
        .event("the login", &visitor.v4.to_string(), REPORT, |event| {
            is(event, 1)
                && event.at("/status_id") == 1
                && event.at("/src_endpoint/port").as_u64() > Some(0)
                && event.at("/user/name") == DEVICE_USER
        })
        .map(drop)
}

fn is(event: &Event, activity: u64) -> bool {
    event.class() == class::AUTHENTICATION && event.at("/activity_id") == activity
}
