//! The module twin: what a hub may set from afar, and what it is told in return.
//!
//! One property is taken, under the name Microsoft's micro agent has for it, so that existing twins keep working:
//!
//! | Desired | Value | Effect |
//! |---|---|---|
//! | `CollectorsCore_PriorityIntervals` | `"30,120,1440"`: minutes of high, medium and low | periods of this sink; what is `immediate` in the file stays so |
//!
//! Whatever the twin says, nothing is switched off, no rule is changed and no alert that goes at once is held back. Reported:
//! `latest_state` (`success`, `failed`) and `latest_invalid_fields` as the micro agent does, the property as it is in force, and
//! `ignored_fields`.

use std::time::Duration;

use serde_json::Value;

/// The property.
const INTERVALS: &str = "CollectorsCore_PriorityIntervals";
/// Longest period that is taken, in minutes: thirty days.
const LONGEST: u64 = 30 * 24 * 60;
/// Longest list of names in a report, in bytes; a hub takes 4 KiB in a value.
const MAX_LIST: usize = 1024;

/// Topics to listen to.
pub(in crate::mqtt) const TOPICS: [&str; 2] =
    ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"];
/// Asks for the whole twin; the hub's answer comes under [`TOPICS`].
pub(in crate::mqtt) const GET: &str = "$iothub/twin/GET/?$rid=get";
/// Takes what is reported.
pub(in crate::mqtt) const REPORT: &str = "$iothub/twin/PATCH/properties/reported/?$rid=report";

/// What a twin may set, and for which kinds of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twin {
    /// High, medium and low as the file has them, which holds until the twin says otherwise.
    pub periods: [Duration; 3],
    /// Which of them alerts have; `None`: they go at once.
    pub alerts: Option<usize>,
    /// Which of them other records have; `None`: they go at once.
    pub telemetry: Option<usize>,
}

/// What a message of the hub came to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mqtt) struct Outcome {
    /// New periods of alerts and of other records.
    pub(in crate::mqtt) periods: Option<[Duration; 2]>,
    /// JSON for [`REPORT`].
    pub(in crate::mqtt) report: String,
}

/// Does what a message of the hub asks; `None` for one that asks nothing.
pub(in crate::mqtt) fn apply(twin: &Twin, topic: &str, payload: &[u8]) -> Option<Outcome> {
    let whole = topic.starts_with("$iothub/twin/res/200/");
    if !whole && !topic.starts_with("$iothub/twin/PATCH/properties/desired/") {
        return None;
    }
    let message: Value = serde_json::from_slice(payload).ok()?;
    let desired = if whole { message.get("desired")? } else { &message }.as_object()?;
    let mut ignored = String::new();
    for name in desired.keys().filter(|name| *name != INTERVALS && !name.starts_with('$')) {
        if ignored.len() + name.len() < MAX_LIST {
            if !ignored.is_empty() {
                ignored.push(',');
            }
            ignored.push_str(name);
        }
    }
    // Taken out of the twin, the file's hold again. Not in a change: nothing changes.
    let periods = match desired.get(INTERVALS) {
        Some(Value::String(text)) => minutes(text).ok_or(()).map(Some),
        Some(Value::Null) => Ok(Some(twin.periods)),
        Some(_) => Err(()),
        None if whole => Ok(Some(twin.periods)),
        None => Ok(None),
    };
    let (state, invalid) = if periods.is_ok() { ("success", "") } else { ("failed", INTERVALS) };
    let periods = periods.unwrap_or_default();
    let mut report =
        format!("{{\"latest_state\":\"{state}\",\"latest_invalid_fields\":\"{invalid}\",\"ignored_fields\":");
    report.push_str(&Value::String(ignored).to_string());
    if let Some([high, medium, low]) = periods.map(|all| all.map(|period| period.as_secs() / 60)) {
        report.push_str(&format!(",\"{INTERVALS}\":\"{high},{medium},{low}\""));
    }
    report.push('}');
    let pick = |all: &[Duration; 3], level: Option<usize>| {
        level.and_then(|level| all.get(level)).copied().unwrap_or_default()
    };
    let periods = periods.map(|all| [pick(&all, twin.alerts), pick(&all, twin.telemetry)]);
    Some(Outcome { periods, report })
}

/// Three numbers of minutes.
fn minutes(text: &str) -> Option<[Duration; 3]> {
    let mut parts = text.split(',').map(|part| part.trim().parse().ok());
    let mut next = || {
        let minutes = parts.next()??;
        (1..=LONGEST).contains(&minutes).then(|| Duration::from_secs(minutes * 60))
    };
    let all = [next()?, next()?, next()?];
    parts.next().is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/?$version=3";
    const ANSWER: &str = "$iothub/twin/res/200/?$rid=get";
    const TWIN: Twin = Twin {
        periods: [Duration::from_secs(1800), Duration::from_secs(7200), Duration::from_secs(86_400)],
        alerts: None,
        telemetry: Some(1),
    };

    fn applied(topic: &str, payload: &str) -> Option<(Option<u64>, Value)> {
        let outcome = apply(&TWIN, topic, payload.as_bytes())?;
        let telemetry = outcome.periods.map(|[alerts, telemetry]| {
            assert_eq!(alerts, Duration::ZERO, "what goes at once stays so");
            telemetry.as_secs()
        });
        Some((telemetry, serde_json::from_str(&outcome.report).expect("JSON")))
    }

    #[test]
    fn periods_are_set_taken_back_and_refused() {
        let (period, report) =
            applied(DESIRED, r#"{"CollectorsCore_PriorityIntervals":"10, 20,30","$version":3}"#)
                .expect("news");
        assert_eq!(period, Some(1200));
        let expected = serde_json::json!({
            "latest_state": "success", "latest_invalid_fields": "", "ignored_fields": "",
            "CollectorsCore_PriorityIntervals": "10,20,30",
        });
        assert_eq!(report, expected);
        let taken_back = r#"{"CollectorsCore_PriorityIntervals":null}"#;
        assert_eq!(applied(DESIRED, taken_back).expect("news").0, Some(7200));
        assert_eq!(applied(ANSWER, r#"{"desired":{},"reported":{}}"#).expect("news").0, Some(7200));
        for bad in ["\"0,1,2\"", "\"1,2\"", "\"1,2,3,4\"", "\"1,2,x\"", "\"1,2,99999999\"", "7", "[]"] {
            let payload = format!(r#"{{"desired":{{"CollectorsCore_PriorityIntervals":{bad}}}}}"#);
            let (period, report) = applied(ANSWER, &payload).expect("news");
            assert_eq!((period, &report["latest_state"]), (None, &Value::from("failed")), "{bad}");
            assert_eq!(report["latest_invalid_fields"], "CollectorsCore_PriorityIntervals");
        }
    }

    #[test]
    fn other_properties_are_named_and_change_nothing() {
        let (period, report) =
            applied(DESIRED, r#"{"Process_Disabled":true,"x\"y":1,"$version":3}"#).expect("news");
        assert_eq!((period, &report["ignored_fields"]), (None, &Value::from("Process_Disabled,x\"y")));
    }

    #[test]
    fn what_asks_nothing() {
        for (topic, payload) in
            [("$iothub/twin/res/204/?$rid=report", ""), (ANSWER, "{}"), (ANSWER, "x"), ("other", "{}")]
        {
            assert_eq!(apply(&TWIN, topic, payload.as_bytes()), None, "{topic} {payload}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(payload: Vec<u8>, text in "[0-9, a-z]*", key in "\\PC*") {
            let _ = apply(&TWIN, DESIRED, &payload);
            let wrapped = serde_json::json!({ INTERVALS: text, key: 1 }).to_string();
            let outcome = apply(&TWIN, DESIRED, wrapped.as_bytes()).expect("news");
            prop_assert!(serde_json::from_str::<Value>(&outcome.report).is_ok());
        }
    }
}
