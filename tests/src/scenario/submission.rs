//! Security events that the product's own services hand in over D-Bus.

use std::time::Duration;

use crate::device::class;
use crate::error::Result;
use crate::image::DEVICE_USER;

use super::{expect, World};

const REPORT: Duration = Duration::from_secs(20);
/// "Security event of high severity submitted by a service".
const HIGH: &str = "Security event of high severity";

pub(super) fn a_service_submits_an_event(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let uid = machine.ok(&format!("id -u {DEVICE_USER}"))?.trim().to_owned();
    let submit = |severity: &str, title: &str| {
        format!(
            "su -s /bin/sh {DEVICE_USER} -c 'dbus-send --system --print-reply --dest=org.defender.Agent1 /org/defender/Agent1 \
             org.defender.Agent1.SubmitEvent string:\"{title}\" string:{severity} string:tamper string:T-17 \
             string:\"lid switch 2 is open\" dict:string:string:lid,2'"
        )
    };
    machine.ok(&submit("high", "Enclosure opened"))?;
    let told = machine.event("the event is told", "Enclosure opened", REPORT, |event| {
        event.class() == class::BASE && event.at("/unmapped/title") == "Enclosure opened"
    })?;
    // Who says it is what the bus says of the sender.
    expect(
        told.at("/actor/process/user/uid") == uid.as_str()
            && told.at("/unmapped/sender").is_string()
            && told.at("/unmapped/attributes/lid") == "2"
            && told.at("/metadata/event_code") == "T-17"
            && told.at("/severity_id") == 4,
        || format!("what was submitted: {}", told.0),
    )?;
    machine.event("an alert for its severity", HIGH, REPORT, |event| event.class() == class::FINDING)?;
    let refused = machine.run(&submit("grave", "Never told"))?;
    expect(refused.status != 0 && refused.error.contains("InvalidArgs"), || {
        format!("a severity that there is not: {refused:?}")
    })?;
    expect(machine.events("Never told")?.iter().all(|event| event.class() != class::BASE), || {
        "what was refused is told".into()
    })
}
