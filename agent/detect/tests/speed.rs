//! Speed, memory and allocation of the detector over the shipped rules and over a synthetic thousand.
//!
//! `cargo test --release -p defender-detect --test speed -- --ignored --nocapture --test-threads 1`

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use defender_detect::profile::{Document, Learner, Profile};
use defender_detect::{Detector, Limits, RuleSet};
use defender_model::event::{Event, EventKind};
use defender_model::finding::Responses;
use defender_model::network::{Direction, Endpoint, Flow, FlowChange, Protocol};
use defender_model::process::{Ancestor, Change, Process, ProcessActivity, Source};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;

/// Counts what is allocated.
struct Counting;

thread_local! {
    // Of this thread: the test harness allocates when it likes. Constant cells need no destructor and allocate nothing.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn bytes_in_use() -> i64 {
    BYTES.with(Cell::get)
}

// SAFETY: every call goes to the system's allocator unchanged; the counters neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        BYTES.with(|n| n.set(n.get() + layout.size() as i64));
        // SAFETY: the caller's contract is that of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.with(|n| n.set(n.get() - layout.size() as i64));
        // SAFETY: `pointer` came from `System::alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "yml") {
            out.push(path);
        }
    }
    out.sort();
    out
}

fn sources() -> Vec<(String, Vec<u8>)> {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/usr/share/defender/rules");
    files(&directory).into_iter().map(|p| (p.display().to_string(), fs::read(p).unwrap())).collect()
}

fn load(sources: &[(String, Vec<u8>)]) -> RuleSet {
    let mut builder = RuleSet::builder();
    for (name, bytes) in sources {
        builder = builder.add_source(name, bytes);
    }
    let (rules, errors) = builder.build();
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

/// Single-event rules in the shapes public rule sets use, all different.
fn synthetic(count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count)
        .map(|i| {
            let text = format!(
                "title: Synthetic {i}\nid: synthetic-{i}\nlogsource: {{product: linux, category: process_creation}}\ndetection:\n  \
                 image:\n    Image|endswith: ['/tool{i}', '/other{i}']\n  arguments:\n    CommandLine|contains|all: ['--option{i}', \
                 'target{}']\n  parent:\n    ParentImage|endswith: '/daemon{i}'\n  filter:\n    CommandLine|contains: 'harmless{i}'\n  \
                 condition: (image and arguments) or (parent and arguments) and not filter\nlevel: low\n",
                i % 37
            );
            (format!("synthetic-{i}.yml"), text.into_bytes())
        })
        .collect()
}

/// What a device runs all day: nothing a rule holds for.
fn ordinary() -> Vec<Event> {
    let lines = [
        "/usr/sbin/crond -f -l 8",
        "sh -c run-parts /etc/periodic/15min",
        "run-parts /etc/periodic/15min",
        "/usr/sbin/logrotate /etc/logrotate.conf",
        "ip -4 addr show dev eth0",
        "ping -c 1 -W 2 192.0.2.1",
        "cat /sys/class/thermal/thermal_zone0/temp",
        "sed -n s/^MemFree:\\s*\\([0-9]*\\).*/\\1/p /proc/meminfo",
        "/usr/bin/app --config /etc/app/app.toml --telemetry https://telemetry.example/v1/ingest --interval 30",
        "date +%s",
        "sleep 5",
        "/usr/libexec/sftp-server",
        "systemctl is-active app.service",
        "python3 /usr/lib/app/collect.py --sensor i2c-1:0x48 --out /var/lib/app/samples.db",
        "grep -q ready /run/app/state",
        "find /var/lib/app/queue -type f -mmin +60 -delete",
        "gzip -9 /var/log/messages.1",
        "ntpd -q -p pool.ntp.org",
        "tar -C /var/lib/app -czf /var/backups/app.tar.gz config",
        "mount -t tmpfs tmpfs /var/volatile",
    ];
    lines
        .iter()
        .zip(0..)
        .map(|(line, i)| {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let name = argv[0].rsplit('/').next().unwrap();
            let process = Process {
                pid: 1000 + i,
                executable: format!("/usr/bin/{name}").into(),
                argv,
                cwd: "/".into(),
                uid: Some(0),
                euid: Some(0),
                user: Some("root".into()),
                parent: Some(
                    Ancestor {
                        pid: 1,
                        executable: "/sbin/init".into(),
                        command_line: "/sbin/init".into(),
                        parent: None,
                    }
                    .into(),
                ),
                ..Process::default()
            };
            let change = Change::Exec { truncated: false };
            let activity = ProcessActivity { process, change, source: Source::Replay, started: None };
            Event::new(Timestamp::from_secs(1_700_000_000), activity.into())
        })
        .collect()
}

fn measure(label: &str, sources: &[(String, Vec<u8>)]) {
    let before = bytes_in_use();
    let start = Instant::now();
    let rules = load(sources);
    let loaded = start.elapsed();
    let (always, all) = rules.always_evaluated();
    let automatons = rules.automaton_bytes();
    let mut detector = Detector::new(rules, Limits::default());
    let after_load = bytes_in_use() - before;
    let events = ordinary();
    let mut findings = Vec::new();
    for event in &events {
        detector.inspect(event, &mut findings);
    }
    let rounds = 2000;
    let allocated = allocations();
    let start = Instant::now();
    for _ in 0..rounds {
        for event in &events {
            detector.inspect(event, &mut findings);
        }
    }
    let each = start.elapsed().as_nanos() / (rounds * events.len() as u128);
    let allocated = allocations() - allocated;
    let stats = detector.stats();
    let in_use = bytes_in_use() - before;
    println!(
        "{label}: {all} single-event rules ({always} looked at for every event), loaded in {:.1} ms, {} KiB (automatons {} KiB), after \
         {} events {} KiB; {each} ns/event, {:.2} rules looked at per event, {allocated} allocations, {} findings",
        loaded.as_secs_f64() * 1e3,
        after_load / 1024,
        automatons / 1024,
        stats.events,
        in_use / 1024,
        stats.evaluated as f64 / stats.events as f64,
        findings.len(),
    );
}

#[test]
#[ignore = "a measurement, not a check"]
fn speed() {
    let shipped = sources();
    measure("shipped", &shipped);
    for count in [100, 1000] {
        measure(&format!("shipped and {count} synthetic"), &[shipped.clone(), synthetic(count)].concat());
    }
}

/// The worst an attacker can do with one exec: arguments full of words that rules look for.
#[test]
#[ignore = "a measurement, not a check"]
fn arguments_made_to_cost() {
    let mut detector = Detector::new(load(&sources()), Limits::default());
    let words = "wget curl tftp ftpget chmod +x /dev/tcp/ nc -x mkfifo socat exec: python base64 nohup nft iptables passwd shadow dd mount insmod \
                 auditctl systemctl kill rm authorized_keys ld.so.preload useradd chpasswd crontab telnetd ssh fw_setenv watchdog busybox ";
    for size in [4 << 10, 128 << 10, 1 << 20] {
        let text: String = words.chars().cycle().take(size).collect();
        let mut event = ordinary().remove(0);
        if let EventKind::Process(activity) = &mut event.kind {
            activity.process.argv = vec!["sh".into(), "-c".into(), text];
        }
        let mut findings = Vec::new();
        detector.inspect(&event, &mut findings);
        let start = Instant::now();
        detector.inspect(&event, &mut findings);
        println!(
            "{:>5} KiB of arguments: {:.1} ms, {} findings",
            size / 1024,
            start.elapsed().as_secs_f64() * 1e3,
            findings.len()
        );
    }
    println!("{} KiB in use by all automatons and buffers afterwards", bytes_in_use() / 1024);
}

/// A profile that knows `count` programs besides those of [`ordinary`]: each with a user, three parents, a peer, a domain, two files.
fn profile(count: usize) -> Document {
    let mut learner = Learner::default();
    ordinary().iter().for_each(|event| learner.learn(event));
    let mut text = learner.finish().to_toml();
    for i in 0..count {
        text.push_str(&format!(
            "\n[program.\"/usr/libexec/product/tool-of-the-product-{i}\"]\nusers = [\"user{}\"]\n\
             parents = [\"/sbin/init\", \"/bin/busybox/sh\", \"/usr/libexec/product/tool-of-the-product-{}\"]\n\
             connects = [\"tcp 192.0.2.{} 443\"]\nlooks_up = [\"host{i}.example.org\"]\n\
             writes = [\"/var/lib/product/{i}/state\", \"/var/lib/product/{i}/log-{{number}}\"]\n",
            i % 7,
            i / 2,
            i % 250,
        ));
    }
    Document::parse(text.as_bytes()).unwrap()
}

/// Connections without a program: the most there is to look through.
fn nameless() -> Event {
    let end = |text: &str| Endpoint { address: text.parse().unwrap(), port: Some(443) };
    let flow = Flow {
        change: FlowChange::Opened,
        direction: Direction::Outbound,
        protocol: Protocol::TCP,
        source: end("10.0.2.15"),
        destination: end("192.0.2.249"),
        destination_name: None,
        forward: None,
        reply: None,
        started: None,
        ended: None,
        rule: None,
        process: None,
    };
    Event::new(Timestamp(0), flow.into())
}

#[test]
#[ignore = "a measurement, not a check"]
fn the_learned_profile() {
    for count in [100, 1000, 10_000] {
        let document = profile(count);
        let text = document.to_toml();
        // The best of several: whatever else the machine does is not ours.
        let best = |times: usize, work: &mut dyn FnMut()| {
            let time = |work: &mut dyn FnMut()| {
                let start = Instant::now();
                work();
                start.elapsed()
            };
            (0..times).map(|_| time(work)).min().unwrap().as_nanos()
        };
        let loaded = best(5, &mut || drop(Profile::from(&Document::parse(text.as_bytes()).unwrap())));
        let before = bytes_in_use();
        let mut profile = Profile::from(&document);
        let taken = bytes_in_use() - before;
        let mut lacking = 0;
        let mut each = |events: &[Event]| {
            let mut round =
                || events.iter().for_each(|event| profile.inspect(event, &mut |_, _, _| lacking += 1));
            best(2000, &mut round) / events.len() as u128
        };
        let (exec, flow) = (each(&ordinary()), each(&[nameless()]));
        println!(
            "{} programs: file {} KiB, loaded in {:.1} ms, {} KiB in memory; {exec} ns per start of a program, {flow} ns per connection \
             of an unknown one, {lacking} lacking",
            profile.programs(),
            text.len() / 1024,
            loaded as f64 / 1e6,
            taken / 1024,
        );
    }
}

#[test]
fn nothing_is_allocated_for_an_event_that_the_profile_has() {
    let (rules, _) = RuleSet::builder().profile(Severity::Medium, Responses::NONE).build();
    let mut detector = Detector::new(rules, Limits::default());
    detector.set_profile(Profile::from(&profile(1000)));
    let mut events = ordinary();
    events.push(nameless());
    let mut findings = Vec::new();
    let mut judge = || events.iter().for_each(|event| detector.inspect(event, &mut findings));
    judge();
    let before = allocations();
    judge();
    assert_eq!(allocations() - before, 0);
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn nothing_is_allocated_for_an_event_no_rule_holds_for() {
    let mut detector = Detector::new(load(&sources()), Limits::default());
    let mut findings = Vec::new();
    let events = ordinary();
    // Once for the buffers to grow and the regular expressions to build their caches.
    for event in &events {
        detector.inspect(event, &mut findings);
    }
    assert!(findings.is_empty(), "{findings:?}");
    let before = allocations();
    for event in &events {
        detector.inspect(event, &mut findings);
    }
    assert_eq!(allocations() - before, 0);
}
