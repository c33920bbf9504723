//! The policies that ship, each check against images that must pass it and images that must fail it.
//!
//! `POLICY=cis-dil cargo test -p defender-posture --test policies` runs one policy's; `CHECK=` one check's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use std::collections::BTreeSet;
use std::path::Path;

use defender_posture::Policy;
use toml::Table;

/// Every policy file with its name.
fn shipped() -> Vec<(String, Policy)> {
    let Ok(entries) = std::fs::read_dir(fixture::policies()) else { return Vec::new() };
    let wanted = std::env::var("POLICY").ok();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut policies = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".toml") && !name.ends_with(".tests.toml")) {
        let id = name.trim_end_matches(".toml");
        if wanted.as_ref().is_some_and(|wanted| wanted != id) {
            continue;
        }
        let bytes = std::fs::read(fixture::policies().join(name)).unwrap();
        let policy = Policy::parse(name, &bytes).unwrap_or_else(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            panic!("{}", lines.join("\n"))
        });
        assert_eq!(policy.id, id, "{name}: a policy is named after its file");
        policies.push((name.clone(), policy));
    }
    policies
}

#[test]
fn every_check_passes_and_fails_where_its_fixtures_say() {
    let mut faults = Vec::new();
    let only = std::env::var("CHECK").ok();
    for (name, policy) in shipped() {
        let file = format!("{}.tests.toml", policy.id);
        let text = std::fs::read_to_string(fixture::policies().join(&file)).unwrap_or_default();
        let tests: Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let empty = Vec::new();
        let tests = tests.get("test").map_or(&empty, |tests| tests.as_array().unwrap());
        let (mut passed, mut failed) = (BTreeSet::new(), BTreeSet::new());
        for test in tests.iter().map(|test| test.as_table().unwrap()) {
            let check = test["check"].as_str().unwrap();
            if only.as_ref().is_some_and(|only| only != check) {
                continue;
            }
            if !policy.checks().any(|known| known.id == check) {
                faults.push(format!("{file}: {check}: no such check in {name}"));
                continue;
            }
            for (key, fixtures) in test.iter().filter(|(key, _)| *key != "check") {
                let wanted = ["pass", "fail", "not_applicable", "unknown"];
                assert!(wanted.contains(&key.as_str()), "{file}: {check}: unknown key `{key}`");
                for (number, image) in fixtures.as_array().unwrap().iter().enumerate() {
                    let (verdict, evidence) = fixture::judge(&policy, check, image.as_table().unwrap());
                    if verdict == *key {
                        match key.as_str() {
                            "pass" => passed.insert(check.to_owned()),
                            "fail" => failed.insert(check.to_owned()),
                            _ => true,
                        };
                        if key == "fail" && evidence.is_empty() {
                            faults.push(format!("{file}: {check}: {key}[{number}]: fails without evidence"));
                        }
                    } else {
                        faults.push(format!("{file}: {check}: {key}[{number}]: {verdict}: {evidence:?}"));
                    }
                }
            }
        }
        for check in policy.checks().filter(|check| only.as_ref().is_none_or(|only| *only == check.id)) {
            for (set, word) in [(&passed, "passing"), (&failed, "failing")] {
                if !set.contains(&check.id) {
                    faults.push(format!("{file}: {}: no {word} fixture that comes out so", check.id));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn ids_are_unique_and_texts_are_there() {
    let policies = shipped();
    let duplicates = defender_posture::policy::duplicates(&policies);
    assert!(duplicates.is_empty(), "{duplicates:?}");
    for (name, policy) in &policies {
        for check in policy.checks() {
            for (what, text) in [
                ("title", &check.title),
                ("rationale", &check.rationale),
                ("remediation", &check.remediation),
            ] {
                assert!(text.trim().len() > 10, "{name}: {}: `{what}` says nothing", check.id);
            }
        }
    }
}

/// A policy of one check for the tests of the engine itself.
fn one(expect: &str) -> Policy {
    let text = format!(
        "[policy]\nid = \"p\"\ntitle = \"P\"\n[[check]]\nid = \"c\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"high\"\nrationale = \"R\"\nremediation = \"M\"\nexpect = {expect}\n"
    );
    Policy::parse("p.toml", text.as_bytes()).unwrap_or_else(|errors| panic!("{expect}: {}", errors[0]))
}

/// Cases of single primitives: an expression, a fixture, the verdict.
#[test]
fn primitives_answer_as_documented() {
    let mut faults = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/primitives")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let file: Table = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // The expressions as they are written: which key comes first matters.
        let source = toml::de::DeTable::parse(&text).unwrap();
        let written = source.get_ref()["case"].get_ref().as_array().unwrap();
        for (case, written) in file["case"].as_array().unwrap().iter().zip(written.iter()) {
            let image = case.get("image").map_or_else(Table::new, |image| image.as_table().unwrap().clone());
            let verdicts = written.get_ref().as_table().unwrap().iter();
            for (verdict, expressions) in verdicts.filter(|(key, _)| key.get_ref() != "image") {
                for expression in expressions.get_ref().as_array().unwrap() {
                    count += 1;
                    let expression = &text[expression.span()];
                    let (found, evidence) = fixture::judge(&one(expression), "c", &image);
                    if found != *verdict.get_ref() {
                        faults.push(format!(
                            "{}: {expression} is {found}, wanted {}: {evidence:?}",
                            path.display(),
                            verdict.get_ref()
                        ));
                    }
                }
            }
        }
    }
    assert!(count > 50, "cases found: {count}");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn mistakes_are_named_with_line_and_check() {
    let error = |text: &str| Policy::parse("p.toml", text.as_bytes()).unwrap_err();
    let check = |rest: &str| {
        format!("[policy]\nid = \"p\"\ntitle = \"P\"\n[[check]]\nid = \"c\"\ntitle = \"T\"\nsection = \"S\"\nseverity = \"high\"\nrationale = \"R\"\nremediation = \"M\"\n{rest}\n")
    };
    let cases = [
        ("expect = { fiel = \"/x\", exists = true }", "p.toml:11: check \"c\": unknown primitive `fiel`; did you mean `file`?"),
        ("expect = { file = \"/x\", mode_mix = \"0644\" }", "p.toml:11: check \"c\": unknown key `mode_mix`; did you mean `mode_m"),
        ("expect = { file = \"/x\", mode_max = 644 }", "p.toml:11: check \"c\": `mode_max` is a string, not integer"),
        ("expect = { file = \"x\", exists = true }", "p.toml:11: check \"c\": `x` does not start with `/`"),
        ("expect = { all = [] }", "p.toml:11: check \"c\": `all` is empty"),
        ("expect = { text = \"/x\", matches = \"(\" }", "p.toml:11: check \"c\": `matches`: unclosed group"),
        ("expect = { any = [{ systemd = true }], file = \"/x\" }", "p.toml:11: check \"c\": `file` beside `any`; put it inside"),
        ("expect = { systemd = true }\nexpects = 1", "p.toml:12: check \"c\": unknown key `expects`; did you mean `expect`?"),
        ("", "p.toml:4: check \"c\": `expect` is missing"),
        ("expect = { systemd = true }\napplies = \"never\"", "p.toml:12: check \"c\": unknown value of `applies`: `never`"),
        ("expect = { systemd = true }\nreferences = { cus = \"1\" }", "p.toml:12: check \"c\": unknown key `cus`; did you mean `cis`?"),
        ("expect = { sshd = \"permitrotlogin\", equals = \"no\" }", "p.toml:11: check \"c\": unknown option of sshd `permitrotlogin`; did you mean `permitrootlogin`?"),
    ];
    for (rest, wanted) in cases {
        let errors = error(&check(rest));
        assert!(errors[0].to_string().starts_with(wanted), "{}", errors[0]);
    }
    let twice = format!(
        "{}{}",
        check("expect = { systemd = true }"),
        check("expect = { systemd = true }")
            .split_once("[[check]]")
            .map(|(_, rest)| format!("[[check]]{rest}"))
            .unwrap()
    );
    assert!(error(&twice)[0].to_string().contains("used twice"));
    assert_eq!(error("[policy\n")[0].line, 1);
    assert!(error("").iter().any(|e| e.message.contains("[policy] is missing")));
    assert!(Policy::parse("p", b"a = \"\xff\"").unwrap_err()[0].message.contains("UTF-8"));
    let deep = format!("expect = {}{{ systemd = true }}{}", "{ not = ".repeat(40), " }".repeat(40));
    assert!(error(&check(&deep))[0].message.contains("deep"));
}
