//! Custom alerts: each kind fires for what it is about, and for nothing beside it.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

mod common;

use common::{exec, failure, login, process};
use defender_detect::alert::{Program, Range};
use defender_detect::exception::Scalar;
use defender_detect::{AlertSpec, Detector, ExceptionSpec, Limits, Placeholders, RuleSet, Watch};
use defender_model::authentication::Outcome;
use defender_model::dns::Dns;
use defender_model::event::Event;
use defender_model::file::{FileActivity, FileChange, FileType, Sha256};
use defender_model::finding::{Finding, Responses};
use defender_model::network::{Direction, Endpoint, Flow, FlowChange, Protocol};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use proptest::prelude::*;

/// When the events of these tests begin, in milliseconds.
const START: i64 = 1_700_000_000_000;

fn alert(watch: Watch) -> AlertSpec {
    AlertSpec {
        name: "Not ours".into(),
        id: String::new(),
        description: "Ask the product's owner.".into(),
        level: Severity::High,
        response: Responses::NONE,
        watch,
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn detector(specs: Vec<AlertSpec>) -> Detector {
    let (rules, errors) = RuleSet::builder().alerts(specs).build();
    assert!(errors.is_empty(), "{errors:?}");
    Detector::new(rules, Limits::default())
}

fn inspect(detector: &mut Detector, event: &Event) -> Vec<Finding> {
    let mut findings = Vec::new();
    detector.inspect(event, &mut findings);
    findings
}

/// Ids of what a new detector says about an event.
fn ids(watch: Watch, event: &Event) -> Vec<String> {
    inspect(&mut detector(vec![alert(watch)]), event).into_iter().map(|f| f.rule.id.clone()).collect()
}

fn endpoint(text: &str) -> Endpoint {
    let address: std::net::SocketAddr = text.parse().unwrap();
    Endpoint { address: address.ip(), port: Some(address.port()) }
}

fn flow(at: i64, change: FlowChange, direction: Direction, from: &str, to: &str) -> Event {
    let flow = Flow {
        change,
        direction,
        protocol: Protocol::TCP,
        source: endpoint(from),
        destination: endpoint(to),
        destination_name: None,
        forward: None,
        reply: None,
        started: None,
        ended: None,
        rule: None,
        process: None,
    };
    Event::new(Timestamp(START + at), flow.into())
}

fn question(name: &str) -> Event {
    let dns = Dns {
        name: name.into(),
        record_type: "A".into(),
        rcode: None,
        answers: Vec::new(),
        server: None,
        process: None,
    };
    Event::new(Timestamp(START), dns.into())
}

fn written(path: &str, digest: Option<u8>) -> Event {
    let file = FileActivity {
        change: FileChange::Modified,
        path: path.into(),
        old_path: None,
        file_type: FileType::Regular,
        mode: None,
        owner: None,
        sha256: digest.map(|byte| Sha256([byte; 32])),
        process: None,
    };
    Event::new(Timestamp(START), file.into())
}

fn run(path: &str) -> Event {
    exec(process(path, &["x"]))
}

#[test]
fn logins_of_others() {
    let users = || Watch::Users(texts(&["operator", "root"]));
    let by = |user, outcome| login(0, Some("192.0.2.1"), user, outcome);
    assert_eq!(ids(users(), &by("pi", Outcome::Success)), ["alert.not-ours"]);
    assert_eq!(ids(users(), &by("Root", Outcome::Success)), ["alert.not-ours"], "case tells accounts apart");
    assert!(ids(users(), &by("operator", Outcome::Success)).is_empty());
    assert!(ids(users(), &by("pi", Outcome::Failure)).is_empty(), "nobody logged in");
    assert_eq!(
        ids(Watch::Users(Vec::new()), &by("root", Outcome::Success)),
        ["alert.not-ours"],
        "nobody may"
    );
}

#[test]
fn programs_that_are_not_listed() {
    let listed = |path: &str, sha256: &[&str]| Program { path: path.into(), sha256: texts(sha256) };
    let programs = || {
        Watch::Processes(vec![
            listed("/usr/sbin/sshd", &[]),
            listed("/usr/bin/*", &[]),
            listed("/opt/app/**", &[]),
            listed("/opt/*/bin/tool-?.[x]", &[]),
            listed("/usr/bin/app", &[&"11".repeat(32)]),
        ])
    };
    let allowed = [
        "/usr/sbin/sshd",
        "/usr/bin/cat",
        "/opt/app/a",
        "/opt/app/a/b",
        "/opt/z/bin/tool-1.[x]",
        "/usr/bin/app",
    ];
    for path in allowed {
        assert!(ids(programs(), &run(path)).is_empty(), "{path}");
    }
    let others = [
        "/usr/sbin/SSHD",
        "/usr/sbin/sshd2",
        "/x/usr/sbin/sshd",
        "/usr/bin/a/b",
        "/opt/app",
        "/opt/z/y/bin/tool-1.[x]",
        "/opt/z/bin/tool-12.[x]",
        "/opt/z/bin/tool-1.x",
        "/usr/sbin/sshd\n",
        "/tmp/usr/bin/cat",
    ];
    for path in others {
        assert_eq!(ids(programs(), &run(path)), ["alert.not-ours"], "{path}");
    }
    assert!(ids(programs(), &run("")).is_empty(), "a path that is not known says nothing");
    // Content, where its digest is known.
    assert_eq!(ids(programs(), &written("/usr/bin/app", Some(0x12))), ["alert.not-ours.content"]);
    assert!(ids(programs(), &written("/usr/bin/app", Some(0x11))).is_empty());
    assert!(ids(programs(), &written("/usr/bin/app", None)).is_empty());
    assert!(ids(programs(), &written("/usr/bin/cat", Some(0x12))).is_empty(), "it may be anything");
}

#[test]
fn peers_that_are_not_listed() {
    let outbound = || {
        Watch::Outbound(texts(&[
            "tcp 192.0.2.0/24 443",
            "tcp 2001:db8::/32 8000-8010",
            "any 198.51.100.7",
            "tcp *.example.com 443",
            "17 any 53",
        ]))
    };
    let to = |to| {
        let from = if str::starts_with(to, '[') { "[2001:db8::1]:40000" } else { "10.0.0.2:40000" };
        flow(0, FlowChange::Opened, Direction::Outbound, from, to)
    };
    for address in ["192.0.2.9:443", "[2001:db8:1::9]:8000", "[2001:db8::9]:8010", "198.51.100.7:1"] {
        assert!(ids(outbound(), &to(address)).is_empty(), "{address}");
    }
    for address in
        ["192.0.2.9:444", "192.0.3.9:443", "[2001:db8::9]:8011", "[2001:db9::9]:8000", "9.9.9.9:53"]
    {
        assert_eq!(ids(outbound(), &to(address)), ["alert.not-ours"], "{address}");
    }
    let failed = flow(0, FlowChange::Failed, Direction::Outbound, "10.0.0.2:40000", "9.9.9.9:1");
    assert_eq!(ids(outbound(), &failed), ["alert.not-ours"], "trying counts");
    let named = |name: &str| {
        let mut event = to("203.0.113.5:443");
        let defender_model::event::EventKind::Network(flow) = &mut event.kind else { panic!() };
        flow.destination_name = Some(name.to_owned());
        event
    };
    assert!(ids(outbound(), &named("API.example.com")).is_empty());
    assert_eq!(ids(outbound(), &named("example.com")), ["alert.not-ours"]);
    assert_eq!(ids(outbound(), &named("badexample.com")), ["alert.not-ours"]);

    let inbound = || Watch::Inbound(texts(&["tcp 192.0.2.0/24 22"]));
    let from = |from, to| flow(0, FlowChange::Opened, Direction::Inbound, from, to);
    assert!(ids(inbound(), &from("192.0.2.9:5000", "10.0.0.2:22")).is_empty());
    assert_eq!(ids(inbound(), &from("192.0.2.9:22", "10.0.0.2:23")), ["alert.not-ours"], "the device's port");
    assert_eq!(ids(inbound(), &from("192.0.3.9:5000", "10.0.0.2:22")), ["alert.not-ours"]);
    // The other direction, the device itself, and an end are none of the list's business.
    assert!(ids(inbound(), &to("9.9.9.9:1")).is_empty());
    assert!(ids(outbound(), &from("9.9.9.9:1", "10.0.0.2:22")).is_empty());
    let local = flow(0, FlowChange::Opened, Direction::Local, "127.0.0.1:1", "127.0.0.1:2");
    assert!(ids(outbound(), &local).is_empty());
    let closed = flow(0, FlowChange::Closed, Direction::Outbound, "10.0.0.2:1", "9.9.9.9:1");
    assert!(ids(outbound(), &closed).is_empty());
}

#[test]
fn names_that_are_not_listed() {
    let names = || Watch::Dns(texts(&["time.example.com", "*.example.org.", "gateway"]));
    for name in ["time.example.com", "TIME.example.COM", "a.example.org", "a.b.example.org", "gateway"] {
        assert!(ids(names(), &question(name)).is_empty(), "{name}");
    }
    for name in
        ["example.com", "x.time.example.com", "example.org", "badexample.org", "time.example.com.evil"]
    {
        assert_eq!(ids(names(), &question(name)), ["alert.not-ours"], "{name}");
    }
}

fn range(count: &str, minimum: Option<u64>, maximum: Option<u64>) -> Range {
    Range { count: count.into(), window_ms: 60_000, minimum, maximum, ..Range::default() }
}

#[test]
fn failed_logins_beyond_the_maximum() {
    let mut by_user = range("failed_logins", None, Some(2));
    by_user.group_by = texts(&["User"]);
    let mut detector = detector(vec![alert(Watch::Count(by_user))]);
    let mut fired = Vec::new();
    for (at, user) in [(0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "a"), (90_000, "b"), (90_001, "b")] {
        for finding in inspect(&mut detector, &failure(at, Some("192.0.2.1"), user)) {
            fired.push((at, finding.rule.id.clone(), finding.group.clone()));
        }
    }
    let group = vec![("User".to_owned(), "a".to_owned())];
    assert_eq!(fired, [(4, "alert.not-ours.maximum".to_owned(), group)]);
    assert!(inspect(&mut detector, &login(90_002, None, "b", Outcome::Success)).is_empty());
}

#[test]
fn a_selection_of_events_beyond_the_maximum() {
    let mut wget = range("process_creation", None, Some(1));
    wget.select =
        vec![("Image|endswith".into(), vec![Scalar::Text("/wget".into()), Scalar::Text("/curl".into())])];
    let mut detector = detector(vec![alert(Watch::Count(wget))]);
    let mut fired = Vec::new();
    for path in ["/usr/bin/wget", "/usr/bin/vi", "/usr/bin/vi", "/usr/bin/curl"] {
        fired.push(inspect(&mut detector, &run(path)).len());
    }
    assert_eq!(fired, [0, 0, 0, 1]);
}

#[test]
fn too_few_is_told_by_the_clock() {
    let mut detector = detector(vec![alert(Watch::Count(range("network_connection", Some(2), None)))]);
    assert!(detector.wants_ticks());
    let opened = |at| flow(at, FlowChange::Opened, Direction::Outbound, "10.0.0.2:4000", "192.0.2.1:443");
    let mut told = Vec::new();
    for second in 0..=300 {
        let mut findings = Vec::new();
        detector.tick(Timestamp(START + second * 1000), &mut findings);
        told.extend(findings.into_iter().map(|finding| (second, finding.message)));
        if [10, 50, 100, 140].contains(&second) {
            assert!(inspect(&mut detector, &opened(second * 1000)).is_empty());
        }
    }
    // 10 and 50 are within one window until 70. After each shortfall a whole window passes before the next.
    let seconds: Vec<i64> = told.iter().map(|(second, _)| *second).collect();
    assert_eq!(seconds, [71, 131, 191, 251], "{told:?}");
    assert_eq!(told[0].1, "Not ours: 1 events in 60 s, fewer than 2");
    assert!(told[3].1.contains("0 events"), "{told:?}");
}

#[test]
fn a_group_is_watched_until_it_ceases() {
    let mut by_peer = range("network_connection", Some(1), None);
    by_peer.group_by = texts(&["DestinationIp"]);
    let mut detector = detector(vec![alert(Watch::Count(by_peer))]);
    let mut told = Vec::new();
    for second in 0..=400 {
        let mut findings = Vec::new();
        detector.tick(Timestamp(START + second * 1000), &mut findings);
        told.extend(findings.into_iter().map(|finding| (second, finding.group[0].1.clone())));
        if second % 40 == 0 {
            let event = flow(
                second * 1000,
                FlowChange::Opened,
                Direction::Outbound,
                "10.0.0.2:4000",
                "192.0.2.1:443",
            );
            inspect(&mut detector, &event);
        }
        if second == 20 {
            let event = flow(
                second * 1000,
                FlowChange::Opened,
                Direction::Outbound,
                "10.0.0.2:4000",
                "192.0.2.2:443",
            );
            inspect(&mut detector, &event);
        }
    }
    assert_eq!(told, [(81, "192.0.2.2".to_owned())], "once, and the other not at all");
    assert_eq!(detector.stats().groups, 1);
}

#[test]
fn a_clock_that_is_set_is_no_silence() {
    let mut detector = detector(vec![alert(Watch::Count(range("failed_logins", Some(1), None)))]);
    let mut findings = Vec::new();
    for second in [0, 50, 1_000_000, 1_000_050, 10, 60] {
        detector.tick(Timestamp(START + second * 1000), &mut findings);
    }
    assert!(findings.is_empty(), "{findings:?}");
    detector.tick(Timestamp(START + 70_000), &mut findings);
    assert_eq!(findings.len(), 1, "a window after it was set");
}

#[test]
fn connections_are_active_while_they_are_open() {
    let mut detector = detector(vec![alert(Watch::Count(range("active_connections", Some(1), Some(2))))]);
    let event = |at, change, port: u16| {
        flow(at * 1000, change, Direction::Outbound, &format!("10.0.0.2:{port}"), "192.0.2.1:443")
    };
    let mut told = Vec::new();
    let mut see = |detector: &mut Detector, second: i64, change, port| {
        let found = inspect(detector, &event(second, change, port));
        told.extend(found.into_iter().map(|finding| (second, finding.message)));
    };
    let mut low = Vec::new();
    for second in 0..=700 {
        let mut findings = Vec::new();
        detector.tick(Timestamp(START + second * 1000), &mut findings);
        low.extend(findings.into_iter().map(|finding| (second, finding.message)));
        match second {
            10 => see(&mut detector, second, FlowChange::Opened, 1),
            300 => see(&mut detector, second, FlowChange::Opened, 2),
            301 => see(&mut detector, second, FlowChange::Closed, 2),
            // The second was active within the window, so this is the third.
            350 => see(&mut detector, second, FlowChange::Opened, 3),
            351 => see(&mut detector, second, FlowChange::Closed, 3),
            500 => see(&mut detector, second, FlowChange::Opened, 4),
            510 => see(&mut detector, second, FlowChange::Closed, 1),
            520 => see(&mut detector, second, FlowChange::Failed, 4),
            _ => {}
        }
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 == 350 && told[0].1.starts_with("Not ours: 3 active connections"), "{told:?}");
    assert_eq!(low[0], (581, "Not ours: 0 active connections in 60 s, fewer than 1".to_owned()), "{low:?}");
}

#[test]
fn they_are_rules_like_any_other() {
    let spec = AlertSpec {
        response: Responses::of(&[defender_model::finding::Response::KillProcess]),
        ..alert(Watch::Processes(Vec::new()))
    };
    let exception = ExceptionSpec {
        rule: "alert.not-ours".into(),
        when: vec![("Image".into(), vec![Scalar::Text("/usr/bin/*".into())])],
        reason: "system".into(),
        ..ExceptionSpec::default()
    };
    let (rules, errors) = RuleSet::builder().alerts(vec![spec]).exceptions(vec![exception]).build();
    assert!(errors.is_empty(), "{errors:?}");
    let listed: Vec<_> = rules.rules().map(|rule| (rule.info.id.as_str(), rule.logsource.as_str())).collect();
    assert_eq!(listed, [("alert.not-ours", "linux/process_creation")]);
    let mut detector = Detector::new(rules, Limits::default());
    assert!(inspect(&mut detector, &run("/usr/bin/vi")).is_empty());
    let finding = inspect(&mut detector, &run("/tmp/x")).remove(0);
    assert_eq!((finding.severity, finding.response.to_string().as_str()), (Severity::High, "kill_process"));
    assert_eq!(finding.rule.description, "Ask the product's owner.");
    assert_eq!(finding.rule.replaces, ["ProcessNotAllowed"]);
    assert!(finding.message.starts_with("Not ours: root ran /tmp/x"), "{}", finding.message);
}

#[test]
fn mistakes_name_their_key_and_stop_no_other() {
    let list = |watch| alert(watch);
    let count = |change: &dyn Fn(&mut Range)| {
        let mut spec = range("failed_logins", None, Some(5));
        change(&mut spec);
        alert(Watch::Count(spec))
    };
    let program = |path: &str, sha256: &[&str]| {
        Watch::Processes(vec![Program { path: path.into(), sha256: texts(sha256) }])
    };
    let wrong = [
        (AlertSpec { name: " ".into(), ..list(Watch::Users(Vec::new())) }, "name", "has a name"),
        (AlertSpec { name: "警告".into(), ..list(Watch::Users(Vec::new())) }, "id", "no ASCII letter"),
        (AlertSpec { id: "a b".into(), ..list(Watch::Users(Vec::new())) }, "id", "`a b` is no id"),
        (list(Watch::Users(texts(&[""]))), "allow_users", "without a name"),
        (list(program("bin/sh", &[])), "allow_processes", "no absolute path"),
        (list(program("/bin/sh", &["12"])), "allow_processes", "64 hexadecimal"),
        (list(Watch::Outbound(texts(&["tcp"]))), "allow_outbound", "write `PROTOCOL HOST`"),
        (list(Watch::Outbound(texts(&["tpc any 1"]))), "allow_outbound", "`tpc` is no protocol"),
        (list(Watch::Outbound(texts(&["tcp 192.0.2.0/33 1"]))), "allow_outbound", "CIDR"),
        (list(Watch::Outbound(texts(&["tcp 192.0.2.300 1"]))), "allow_outbound", "no address"),
        (list(Watch::Outbound(texts(&["tcp any 9-1"]))), "allow_outbound", "no port"),
        (list(Watch::Outbound(texts(&["tcp any 1 2"]))), "allow_outbound", "write `PROTOCOL HOST`"),
        (list(Watch::Inbound(texts(&["tcp a.example 1"]))), "allow_inbound", "no address or network"),
        (list(Watch::Dns(texts(&["a.*.example"]))), "allow_dns", "no name"),
        (list(Watch::Dns(texts(&["*"]))), "allow_dns", "no name"),
        (list(Watch::Dns(vec!["a".into(); 1001])), "allow_dns", "1001 entries"),
        (count(&|r| r.count = "processes".into()), "count", "process_creation"),
        (count(&|r| r.select = vec![("Nonsense".into(), vec![Scalar::Number(1)])]), "select", "Nonsense"),
        (count(&|r| r.group_by = texts(&["Nonsense"])), "group_by", "Nonsense"),
        (count(&|r| r.window_ms = 0), "window_s", "1 to"),
        (count(&|r| r.maximum = None), "count", "neither"),
        (count(&|r| r.maximum = Some(10_001)), "maximum", "10001"),
        (count(&|r| r.minimum = Some(0)), "minimum", "`minimum` is 0"),
        (count(&|r| r.minimum = Some(6)), "minimum", "always alert"),
    ];
    for (spec, key, words) in &wrong {
        let error = spec.check(&Placeholders::new()).unwrap_err();
        assert_eq!(error.key, *key, "{spec:?}: {error}");
        assert!(error.to_string().contains(words), "{spec:?}: {error}");
    }
    let mut specs: Vec<AlertSpec> = wrong.iter().map(|(spec, ..)| spec.clone()).collect();
    specs.push(list(Watch::Users(Vec::new())));
    specs.push(list(Watch::Dns(Vec::new())));
    let (rules, errors) = RuleSet::builder().alerts(specs).build();
    assert_eq!(errors.len(), wrong.len() + 1, "{errors:?}");
    assert!(
        errors.iter().any(|error| error.to_string().contains("`alert.not-ours` is already")),
        "{errors:?}"
    );
    assert_eq!(rules.rules().len(), 1);
}

/// A path glob, decided one character at a time.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', '*', rest @ ..] => (0..=text.len()).any(|n| glob(rest, &text[n..])),
        ['*', rest @ ..] => {
            let within = text.iter().take_while(|c| **c != '/').count();
            (0..=within).any(|n| glob(rest, &text[n..]))
        }
        ['?', rest @ ..] => text.first().is_some_and(|c| *c != '/') && glob(rest, &text[1..]),
        [c, rest @ ..] => text.first() == Some(c) && glob(rest, &text[1..]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn paths_are_what_globs_say(patterns in prop::collection::vec("/[ab/*?.é]{0,8}", 0..4), path in "/[ab/.é]{0,8}") {
        let programs = patterns.iter().map(|path| Program { path: path.clone(), sha256: Vec::new() });
        let fired = !ids(Watch::Processes(programs.collect()), &run(&path)).is_empty();
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let allowed = patterns.iter().any(|pattern| glob(&chars(pattern), &chars(&path)));
        prop_assert_eq!(fired, !allowed);
    }

    #[test]
    fn peers_are_what_lists_say(
        lists in prop::collection::vec((any::<u32>(), 0u32..=32, any::<bool>(), 1u16..100, 0u16..50), 0..4),
        near in any::<prop::sample::Index>(), mask in 0u32..0x1_0000, port in 1u16..150,
    ) {
        let address = |bits: u32| std::net::Ipv4Addr::from(bits);
        let written = lists.iter().map(|(bits, prefix, tcp, first, more)| {
            format!("{} {}/{prefix} {first}-{}", if *tcp { "tcp" } else { "udp" }, address(*bits), first + more)
        });
        let peer = lists.get(near.index(lists.len().max(1))).map_or(1 << 24, |list| list.0) ^ mask;
        let event = flow(0, FlowChange::Opened, Direction::Outbound, "10.0.0.2:4000", &format!("{}:{port}", address(peer)));
        let fired = !ids(Watch::Outbound(written.collect()), &event).is_empty();
        let allowed = lists.iter().any(|(bits, prefix, tcp, first, more)| {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            *tcp && bits & mask == peer & mask && (*first..=first + more).contains(&port)
        });
        prop_assert_eq!(fired, !allowed);
    }

    /// The clock tells of a shortfall in exactly the seconds in which a slow count finds one.
    #[test]
    fn floors_are_what_counting_says(times in prop::collection::btree_set(0i64..600, 0..40), minimum in 1u64..5) {
        let mut detector = detector(vec![alert(Watch::Count(range("failed_logins", Some(minimum), None)))]);
        let (mut told, mut expected, mut since) = (Vec::new(), Vec::new(), 0);
        for second in 0..600 {
            let mut findings = Vec::new();
            detector.tick(Timestamp(START + second * 1000), &mut findings);
            told.extend(findings.iter().map(|_| second));
            let count = times.iter().filter(|t| second - 60 <= **t && **t < second).count() as u64;
            if second - since >= 60 && count < minimum {
                expected.push(second);
                since = second;
            }
            if times.contains(&second) {
                inspect(&mut detector, &failure(second * 1000, None, "a"));
            }
        }
        prop_assert_eq!(told, expected);
    }

    /// Whatever a configuration says is compiled or refused with a key, and what is compiled judges.
    #[test]
    fn nothing_panics(text in "\\PC{0,40}", more in "[a-z0-9./:*? -]{0,30}") {
        let both = vec![text.clone(), more.clone()];
        let programs = both.iter().map(|path| Program { path: path.clone(), sha256: vec![more.clone()] }).collect();
        let count = Range { count: more.clone(), select: vec![(text.clone(), vec![Scalar::Text(more)])], ..range(&text, None, Some(1)) };
        for watch in [
            Watch::Users(both.clone()), Watch::Processes(programs), Watch::Outbound(both.clone()),
            Watch::Inbound(both.clone()), Watch::Dns(both.clone()), Watch::Count(count),
        ] {
            let spec = AlertSpec { name: text.clone(), ..alert(watch) };
            if let Err(error) = spec.check(&Placeholders::new()) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}

#[test]
fn a_full_list_compiles_and_is_quick() {
    let globs =
        (0..1000).map(|n| Program { path: format!("/opt/*/v?/lib-{n}/**/tool-*-{n}"), sha256: Vec::new() });
    let began = std::time::Instant::now();
    let mut detector = detector(vec![alert(Watch::Processes(globs.collect()))]);
    let compiled = began.elapsed();
    let allowed = run("/opt/app/v1/lib-999/a/b/tool-x-999");
    let other = run("/opt/app/v1/lib-999/a/b/tool-x-99");
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert!(inspect(&mut detector, &allowed).is_empty());
        assert_eq!(inspect(&mut detector, &other).len(), 1);
    }
    println!("compiled in {compiled:?}, {:?} an event", began.elapsed() / 200);
}
