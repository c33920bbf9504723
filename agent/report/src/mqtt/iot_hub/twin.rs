//! The module twin: what a hub may set from afar, and what it is told in return.
//!
//! | Desired | Value | Effect |
//! |---|---|---|
//! | `DefenderConfiguration` | a signed document (`remote`) | what it says |
//! | `CollectorsCore_PriorityIntervals`, where unsigned twins are allowed | `"30,120,1440"`: minutes of high, medium and low | periods of this sink; what is `immediate` in the file stays so |
//!
//! The second has the name Microsoft's micro agent has for it, so that existing twins keep working. Whatever the twin says, nothing is
//! switched off, no rule is changed and no alert that goes at once is held back. Reported: `latest_state` (`success`, `failed`) and
//! `latest_invalid_fields` as the micro agent does, the properties as they are in force, and `ignored_fields`.

use std::time::Duration;

use serde_json::Value;

/// The property that nobody signs.
const INTERVALS: &str = "CollectorsCore_PriorityIntervals";
/// The property with a signed document.
const SIGNED: &str = "DefenderConfiguration";
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

/// Takes an envelope: the version that is in force then, or why not.
pub(in crate::mqtt) type Take<'a> = dyn FnMut(&str) -> Result<u64, String> + 'a;

/// What a twin may ask for.
pub(in crate::mqtt) struct Allowed<'a> {
    /// [`INTERVALS`], though nobody has signed it. The file's periods, which hold where the twin has none.
    pub(in crate::mqtt) unsigned: Option<[Duration; 3]>,
    /// [`SIGNED`].
    pub(in crate::mqtt) signed: Option<&'a mut Take<'a>>,
}

/// What a message of the hub came to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mqtt) struct Outcome {
    /// High, medium and low as an unsigned twin has them.
    pub(in crate::mqtt) periods: Option<[Duration; 3]>,
    /// JSON for [`REPORT`].
    pub(in crate::mqtt) report: String,
}

/// Does what a message of the hub asks; `None` for one that asks nothing.
pub(in crate::mqtt) fn apply(mut allowed: Allowed<'_>, topic: &str, payload: &[u8]) -> Option<Outcome> {
    let whole = topic.starts_with("$iothub/twin/res/200/");
    if !whole && !topic.starts_with("$iothub/twin/PATCH/properties/desired/") {
        return None;
    }
    let message: Value = serde_json::from_slice(payload).ok()?;
    let desired = if whole { message.get("desired")? } else { &message }.as_object()?;
    let (mut ignored, mut invalid) = (String::new(), String::new());
    let mut taken = String::new();
    let mut periods = None;
    for (name, value) in desired.iter().filter(|(name, _)| !name.starts_with('$')) {
        match (name.as_str(), allowed.unsigned, &mut allowed.signed) {
            (INTERVALS, Some(file), _) => match value {
                Value::String(text) => match minutes(text) {
                    Some(all) => periods = Some(all),
                    None => list(&mut invalid, INTERVALS),
                },
                // Taken out of the twin, the file's hold again.
                Value::Null => periods = Some(file),
                _ => list(&mut invalid, INTERVALS),
            },
            // Taken out, or out of date, what was taken holds on: who removes it has not signed that.
            (SIGNED, _, Some(take)) => match value.as_str().map(take) {
                Some(Ok(version)) => {
                    taken = format!(",\"{SIGNED}\":{{\"version\":{version},\"error\":null}}");
                }
                Some(Err(why)) => {
                    list(&mut invalid, SIGNED);
                    taken = format!(",\"{SIGNED}\":{{\"error\":{}}}", Value::from(why));
                }
                None if value.is_null() => {}
                None => list(&mut invalid, SIGNED),
            },
            _ => list(&mut ignored, name),
        }
    }
    if whole && !desired.contains_key(INTERVALS) {
        periods = allowed.unsigned;
    }
    let state = if invalid.is_empty() { "success" } else { "failed" };
    let mut report =
        format!("{{\"latest_state\":\"{state}\",\"latest_invalid_fields\":\"{invalid}\",\"ignored_fields\":");
    report.push_str(&Value::String(ignored).to_string());
    report.push_str(&taken);
    if let Some([high, medium, low]) = periods.map(|all| all.map(|period| period.as_secs() / 60)) {
        report.push_str(&format!(",\"{INTERVALS}\":\"{high},{medium},{low}\""));
    }
    report.push('}');
    Some(Outcome { periods, report })
}

/// Adds a name to a list that a report can hold.
fn list(names: &mut String, name: &str) {
    if names.len() + name.len() < MAX_LIST {
        if !names.is_empty() {
            names.push(',');
        }
        names.push_str(name);
    }
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
    fn unsigned() -> Allowed<'static> {
        Allowed { unsigned: Some([1800, 7200, 86_400].map(Duration::from_secs)), signed: None }
    }

    fn applied(topic: &str, payload: &str) -> Option<(Option<u64>, Value)> {
        let outcome = apply(unsigned(), topic, payload.as_bytes())?;
        let medium = outcome.periods.map(|[_, medium, _]| medium.as_secs());
        Some((medium, serde_json::from_str(&outcome.report).expect("JSON")))
    }

    #[test]
    fn without_leave_nothing_unsigned_is_taken() {
        let payload =
            r#"{"CollectorsCore_PriorityIntervals":"10,20,30","DefenderConfiguration":"x.y","$version":3}"#;
        let none =
            apply(Allowed { unsigned: None, signed: None }, DESIRED, payload.as_bytes()).expect("news");
        assert_eq!(none.periods, None);
        let report: Value = serde_json::from_str(&none.report).expect("JSON");
        let expected = "CollectorsCore_PriorityIntervals,DefenderConfiguration";
        assert_eq!(
            (&report["ignored_fields"], &report["latest_state"]),
            (&expected.into(), &"success".into())
        );

        let mut answers = vec![Err("too \"old\"".to_owned()), Ok(7)];
        let mut take = |envelope: &str| {
            assert_eq!(envelope, "x.y");
            answers.pop().expect("an answer")
        };
        let mut report = || {
            let allowed = Allowed { unsigned: None, signed: Some(&mut take) };
            let outcome = apply(allowed, DESIRED, payload.as_bytes()).expect("news");
            serde_json::from_str::<Value>(&outcome.report).expect("JSON")
        };
        assert_eq!(report()["DefenderConfiguration"], serde_json::json!({ "version": 7, "error": null }));
        let refused = report();
        assert_eq!(refused["DefenderConfiguration"]["error"], "too \"old\"");
        assert_eq!(refused["latest_invalid_fields"], "DefenderConfiguration");
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
            assert_eq!(apply(unsigned(), topic, payload.as_bytes()), None, "{topic} {payload}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(payload: Vec<u8>, text in "[0-9, a-z]*", key in "\\PC*") {
            let _ = apply(unsigned(), DESIRED, &payload);
            let wrapped = serde_json::json!({ INTERVALS: text, key: 1 }).to_string();
            let outcome = apply(unsigned(), DESIRED, wrapped.as_bytes()).expect("news");
            prop_assert!(serde_json::from_str::<Value>(&outcome.report).is_ok());
        }
    }
}
