//! Start, confinement, death, restart, reboot, and the operator.

use std::time::Duration;

use crate::attack::Reached;
use crate::device::doubled;
use crate::error::{Error, Result};
use crate::image::DEVICE_USER;
use crate::lab::GUEST_V4;

use super::attack::assault;
use super::{expect, World};

const CONNECT: Duration = Duration::from_secs(3);
const REPORT: Duration = Duration::from_secs(15);

/// Capabilities the agent may keep: DAC_READ_SEARCH, NET_ADMIN, SYS_PTRACE, AUDIT_CONTROL, AUDIT_READ (linux/capability.h).
const ALLOWED_CAPABILITIES: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 30 | 1 << 37;
/// CAP_KILL, which the agent gives up where the configuration has no use for it.
const KILL: u64 = 1 << 5;

pub(super) fn armed_after_boot(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    machine.event("a health event says `armed`", "\"armed\"", REPORT, |e| e.is_health("", &["armed"]))?;
    let status = machine.query("status")?;
    let health = machine.dbus("GetHealth", "")?;
    expect(health.contains("armed"), || format!("GetHealth over D-Bus: {health}"))?;
    // Nothing in a healthy image may be reported as degraded; but what Landlock can do is the kernel's age.
    let degraded = machine.events("\"degraded\"")?.into_iter();
    let degraded: Vec<_> = degraded
        .filter(|e| !e.is_health("confinement landlock", &["degraded"]))
        .map(|e| e.0.to_string())
        .collect();
    expect(degraded.is_empty(), || format!("degraded in a healthy image: {degraded:?}; status {status}"))
}

pub(super) fn confinement(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let pid = machine.agent_pid()?.ok_or_else(|| Error::Unexpected("the agent does not run".into()))?;
    let text = machine.ok(&format!("cat /proc/{pid}/status"))?;
    let field = |name: &str| -> Vec<String> {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|rest| rest.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default()
    };
    // An image from elsewhere has numbers of its own.
    let ids = machine.ok("grep ^defender: /etc/passwd | cut -d: -f3,4")?;
    let (user, group) = ids.trim().split_once(':').unwrap_or_default();
    expect(user != "0" && group != "0" && field("Uid") == [user; 4] && field("Gid") == [group; 4], || {
        format!("Uid, Gid other than {ids}: {text}")
    })?;
    expect(field("NoNewPrivs") == ["1"], || format!("NoNewPrivs: {text}"))?;
    expect(field("Seccomp") == ["2"], || format!("Seccomp: {text}"))?;
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
        let bits = field(set).first().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let bits = bits.ok_or_else(|| Error::Unexpected(format!("{set} in {text}")))?;
        // The unit's bounding set leaves room for `response.kill_process`; no program started from here can take it.
        let allowed = if set == "CapBnd" { ALLOWED_CAPABILITIES | KILL } else { ALLOWED_CAPABILITIES };
        expect(bits & !allowed == 0, || format!("{set} {bits:016x} holds more than {allowed:016x}"))?;
    }
    // Every thread, not only the first: the filter of one does not bind the others.
    let threads =
        machine.ok(&format!("grep -h -e ^Seccomp: -e ^NoNewPrivs: /proc/{pid}/task/*/status | sort -u"))?;
    expect(threads.lines().count() == 2, || format!("threads differ: {threads}"))?;
    let modes =
        machine.ok("stat -c '%a %U %n' /var/log/defender/events.jsonl /var/lib/defender /run/defender")?;
    for line in modes.lines() {
        let mode = line.split(' ').next().and_then(|m| u32::from_str_radix(m, 8).ok()).unwrap_or(0o777);
        expect(mode & 0o007 == 0 && line.contains(" defender "), || format!("open to others: {modes}"))?;
    }
    Ok(())
}

pub(super) fn second_agent_refuses(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let before = machine.agent_pid()?;
    let second = machine.run("timeout 20 defender run")?;
    expect(second.status != 0 && second.status != 124 && second.status < 128, || {
        format!("the second agent: {second:?}")
    })?;
    let says = second.error.to_lowercase();
    expect(before.is_some_and(|pid| says.contains(&pid.to_string())), || {
        format!("the second agent does not say who runs: {second:?}")
    })?;
    expect(machine.agent_pid()? == before, || "the first agent changed".into())?;
    machine.wait_armed()?;
    machine.run("busybox echo first-agent-still-sees")?;
    machine
        .event("the first agent still reports", "first-agent-still-sees", REPORT, |e| {
            e.at("/process/cmd_line").as_str().is_some_and(|line| line.starts_with("busybox echo"))
        })
        .map(drop)
}

pub(super) fn operator_blocks_and_unblocks(world: &mut World<'_>) -> Result<()> {
    let node = world.node()?;
    let source = node.v4;
    let machine = world.machine()?;
    machine.ok(&format!("defender block {source}"))?;
    let stopped = node.connect(GUEST_V4, 22, CONNECT)?;
    expect(stopped == Reached::Silence, || format!("blocked by hand: {stopped:?}"))?;
    machine.ok(&format!("defender unblock {source}"))?;
    let free = node.connect(GUEST_V4, 22, CONNECT)?;
    expect(free == Reached::Open, || format!("unblocked by hand: {free:?}"))?;
    machine.dbus("Block", &format!("string:{source} uint32:60 string:validation"))?;
    let stopped = node.connect(GUEST_V4, 22, CONNECT)?;
    expect(stopped == Reached::Silence, || format!("blocked over D-Bus: {stopped:?}"))?;
    machine.dbus("Unblock", &format!("string:{source}"))?;
    let bad = machine.run("defender block 10.77.0.999")?;
    expect(bad.status == 2, || format!("a bad address: {bad:?}"))
}

pub(super) fn killed_in_mid_attack(world: &mut World<'_>) -> Result<()> {
    let (first, second) = (world.node()?, world.node()?);
    assault(world, &first, GUEST_V4)?;
    second.guess_passwords(GUEST_V4, DEVICE_USER, 2)?;
    let machine = world.machine()?;
    let old = machine.agent_pid()?.ok_or_else(|| Error::Unexpected("the agent does not run".into()))?;
    machine.ok(&format!("kill -KILL {old}"))?;
    let during = first.connect(GUEST_V4, 22, CONNECT)?;
    expect(during == Reached::Silence, || format!("while the agent is dead the block gives {during:?}"))?;
    machine.wait("init starts the agent again", Duration::from_secs(60), |machine| {
        Ok(machine.agent_pid()?.filter(|pid| *pid != old).ok_or_else(|| "no new process".to_owned()))
    })?;
    machine.wait_armed()?;
    let after = first.connect(GUEST_V4, 22, CONNECT)?;
    expect(after == Reached::Silence, || format!("after the restart the block gives {after:?}"))?;
    let blocked = machine.query("blocked")?;
    expect(blocked.to_string().contains(&first.v4.to_string()), || format!("`defender blocked`: {blocked}"))?;

    assault(world, &second, GUEST_V4)?;
    let machine = world.machine()?;
    let events = machine.events("metadata")?;
    let twice = doubled(&events);
    expect(twice.is_empty(), || format!("reported twice: {twice:?}"))?;
    let alerts = events.iter().filter(|e| e.is_alert_about(first.v4)).count();
    expect(alerts == 1, || format!("{alerts} alerts about one attack"))?;
    let log = machine.login_log();
    for node in [&first, &second] {
        // dropbear: "Bad password attempt"; sshd: "Failed password".
        let lines = machine
            .run(&format!("grep -c -e 'Bad password.*{0}[: ]' -e 'Failed password.*{0} ' {log}", node.v4))?;
        let lines: usize = lines.output.trim().parse().unwrap_or_default();
        let reported = events.iter().filter(|e| e.is_failed_login_from(node.v4)).count();
        expect(reported <= lines, || {
            format!("{reported} failures of {} reported, {lines} happened", node.v4)
        })?;
    }
    Ok(())
}

pub(super) fn blocks_survive_a_reboot(world: &mut World<'_>) -> Result<()> {
    let (attacker, bystander) = (world.node()?, world.node()?);
    assault(world, &attacker, GUEST_V4)?;
    let seconds = |element: serde_json::Value| element["expires"].as_u64();
    let machine = world.machine()?;
    let before = machine.blocked_in_kernel(attacker.v4)?.and_then(seconds);
    world.reboot()?;
    world.machine()?.wait_armed()?;
    let machine = world.machine()?;
    let after = machine.wait("the block is restored", REPORT, |machine| {
        Ok(machine.blocked_in_kernel(attacker.v4)?.ok_or_else(|| "not in the set".to_owned()))
    })?;
    let after = seconds(after);
    expect(matches!((before, after), (Some(b), Some(a)) if a < b && a > 0), || {
        format!("time left before {before:?} s, after {after:?} s")
    })?;
    let reached = attacker.connect(GUEST_V4, 22, CONNECT)?;
    expect(reached == Reached::Silence, || format!("after the reboot the attacker gets {reached:?}"))?;
    let other = bystander.connect(GUEST_V4, 22, CONNECT)?;
    expect(other == Reached::Open, || format!("after the reboot another host gets {other:?}"))?;
    let events = machine.events("metadata")?;
    expect(doubled(&events).is_empty(), || format!("reported twice: {:?}", doubled(&events)))?;
    let restored = events.iter().any(|e| {
        e.is_health("firewall", &["changed"])
            && e.at("/unmapped/counters/restored").as_u64().is_some_and(|n| n > 0)
    });
    expect(restored, || "the restore is not reported".into())
}
