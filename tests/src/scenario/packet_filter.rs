//! Somebody changes the packet filter by hand.

use std::time::Duration;

use crate::device::class;
use crate::error::Result;

use super::{expect, World};

const REPORT: Duration = Duration::from_secs(20);
/// "Packet filter opened".
const OPENED: &str = "2d7a4c7e-5b0e-4f7c-9d0a-3f6a1c8e7b52";

pub(super) fn packet_filter_is_watched(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    machine.ok(
        "nft 'table inet byhand { chain c { type filter hook input priority 5; policy drop; accept; }; }'",
    )?;
    let made = machine.event("a table of somebody's is told", "byhand", REPORT, |event| {
        event.class() == class::ENTITY && event.at("/entity/name") == "byhand"
    })?;
    expect(
        made.at("/actor/process/file/path").as_str().is_some_and(|path| path.ends_with("/nft"))
            && made
                .at("/actor/process/cmd_line")
                .as_str()
                .is_some_and(|line| line.contains("table inet byhand")),
        || format!("the event names the program with its command line: {}", made.0),
    )?;
    machine.ok("nft chain inet byhand c '{ policy accept; }'")?;
    machine.event("an alert for the policy", OPENED, REPORT, |event| {
        event.class() == class::FINDING && event.0.to_string().contains("byhand")
    })?;
    machine.ok("nft delete table inet byhand")?;
    machine.event("the end of the table is told", "base_chain_deleted", REPORT, |event| {
        event.class() == class::ENTITY && event.at("/entity/name") == "byhand"
    })?;
    // The agent's own table is put back at once, not at the next look.
    machine.ok("nft delete table inet defender")?;
    machine.wait("the agent's table is there again", Duration::from_secs(10), |machine| {
        let listed = machine.run("nft list table inet defender")?;
        Ok(if listed.status == 0 { Ok(()) } else { Err(listed.error) })
    })?;
    machine.event("the agent says so", "table inet defender had been altered", REPORT, |_| true).map(drop)
}
