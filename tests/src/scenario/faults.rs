//! What breaks around the agent, and what it has to do then.

use std::time::Duration;

use crate::attack::Reached;
use crate::device::class;
use crate::error::{Error, Result};
use crate::image::{Flavour, DEVICE_USER};
use crate::lab::GUEST_V4;
use crate::qemu::Machine;

use super::attack::{assault, MANY};
use super::{configuration, expect, World};

const CONNECT: Duration = Duration::from_secs(3);
const REPORT: Duration = Duration::from_secs(15);
/// Sensors and sinks come back with a growing delay.
const RECOVERY: Duration = Duration::from_secs(60);

pub(super) fn syslogd_restarts(world: &mut World<'_>) -> Result<()> {
    let attacker = world.node()?;
    let machine = world.machine()?;
    let pid = machine.agent_pid()?;
    machine.service("rsyslog", "S01syslogd", "restart")?;
    machine.event("the restart of the service is told", "\"service\"", REPORT, |e| {
        // 5: Restart (OCSF class 6002).
        e.at("/unmapped/kind") == "service"
            && e.at("/activity_id") == 5
            && e.at("/app/name").as_str().is_some_and(|name| name.contains("syslog"))
    })?;
    assault(world, &attacker, GUEST_V4)?;
    let machine = world.machine()?;
    let log = machine.system_log();
    let source = attacker.v4;
    machine.wait("the alert arrives at the new syslog daemon", RECOVERY, |machine| {
        let lines = machine.run(&format!("grep -F defender {log} | grep -F {source}"))?.output;
        Ok(if lines.is_empty() { Err("no line".to_owned()) } else { Ok(()) })
    })?;
    expect(machine.agent_pid()? == pid, || "the agent was restarted".into())
}

pub(super) fn dbus_restarts(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let pid = machine.agent_pid()?;
    machine.ok("kill -KILL $(pidof dbus-daemon)")?;
    machine.run("busybox echo seen-without-a-bus")?;
    machine
        .event("events go on without a bus", "seen-without-a-bus", REPORT, |e| e.class() == class::PROCESS)?;
    machine.service("dbus", "S30dbus", "start")?;
    machine.wait("the agent is back on the bus", RECOVERY, |machine| {
        Ok(machine.dbus("GetHealth", "").map(drop).map_err(|error| error.to_string()))
    })?;
    expect(machine.agent_pid()? == pid, || "the agent was restarted".into())
}

pub(super) fn nft_missing(world: &mut World<'_>) -> Result<()> {
    let attacker = world.node()?;
    let source = attacker.v4;
    let machine = world.machine()?;
    machine.ok("nft=$(readlink -f $(command -v nft)) && mount --bind /dev/null $nft && echo $nft >/run/validation-nft")?;
    attacker.guess_passwords(GUEST_V4, DEVICE_USER, MANY)?;
    let machine = world.machine()?;
    let alert = machine
        .event("the alert goes out all the same", &source.to_string(), REPORT, |e| e.is_alert_about(source));
    let failed = machine.event("the block is reported as failed", &source.to_string(), RECOVERY, |e| {
        e.class() == class::REMEDIATION && e.at("/status_id") == 2
    });
    machine.ok("umount $(cat /run/validation-nft) && rm /run/validation-nft")?;
    alert?;
    let failed = failed?;
    expect(failed.at("/status_detail").as_str().is_some_and(|d| d.contains("nft")), || {
        format!("without a cause: {}", failed.0)
    })?;
    let next = world.node()?;
    assault(world, &next, GUEST_V4).map(drop)
}

pub(super) fn clock_jumps(world: &mut World<'_>) -> Result<()> {
    let (blocked, forward, back) = (world.node()?, world.node()?, world.node()?);
    assault(world, &blocked, GUEST_V4)?;
    let machine = world.machine()?;
    let pid = machine.agent_pid()?;
    // What the first time synchronisation of a device without a clock does, and its reverse.
    machine.ok("date -s @$(($(date +%s) + 31536000))")?;
    let still = blocked.connect(GUEST_V4, 22, CONNECT)?;
    let after_forward = assault(world, &forward, GUEST_V4);
    let machine = world.machine()?;
    machine.ok("date -s @$(($(date +%s) - 31536000))")?;
    let after_back = assault(world, &back, GUEST_V4);
    for (direction, figure) in [("forward", "forward_ms"), ("back", "back_ms")] {
        // Receivers learn how far off earlier times are.
        world.machine()?.event(&format!("the clock's step {direction} is told"), figure, REPORT, |e| {
            e.is_health("clock", &["changed"])
                && e.at("/unmapped/counters")
                    .get(figure)
                    .and_then(serde_json::Value::as_u64)
                    .is_some_and(|ms| ms.abs_diff(31_536_000_000) < 10_000)
        })?;
    }
    expect(still == Reached::Silence, || format!("a year later the block gives {still:?}"))?;
    after_forward.and(after_back)?;
    let machine = world.machine()?;
    expect(machine.agent_pid()? == pid, || "the agent was restarted".into())
}

pub(super) fn bad_configuration(world: &mut World<'_>) -> Result<()> {
    let file = "conf.d/99-validation.toml";
    configuration::with(world, file, "no_such_key_validation = 1\n", |world| {
        let machine = world.machine()?;
        let check = machine.run("defender config check")?;
        expect(check.status == 2 && check.error.contains("no_such_key_validation"), || {
            format!("config check: {check:?}")
        })?;
        let said = machine.event("a health event names the key", "no_such_key_validation", REPORT, |e| {
            e.is_health("config", &["degraded"])
        })?;
        expect(said.0.to_string().contains("99-validation.toml"), || {
            format!("without the file: {}", said.0)
        })?;
        let log = machine.system_log();
        machine.wait("syslog says so as well", REPORT, |machine| {
            let lines = machine.run(&format!("grep -F no_such_key_validation {log}"))?;
            Ok(if lines.status == 0 { Ok(()) } else { Err("no line".to_owned()) })
        })?;
        let attacker = world.node()?;
        assault(world, &attacker, GUEST_V4).map(drop)
    })
}

pub(super) fn bad_rule(world: &mut World<'_>) -> Result<()> {
    let broken = "title: broken\ndetection: [unclosed\n";
    configuration::with(world, "rules/broken-validation.yml", broken, |world| {
        world.machine()?.event(
            "a health event names the rule file",
            "broken-validation.yml",
            REPORT,
            |e| e.is_health("rules", &["degraded"]),
        )?;
        let attacker = world.node()?;
        assault(world, &attacker, GUEST_V4).map(drop)
    })
}

pub(super) fn auditd_comes_and_goes(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    if machine.flavour() != Flavour::Systemd || machine.run("command -v auditd")?.status != 0 {
        return Err(Error::Skipped("the image has no auditd".into()));
    }
    let pid = machine.agent_pid()?;
    source_becomes(machine, &["audit"])?;
    // A rule of somebody else's, which has to live through all of this.
    let foreign = "-w /etc/hosts -p wa -k validation";
    machine.ok(&format!("auditctl {foreign}"))?;
    // While the agent is registered, auditd's first attempt to register may be refused; the agent steps aside.
    machine.wait("auditd starts", RECOVERY, |machine| {
        let started = machine.run("systemctl reset-failed auditd; systemctl start auditd")?;
        Ok(if started.status == 0 { Ok(()) } else { Err(started.error) })
    })?;
    source_becomes(machine, &["audit-multicast"])?;
    sees(machine, "seen-beside-auditd")?;
    machine.ok("systemctl kill --signal=KILL auditd; systemctl stop auditd")?;
    source_becomes(machine, &["audit"])?;
    sees(machine, "seen-after-auditd")?;
    let changes =
        machine.events("\"changed\"")?.into_iter().filter(|e| e.is_health("process", &["changed"])).count();
    expect(changes >= 2, || format!("{changes} changes of the process source reported, 2 happened"))?;
    let rules = machine.ok("auditctl -l")?;
    machine.ok("auditctl -W /etc/hosts -p wa -k validation")?;
    expect(rules.contains(foreign), || format!("the foreign rule is gone: {rules}"))?;
    expect(rules.contains("key=defender"), || format!("the agent's own rules are gone: {rules}"))?;
    expect(machine.agent_pid()? == pid, || "the agent was restarted".into())
}

/// Until the agent says over D-Bus that process events come from there.
/// Waits until `ProcessSource` on D-Bus is one of these.
pub(super) fn source_becomes(machine: &mut Machine, names: &[&str]) -> Result<()> {
    machine.wait(&format!("the process source is {}", names.join(" or ")), RECOVERY, |machine| {
        let reply = machine.ok(
            "dbus-send --system --print-reply=literal --dest=org.defender.Agent1 /org/defender/Agent1 \
             org.freedesktop.DBus.Properties.Get string:org.defender.Agent1 string:ProcessSource",
        )?;
        let now = reply.split_whitespace().last().unwrap_or_default().to_owned();
        Ok(if names.contains(&now.as_str()) { Ok(()) } else { Err(now) })
    })
}

fn sees(machine: &mut Machine, marker: &str) -> Result<()> {
    machine.run(&format!("busybox echo {marker}"))?;
    machine.event("an execution is reported", marker, REPORT, |e| e.class() == class::PROCESS).map(drop)
}

pub(super) fn var_read_only(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let pid = machine.agent_pid()?;
    // What the kernel does to a disk with errors, open files or not.
    machine.ok("echo u >/proc/sysrq-trigger")?;
    machine.wait("/var is read-only", REPORT, |machine| {
        let touched = machine.run("touch /var/validation")?;
        Ok(if touched.status == 0 { Err("it can be written".to_owned()) } else { Ok(()) })
    })?;
    let attacker = world.node()?;
    // Nothing can be logged to a file: the block has to come from what the agent sees otherwise, or not at all. It stays alive.
    attacker.guess_passwords(GUEST_V4, DEVICE_USER, 3)?;
    let machine = world.machine()?;
    machine.run("busybox echo seen-on-a-read-only-disk")?;
    let alive = machine.agent_pid()?;
    let shown = machine.wait("the agent still answers and shows events", REPORT, |machine| {
        let events = machine.run("defender events --json")?;
        Ok(if events.output.contains("seen-on-a-read-only-disk") {
            Ok(())
        } else {
            Err(format!("{}", events.output.len()))
        })
    });
    let status = machine.query("status");
    machine.ok("mount -o remount,rw /var")?;
    expect(alive == pid, || "the agent was restarted".into())?;
    shown?;
    let status = status?.to_string();
    expect(status.contains("degraded"), || format!("status says nothing of it: {status}"))?;
    sees(machine, "seen-after-a-read-only-disk")
}

pub(super) fn var_full(world: &mut World<'_>) -> Result<()> {
    let attacker = world.node()?;
    let machine = world.machine()?;
    let pid = machine.agent_pid()?;
    machine.run_within(
        "dd if=/dev/zero of=/var/validation-fill bs=1M; dd if=/dev/zero of=/var/validation-fill2 bs=512; \
         dd if=/dev/zero of=/var/validation-fill3 bs=512; sync; df /var",
        Duration::from_secs(120),
    )?;
    machine.run("busybox echo seen-on-a-full-disk")?;
    let shown = machine.wait("the agent still answers and shows events", REPORT, |machine| {
        let events = machine.run("defender events --json")?;
        Ok(if events.output.contains("seen-on-a-full-disk") {
            Ok(())
        } else {
            Err(format!("{} bytes", events.output.len()))
        })
    });
    let health = machine.wait("the agent says that it cannot write", RECOVERY, |machine| {
        let status = machine.query("status")?.to_string();
        Ok(if status.contains("degraded") { Ok(()) } else { Err(status) })
    });
    machine.ok("rm -f /var/validation-fill /var/validation-fill2 /var/validation-fill3")?;
    shown?;
    health?;
    machine.wait("events are written again", RECOVERY, |machine| {
        machine.run("busybox echo seen-after-a-full-disk")?;
        let events = machine.events("seen-after-a-full-disk")?;
        Ok(if events.is_empty() { Err("nothing".to_owned()) } else { Ok(()) })
    })?;
    // A line that was cut off by the full disk must not spoil the next: `events` parses every line.
    machine.events("class_uid")?;
    expect(machine.agent_pid()? == pid, || "the agent was restarted".into())?;
    assault(world, &attacker, GUEST_V4).map(drop)
}
