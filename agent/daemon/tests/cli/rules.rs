//! `rules check` and `rules list`.

use serde_json::Value;

use super::{defender, shipped_rules};

#[test]
fn rules_are_checked_with_file_line_rule_and_cause() {
    let ended = defender(&["rules", "check", &shipped_rules()]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{ended:?}");
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = file(
        "bad.yml",
        "title: Bad\nid: 11111111-2222-3333-4444-555555555555\nlogsource:\n  product: linux\n  category: process_creation\n\
         detection:\n  selection:\n    Image|endswit: /x\n  condition: selection\nlevel: high\n",
    );
    let ended = defender(&["rules", "check", &bad]);
    assert_eq!(ended.status, 1);
    for part in [bad.as_str(), "rule \"Bad\"", "endswit"] {
        assert!(ended.errors.contains(part), "{part}: {ended:?}");
    }
    let ended = defender(&["rules", "check", "--json", &bad, &shipped_rules()]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((ended.status, said["errors"].as_array().unwrap().len()), (1, 1), "{ended:?}");
    assert_eq!(said["errors"][0]["file"], bad.as_str());
    assert!(said["errors"][0]["line"].as_u64().is_some_and(|line| (6..=8).contains(&line)), "{said}");
    assert!(said["rules"].as_u64().unwrap() >= 10);
    let expanding = file(
        "expanding.yml",
        "title: Tool\nid: 11111111-2222-3333-4444-666666666666\nlogsource:\n  product: linux\n  category: process_creation\n\
         detection:\n  selection:\n    Image|expand: '/usr/bin/%tools%'\n  condition: selection\nlevel: low\n",
    );
    let ended = defender(&["rules", "check", &expanding]);
    assert!(ended.status == 1 && ended.errors.contains("[rules.placeholders]"), "{ended:?}");
    let config = file("d.toml", "[rules.placeholders]\ntools = [\"curl\", \"wget*\"]\n");
    let ended = defender(&["rules", "check", "--config", &config, &expanding]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{ended:?}");
    for path in [&expanding, &config] {
        std::fs::remove_file(path).unwrap();
    }
    file("overlooked.yaml", "");
    for (path, says) in [
        ("/nonexistent".to_owned(), "/nonexistent: cannot be read"),
        (directory.path().display().to_string(), "overlooked.yaml: the agent does not read it"),
        (file("garbage.yml", "\u{1}\n\t- : ]"), "garbage.yml"),
    ] {
        let ended = defender(&["rules", "check", &path]);
        assert!(ended.status == 1 && ended.errors.contains(says), "{path}: {ended:?}");
    }
}

#[test]
fn rules_are_listed() {
    let ended = defender(&["rules", "list", "--json", "--rules", &shipped_rules()]);
    assert_eq!(ended.status, 0, "{ended:?}");
    let rules: Vec<Value> = serde_json::from_str(&ended.output).unwrap();
    let brute = rules.iter().find(|rule| rule["response"] == "block_source").unwrap();
    assert!(brute["id"].as_str().unwrap().len() == 36 && brute["tactics"][0] == "credential-access");
    let text = defender(&["rules", "list", "--rules", &shipped_rules()]);
    let lines: Vec<&str> = text.output.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), rules.len() + 1);
    let ended = defender(&["rules", "list", "--summary", "--rules", &shipped_rules()]);
    assert!(ended.status == 0 && text.output.ends_with(&format!("\n\n{}", ended.output)), "{ended:?}");
    // The configuration's changes to rules show.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("d.toml");
    let id = brute["id"].as_str().unwrap();
    let changes = format!(
        "[rules]\ndirectories = [\"{}\"]\n[[rule]]\nid = \"{id}\"\nenabled = false\n",
        shipped_rules()
    );
    std::fs::write(&file, changes).unwrap();
    let ended = defender(&["rules", "list", "--json", "--config", file.to_str().unwrap()]);
    let rules: Vec<Value> = serde_json::from_str(&ended.output).unwrap();
    assert!(rules.iter().any(|rule| rule["id"] == id && rule["enabled"] == false), "{ended:?}");
    // A directory that is not there is none; a file that looks like a rule and is not read is told.
    let rules = directory.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("overlooked.yaml"), "").unwrap();
    let text = format!("[rules]\ndirectories = [\"/nonexistent\", \"{}\"]\n", rules.display());
    std::fs::write(&file, text).unwrap();
    let ended = defender(&["rules", "list", "--json", "--config", file.to_str().unwrap()]);
    assert!(
        ended.status == 1 && ended.errors.contains("overlooked.yaml: the agent does not read it"),
        "{ended:?}"
    );
    assert!(!ended.errors.contains("nonexistent"), "{ended:?}");
}

#[test]
fn rules_are_counted_by_tactic() {
    let directory = tempfile::tempdir().unwrap();
    let rule = |title: &str, category: &str, tags: &str| {
        format!(
            "title: {title}\nname: {title}\nlogsource:\n  product: linux\n  category: {category}\n\
             detection:\n  s:\n    User: x\n  condition: s\nlevel: low\ntags: [{tags}]\n---\n"
        )
    };
    let text = [
        rule("a", "process_creation", "attack.impact, attack.execution"),
        rule("b", "process_creation", "attack.execution"),
        rule("c", "authentication", ""),
        "title: d\ncorrelation:\n  type: event_count\n  rules: [b]\n  timespan: 1m\n  condition: {gte: 2}\n"
            .to_owned(),
    ]
    .concat();
    let rules = directory.path().join("r.yml");
    std::fs::write(&rules, text).unwrap();
    let config = directory.path().join("d.toml");
    std::fs::write(&config, "[login]\nenabled = false\n").unwrap();
    let (rules, config) = (rules.to_str().unwrap(), config.to_str().unwrap());
    let ended = defender(&["rules", "list", "--summary", "--rules", rules, "--config", config]);
    assert_eq!(
        ended.output,
        " RULES  ALERT   FEED   IDLE    OFF  TACTIC\n\
         \x20    2      1      1      0      0  execution\n\
         \x20    1      1      0      0      0  impact\n\
         \x20    2      1      0      1      0  -\n\
         \x20    4      2      1      1      0  all, those of several tactics counted once\n"
    );
    let ended = defender(&["rules", "list", "--summary", "--json", "--rules", rules, "--config", config]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((&said["rules"], &said["idle"]), (&4.into(), &1.into()), "{said}");
    let tactics: Vec<&Value> = said["tactics"].as_array().unwrap().iter().map(|t| &t["tactic"]).collect();
    assert_eq!(tactics, ["execution", "impact", "-"]);
    // Which rule is idle and why, without being a mistake.
    let ended = defender(&["rules", "check", rules, "--config", config]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{ended:?}");
    assert!(
        ended.output.contains("rule \"c\" is idle: it needs logins (`login.enabled` is false)\n"),
        "{ended:?}"
    );
    let ended = defender(&["rules", "check", "--json", rules, "--config", config]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!((&said["idle"][0]["rule"], &said["idle"][0]["needs"][0]), (&"c".into(), &"login".into()));
    assert_eq!(said["idle"].as_array().unwrap().len(), 1, "{said}");
    let ended = defender(&["rules", "list", "--json", "--rules", rules, "--config", config]);
    let said: Value = serde_json::from_str(&ended.output).unwrap();
    assert!(
        said[0]["idle"].is_null() && said[2]["idle"].as_str().unwrap().contains("login.enabled"),
        "{said}"
    );
}

#[test]
fn custom_alerts_are_checked_one_by_one_and_listed_as_rules() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("defender.toml");
    let name = file.to_str().unwrap();
    let right = "[rules]\ndirectories = []\n\n[[alert]]\nname = \"Foreign name\"\nlevel = \"low\"\nallow_dns = [\"*.example.com\"]\n\n\
                 [[alert]]\nname = \"Beats\"\ncount = \"failed_logins\"\nmaximum = 9\nminimum = 1\n\n";
    std::fs::write(&file, right).unwrap();
    let ended = defender(&["config", "check", name]);
    assert_eq!(ended.status, 0, "{ended:?}");
    let listed = |given: &[&str]| {
        let ended = defender(&[&["rules", "list", "--json", "--config", name], given].concat());
        let rules: Vec<Value> = serde_json::from_str(&ended.output).unwrap();
        let ids: Vec<String> = rules.iter().map(|rule| rule["id"].as_str().unwrap().to_owned()).collect();
        (ended.status, ids, rules)
    };
    let (status, ids, rules) = listed(&[]);
    let expected = ["alert.foreign-name", "alert.beats.events", "alert.beats.maximum", "alert.beats.minimum"];
    assert_eq!((status, ids.as_slice()), (0, expected.map(str::to_owned).as_slice()));
    assert_eq!((&rules[0]["level"], &rules[0]["logsource"]), (&"low".into(), &"linux/dns_query".into()));
    assert_eq!((&rules[1]["alerts"], &rules[2]["kind"]), (&false.into(), &"event_count".into()));

    // A wrong one is named with its line and key, and stops no other.
    std::fs::write(
        &file,
        format!("{right}[[alert]]\nname = \"Peers\"\nallow_inbound = [\"tcp any http\"]\n"),
    )
    .unwrap();
    let ended = defender(&["config", "check", name]);
    assert_eq!(ended.status, 2, "{ended:?}");
    let words = "defender.toml:17: [[alert]] \"Peers\": `allow_inbound`: `tcp any http`: `http` is no port";
    assert!(ended.errors.contains(words), "{}", ended.errors);
    assert_eq!(listed(&[]).1, expected);

    // Changes and exceptions hold for them as for any rule.
    let change =
        "[[rule]]\nid = \"alert.beats.maximum\"\nlevel = \"critical\"\ncount = 20\n\n[[exception]]\n\
                  rule = \"alert.foreign-name\"\nreason = \"test\"\nwhen = { QueryName = \"x.example\" }\n";
    std::fs::write(&file, format!("{right}{change}")).unwrap();
    let (status, _, rules) = listed(&[]);
    assert_eq!((status, &rules[2]["level"]), (0, &"critical".into()));
    std::fs::write(&file, format!("{right}[[rule]]\nid = \"alert.nothing\"\nenabled = false\n")).unwrap();
    assert_eq!(listed(&[]).0, 1);
}
