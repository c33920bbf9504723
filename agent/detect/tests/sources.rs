//! Every log source: a rule about each of its fields holds for an event that has the value, and for none beside it.

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

mod common;

use std::sync::Arc;

use defender_detect::{scenario, DataSource};
use defender_model::finding::{Evidence, Finding};

use common::{build, good};

fn rule(logsource: &str, items: &str) -> String {
    let items: String = items.split("; ").map(|item| format!("    {}\n", item.trim())).collect();
    format!("title: T\nid: t\nlogsource: {{{logsource}}}\ndetection:\n  s:\n{items}  condition: s\n")
}

/// Findings of a rule about that source with these items, over events written like those of scenarios.
fn findings(logsource: &str, items: &str, event: &str) -> Vec<Finding> {
    let rules = Arc::new(good(&[&rule(logsource, items)]));
    let scenarios = scenario::parse("t", format!("- rule: t\n  fires:\n  - {event}\n").as_bytes());
    let scenarios = scenarios.unwrap_or_else(|e| panic!("{e}: {event}"));
    scenarios[0].cases[0].run(&rules)
}

const BY: &str =
    "by: /bin/busybox, command: nc -l, parent: /bin/sh, parent_command: sh -c x, user: web, uid: 33";

#[test]
fn fields_have_the_values_of_the_event() {
    let connect = format!("{{connect: '192.0.2.7:4444', host: c2.example, bytes_out: 3000, {BY}}}");
    let accept = "{accept: '2001:db8::7', port: 23}";
    let dns = "{dns: x.example, type: TXT, answers: [192.0.2.9, y.example], server: '192.0.2.53:53'}";
    let failed = "{dns: x.example, rcode: 3}";
    let file = format!(
        "{{file: created, path: /etc/cron.d/x, mode: 4755, owner: 7, sha256: {}, {BY}}}",
        "ab".repeat(32)
    );
    let renamed = "{file: renamed, from: /tmp/x, path: /usr/bin/ls}";
    let device = "{device: connected, class: storage, vendor_id: '0951', product_id: 1666, product: Data Traveler, serial: A1, functions: storage keyboard, \
                  interfaces: ':080650:030101:', parent: 1-1, allowed: false}";
    let module = "{module: rk, path: /tmp/rk.ko, by: /sbin/insmod}";
    let firewall = "{firewall: removed, operation: nft_unregister_table, by: /usr/sbin/nft}";
    let run = "{run: [chmod, '+s', /tmp/a b], cwd: /tmp, tty: pts0, uid: 7, parent: /bin/sh}";
    let sudo = "{run: 'sudo -u#-1 id', user: bob}";
    let job = "{run: [sh, -c, 'wget x'], parent: /usr/sbin/crond, user: root}";
    for (logsource, event, items) in [
        (
            "category: network_connection",
            connect.as_str(),
            "DestinationIp: 192.0.2.7; DestinationPort: 4444; DestinationHostname: C2.example; Initiated: 'true'; Protocol: tcp; \
             direction: outbound; SourceIp: 192.0.2.100; SourcePort|gt: 1024; bytes_out|gte: 3000; bytes_in: null; \
             Image: /bin/busybox; CommandLine: nc -l; ParentImage: /bin/sh; ParentCommandLine: sh -c x; User: web; uid: 33; \
             ProcessId|exists: true; DestinationIp|cidr: 192.0.2.0/24; DestinationIsIpv6: 'false'; activity: opened",
        ),
        (
            "category: network_connection",
            accept,
            "SourceIp: '2001:db8::7'; DestinationPort: 23; Initiated: 'false'; direction: inbound; Image: null; SourcePort: null; \
             SourceIsIpv6: 'true'",
        ),
        ("category: network_flow", "{connect: '192.0.2.7:1', activity: failed}", "activity: failed"),
        ("category: network_listen", "{listen: 23, by: /bin/x}", "LocalPort: 23; LocalIp: 0.0.0.0; Image: /bin/x"),
        (
            "category: dns_query",
            dns,
            "QueryName: X.example; record_type: TXT; QueryStatus: 0; QueryResults: 192.0.2.9;y.example; DestinationIp: 192.0.2.53; \
             rcode_name: NoError; DestinationPort: 53",
        ),
        ("category: dns", failed, "query|endswith: .example; rcode: 3; rcode_name: nxdomain; answer: null"),
        (
            "category: file_event",
            file.as_str(),
            "TargetFilename|startswith: /etc/cron; mode: '4755'; setuid: 'true'; executable: 'true'; owner: 7; activity: created; \
             Hashes|contains: SHA256=ABAB; sha256|startswith: abab; Image: /bin/busybox; SourceFilename: null; \
             file_type: regular; User: web",
        ),
        ("category: file_event", renamed, "TargetFilename: /usr/bin/ls; SourceFilename: /tmp/x"),
        ("category: file_rename", renamed, "TargetFilename: /usr/bin/ls; mode: null; setuid: null"),
        ("category: file_change", "{file: attributes, path: /x, mode: 2755}", "setuid: 'true'"),
        ("category: file_change", "{file: attributes, path: /x, mode: 2755, type: directory}", "setuid: 'false'"),
        ("category: file_change", "{file: modified, path: /x}", "activity: modified"),
        ("category: file_event", "{file: modified, path: /x}", "activity: modified"),
        ("category: file_delete", "{file: deleted, path: /x}", "TargetFilename: /x"),
        ("category: file_access", "{file: read, path: /x}", "TargetFilename: /x"),
        (
            "category: device_connection",
            device,
            "DeviceClass: storage; bus: usb; VendorId: '0951'; ProductId: '1666'; Product|contains: travel; SerialNumber: A1; Vendor: null; \
             Functions|contains: keyboard; Interfaces|contains: ':0301'; Parent: 1-1; Allowed: 'false'",
        ),
        ("category: device_disconnection", "{device: disconnected, interface: sda}", "interface: sda"),
        ("category: driver_load", module, "ImageLoaded|startswith: /tmp/; ModuleName: rk; Image|endswith: /insmod"),
        ("category: driver_unload", "{module: rk, activity: removed}", "name: rk"),
        (
            "category: process_access",
            "{trace: /usr/sbin/sshd, target_command: sshd -D, target_uid: 0, by: /tmp/x, command: x 1, parent: /bin/sh, uid: 7, user: web}",
            "SourceImage: /tmp/x; SourceProcessId: 4242; SourceUser: web; TargetImage|endswith: /sshd; TargetCommandLine: sshd -D; \
             TargetProcessId: 4100; TargetUser: root; TargetUid: 0; Image: /tmp/x; CommandLine: x 1; ParentImage: /bin/sh; uid: 7",
        ),
        ("category: privilege_change", "{root_from: 1000, by: /tmp/x, uid: 0}", "PreviousUid: 1000; old_uid|gte: 1; Image: /tmp/x; uid: 0; User: root"),
        ("category: ebpf_load", "{program: hide, type: kprobe, by: /tmp/x}", "ProgramName: hide; ProgramType: kprobe; Image: /tmp/x"),
        ("category: ebpf_load", "{program: '', by: /tmp/x}", "ProgramName: null; ProgramType: null; User: null"),
        ("category: firewall_change", firewall, "activity: removed; operation|contains: table; family: inet; table: filter"),
        ("category: service_change", "{service: nftables.service, activity: failed, detail: exit-code}", "ServiceName: nftables.service; unit|startswith: nft; activity: failed; detail: exit-code"),
        (
            "category: submitted_event",
            "{submitted: Enclosure opened, severity: high, category: tamper, code: T-1, message: lid 2, attribute: lid=2, uid: 7, by: /bin/x}",
            "title|contains: opened; severity: high; category: tamper; code: T-1; message: lid 2; attributes|contains: lid=2; \
             sender: ':1.42'; uid: 7; Image: /bin/x",
        ),
        ("service: auditd", run, "type: EXECVE; a0: chmod; a1|contains: s; a2: /tmp/a b; argc: 3; a3: null"),
        ("service: auditd", run, "type: SYSCALL; exe: /usr/bin/chmod; comm: chmod; syscall: execve; tty: pts0; uid: 7; success: yes"),
        ("service: auditd", run, "type: CWD; cwd: /tmp"),
        ("service: auditd", run, "type: PATH; name: /usr/bin/chmod"),
        ("service: auditd", run, "type: PROCTITLE; proctitle|contains: '+s /tmp/a b'"),
        ("service: auditd", module, "type: KERN_MODULE; name: rk"),
        ("service: auditd", module, "syscall: finit_module; exe: /sbin/insmod"),
        ("service: auditd", firewall, "type: NETFILTER_CFG; op: nft_unregister_table; comm: nft"),
        ("service: auditd", renamed, "type: PATH; name: /tmp/x; nametype: DELETE"),
        ("service: auditd", renamed, "type: PATH; name: /usr/bin/ls; nametype: CREATE"),
        ("service: auditd", "{login: failure, from: 192.0.2.7, user: root}", "type: USER_LOGIN; acct: root; res: failed; addr: 192.0.2.7"),
        ("service: sudo", sudo, "USER: '#-*'; COMMAND: id; login_user: bob; message|contains: 'bob : TTY='"),
        ("service: cron", job, "message: (root) CMD (wget x); COMMAND: wget x"),
        ("service: sshd", "{login: failure, service: sshd, user: a}", "user: a"),
    ] {
        // Each field by itself, so that none hides behind another, then all at once.
        for item in items.split("; ") {
            assert_eq!(findings(logsource, item, event).len(), 1, "{logsource} {item}: {event}");
        }
        assert_eq!(findings(logsource, items, event).len(), 1, "{logsource} {items}: {event}");
    }
}

#[test]
fn events_of_another_source_are_none_of_its_business() {
    let anything = |category: &str| rule(&format!("category: {category}"), "Image: '*'");
    let connect = format!("{{connect: '192.0.2.7:4444', activity: closed, {BY}}}");
    for (category, event) in [
        ("network_connection", connect.as_str()),
        ("file_event", &format!("{{file: deleted, path: /x, {BY}}}")),
        ("file_event", &format!("{{file: attributes, path: /x, {BY}}}")),
        ("file_change", &format!("{{file: created, path: /x, {BY}}}")),
        ("driver_load", &format!("{{module: x, activity: removed, {BY}}}")),
        ("driver_load", &format!("{{program: x, {BY}}}")),
        ("ebpf_load", &format!("{{module: x, {BY}}}")),
        ("process_access", &format!("{{root_from: 7, {BY}}}")),
        ("privilege_change", &format!("{{trace: /x, {BY}}}")),
        ("process_creation", &format!("{{trace: /x, {BY}}}")),
        ("process_creation", &format!("{{listen: 23, {BY}}}")),
    ] {
        assert!(good(&[&anything(category)]).rules().len() == 1);
        assert!(
            findings(&format!("category: {category}"), "Image: '*'", event).is_empty(),
            "{category}: {event}"
        );
    }
    // A record holds what it holds: what one rule asks of two records is asked of none.
    let run = "{run: chmod +s x}";
    assert!(findings("service: auditd", "type: EXECVE; exe: /usr/bin/chmod", run).is_empty());
    assert!(findings("service: auditd", "type: CWD; a0: chmod", run).is_empty());
    assert!(findings("service: cron", "message|contains: CMD", "{run: ls, parent: /bin/sh}").is_empty());
    assert!(findings("service: cron", "message|contains: id", "{run: sudo id}").is_empty());
}

#[test]
fn an_event_alerts_once_however_many_of_its_records_match() {
    let found = findings("service: auditd", "type: ['SYSCALL', 'EXECVE', 'CWD']", "{run: ls -l}");
    assert_eq!(found.len(), 1);
}

#[test]
fn findings_name_both_ends_and_hold_the_event() {
    let found = findings(
        "category: network_connection",
        "Initiated: '*'",
        "{connect: '192.0.2.7:4444', by: /bin/nc}",
    );
    assert_eq!(found[0].destination, Some("192.0.2.7".parse().unwrap()));
    assert_eq!(found[0].source, None);
    assert!(found[0].message.contains("192.0.2.100:40000 -> 192.0.2.7:4444"), "{}", found[0].message);
    assert!(matches!(&found[0].evidence[..], [Evidence::Observed(_)]));
    let found =
        findings("category: network_connection", "Initiated: '*'", "{accept: '192.0.2.7:9', port: 22}");
    assert_eq!((found[0].source, found[0].destination), (Some("192.0.2.7".parse().unwrap()), None));
    let found =
        findings("category: file_event", "TargetFilename: '*'", "{file: created, path: \"/tmp/\\e[2Jx\"}");
    assert!(!found[0].message.contains('\u{1b}'), "{}", found[0].message);
}

#[test]
fn what_nobody_supplies_is_said_with_the_reason() {
    for (logsource, items, word) in [
        ("service: syslog", "a: b", "only logins"),
        ("category: webserver", "a: b", "webserver"),
        ("service: auditd", "key: x", "key"),
        ("category: dns_query", "Hashes: x", "QueryName"),
        ("service: cron, category: process_creation", "a: b", "process_creation/cron"),
    ] {
        let (rules, errors) = build(&[&rule(logsource, items)]);
        assert_eq!(rules.rules().len(), 0, "{logsource}");
        assert_eq!(errors[0].cause.name(), "unsupplied", "{}", errors[0]);
        assert!(errors[0].to_string().contains(word), "{}", errors[0]);
    }
}

#[test]
fn scenarios_refuse_what_they_do_not_know() {
    for (event, word) in [
        ("{connect: nowhere}", "nowhere"),
        ("{connect: '192.0.2.7:1', port: 3}", "port"),
        ("{file: burnt, path: /x}", "burnt"),
        ("{file: created}", "path"),
        ("{file: created, path: /x, mode: 99}", "octal"),
        ("{device: connected, class: toaster}", "keyboard"),
        ("{firewall: flushed}", "flushed"),
        ("{listen: x}", "port"),
        ("{dns: x, rcode: many}", "many"),
        ("{walk: home}", "connect"),
    ] {
        let parsed = scenario::parse("t", format!("- rule: t\n  fires:\n  - {event}\n").as_bytes());
        let error = parsed.map(|_| event).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_rule_says_what_has_to_be_observed_for_it() {
    let single = |name: &str, category: &str| {
        format!(
            "title: {name}\nname: {name}\nlogsource:\n  product: linux\n  {category}\n\
             detection:\n  s:\n    pid: 1\n  condition: s\n---\n"
        )
    };
    let correlation = |title: &str, kind: &str, rules: &str| {
        format!(
            "title: {title}\nname: {title}\ncorrelation:\n  type: {kind}\n  rules: [{rules}]\n  timespan: 1m\n  {}\n---\n",
            if kind == "event_count" { "condition: {gte: 2}" } else { "group-by: [pid]" }
        )
    };
    let text = [
        single("run", "category: process_creation"),
        single("record", "service: auditd"),
        single("login", "service: sshd"),
        single("write", "category: file_event"),
        correlation("either", "event_count", "run, write"),
        correlation("runs", "event_count", "run, record"),
        correlation("both", "temporal", "login, write"),
        correlation("deep", "temporal_ordered", "both, run"),
    ]
    .concat();
    let (rules, errors) = build(&[&text]);
    assert!(errors.is_empty(), "{errors:?}");
    let needs: Vec<String> = rules
        .rules()
        .map(|rule| {
            let names: Vec<&str> = rule.needs.iter().map(DataSource::name).collect();
            format!("{} {}", rule.info.title, names.join(" "))
        })
        .collect();
    assert_eq!(
        needs,
        [
            "run process",
            "record process",
            "login login",
            "write file",
            "either ",
            "runs process",
            "both login file",
            "deep process login file",
        ]
    );
}
