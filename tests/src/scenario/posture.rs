//! The device grades itself: what a scan says of the running reference image, and what the agent tells when the posture changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::device::{class, Event};
use crate::error::{Error, Result};
use crate::qemu::Machine;

use super::{configuration, expect, World};

/// What the running image has to reach.
const MINIMUM: f64 = 90.0;
/// A scan on an emulated processor that others use too.
const SCAN: Duration = Duration::from_secs(240);
/// What the agent concluded last.
const CONCLUSIONS: &str = "/var/lib/defender/posture";
/// A file the agent watches, and may be written while a changed configuration is in force.
const WATCHED: &str = "/etc/defender/conf.d/10-validation.toml";
/// The checks that three changes by hand make fail: of a parameter, of the packet filter, of that file's mode.
const CHANGED: [&str; 3] = ["firmware-agent-config", "kernel-sysrq", "network-input-rules"];

/// `defender posture` grades the running image as good, and misses nothing that it could look at.
pub(super) fn posture_of_the_device(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let reply = machine.run_within("defender posture --fail-on high --min-score 90", SCAN)?;
    expect(reply.status == 0, || format!("the gate says {}: {}{}", reply.status, reply.output, reply.error))?;
    let reply = machine.run_within("defender posture --format json", SCAN)?;
    let verdicts = verdicts(reply.output.lines().map(parse).collect::<Result<Vec<_>>>()?.iter());
    let unknown: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict == "unknown").collect();
    expect(verdicts.len() > 400 && unknown.is_empty(), || {
        format!("{} checks, cannot be told: {unknown:?}", verdicts.len())
    })
}

/// The first scan sends every conclusion, the next one what changed since, and an alert because the score fell.
pub(super) fn posture_changes_are_told(world: &mut World<'_>) -> Result<()> {
    world.machine()?.agent_service("stop")?;
    world.machine()?.ok(&format!("rm -f {CONCLUSIONS}"))?;
    configuration::with(world, "conf.d/30-posture.toml", "[posture]\nspread_minutes = 0\n", |world| {
        let machine = world.machine()?;
        let earlier = findings(machine)?.len();
        let first = concluded(machine, |_| true)?;
        expect(first.score >= MINIMUM, || format!("the agent grades its device {}", first.score))?;
        let applying = first.verdicts.iter().filter(|(_, verdict)| *verdict != "not_applicable").count();
        let told = machine.wait("every conclusion is sent", SCAN, |machine| {
            let told = findings(machine)?.split_off(earlier);
            let seen = format!("{} of {applying}", told.len());
            Ok(if told.len() >= applying { Ok(told) } else { Err(seen) })
        })?;
        expect(told.len() == applying && told.iter().all(|event| event.at("/activity_id") == 1), || {
            format!("{} findings about {applying} checks", told.len())
        })?;

        // A new agent knows what the old one concluded, and does not have to wait until two scans may follow each other.
        let machine = world.machine()?;
        machine.agent_service("restart")?;
        machine.wait_armed()?;
        worsen(machine)?;
        let outcome = after_the_change(machine, earlier + applying, &first);
        improve(world.machine()?)?;
        outcome
    })
}

fn worsen(machine: &mut Machine) -> Result<()> {
    machine.ok(&format!(
        "sysctl -w kernel.sysrq=1; nft add rule inet defender_base product_input accept; chmod 0664 {WATCHED}"
    ))?;
    Ok(())
}

fn improve(machine: &mut Machine) -> Result<()> {
    machine.ok(&format!("sysctl -w kernel.sysrq=0; chmod 0640 {WATCHED}"))?;
    machine.service("defender-firewall", "S35defender-firewall", "reload")
}

fn after_the_change(machine: &mut Machine, earlier: usize, first: &Conclusions) -> Result<()> {
    let second = concluded(machine, |conclusions| conclusions.verdicts != first.verdicts)?;
    expect(second.score < first.score, || {
        format!("the score went from {} to {}", first.score, second.score)
    })?;
    let alert =
        machine.event("an alert about the score", "The posture of the device got worse", SCAN, |e| {
            e.class() == class::FINDING
        })?;
    let message = alert.at("/message").as_str().unwrap_or_default().to_owned();
    expect(CHANGED.iter().all(|check| message.contains(check)), || format!("the alert says: {message}"))?;
    let told = findings(machine)?.split_off(earlier);
    let failing = verdicts(told.iter());
    expect(
        failing.keys().map(String::as_str).collect::<BTreeSet<_>>() == BTreeSet::from(CHANGED)
            && failing.values().all(|verdict| verdict == "fail")
            && told.iter().all(|event| event.at("/activity_id") == 2),
        || format!("after the change these were sent: {failing:?}"),
    )
}

/// What the agent keeps of its last scan.
struct Conclusions {
    score: f64,
    verdicts: BTreeMap<String, String>,
}

/// Waits for conclusions that are `wanted`.
fn concluded(machine: &mut Machine, wanted: impl Fn(&Conclusions) -> bool) -> Result<Conclusions> {
    machine.wait("the agent's conclusions about the posture", SCAN, |machine| {
        let text = machine.run(&format!("cat {CONCLUSIONS}"))?.output;
        let mut conclusions = Conclusions { score: 0.0, verdicts: BTreeMap::new() };
        for (word, rest) in text.lines().filter_map(|line| line.split_once(' ')) {
            if word == "score" {
                conclusions.score = rest.parse().unwrap_or_default();
            } else {
                conclusions.verdicts.insert(rest.to_owned(), word.to_owned());
            }
        }
        let seen = format!("score {} of {} checks", conclusions.score, conclusions.verdicts.len());
        let good = !conclusions.verdicts.is_empty() && wanted(&conclusions);
        Ok(if good { Ok(conclusions) } else { Err(seen) })
    })
}

/// Compliance Findings, oldest first.
fn findings(machine: &mut Machine) -> Result<Vec<Event>> {
    let mut events = machine.events("\"compliance\":{")?;
    events.retain(|event| event.class() == class::COMPLIANCE);
    Ok(events)
}

fn verdicts<'e>(events: impl Iterator<Item = &'e Event>) -> BTreeMap<String, String> {
    let string = |event: &Event, at: &str| event.at(at).as_str().unwrap_or_default().to_owned();
    events.map(|event| (string(event, "/finding_info/uid"), string(event, "/unmapped/verdict"))).collect()
}

fn parse(line: &str) -> Result<Event> {
    serde_json::from_str(line)
        .map(Event)
        .map_err(|error| Error::Unexpected(format!("`defender posture --format json`: {error}: {line}")))
}
