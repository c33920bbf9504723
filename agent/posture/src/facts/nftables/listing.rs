//! The listing of `nft -j list ruleset` (libnftables-json(5)).

use serde_json::Value;

use super::rule::{Condition, Draft, Verdict};
use super::{Chain, Family, Found, MAX_RULES};

/// Reads a listing.
pub(super) fn read(text: &str) -> Result<Found, String> {
    let listing: Value =
        serde_json::from_str(text).map_err(|error| format!("the ruleset is not nft's JSON: {error}"))?;
    let objects =
        listing["nftables"].as_array().ok_or("the ruleset is not nft's JSON: `nftables` is missing")?;
    let mut found = Found::default();
    for object in objects {
        if let Some(chain) = object.get("chain") {
            let word = |key: &str| chain[key].as_str().map(str::to_owned);
            let made = Chain {
                family: Family::of(chain["family"].as_str().unwrap_or_default()),
                table: word("table").unwrap_or_default(),
                name: word("name").unwrap_or_default(),
                kind: word("type"),
                hook: word("hook"),
                policy_drop: chain["policy"] == "drop",
                rules: Vec::new(),
            };
            found.chains.push((made, Vec::new()));
        } else if let Some(set) = object.get("set").or_else(|| object.get("map")) {
            let key = (
                Family::of(set["family"].as_str().unwrap_or_default()),
                set["table"].as_str().unwrap_or_default().to_owned(),
                set["name"].as_str().unwrap_or_default().to_owned(),
            );
            let elements = set["elem"]
                .as_array()
                .map_or_else(Vec::new, |elements| elements.iter().flat_map(values).collect());
            found.sets.insert(key, elements);
        } else if let Some(rule) = object.get("rule") {
            let family = Family::of(rule["family"].as_str().unwrap_or_default());
            let is = |chain: &Chain| {
                chain.family == family && rule["table"] == *chain.table && rule["chain"] == *chain.name
            };
            if found.rules() >= MAX_RULES {
                return Err(format!("more than {MAX_RULES} rules"));
            }
            if let Some((_, rules)) = found.chains.iter_mut().find(|(chain, _)| is(chain)) {
                rules.push(draft(rule["expr"].as_array().map_or(&[], Vec::as_slice)));
            }
        }
    }
    Ok(found)
}

fn draft(expressions: &[Value]) -> Draft {
    let mut draft = Draft::default();
    let mut words: Vec<String> = Vec::new();
    for expression in expressions {
        let Some((name, body)) = expression.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        match name.as_str() {
            "match" => {
                let values = values(&body["right"]);
                let negated = body["op"] == "!=";
                let plain = matches!(body["op"].as_str(), Some("==" | "!=" | "in"));
                let key = if plain { key(&body["left"]) } else { "other".to_owned() };
                words.push(format!("{key} {}{}", if negated { "!= " } else { "" }, values.join(",")));
                draft.conditions.push(Condition { key, negated, values });
            }
            "vmap" => {
                let key = key(&body["key"]);
                words.push(format!("{key} vmap"));
                match body["data"]["set"].as_array() {
                    Some(entries) => {
                        let entry = |entry: &Value| {
                            let value = values(entry.get(0)?).into_iter().next()?;
                            Some((value, verdict(entry.get(1)?)?))
                        };
                        draft.map = Some((key, entries.iter().filter_map(entry).collect()));
                    }
                    None => draft.conditions.push(Condition {
                        key: "other".to_owned(),
                        negated: false,
                        values: Vec::new(),
                    }),
                }
            }
            "counter" | "log" | "comment" | "mangle" | "notrack" => {}
            _ => match verdict(expression) {
                Some(found) => {
                    words.push(match &found {
                        Verdict::Jump(chain) | Verdict::Goto(chain) => format!("{name} {chain}"),
                        _ => name.clone(),
                    });
                    draft.verdict = Some(found);
                }
                // Limits, lookups, iptables' own extensions: fewer packets than the rest of the rule says.
                None => {
                    words.push(name.clone());
                    draft.conditions.push(Condition {
                        key: "other".to_owned(),
                        negated: false,
                        values: Vec::new(),
                    });
                }
            },
        }
    }
    draft.shown = words.join(" ");
    draft
}

fn verdict(expression: &Value) -> Option<Verdict> {
    let (name, body) = expression.as_object()?.iter().next()?;
    let target = || body["target"].as_str().map(str::to_owned);
    match name.as_str() {
        "accept" => Some(Verdict::Accept),
        "drop" | "reject" => Some(Verdict::Drop),
        "return" => Some(Verdict::Return),
        "jump" => target().map(Verdict::Jump),
        "goto" => target().map(Verdict::Goto),
        _ => None,
    }
}

/// What is looked at, in the words of nft's language.
fn key(left: &Value) -> String {
    if let Some(meta) = left.get("meta") {
        return meta["key"].as_str().unwrap_or("other").to_owned();
    }
    if let Some(payload) = left.get("payload") {
        if let (Some(protocol), Some(field)) = (payload["protocol"].as_str(), payload["field"].as_str()) {
            return format!("{protocol} {field}");
        }
    }
    match left.get("ct") {
        Some(ct) if ct.get("dir").is_none() => format!("ct {}", ct["key"].as_str().unwrap_or("other")),
        _ => "other".to_owned(),
    }
}

fn values(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Number(number) => vec![number.to_string()],
        Value::Array(items) => items.iter().flat_map(values).collect(),
        Value::Object(object) => {
            let one = |value: &Value| values(value).into_iter().next().unwrap_or_default();
            if let Some(set) = object.get("set") {
                values(set)
            } else if let Some(prefix) = object.get("prefix") {
                vec![format!("{}/{}", one(&prefix["addr"]), one(&prefix["len"]))]
            } else if let Some(range) = object.get("range") {
                vec![format!("{}-{}", one(&range[0]), one(&range[1]))]
            } else if let Some(element) = object.get("elem") {
                values(&element["val"])
            } else {
                // Concatenations and the like.
                vec!["?".to_owned()]
            }
        }
        Value::Bool(_) | Value::Null => Vec::new(),
    }
}
