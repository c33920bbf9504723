//! The firewall sensor against the kernel it runs on, in a network namespace of its own, with the real nft.
//!
//! Needs root and the program nft; otherwise each test says why it did nothing. A namespace belongs to the thread that made it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use defender_model::event::EventKind;
use defender_model::health::{Health, Kind};
use defender_model::kernel::{FirewallChange, RuleChange};
use defender_model::time::Timestamp;
use defender_sensors::balance;
use defender_sensors::file::Status;
use defender_sensors::firewall::{FirewallSensor, Settings};
use defender_sensors::process::Directory;
use defender_sensors::{Observation, Outlet};
use tokio::sync::{mpsc, oneshot};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// The product's firewall.
const PRODUCT: &str = "table inet filter { set s { type ipv4_addr; }; \
     chain input { type filter hook input priority 0; policy drop; tcp dport 22 accept; ct state established accept; }; \
     chain forward { type filter hook forward priority 0; policy drop; }; chain other { counter; }; }\n";
const OWN: &str = "table inet defender { chain input { type filter hook input priority -250; counter; }; }\n";

/// The process of the last change that a test makes in the agent's place.
static OURS: AtomicU32 = AtomicU32::new(0);

struct Scene {
    runtime: tokio::runtime::Runtime,
    observations: mpsc::Receiver<Observation>,
    notes: Vec<Health>,
    status: Arc<Mutex<Status>>,
    disturbed: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
}

impl Scene {
    /// A namespace with this ruleset, watched; `None`, with the reason said, where that cannot be.
    fn set(ruleset: &str, receive_buffer: u32, own_process: fn(u32) -> bool) -> Option<Self> {
        // SAFETY: unshare(2) takes flags and changes the calling thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            println!("nothing tested: a network namespace needs root");
            return None;
        }
        if !std::path::Path::new("/usr/sbin/nft").exists() {
            println!("nothing tested: nft is not there");
            return None;
        }
        nft(ruleset);
        let disturbed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&disturbed);
        // On this thread, whose network namespace it is.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sensor = FirewallSensor::open(Settings {
            own_tables: &["defender"],
            own_process,
            disturbed: Box::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }),
            directory: Directory::of_proc("/proc".into()),
            receive_buffer,
            events_per_second: 1000,
            clock: || Timestamp(1),
        });
        let status = sensor.status();
        let (outlet, observations) = Outlet::channel(4096);
        let (stop, stopped) = oneshot::channel::<()>();
        runtime.spawn(sensor.run(outlet, async move {
            let _ = stopped.await;
        }));
        Some(Self { runtime, observations, notes: Vec::new(), status, disturbed, stop: Some(stop) })
    }

    /// The next change that is reported.
    fn next(&mut self) -> FirewallChange {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let receive = async { tokio::time::timeout(left, self.observations.recv()).await };
            let Ok(observation) = self.runtime.block_on(receive) else {
                panic!("no change was reported: {:?} {:?}", self.status, self.notes);
            };
            match observation.expect("the sensor ended") {
                Observation::Event(event) => match event.kind {
                    EventKind::Firewall(change) => return *change,
                    other => panic!("{other:?}"),
                },
                Observation::Health(health) => self.notes.push(health),
            }
        }
    }

    fn counter(&self, name: &str) -> u64 {
        let status = self.status.lock().unwrap();
        let (produced, rest) = balance::sides(status.counters.iter().copied()).unwrap();
        assert_eq!(produced, rest, "{status:?}");
        status.counters.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// Lets the sensor work until a counter has this value.
    fn until(&mut self, name: &str, value: u64) {
        let begin = Instant::now();
        while self.counter(name) < value {
            assert!(begin.elapsed() < PATIENCE, "{name} is {}", self.counter(name));
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

/// Runs nft on a script; its process id.
fn nft(script: &str) -> u32 {
    let mut child =
        Command::new("/usr/sbin/nft").args(["-f", "/dev/stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    pid
}

fn nobody(_: u32) -> bool {
    false
}

#[test]
fn a_change_by_hand_names_nft_and_what_it_comes_to() {
    let Some(mut scene) = Scene::set(PRODUCT, 1 << 20, nobody) else { return };
    let pid = nft("add rule inet filter input tcp dport 80 accept\n");
    let added = scene.next();
    let process = added.process.as_ref().unwrap();
    assert_eq!((process.pid, &*process.executable), (pid, "nft"));
    assert_eq!((added.change, &*added.operation), (RuleChange::Added, "nft_register_rule"));
    assert_eq!((&*added.family, &*added.table, &*added.effect), ("inet", "filter", ""));
    assert_eq!(
        added.summary,
        "tables 1 -> 1, chains 3 -> 3, rules 3 -> 4, inet 3 -> 4; inet filter input: rules 2 -> 3"
    );

    nft("chain inet filter input { policy accept; }\n");
    let opened = scene.next();
    assert_eq!((opened.change, &*opened.effect), (RuleChange::Changed, "policy_accept"));
    assert!(opened.summary.ends_with("inet filter input: policy drop -> accept"), "{}", opened.summary);

    nft("chain inet filter input { policy drop; }\n");
    assert_eq!(scene.next().effect, "", "closing is no alarm");

    nft("flush chain inet filter input\n");
    let emptied = scene.next();
    assert_eq!((emptied.change, &*emptied.operation), (RuleChange::Removed, "nft_unregister_rule"));
    assert_eq!(emptied.effect, "chain_emptied");

    nft("delete chain inet filter forward\n");
    let deleted = scene.next();
    assert_eq!((&*deleted.operation, &*deleted.effect), ("nft_unregister_chain", "base_chain_deleted"));

    nft(
        "add rule inet filter input accept\nadd table ip nat\nadd chain ip nat x\nadd rule ip nat x accept\n",
    );
    assert_eq!(scene.next().effect, "");
    nft("add table inet filter { flags dormant; }\n");
    assert_eq!(scene.next().effect, "table_dormant");
    nft("add table inet filter\n");
    assert_eq!(scene.next().effect, "");

    nft("flush ruleset\n");
    let flushed = scene.next();
    assert_eq!((flushed.change, &*flushed.operation), (RuleChange::Removed, "nft_unregister_table"));
    assert_eq!(flushed.effect, "table_deleted base_chain_deleted ruleset_flushed");
    assert_eq!((&*flushed.table, scene.disturbed.load(Ordering::SeqCst)), ("filter", 0));
    assert!(flushed
        .summary
        .starts_with("tables 2 -> 0, chains 3 -> 0, rules 3 -> 0, inet 2 -> 0, ip 1 -> 0"));
}

#[test]
fn a_reload_in_one_transaction_is_no_flush() {
    let Some(mut scene) = Scene::set(PRODUCT, 1 << 20, nobody) else { return };
    nft(&format!("flush ruleset\n{PRODUCT}"));
    let reloaded = scene.next();
    assert_eq!((reloaded.change, &*reloaded.effect), (RuleChange::Changed, ""));
    assert!(
        reloaded.summary.starts_with("tables 1 -> 1, chains 3 -> 3, rules 3 -> 3"),
        "{}",
        reloaded.summary
    );
}

#[test]
fn the_agent_s_own_changes_are_silent_and_those_of_others_to_its_tables_are_not() {
    fn ours(pid: u32) -> bool {
        pid == OURS.load(Ordering::SeqCst)
    }
    let Some(mut scene) = Scene::set(PRODUCT, 1 << 20, ours) else { return };
    // The sensor reads only when this thread lets it: by then the process id is known.
    OURS.store(nft(OWN), Ordering::SeqCst);
    scene.until("own", 1);
    // An id that was the agent's does not hide what the agent never does.
    OURS.store(nft("add rule inet filter other drop\n"), Ordering::SeqCst);
    assert_eq!(scene.next().table, "filter");
    assert_eq!(scene.disturbed.load(Ordering::SeqCst), 0);

    nft("delete table inet defender\n");
    let deleted = scene.next();
    assert_eq!((&*deleted.table, &*deleted.effect), ("defender", "own_table"));
    assert_eq!(scene.disturbed.load(Ordering::SeqCst), 1);
    // A table of the same name in another family is somebody else's.
    nft("add table ip defender\n");
    assert_eq!(scene.next().effect, "");
    assert_eq!(scene.disturbed.load(Ordering::SeqCst), 1);
    assert_eq!(scene.counter("own"), 1);
}

#[test]
fn a_storm_of_elements_is_a_handful_of_events() {
    let Some(mut scene) = Scene::set(PRODUCT, 4 << 20, nobody) else { return };
    let mut script = String::new();
    for n in 0..2000 {
        script.push_str(&format!("add element inet filter s {{ 10.1.{}.{} }}\n", n / 250, n % 250));
    }
    nft(&script);
    for n in 0..20 {
        nft(&format!("delete element inet filter s {{ 10.1.0.{n} }}\n"));
    }
    let begin = Instant::now();
    let counted = scene.next();
    assert!(begin.elapsed() > Duration::from_secs(5), "they are counted for a time");
    assert_eq!((&*counted.table, counted.entries), ("filter", Some(2020)));
    assert_eq!(
        (counted.change, &*counted.summary),
        (RuleChange::Changed, "elements of sets, in 21 transactions")
    );
    assert_eq!(scene.counter("aggregated"), 20);
}

#[test]
fn what_was_lost_is_found_by_reading_anew() {
    let Some(mut scene) = Scene::set(PRODUCT, 1 << 16, nobody) else { return };
    // The sensor does not read meanwhile, and the kernel's buffer is small.
    let mut script = String::from("table inet other { chain c { }; }\n");
    for n in 0..4000 {
        script.push_str(&format!("add rule inet other c tcp dport {} accept\n", n + 1));
    }
    nft(&script);
    nft("flush ruleset\n");
    let change = loop {
        let change = scene.next();
        if !change.effect.is_empty() {
            break change;
        }
    };
    assert!(change.effect.contains("ruleset_flushed"), "{change:?}");
    assert!(change.summary.ends_with("told by reading everything anew"), "{}", change.summary);
    assert!(scene.counter("overruns") > 0 && scene.counter("dropped_kernel") > 100);
    nft("add table inet after\n");
    while scene.next().table != "after" {}
    assert!(scene.notes.iter().any(|note| note.kind == Kind::Lost), "{:?}", scene.notes);
}
