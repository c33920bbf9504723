//! The harness itself: if these fail, nothing else means anything.

use std::time::Duration;

use crate::attack::Reached;
use crate::error::Result;
use crate::image::{DEVICE_PASSWORD, DEVICE_USER};
use crate::lab::{GUEST_V4, GUEST_V6};

use super::{expect, World};

const CONNECT: Duration = Duration::from_secs(3);

pub(super) fn control_channel(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let reply = machine.run("printf 'a\\0b\\n'; echo oops >&2; exit 7")?;
    expect(reply.status == 7 && reply.output == "a\0b\n" && reply.error == "oops\n", || {
        format!("got {reply:?}")
    })?;
    let reply = machine.run_within("echo before; sleep 60", Duration::from_secs(1))?;
    expect(reply.status == 124 && reply.output == "before\n", || format!("a slow command gave {reply:?}"))?;
    let reply = machine.run("sleep 60 & echo done")?;
    expect(reply.status == 0 && reply.output == "done\n", || format!("a background command gave {reply:?}"))?;
    let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    machine.write_file("/tmp/validation-bytes", 0o600, &bytes)?;
    let sum = machine.ok("wc -c </tmp/validation-bytes; rm /tmp/validation-bytes")?;
    expect(sum.trim() == "200000", || format!("200000 bytes became {sum}"))
}

pub(super) fn base_ruleset_is_loaded(world: &mut World<'_>) -> Result<()> {
    let ruleset = world.machine()?.ok("nft list ruleset")?;
    expect(ruleset.contains("table inet defender_base"), || format!("the ruleset is: {ruleset}"))
}

pub(super) fn attacker_can_log_in(world: &mut World<'_>) -> Result<()> {
    let node = world.node()?;
    for target in [GUEST_V4, GUEST_V6] {
        let output = node.ssh(target, DEVICE_USER, DEVICE_PASSWORD, 1, "id -un; echo $SSH_CLIENT")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let from = if target.is_ipv4() { node.v4 } else { node.v6 };
        expect(text.starts_with(DEVICE_USER) && text.contains(&from.to_string()), || {
            format!("ssh gave {output:?}")
        })?;
    }
    let output = node.ssh(GUEST_V4, DEVICE_USER, "wrong", 1, "true")?;
    expect(!output.status.success(), || "a wrong password opened the door".into())
}

pub(super) fn a_drop_rule_stops_the_attacker(world: &mut World<'_>) -> Result<()> {
    let (node, bystander) = (world.node()?, world.node()?);
    let machine = world.machine()?;
    for (target, source) in [(GUEST_V4, node.v4), (GUEST_V6, node.v6)] {
        let family = if target.is_ipv4() { "ip" } else { "ip6" };
        expect(node.connect(target, 22, CONNECT)? == Reached::Open, || format!("{target} does not answer"))?;
        machine.ok(&format!(
            "nft 'add table inet validation; \
             add chain inet validation input {{ type filter hook input priority -300; }}; \
             add rule inet validation input {family} saddr {source} drop'"
        ))?;
        let (stopped, other) = (node.connect(target, 22, CONNECT)?, bystander.connect(target, 22, CONNECT)?);
        machine.ok("nft delete table inet validation")?;
        expect(stopped == Reached::Silence, || format!("with a drop rule: {stopped:?}"))?;
        expect(other == Reached::Open, || format!("another host: {other:?}"))?;
    }
    Ok(())
}
