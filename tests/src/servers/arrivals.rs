//! What has arrived at a server: each record once, its repeats, and the losses that devices told of.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::bench::tail::{find, number_after};

/// OCSF classes of what must not be lost for telemetry: findings, remediations, health. Heartbeats, which are health too, are off in
/// these runs.
const ALERTS: [u64; 4] = [2004, 6002, 6008, 7004];

/// Name of a record for ever: boot and sequence.
pub type Identity = (String, u64);

/// One number for alerts (health is with them), one for everything else.
pub type ByPriority = [u64; 2];

#[derive(Debug)]
struct Record {
    telemetry: bool,
    content: u64,
}

/// Everything that has arrived.
#[derive(Debug, Default)]
pub struct Arrivals {
    records: HashMap<Identity, Record>,
    /// Copies beyond the first.
    pub repeats: u64,
    /// Copies with the same identity and another content: there must be none.
    pub different: u64,
    /// What bears no identity, except the devices' presence.
    pub strange: u64,
    distinct: ByPriority,
    /// Component and counts of every loss that was told, by the record that tells it.
    losses: HashMap<Identity, (String, ByPriority)>,
}

/// Arrivals that a thread notes.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Arrivals>>);

impl Shared {
    /// What has arrived so far.
    pub fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrivals {
    /// A message of MQTT.
    pub fn message(&mut self, topic: &[u8], payload: &[u8]) {
        if topic.ends_with(b"/status") {
            return;
        }
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        let boot = event.pointer("/device/boot_uid").and_then(Value::as_str);
        let sequence = event.pointer("/metadata/sequence").and_then(Value::as_u64);
        let (Some(boot), Some(sequence)) = (boot, sequence) else {
            self.strange += 1;
            return;
        };
        let identity = (boot.to_owned(), sequence);
        if let Some(loss) = loss(&event) {
            self.losses.insert(identity.clone(), loss);
        }
        let class = event.pointer("/class_uid").and_then(Value::as_u64);
        self.note(identity, class.is_none_or(|class| !ALERTS.contains(&class)), payload);
    }

    /// A line of a collector: class, structured data, summary. A collector that was killed may have left half a line before it.
    pub fn line(&mut self, line: &[u8]) {
        let Some(start) = rfind(line, b" [defender@32473 ") else {
            self.strange += 1;
            return;
        };
        let (before, rest) = line.split_at(start);
        let boot = find(rest, b"boot=\"").and_then(|at| rest[at + 6..].split(|byte| *byte == b'"').next());
        let (Some(boot), Some(sequence)) = (boot, number_after(rest, b"sequence=\"")) else {
            self.strange += 1;
            return;
        };
        let telemetry = !ALERTS.iter().any(|class| before.ends_with(class.to_string().as_bytes()));
        self.note((String::from_utf8_lossy(boot).into_owned(), sequence), telemetry, rest);
    }

    fn note(&mut self, identity: Identity, telemetry: bool, content: &[u8]) {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let content = hasher.finish();
        match self.records.entry(identity) {
            Entry::Occupied(known) => {
                self.repeats += 1;
                let known = known.get();
                self.different += u64::from(known.content != content || known.telemetry != telemetry);
            }
            Entry::Vacant(new) => {
                self.distinct[usize::from(telemetry)] += 1;
                new.insert(Record { telemetry, content });
            }
        }
    }

    /// Records that have arrived at least once.
    #[must_use]
    pub const fn distinct(&self) -> ByPriority {
        self.distinct
    }

    /// Records that were told to be lost before they reached `sink`: by the sink, or by the spool before it.
    #[must_use]
    pub fn lost(&self, sink: &str) -> ByPriority {
        let mut lost = [0; 2];
        for (component, counts) in self.losses.values() {
            if component == "spool" || component == sink {
                lost[0] += counts[0];
                lost[1] += counts[1];
            }
        }
        lost
    }
}

/// Component and counts of a health event that tells of lost records.
fn loss(event: &Value) -> Option<(String, ByPriority)> {
    let told = event.pointer("/unmapped")?;
    (told.get("kind")?.as_str()? == "lost").then_some(())?;
    let count = |name: &str| told.pointer(&format!("/counters/{name}")).and_then(Value::as_u64).unwrap_or(0);
    Some((told.get("component")?.as_str()?.to_owned(), [count("alerts"), count("other_records")]))
}

fn rfind(line: &[u8], needle: &[u8]) -> Option<usize> {
    line.windows(needle.len()).rposition(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_known_by_boot_and_sequence() {
        let mut arrivals = Arrivals::default();
        let event = |sequence: u64, text: &str| {
            format!(
                r#"{{"class_uid":3002,"message":"{text}","metadata":{{"sequence":{sequence}}},"device":{{"boot_uid":"b"}}}}"#
            )
        };
        for (sequence, text) in [(1, "a"), (1, "a"), (2, "a"), (2, "other")] {
            arrivals.message(b"defender/d/events", event(sequence, text).as_bytes());
        }
        arrivals.message(b"defender/d/status", b"online");
        arrivals.message(b"defender/d/events", b"{}");
        let lost = r#"{"class_uid":6002,"unmapped":{"kind":"lost","component":"mqtt","counters":{"alerts":1,"other_records":2}},"metadata":{"sequence":3},"device":{"boot_uid":"b"}}"#;
        arrivals.message(b"defender/d/alerts", lost.as_bytes());
        arrivals.message(b"defender/d/alerts", lost.as_bytes());
        assert_eq!(arrivals.distinct(), [1, 2]);
        assert_eq!((arrivals.repeats, arrivals.different, arrivals.strange), (3, 1, 1));
        assert_eq!((arrivals.lost("mqtt"), arrivals.lost("remote_syslog")), ([1, 2], [0, 0]));
    }

    #[test]
    fn half_a_line_does_not_hide_the_next() {
        let mut arrivals = Arrivals::default();
        arrivals.line(br#"3002 [defender@32473 device="d" boot="b" sequence="7"] text"#);
        arrivals.line(br#"3002 [defender@32473 dev2004 [defender@32473 device="d" boot="b" rule="r" sequence="8"] text"#);
        arrivals.line(b"3002 [defen");
        assert_eq!((arrivals.distinct(), arrivals.strange), ([1, 1], 1));
    }
}
