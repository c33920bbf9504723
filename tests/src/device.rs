//! The product as an operator sees it: its services, its agent, what the agent reported. All of it through the agent's own
//! interfaces and the tools of the image.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::Flavour;
use crate::qemu::Machine;

/// The agent's events, with the files its rotation leaves.
const EVENTS: &str = "/var/log/defender/events.jsonl*";

/// From the start of the agent until it watches; the budget on real hardware is 200 ms.
const ARMED: Duration = Duration::from_secs(60);

/// OCSF class ids, as documented in `docs/` and in crate `defender-model`.
pub mod class {
    /// File System Activity.
    pub const FILE: u64 = 1001;
    /// Network Activity.
    pub const NETWORK: u64 = 4001;
    /// Account Change.
    pub const ACCOUNT: u64 = 3001;
    /// Group Management.
    pub const GROUP: u64 = 3006;
    /// Base Event: what a service submitted.
    pub const BASE: u64 = 0;
    /// Device Inventory Info.
    pub const DEVICE_INVENTORY: u64 = 5001;
    /// Process Activity.
    pub const PROCESS: u64 = 1007;
    /// Detection Finding: an alert.
    pub const FINDING: u64 = 2004;
    /// Kernel Extension Activity: a module was loaded or removed.
    pub const KERNEL_EXTENSION: u64 = 1002;
    /// Peripheral Device Activity.
    pub const PERIPHERAL: u64 = 1010;
    /// Compliance Finding: the verdict of a posture check.
    pub const COMPLIANCE: u64 = 2003;
    /// Entity Management: the packet filter was changed.
    pub const ENTITY: u64 = 3004;
    /// DNS Activity.
    pub const DNS: u64 = 4003;
    /// Authentication.
    pub const AUTHENTICATION: u64 = 3002;
    /// Application Lifecycle and Application Error: the agent about itself.
    pub const HEALTH: [u64; 2] = [6002, 6008];
    /// Network Remediation Activity: blocks, isolation.
    pub const REMEDIATION: u64 = 7004;
    /// Process Remediation Activity: a process was killed.
    pub const PROCESS_REMEDIATION: u64 = 7003;
    /// Remediation Activity: the hook.
    pub const OTHER_REMEDIATION: u64 = 7001;
}

/// One OCSF event.
#[derive(Debug, Clone)]
pub struct Event(pub Value);

impl Event {
    /// The value at a JSON pointer (RFC 6901), or `null`.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// `class_uid`.
    #[must_use]
    pub fn class(&self) -> u64 {
        self.at("/class_uid").as_u64().unwrap_or_default()
    }

    /// `severity_id`: 1 informational to 5 critical.
    #[must_use]
    pub fn severity(&self) -> u64 {
        self.at("/severity_id").as_u64().unwrap_or_default()
    }

    /// A failed login from `source`.
    #[must_use]
    pub fn is_failed_login_from(&self, source: IpAddr) -> bool {
        self.class() == class::AUTHENTICATION
            && self.at("/status_id") == 2
            && self.at("/src_endpoint/ip") == source.to_string().as_str()
    }

    /// A finding about `source`.
    #[must_use]
    pub fn is_alert_about(&self, source: IpAddr) -> bool {
        let source = source.to_string();
        self.class() == class::FINDING
            && self
                .at("/observables")
                .as_array()
                .is_some_and(|all| all.iter().any(|o| o["value"] == source.as_str()))
    }

    /// A statement of the agent about its part `component`, of kind `degraded`, `lost`, `changed`, ...
    #[must_use]
    pub fn is_health(&self, component: &str, kinds: &[&str]) -> bool {
        class::HEALTH.contains(&self.class())
            && self.at("/unmapped/component").as_str().is_some_and(|c| c.starts_with(component))
            && self.at("/unmapped/kind").as_str().is_some_and(|kind| kinds.contains(&kind))
    }

    /// What names it for ever: device, boot, sequence.
    #[must_use]
    pub fn identity(&self) -> String {
        format!(
            "{} {} {}",
            self.at("/device/uid"),
            self.at("/device/boot_uid"),
            self.at("/metadata/sequence")
        )
    }
}

impl Machine {
    /// The flavour of the image that runs.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.setup().image.flavour
    }

    /// Reported events that contain `text`, oldest first.
    ///
    /// # Errors
    /// When a line is not JSON: everything the agent writes has to be.
    pub fn events(&mut self, text: &str) -> Result<Vec<Event>> {
        // The oldest rotated file has the highest number: by time, oldest first.
        let lines = self.run(&format!(
            "cat $(ls -tr {EVENTS} 2>/dev/null) /dev/null | grep -F -- '{}'",
            text.replace('\'', "'\\''")
        ))?;
        let mut lines: Vec<&str> = lines.output.lines().collect();
        // The agent may be about to write the rest of the last line.
        let begun = |line: &&&str| serde_json::from_str::<Value>(line).is_err_and(|error| error.is_eof());
        if lines.last().filter(begun).is_some() {
            lines.pop();
        }
        lines
            .into_iter()
            .map(|line| {
                serde_json::from_str(line)
                    .map(Event)
                    .map_err(|error| Error::Unexpected(format!("not JSON ({error}): {line}")))
            })
            .collect()
    }

    /// Waits for an event that contains `text` and is `wanted`.
    ///
    /// # Errors
    /// When none comes within `limit`; says what came instead.
    pub fn event(
        &mut self,
        what: &str,
        text: &str,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        self.wait(what, limit, |machine| {
            let events = machine.events(text)?;
            let seen = format!(
                "{} events with `{text}`, last {:?}",
                events.len(),
                events.last().map(|e| e.0.to_string())
            );
            Ok(events.into_iter().find(|event| wanted(event)).ok_or(seen))
        })
    }

    /// `defender WORDS --json`, parsed.
    ///
    /// # Errors
    /// When it fails or does not print JSON.
    pub fn query(&mut self, words: &str) -> Result<Value> {
        let text = self.ok(&format!("defender {words} --json"))?;
        serde_json::from_str(&text)
            .map_err(|error| Error::Unexpected(format!("`defender {words} --json`: {error}: {text}")))
    }

    /// Process id of the agent, if it runs.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn agent_pid(&mut self) -> Result<Option<u32>> {
        // Another `defender`, a query for instance, may run besides: the daemon is the one with the word `run`.
        let found = self.run(
            "for p in $(pidof defender); do tr '\\0' ' ' </proc/$p/cmdline | grep -q ' run ' && echo $p; done",
        )?;
        Ok(found.output.lines().next().and_then(|pid| pid.trim().parse().ok()))
    }

    /// Waits until the agent says that it is armed.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_armed(&mut self) -> Result<()> {
        self.wait("the agent is armed", ARMED, |machine| {
            let reply = machine.run("defender status --json")?;
            let status: Value = serde_json::from_str(&reply.output).unwrap_or_default();
            Ok(if status["armed"] == true { Ok(()) } else { Err(format!("{}{}", reply.output, reply.error)) })
        })
    }

    /// Starts, stops or restarts the agent through the image's init.
    ///
    /// # Errors
    /// When that fails.
    pub fn agent_service(&mut self, action: &str) -> Result<()> {
        self.service("defender", "S60defender", action)
    }

    /// Starts, stops or restarts a service, by the name of its unit and of its init script.
    ///
    /// # Errors
    /// When that fails.
    pub fn service(&mut self, unit: &str, script: &str, action: &str) -> Result<()> {
        match self.flavour() {
            Flavour::Busybox => self.ok(&format!("/etc/init.d/{script} {action}")),
            Flavour::Systemd => self.ok(&format!("systemctl {action} {unit}.service")),
        }
        .map(drop)
    }

    /// Whether `address` is in a set of the agent's table, asked of the kernel.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn blocked_in_kernel(&mut self, address: IpAddr) -> Result<Option<Value>> {
        let text = self.run("nft -j list table inet defender 2>/dev/null")?.output;
        let ruleset: Value = serde_json::from_str(&text).unwrap_or_default();
        let address = address.to_string();
        let elements =
            ruleset["nftables"].as_array().into_iter().flatten().filter_map(|o| o["set"]["elem"].as_array());
        for element in elements.flatten() {
            // With a timeout an element is an object around its value.
            let value = if element["elem"].is_object() { &element["elem"]["val"] } else { element };
            if *value == address.as_str() {
                return Ok(Some(element["elem"].clone()));
            }
        }
        Ok(None)
    }

    /// The log the image's own syslog daemon keeps.
    #[must_use]
    pub fn system_log(&self) -> &'static str {
        match self.flavour() {
            Flavour::Busybox => "/var/log/messages",
            Flavour::Systemd => "/var/log/syslog",
        }
    }

    /// The log login failures go to.
    #[must_use]
    pub fn login_log(&self) -> &'static str {
        match self.flavour() {
            Flavour::Busybox => "/var/log/messages",
            Flavour::Systemd => "/var/log/auth.log",
        }
    }

    /// Calls a method of the agent on the system bus; `arguments` as `dbus-send` takes them.
    ///
    /// # Errors
    /// When the call fails.
    pub fn dbus(&mut self, method: &str, arguments: &str) -> Result<String> {
        self.ok(&format!(
            "dbus-send --system --print-reply --reply-timeout=10000 --dest=org.defender.Agent1 /org/defender/Agent1 \
             org.defender.Agent1.{method} {arguments}"
        ))
    }
}

/// Events with the same identity: reported twice.
#[must_use]
pub fn doubled(events: &[Event]) -> Vec<String> {
    let mut seen = HashSet::new();
    events.iter().map(Event::identity).filter(|identity| !seen.insert(identity.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let event = |text: &str| Event(serde_json::from_str(text).expect("valid"));
        let source = "10.77.0.9".parse().expect("valid");
        let other = "10.77.0.90".parse().expect("valid");
        let failed = event(r#"{"class_uid":3002,"status_id":2,"src_endpoint":{"ip":"10.77.0.9"}}"#);
        assert!(failed.is_failed_login_from(source) && !failed.is_failed_login_from(other));
        let alert = event(r#"{"class_uid":2004,"observables":[{"value":"10.77.0.9"}]}"#);
        assert!(alert.is_alert_about(source) && !alert.is_alert_about(other));
        let health = event(r#"{"class_uid":6008,"unmapped":{"component":"sink.file","kind":"degraded"}}"#);
        assert!(health.is_health("sink", &["degraded"]) && !health.is_health("config", &["degraded"]));
        assert_eq!(doubled(&[failed.clone(), failed]).len(), 1);
    }
}
