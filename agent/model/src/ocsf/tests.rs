//! What is written can be read, and nothing read can harm.

use std::sync::Arc;

use proptest::prelude::*;

use super::decode;
use crate::account::{AccountActivity, AccountChange};
use crate::authentication::{Activity, Authentication, Outcome};
use crate::event::{Event, EventKind};
use crate::identity::DeviceIdentity;
use crate::kernel::{ModuleActivity, ProgramType};
use crate::ocsf::{encode, Encoder};
use crate::process::{
    Actor, Ancestor, Change, Deed, ExitReason, Process, ProcessActivity, ProcessDeed, Source,
};
use crate::service::{ServiceActivity, ServiceChange, Submitted};
use crate::severity::Severity;
use crate::time::Timestamp;

fn device() -> DeviceIdentity {
    DeviceIdentity { uid: "d".into(), boot_id: "b".into(), hostname: "h".into(), agent_version: "0".into() }
}

fn line(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    encode(event, &device(), &mut out);
    out
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}|[ \"\\\\\u{0}\n\u{1b}é/]{0,6}"
}

prop_compose! {
    fn process()(
        pid in 1u32..4_194_304, exe in "/[a-z/]{1,20}", argv in prop::collection::vec(text(), 0..5), cwd in text(),
        ids in prop::option::of(any::<[u32; 4]>()), session in prop::option::of(any::<u32>()),
        tty in prop::option::of("pts[0-9]"), parent in prop::option::of((any::<u32>(), "/[a-z]{1,8}", text())),
    ) -> Process {
        Process {
            pid, executable: exe.into(), argv, cwd,
            uid: ids.map(|i| i[0]), euid: ids.map(|i| i[1]), gid: ids.map(|i| i[2]), auid: ids.map(|i| i[3]),
            user: None, session, tty,
            parent: parent.filter(|p| p.0 != pid).map(|(pid, exe, line)| Arc::new(Ancestor {
                pid, executable: exe.into(), command_line: line.into(), parent: None,
            })),
        }
    }
}

proptest! {
    #[test]
    fn processes_survive_the_round_trip(
        mut process in process(), exit in prop::option::of(prop_oneof![
            any::<u8>().prop_map(ExitReason::Code), (1u8..65).prop_map(ExitReason::Signal), Just(ExitReason::Unknown)
        ]), time in any::<i32>(), sequence in any::<u64>(), truncated in any::<bool>(), started in prop::option::of(any::<i32>()),
    ) {
        let change = exit.map_or(Change::Exec { truncated }, Change::Exit);
        if matches!(change, Change::Exit(_)) {
            process.parent = None;
        }
        let started = started.filter(|_| exit.is_some()).map(|t| Timestamp(t.into()));
        let activity = ProcessActivity { process, change, source: Source::Audit, started };
        let event = Event { time: Timestamp(time.into()), sequence, kind: activity.into() };
        prop_assert_eq!(decode(&line(&event)).unwrap().unwrap(), event);
    }

    #[test]
    fn deeds_and_programs_survive_the_round_trip(
        pids in any::<[u32; 2]>(), texts in prop::array::uniform4(text()), uid in any::<Option<u32>>(), from in any::<Option<u32>>(),
        index in 0usize..Source::ALL.len(), kind in any::<Option<u32>>(), loaded in any::<bool>(),
    ) {
        let [image, command, other, name] = texts;
        let actor = |pid, executable: &str, uid| Actor {
            pid, executable: executable.into(), command_line: command.as_str().into(), uid, ..Actor::default()
        };
        let process = actor(pids[0], &image, uid);
        let deed = from.map_or_else(|| Deed::Traced(actor(pids[1], &other, None)), |from| Deed::BecameRoot { from });
        let done = ProcessDeed { deed, process: process.clone(), source: Source::ALL[index] };
        let event = Event { time: Timestamp(5), sequence: 1, kind: done.into() };
        prop_assert_eq!(decode(&line(&event)).unwrap().unwrap(), event);
        let module = ModuleActivity {
            loaded, name, program: kind.map(ProgramType), path: None, sha256: None, process: Some(process),
        };
        let event = Event { time: Timestamp(5), sequence: 1, kind: module.into() };
        prop_assert_eq!(decode(&line(&event)).unwrap().unwrap(), event);
    }

    #[test]
    fn logins_survive_the_round_trip(
        user in prop::option::of("[ -~]{1,12}"), known in any::<Option<bool>>(), source in any::<Option<std::net::IpAddr>>(),
        port in any::<Option<u16>>(), success in any::<bool>(), count in 1u32..9, message in text(), pid in any::<Option<u32>>(),
        duration_ms in any::<Option<u64>>(),
    ) {
        let event = Event { time: Timestamp(5), sequence: 1, kind: Authentication {
            activity: Activity::Logon, outcome: if success { Outcome::Success } else { Outcome::Failure }, user,
            user_known: known, service: "sshd".into(), method: Some("password".into()), source,
            source_port: port.filter(|_| source.is_some()), tty: None, pid, count, duration_ms, message,
        }.into() };
        prop_assert_eq!(decode(&line(&event)).unwrap().unwrap(), event);
    }

    #[test]
    fn services_survive_the_round_trip(
        index in 0usize..ServiceChange::ALL.len(), name in text(), detail in text(), texts in prop::array::uniform4(text()),
        values in prop::collection::btree_map("[a-z]{1,3}", text(), 0..4), severity in 1u8..6, pid in prop::option::of(any::<u32>()),
    ) {
        let activity = ServiceActivity { change: ServiceChange::ALL[index], name, detail };
        let event = Event { time: Timestamp(5), sequence: 1, kind: activity.into() };
        prop_assert_eq!(decode(&line(&event)).unwrap().unwrap(), event);
        let [title, category, code, message] = texts;
        let said = Submitted {
            title, category, code, message, severity: Severity::from_id(severity).unwrap(), sender: ":1.7".into(),
            attributes: values.into_iter().collect(),
            process: pid.map(|pid| Actor { pid, uid: Some(7), ..Actor::default() }),
        };
        let event = Event { time: Timestamp(5), sequence: 1, kind: said.into() };
        prop_assert_eq!(decode(&line(&event)).unwrap().unwrap(), event);
    }

    #[test]
    fn accounts_survive_the_round_trip(
        index in 0usize..AccountChange::ALL.len(), user in "[ -~]{1,9}", group in "[ -~]{1,9}", uid in any::<Option<u32>>(),
        gid in any::<Option<u32>>(), shell in text(), detail in text(), pid in prop::option::of(any::<u32>()),
    ) {
        let change = AccountChange::ALL[index];
        let group = if change.concerns_group() { group } else { String::new() };
        let process = pid.map(|pid| Actor { pid, uid: Some(7), ..Actor::default() });
        let activity = AccountActivity { change, user, uid, group, gid, shell, detail, process };
        let event = Event { time: Timestamp(5), sequence: 1, kind: activity.into() };
        prop_assert_eq!(decode(&line(&event)).unwrap().unwrap(), event);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn arbitrary_json_never_panics(text in "\\{(\"(class_uid|time|process|activity_id|pid)\":([0-9]{1,4}|\\{\\}|\"a\"),?){0,5}\\}") {
        let _ = decode(text.as_bytes());
    }
}

#[test]
fn types_of_programs_have_names() {
    let named =
        [(0, "unknown"), (2, "kprobe"), (13, "sock_ops"), (24, "raw_tracepoint_writable"), (32, "netfilter")];
    for (number, name) in named {
        assert_eq!(ProgramType(number).name(), name);
    }
    assert_eq!(ProgramType(33).name(), "other");
    assert_eq!(ProgramType(u32::MAX).name(), "other");
}

#[test]
fn ancestors_are_nested_and_bounded() {
    let mut object = String::from(r#"{"pid":1}"#);
    for pid in 2..=20 {
        object = format!(r#"{{"pid":{pid},"file":{{"path":"/bin/p{pid}"}},"parent_process":{object}}}"#);
    }
    let line = format!(
        r#"{{"class_uid":4003,"activity_id":1,"time":5,"query":{{"hostname":"a"}},"actor":{{"process":{object}}}}}"#
    );
    let event = decode(line.as_bytes()).unwrap().unwrap();
    let EventKind::Dns(dns) = &event.kind else { panic!("{event:?}") };
    let parent = dns.process.as_ref().unwrap().parent.as_ref().unwrap();
    let mut pids = Vec::new();
    let mut next = Some(parent);
    while let Some(ancestor) = next {
        pids.push(ancestor.pid);
        next = ancestor.parent.as_ref();
    }
    assert_eq!(pids, [19, 18, 17, 16, 15, 14, 13, 12]);
}

/// What is kept from one event to the next says nothing of another's parent.
#[test]
fn one_encoder_writes_what_a_new_one_does() {
    let launcher =
        |pid| Some(Arc::new(Ancestor { pid, executable: "/bin/sh".into(), ..Ancestor::default() }));
    let parents = [launcher(5), launcher(6), None];
    let mut encoder = Encoder::new(&device());
    for number in [0, 0, 1, 0, 2, 1, 1] {
        let process = Process { pid: 7, parent: parents[number].clone(), ..Process::default() };
        let activity = ProcessActivity::exec(process, Source::Ebpf, false);
        let event = Event::new(Timestamp(1), EventKind::Process(activity));
        let mut out = Vec::new();
        encoder.encode(&event, &mut out);
        assert_eq!(out, line(&event), "{number}");
    }
}

#[test]
fn a_command_line_has_its_bound() {
    let process = Process { pid: 7, argv: vec!["\u{1} ".repeat(1 << 20)], ..Process::default() };
    let change = Change::Exec { truncated: false };
    let kind = EventKind::from(ProcessActivity { process, change, source: Source::Audit, started: None });
    let line = line(&Event::new(Timestamp(1), kind));
    assert!(line.len() < 1 << 20, "{}", line.len());
    assert!(String::from_utf8(line).unwrap().contains(r#""is_truncated":true,"untruncated_size":2097152"#));
}

#[test]
fn an_unambiguous_command_line_is_not_spelt_out_twice() {
    let activity = |argv: &[&str]| {
        let process = Process {
            pid: 7,
            executable: Arc::from("/bin/ls"),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            ..Process::default()
        };
        let change = Change::Exec { truncated: false };
        let kind = EventKind::from(ProcessActivity { process, change, source: Source::Audit, started: None });
        String::from_utf8(line(&Event::new(Timestamp(1), kind))).unwrap()
    };
    assert!(!activity(&["ls", "-l"]).contains("argv"));
    assert!(activity(&["sh", "-c", "ls -l"]).contains(r#""argv":["sh","-c","ls -l"]"#));
}
