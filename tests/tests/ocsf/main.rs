//! One event of every kind, checked against the published OCSF schema with a validator that is not ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod lines;
mod security_message;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use defender_model::account::{AccountActivity, AccountChange};
use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::compliance::{Compliance, Verdict};
use defender_model::dns::{Answer, Dns};
use defender_model::event::{Event, EventKind};
use defender_model::file::{FileActivity, FileChange, FileType, Sha256};
use defender_model::finding::{Evidence, Finding, Response, Responses, RuleInfo};
use defender_model::health::{Health, Kind};
use defender_model::identity::DeviceIdentity;
use defender_model::inventory::{DeviceInfo, Interface, Inventory, Package, PackageChange};
use defender_model::kernel::{FirewallChange, ModuleActivity, ProgramType, RuleChange};
use defender_model::network::{Direction, Endpoint, Flow, FlowChange, Listener, Protocol, Volume};
use defender_model::ocsf;
use defender_model::peripheral::{PeripheralActivity, PeripheralClass};
use defender_model::process::{
    Actor, Ancestor, Change, Deed, ExitReason, Process, ProcessActivity, ProcessDeed, Source,
};
use defender_model::remediation::{self, Action, Remediation};
use defender_model::service::{ServiceActivity, ServiceChange, Submitted};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;
use defender_validation::python::environment;

fn ancestor(pid: u32, executable: &str, parent: Option<Arc<Ancestor>>) -> Arc<Ancestor> {
    Arc::new(Ancestor { pid, executable: executable.into(), command_line: executable.into(), parent })
}

/// As a finding has it: an event tells of the parent only.
fn with_grandparents(process: Process) -> Process {
    let grandparents = ancestor(600, "/usr/sbin/dropbear", Some(ancestor(1, "/sbin/init", None)));
    Process { parent: Some(ancestor(700, "/bin/sh", Some(grandparents))), ..process }
}

fn process() -> Process {
    Process {
        pid: 4242,
        executable: "/bin/busybox".into(),
        argv: vec!["wget".into(), "-O-".into(), "two words".into(), "\u{1b}[2J".into()],
        cwd: "/tmp".into(),
        uid: Some(0),
        euid: Some(0),
        gid: Some(0),
        auid: Some(1000),
        user: Some("root".into()),
        session: Some(3),
        tty: Some("pts0".into()),
        parent: Some(ancestor(700, "/bin/sh", None)),
    }
}

fn activity(process: Process, change: Change) -> EventKind {
    let started = matches!(change, Change::Exit(_)).then_some(Timestamp(1));
    ProcessActivity { process, change, source: Source::Audit, started }.into()
}

fn login(activity: Activity, outcome: Outcome, source: Option<&str>) -> Authentication {
    Authentication {
        activity,
        outcome,
        user: source.map(|_| "admin".into()),
        user_known: Some(false),
        service: "sshd".into(),
        method: Some("password".into()),
        source: source.map(|address| address.parse().unwrap()),
        source_port: source.map(|_| 50_000),
        tty: source.is_none().then(|| "ttyS0".into()),
        pid: Some(77),
        count: 3,
        duration_ms: None,
        message: "Failed password for invalid user admin".into(),
    }
}

fn finding(evidence: Vec<Evidence>, techniques: &[&str], tactics: &[&str]) -> Finding {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Finding {
        uid: "9d1c-1".into(),
        rule: Arc::new(RuleInfo {
            id: "9d1c".into(),
            title: "Brute force".into(),
            description: String::new(),
            techniques: words(techniques),
            tactics: words(tactics),
            correlation: true,
            replaces: words(techniques),
        }),
        severity: Severity::High,
        message: "5 failed logins from 192.0.2.7".into(),
        count: 5,
        first_seen: Timestamp(1_700_000_000_000),
        last_seen: Timestamp(1_700_000_041_000),
        group: vec![("src_ip".into(), "192.0.2.7".into())],
        source: Some("192.0.2.7".parse().unwrap()),
        destination: Some("2001:db8::9".parse().unwrap()),
        evidence,
        response: Responses::of(&[Response::BlockSource]),
        update: false,
    }
}

fn actor() -> Actor {
    Actor {
        pid: 4242,
        executable: "/bin/busybox".into(),
        command_line: "nc 192.0.2.7 4444".into(),
        uid: Some(0),
        auid: Some(1000),
        user: Some("root".into()),
        parent: Some(ancestor(700, "/bin/sh", None)),
    }
}

fn end(address: &str, port: Option<u16>) -> Endpoint {
    Endpoint { address: address.parse().unwrap(), port }
}

/// Connections, listening sockets, look-ups.
fn network_samples(process: &Option<Actor>, kinds: &mut Vec<EventKind>) {
    let process = process.clone();
    for change in
        [FlowChange::Opened, FlowChange::Closed, FlowChange::Failed, FlowChange::Traffic, FlowChange::Denied]
    {
        for direction in [Direction::Inbound, Direction::Outbound, Direction::Local, Direction::Unknown] {
            let counted = change == FlowChange::Closed;
            kinds.push(
                Flow {
                    change,
                    direction,
                    protocol: if counted { Protocol::TCP } else { Protocol(253) },
                    source: end("192.0.2.7", counted.then_some(50_000)),
                    destination: end("2001:db8::7", counted.then_some(443)),
                    destination_name: counted.then(|| "update_1.example.com".into()),
                    forward: counted.then_some(Volume { bytes: 800, packets: 7 }),
                    reply: counted.then_some(Volume { bytes: u64::from(u32::MAX) + 1, packets: 9 }),
                    started: Some(Timestamp(1_699_999_999_000)),
                    ended: counted.then_some(Timestamp(1_700_000_000_000)),
                    rule: (change == FlowChange::Denied).then(|| "input policy".into()),
                    process: process.clone(),
                }
                .into(),
            );
        }
    }
    for open in [true, false] {
        let local = end("::", Some(23));
        kinds.push(Listener { open, protocol: Protocol::TCP, local, process: process.clone() }.into());
    }
    for rcode in [None, Some(0), Some(3), Some(4000)] {
        let answers = vec![
            Answer { record_type: "CNAME".into(), data: "pool.example.org".into() },
            Answer { record_type: "A".into(), data: "192.0.2.9".into() },
        ];
        kinds.push(
            Dns {
                name: "_sip._tcp.example.com".into(),
                record_type: "SRV".into(),
                rcode,
                answers: if rcode == Some(0) { answers } else { Vec::new() },
                server: rcode.map(|_| end("192.0.2.53", Some(53))),
                process: process.clone(),
            }
            .into(),
        );
    }
}

/// Files, devices, modules, the packet filter.
fn system_samples(process: &Option<Actor>, kinds: &mut Vec<EventKind>) {
    for change in FileChange::ALL {
        kinds.push(
            FileActivity {
                change,
                path: "/etc/ld.so.preload".into(),
                old_path: (change == FileChange::Renamed).then(|| "/tmp/x".into()),
                file_type: if change == FileChange::Deleted { FileType::Unknown } else { FileType::Regular },
                mode: Some(0o4755),
                owner: Some(0),
                sha256: Some(Sha256([0xab; 32])),
                process: process.clone(),
            }
            .into(),
        );
    }
    for class in PeripheralClass::ALL {
        let told = class == PeripheralClass::Storage;
        kinds.push(
            PeripheralActivity {
                connected: class != PeripheralClass::Hub,
                class,
                bus: "usb".into(),
                interface: "sda".into(),
                path: "/devices/platform/usb/1-1".into(),
                vendor_id: told.then_some(0x0951),
                product_id: told.then_some(0x1666),
                vendor: told.then(|| "Kingston".into()),
                product: told.then(|| "DataTraveler \u{1b}[2J".into()),
                serial: told.then(|| "60A44C413FAE".into()),
                functions: if told { "storage keyboard".into() } else { String::new() },
                interfaces: if told { ":080650:030101:".into() } else { String::new() },
                nodes: if told { "sda1 sda2".into() } else { String::new() },
                parent: told.then(|| "1-1".into()),
                allowed: told.then_some(false),
            }
            .into(),
        );
    }
    for loaded in [true, false] {
        let path = loaded.then(|| "/tmp/rootkit.ko".to_owned());
        let sha256 = loaded.then_some(Sha256([1; 32]));
        let process = process.clone();
        kinds.push(
            ModuleActivity { loaded, name: "rootkit".into(), program: None, path, sha256, process }.into(),
        );
    }
    for number in [0, 2, 99] {
        let name = if number == 0 { String::new() } else { "hide_pid".to_owned() };
        let (program, process) = (Some(ProgramType(number)), process.clone());
        kinds.push(ModuleActivity { loaded: true, name, program, path: None, sha256: None, process }.into());
    }
    if let Some(process) = process {
        for deed in [Deed::Traced(actor()), Deed::BecameRoot { from: 1000 }] {
            let (process, source) = (process.clone(), Source::Ebpf);
            kinds.push(ProcessDeed { deed, process, source }.into());
        }
    }
    for change in RuleChange::ALL {
        kinds.push(
            FirewallChange {
                change,
                family: "inet".into(),
                table: "filter".into(),
                operation: "nft_unregister_rule".into(),
                entries: Some(1),
                effect: "chain_emptied".into(),
                summary: "rules 12 -> 0".into(),
                process: process.clone(),
            }
            .into(),
        );
    }
}

/// What becomes of services, and what they submit.
fn service_samples(process: &Option<Actor>, kinds: &mut Vec<EventKind>) {
    for change in ServiceChange::ALL {
        kinds.push(
            ServiceActivity { change, name: "nftables.service".into(), detail: "exit-code".into() }.into(),
        );
    }
    for full in [true, false] {
        let text = |text: &str| if full { text.to_owned() } else { String::new() };
        kinds.push(
            Submitted {
                title: "Enclosure opened".into(),
                severity: Severity::High,
                category: text("tamper"),
                code: text("T-1"),
                message: text("lid switch 2"),
                attributes: if full { vec![("lid".into(), "2".into())] } else { Vec::new() },
                sender: ":1.42".into(),
                process: process.clone(),
            }
            .into(),
        );
    }
}

/// Accounts, and what the device consists of.
fn inventory_samples(process: &Option<Actor>, kinds: &mut Vec<EventKind>) {
    for change in AccountChange::ALL {
        let group = if change.concerns_group() { "wheel".to_owned() } else { String::new() };
        let user = if matches!(change, AccountChange::GroupCreated | AccountChange::GroupDeleted) {
            ""
        } else {
            "toor"
        };
        kinds.push(
            AccountActivity {
                change,
                user: user.into(),
                uid: (!user.is_empty()).then_some(0),
                group,
                gid: Some(10),
                shell: "/bin/sh".into(),
                detail: "uid 1000 -> 0".into(),
                process: process.clone(),
            }
            .into(),
        );
    }
    let interface = |kind: &str, addresses: &[&str]| Interface {
        name: "eth0.5".into(),
        kind: kind.into(),
        mac: "52:54:00:77:00:02".into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        vlan: (kind == "vlan").then(|| (5, "eth0".into())),
    };
    let os = ("Poky".to_owned(), "5.1".to_owned());
    let interfaces = vec![interface("wired", &["192.0.2.7", "2001:db8::7"]), interface("vlan", &[])];
    let full = DeviceInfo {
        vendor: "Example".into(),
        model: "Gateway 3".into(),
        serial: "SN-1".into(),
        firmware: ["Example".into(), "1.2".into(), "2026-01-02".into()],
        os: os.clone(),
        kernel: "6.12.1".into(),
        machine: "aarch64".into(),
        processors: 4,
        memory_mb: 512,
        booted: Some(Timestamp(1_700_000_000_000)),
        interfaces,
    };
    let package = Package {
        name: "busybox".into(),
        version: "1.36.1".into(),
        architecture: "arm64".into(),
        purl: "pkg:deb/debian/busybox@1.36.1".into(),
    };
    let kept = [
        Inventory::Device(Box::new(full)),
        Inventory::Device(Box::default()),
        Inventory::Interface {
            interface: interface("wireless", &["192.0.2.9"]),
            detail: "192.0.2.9 added".into(),
        },
        Inventory::Software { packages: 214, sha256: Some(Sha256([7; 32])), os },
        Inventory::Package {
            package: package.clone(),
            change: PackageChange::Updated,
            before: "1.36.0".into(),
        },
        Inventory::Package { package, change: PackageChange::Removed, before: String::new() },
    ];
    kinds.extend(kept.map(EventKind::from));
}

fn compliance(verdict: Verdict) -> Compliance {
    Compliance {
        policy: "firmware".into(),
        check: "firmware-empty-password".into(),
        title: "No account has an empty password".into(),
        section: "Accounts".into(),
        verdict,
        severity: Severity::Critical,
        reason: Some("cannot read /etc/shadow".into()),
        evidence: vec!["/etc/shadow: root has no password".into()],
        remediation: "Lock the account.".into(),
        references: vec![("etsi".into(), "5.1-1".into())],
        recommendation: Some("IoT_Baseline".into()),
        changed: verdict == Verdict::Fail,
    }
}

fn samples() -> Vec<EventKind> {
    let bare = Process { pid: 9, ..Process::default() };
    let mut observed = Vec::new();
    for process in [None, Some(actor()), Some(Actor { pid: 9, ..Actor::default() })] {
        network_samples(&process, &mut observed);
        system_samples(&process, &mut observed);
        service_samples(&process, &mut observed);
        inventory_samples(&process, &mut observed);
    }
    let mut kinds = vec![
        activity(process(), Change::Exec { truncated: true }),
        activity(bare.clone(), Change::Exec { truncated: false }),
        activity(process(), Change::Exit(ExitReason::Code(7))),
        activity(process(), Change::Exit(ExitReason::Signal(9))),
        activity(bare, Change::Exit(ExitReason::Unknown)),
    ];
    for activity in [Activity::Logon, Activity::Logoff, Activity::AccountSwitch] {
        for outcome in [Outcome::Success, Outcome::Failure] {
            for source in [None, Some("192.0.2.7"), Some("2001:db8::7")] {
                kinds.push(login(activity, outcome, source).into());
            }
        }
    }
    let attempt = login(Activity::Logon, Outcome::Failure, Some("192.0.2.7"));
    kinds.push(
        finding(vec![Evidence::Authentication(Box::new(attempt))], &["T1110.001"], &["credential-access"])
            .into(),
    );
    kinds.push(
        finding(
            vec![Evidence::Process(Box::new(with_grandparents(process())))],
            &["T1059", "T1105"],
            &["execution", "impact"],
        )
        .into(),
    );
    for verdict in Verdict::ALL {
        kinds.push(compliance(verdict).into());
    }
    kinds.push(finding(Vec::new(), &[], &[]).into());
    // No rule is about what the device consists of.
    let judged = observed.iter().filter(|kind| !matches!(kind, EventKind::Inventory(_)));
    let evidence = judged.map(|kind| Evidence::Observed(Box::new(kind.clone()))).collect();
    kinds.push(finding(evidence, &["T1071"], &[]).into());
    kinds.extend(observed);
    for action in [
        Action::Block,
        Action::Unblock,
        Action::Restore,
        Action::Kill,
        Action::RunHook,
        Action::Isolate,
        Action::EndIsolation,
    ] {
        for outcome in [
            remediation::Outcome::Verified,
            remediation::Outcome::Refused("on the allow-list".into()),
            remediation::Outcome::Failed("no nft".into()),
        ] {
            kinds.push(
                Remediation {
                    action,
                    address: matches!(action, Action::Block | Action::Unblock | Action::Restore)
                        .then(|| "2001:db8::7".parse().unwrap()),
                    process: (action == Action::Kill).then(|| Ancestor {
                        pid: 4242,
                        executable: "/tmp/x".into(),
                        command_line: "x -y".into(),
                        parent: None,
                    }),
                    seconds: Some(3600),
                    outcome,
                    reason: "Brute force".into(),
                    finding: Some("9d1c-1".into()),
                }
                .into(),
            );
        }
    }
    for kind in Kind::ALL {
        kinds.push(Health::new(kind, "process", "words").with("events", 3).into());
    }
    kinds
}

fn device() -> DeviceIdentity {
    DeviceIdentity {
        uid: "device-1".into(),
        boot_id: "b0a7".into(),
        hostname: "camera".into(),
        agent_version: "0.1.0".into(),
    }
}

#[test]
fn every_kind_of_event_is_valid_ocsf() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let device = device();
    let mut lines = Vec::new();
    for (sequence, kind) in (1..).zip(samples()) {
        let event = Event { time: Timestamp(1_700_000_000_000), sequence, kind };
        ocsf::encode(&event, &device, &mut lines);
        lines.push(b'\n');
    }
    for (line, kind) in lines.split(|byte| *byte == b'\n').zip(samples()) {
        if let Some(event) = ocsf::decode(line).unwrap() {
            // The end of a process says nothing of its parent.
            if matches!(&kind, EventKind::Process(p) if matches!(p.change, Change::Exit(_))) {
                continue;
            }
            assert_eq!(event.kind, kind, "{}", String::from_utf8_lossy(line));
        }
    }
    let file = directory.join("samples.jsonl");
    fs::write(&file, lines).unwrap();
    let packages = ["ocsf-json-schema==1.2.0", "jsonschema==4.26.0"];
    let Some(python) = environment(directory, "venv", &packages) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib/ocsf_validate.py");
    let output = Command::new(python).arg(script).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for class in
        [1001, 1002, 1007, 1010, 2004, 3001, 3002, 3004, 3006, 5001, 5020, 4001, 4003, 6002, 6008, 7004]
    {
        assert!(said.contains(&format!("class {class} ")), "no event of class {class}: {said}");
    }
}

/// The events in `docs/samples.md` came out of an agent on a device.
#[test]
fn the_samples_of_the_documentation_are_valid_ocsf() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../docs/samples.md")).unwrap();
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with('{')).collect();
    assert!(lines.len() > 20, "{} samples", lines.len());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = directory.join("documented.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    for class in [1001, 1002, 1007, 2003, 2004, 3002, 3004, 4001, 5001, 5020, 6002, 6008, 7001, 7003, 7004] {
        let begin = format!("{{\"class_uid\":{class},");
        assert!(lines.iter().any(|line| line.starts_with(&begin)), "no sample of class {class}");
    }
    let packages = ["ocsf-json-schema==1.2.0", "jsonschema==4.26.0"];
    let Some(python) = environment(directory, "venv", &packages) else { return };
    let output = Command::new(python).arg(root.join("lib/ocsf_validate.py")).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
