//! What was learned never alerts; what was not does; and learning is a matter of what was seen, not of when or how often.

use std::net::IpAddr;
use std::sync::Arc;

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::dns::Dns;
use defender_model::event::{Event, EventKind};
use defender_model::file::{FileActivity, FileChange, FileType};
use defender_model::finding::{Finding, Response, Responses};
use defender_model::network::{Direction, Endpoint, Flow, FlowChange, Listener, Protocol};
use defender_model::process::{Actor, Ancestor, Change, Process, ProcessActivity, Source};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::exception::Scalar;
use crate::{Detector, ExceptionSpec, Limits, RuleOverride, RuleSet, RuleSetBuilder};

fn event(kind: impl Into<EventKind>) -> Event {
    Event::new(Timestamp(0), kind.into())
}

fn exec(path: &str, line: &str, user: &str, parent: &str) -> Event {
    let parent = Ancestor { pid: 1, executable: parent.into(), command_line: "sh".into(), parent: None };
    let process = Process {
        pid: 7,
        executable: path.into(),
        argv: line.split(' ').map(str::to_owned).collect(),
        user: (!user.is_empty()).then(|| user.into()),
        uid: Some(0),
        parent: Some(Arc::new(parent)),
        ..Process::default()
    };
    let change = Change::Exec { truncated: false };
    event(ProcessActivity { process, change, source: Source::Audit, started: None })
}

fn actor(path: &str) -> Option<Actor> {
    let process = Actor { executable: path.into(), command_line: "wget x".into(), ..Actor::default() };
    (!path.is_empty()).then_some(process)
}

fn flow(path: &str, address: IpAddr, port: u16, name: Option<&str>) -> Event {
    event(Flow {
        change: FlowChange::Opened,
        direction: Direction::Outbound,
        protocol: Protocol::TCP,
        source: Endpoint { address: "10.0.2.15".parse().unwrap(), port: Some(50000) },
        destination: Endpoint { address, port: Some(port) },
        destination_name: name.map(str::to_owned),
        forward: None,
        reply: None,
        started: None,
        ended: None,
        rule: None,
        process: actor(path),
    })
}

fn listener(path: &str, address: IpAddr, port: u16) -> Event {
    let local = Endpoint { address, port: Some(port) };
    event(Listener { open: true, protocol: Protocol::UDP, local, process: actor(path) })
}

fn dns(path: &str, name: &str) -> Event {
    let (record_type, answers) = ("A".to_owned(), Vec::new());
    event(Dns {
        name: name.to_owned(),
        record_type,
        rcode: None,
        answers,
        server: None,
        process: actor(path),
    })
}

fn file(path: &str, name: &str, change: FileChange) -> Event {
    event(FileActivity {
        change,
        path: name.to_owned(),
        old_path: None,
        file_type: FileType::Regular,
        mode: None,
        owner: None,
        sha256: None,
        process: actor(path),
    })
}

fn login(user: &str) -> Event {
    event(Authentication {
        activity: Activity::Logon,
        outcome: Outcome::Success,
        user: Some(user.to_owned()),
        user_known: None,
        service: "sshd".to_owned(),
        method: None,
        source: None,
        source_port: None,
        tty: None,
        pid: None,
        count: 1,
        duration_ms: None,
        message: String::new(),
    })
}

fn learned<'e>(events: impl IntoIterator<Item = &'e Event>) -> Document {
    let mut learner = Learner::default();
    events.into_iter().for_each(|event| learner.learn(event));
    assert_eq!(learner.left_out(), 0);
    learner.finish()
}

/// What the profile lacks of an event, as rule and entry.
fn lacking(document: &Document, event: &Event) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |lack: Lack, _: &str, entry: String| told.push(format!("{} {entry}", lack.rule()));
    Profile::from(document).inspect(event, &mut tell);
    told
}

#[test]
fn an_unseen_program_user_and_parent() {
    let seen = [
        exec("/usr/bin/curl", "curl x", "root", "/bin/dash"),
        exec("/bin/busybox", "wget x", "root", "/sbin/init"),
        exec("/opt/app/1.2.3/app", "app", "app", "/sbin/init"),
    ];
    let profile = learned(&seen);
    for quiet in [
        exec("/opt/app/1.3.0/app", "app", "app", "/sbin/init"),
        exec("/bin/busybox", "/usr/bin/wget", "root", "/sbin/init"),
    ] {
        assert_eq!(lacking(&profile, &quiet), [""; 0]);
    }
    for (event, told) in [
        (exec("/tmp/curl", "curl x", "root", "/bin/dash"), &["profile.program /tmp/curl"][..]),
        (exec("/opt/app/evil/app", "app", "app", "/sbin/init"), &["profile.program /opt/app/evil/app"]),
        (exec("/bin/busybox", "nc x", "root", "/sbin/init"), &["profile.program /bin/busybox/nc"]),
        (exec("/usr/bin/curl", "curl", "www-data", "/bin/dash"), &["profile.user users www-data"]),
        (
            exec("/usr/bin/curl", "curl", "root", "/usr/sbin/nginx"),
            &["profile.parent parents /usr/sbin/nginx"],
        ),
        (
            exec("/usr/bin/curl", "curl", "www", "/bin/busybox"),
            &["profile.user users www", "profile.parent parents /bin/busybox/sh"],
        ),
    ] {
        assert_eq!(lacking(&profile, &event), told);
    }
}

#[test]
fn connections_ports_names_files_logins() {
    let address = |last: u8| IpAddr::from([192, 0, 2, last]);
    let any = IpAddr::from([0, 0, 0, 0]);
    let mut seen = vec![
        listener("/usr/sbin/ntpd", any, 123),
        listener("/usr/sbin/ntpd", any, 40001),
        listener("/usr/sbin/ntpd", any, 40002),
        listener("/usr/sbin/plcd", any, 44818),
        listener("/usr/sbin/redis", IpAddr::from([127, 0, 0, 1]), 6379),
        flow("/usr/bin/app", address(1), 443, Some("Api.Example.org")),
        flow("", address(9), 53, None),
        dns("/usr/bin/app", "api.example.org."),
        dns("/usr/bin/app", "7.2.0.192.in-addr.arpa"),
        file("/usr/bin/app", "/etc/app.conf", FileChange::Read),
        file("/usr/bin/app", "/etc/app.conf.Xk29aB", FileChange::Created),
        file("/usr/bin/app", "/etc/app.conf.abcdef", FileChange::Created),
        login("operator"),
    ];
    seen.extend(
        [40001, 40002].map(|port| flow("/usr/bin/ftp", address(3), port, Some("h40001.example.org"))),
    );
    seen.extend((10..18).map(|last| flow("/usr/bin/sync", address(last), 873, None)));
    let profile = learned(&seen);
    let text = profile.to_toml();
    for line in [
        "\"udp ephemeral\"",
        "\"tcp h40001.example.org ephemeral\"",
        "\"udp 44818\"",
        "\"tcp 192.0.2.0/24 873\"",
        "\"/etc/app.conf.{random:6}\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("abcdef"), "{text}");
    for quiet in [
        listener("/usr/sbin/ntpd", any, 50000),
        listener("", any, 123),
        flow("/usr/bin/app", address(77), 443, Some("api.example.org")),
        flow("/usr/bin/other", address(9), 53, None),
        flow("/usr/bin/sync", address(200), 873, None),
        dns("/usr/bin/app", "1.2.3.4.in-addr.arpa"),
        file("/usr/bin/app", "/etc/app.conf.zzzzzz", FileChange::Renamed),
    ] {
        assert_eq!(lacking(&profile, &quiet), [""; 0], "{quiet}");
    }
    for (event, told) in [
        (listener("/usr/sbin/ntpd", any, 4444), "profile.listener listens udp 4444"),
        (listener("/usr/sbin/plcd", any, 44819), "profile.listener listens udp 44819"),
        (listener("/usr/sbin/redis", any, 6379), "profile.listener listens udp 6379"),
        (flow("/usr/bin/app", address(1), 443, None), "profile.peer connects tcp 192.0.2.1 443"),
        (
            flow("/usr/bin/app", address(1), 80, Some("api.example.org")),
            "profile.peer connects tcp api.example.org 80",
        ),
        (
            flow("/usr/bin/sync", IpAddr::from([192, 0, 3, 1]), 873, None),
            "profile.peer connects tcp 192.0.3.1 873",
        ),
        (flow("", IpAddr::from([127, 0, 0, 1]), 80, None), "profile.peer connects tcp local 80"),
        (dns("/usr/bin/app", "evil.example.org"), "profile.domain looks_up evil.example.org"),
        (dns("/usr/bin/curl", "api.example.org"), "profile.domain looks_up api.example.org"),
        (file("/usr/bin/app", "/etc/app.conf", FileChange::Modified), "profile.file writes /etc/app.conf"),
        (file("/usr/bin/app", "/etc/shadow", FileChange::Read), "profile.file reads /etc/shadow"),
        (login("root"), "profile.login logins root sshd"),
    ] {
        assert_eq!(lacking(&profile, &event), [told], "{event}");
    }
}

/// A detector with the profile and nothing else.
fn detector(document: &Document, change: impl FnOnce(RuleSetBuilder) -> RuleSetBuilder) -> Detector {
    let builder = RuleSet::builder().profile(Severity::Low, Responses::NONE);
    let (rules, errors) = change(builder).build();
    assert_eq!(errors, []);
    let mut detector = Detector::new(rules, Limits::default());
    detector.set_profile(Profile::from(document));
    detector
}

fn found(detector: &mut Detector, event: &Event) -> Vec<Finding> {
    let mut findings = Vec::new();
    detector.inspect(event, &mut findings);
    findings
}

#[test]
fn findings_are_those_of_a_rule() {
    let profile = learned(&[exec("/usr/bin/curl", "curl x", "root", "/bin/dash")]);
    let mut plain = detector(&profile, |builder| builder);
    assert!(found(&mut plain, &exec("/usr/bin/curl", "curl y", "root", "/bin/dash")).is_empty());
    let stranger = exec("/tmp/x", "x -y", "root", "/bin/dash");
    found(&mut plain, &stranger);
    let again = found(&mut plain, &stranger);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].uid.as_str(), again[0].severity), ("profile.program-2", Severity::Low));
    assert_eq!(
        again[0].message,
        "Program that is not in the profile: root ran /tmp/x (pid 7, parent /bin/dash 1): x -y"
    );
    assert_eq!(again[0].group, [("program".into(), "/tmp/x".into()), ("entry".into(), "/tmp/x".into())]);
    assert_eq!((plain.stats().findings, plain.stats().matches), (2, 2));

    let change = |id: &str| RuleOverride { id: id.to_owned(), ..RuleOverride::default() };
    let response = Responses::of(&[Response::KillProcess]);
    let mut changed = detector(&profile, |builder| {
        builder.overrides(vec![
            RuleOverride {
                level: Some(Severity::High),
                response: Some(response),
                ..change("profile.program")
            },
            RuleOverride { enabled: Some(false), ..change("profile.parent") },
        ])
    });
    let told = found(&mut changed, &stranger);
    assert_eq!((told[0].severity, told[0].response), (Severity::High, response));
    assert!(found(&mut changed, &exec("/usr/bin/curl", "curl", "root", "/tmp/x")).is_empty(), "switched off");

    let exception = ExceptionSpec {
        rule: "profile.program".to_owned(),
        when: vec![("Image|startswith".to_owned(), vec![Scalar::Text("/srv/".to_owned())])],
        reason: "field test".to_owned(),
        ..ExceptionSpec::default()
    };
    let mut excepted = detector(&profile, |builder| builder.exceptions(vec![exception.clone()]));
    assert!(found(&mut excepted, &exec("/srv/x", "x", "root", "/bin/dash")).is_empty());
    assert_eq!(found(&mut excepted, &stranger).len(), 1);
    assert_eq!(excepted.exceptions().map(|(_, count)| count).collect::<Vec<_>>(), [1]);
    // What is said about the rules of a profile that is not in force is no mistake.
    let (rules, errors) =
        RuleSet::builder().overrides(vec![change("profile.user")]).exceptions(vec![exception]).build();
    assert_eq!((rules.rules().len(), errors.len()), (0, 0));
}

/// Paths that resemble those of a device, generated parts among them, and now and then anything at all.
fn path() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        4 => prop::sample::select(vec!["usr", "bin", "tmp", "log", "busybox", "app"]).prop_map(str::to_owned),
        2 => "[a-zA-Z0-9]{6}",
        2 => "[a-z]{1,5}[._-][0-9]{1,8}(\\.gz)?",
        1 => "[0-9a-f]{32}",
        1 => "\\PC{1,6}",
    ];
    prop::collection::vec(component, 1..5).prop_map(|parts| format!("/{}", parts.join("/")))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..3, any::<u8>()).prop_map(|(net, host)| IpAddr::from([192, 0, net, host])),
        (0u16..2, any::<u16>()).prop_map(|(net, host)| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host])),
        Just(IpAddr::from([127, 0, 0, 1])),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let program = || prop_oneof![3 => path(), 1 => Just(String::new()), 1 => Just("/bin/busybox".to_owned())];
    let port = || prop_oneof![Just(443u16), 1u16..=65535, 32760u16..32780];
    let host = || prop_oneof![2 => "[a-z0-9]{1,6}(\\.[a-zA-Z0-9-]{1,6}){1,3}", 1 => "\\PC{0,8}"];
    prop_oneof![
        (program(), "\\PC{0,12}", "[a-z]{0,3}", program()).prop_map(|(a, b, c, d)| exec(&a, &b, &c, &d)),
        (program(), address(), port(), prop::option::of(host())).prop_map(|(a, b, c, d)| flow(
            &a,
            b,
            c,
            d.as_deref()
        )),
        (program(), address(), port()).prop_map(|(a, b, c)| listener(&a, b, c)),
        (program(), host()).prop_map(|(a, b)| dns(&a, &b)),
        (program(), path(), prop::sample::select(FileChange::ALL.to_vec()))
            .prop_map(|(a, b, c)| file(&a, &b, c)),
        "\\PC{0,6}".prop_map(|a| login(&a)),
    ]
}

proptest! {
    #[test]
    fn what_was_learned_never_alerts(events in prop::collection::vec(any_event(), 0..40)) {
        let text = learned(&events).to_toml();
        let document = Document::parse(text.as_bytes());
        prop_assert!(document.is_ok(), "{:?} {}", document, text);
        let document = document.unwrap();
        for event in &events {
            prop_assert_eq!(lacking(&document, event), Vec::<String>::new(), "{} {}", event, text);
        }
    }

    #[test]
    fn learning_twice_or_in_another_order_is_the_same(
        (events, shuffled) in prop::collection::vec(any_event(), 0..40).prop_flat_map(|e| (Just(e.clone()), Just(e).prop_shuffle())),
    ) {
        let once = learned(&events).to_toml();
        prop_assert_eq!(&once, &learned(events.iter().chain(&events)).to_toml());
        prop_assert_eq!(&once, &learned(&shuffled).to_toml());
        prop_assert_eq!(&once, &Document::parse(once.as_bytes()).unwrap().to_toml());
    }

    /// However much was learned: a program in a directory of letters that none was seen in is told of.
    #[test]
    fn an_unseen_program_elsewhere_always_alerts(
        events in prop::collection::vec(any_event(), 0..40), directory in "/[g-z]{7}(/[g-z]{3,7}){0,2}", name in "[g-z]{1,9}",
    ) {
        let document = learned(&events);
        let path = format!("{directory}/{name}");
        prop_assume!(events.iter().all(|event| !format!("{event:?}").contains(&directory)));
        let expected = format!("profile.program {path}");
        prop_assert_eq!(lacking(&document, &exec(&path, "x", "root", "/sbin/init")), [expected]);
    }
}
