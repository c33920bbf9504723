//! A storm of everything at once against a running agent, both on one processor: the sheets of its sensors and sinks add up, and what arrived
//! is what was delivered. The harness lets a larger one loose on an emulated machine (`tests/bench storm`).

#![allow(clippy::unwrap_used)] // A test that cannot read its input has failed.
#![allow(clippy::multiple_unsafe_ops_per_block)] // They are made together or not at all.

mod agent;

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use agent::{is_root, Agent};

#[allow(dead_code)] // It is a program, too.
#[path = "../../../tests/src/bin/storm.rs"]
mod storm;

/// This thread, and what it starts, in a network and a view of `/sys` of its own, on one processor.
fn alone() -> bool {
    if !is_root() {
        return false;
    }
    // SAFETY: these take flags and strings that end with a zero, and sched_setaffinity(2) a set that lives through the call, with its size.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS), 0);
        let none = std::ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()), 0);
        assert_eq!(
            libc::mount(c"sysfs".as_ptr(), c"/sys".as_ptr(), c"sysfs".as_ptr(), 0, std::ptr::null()),
            0
        );
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &raw mut set), 0);
        let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &set)).unwrap();
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(first, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
    }
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    true
}

fn figure(status: &Value, sensor: &str, name: &str) -> u64 {
    let counters = status[sensor]["counters"].as_array();
    let pair = counters.and_then(|counters| counters.iter().find(|pair| pair[0] == name));
    pair.and_then(|pair| pair[1].as_u64()).unwrap_or_default()
}

fn sides(status: &Value, sensor: &str) -> (u64, u64) {
    let counters = status[sensor]["counters"].as_array().into_iter().flatten();
    let pairs = counters.filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_u64()?)));
    defender_sensors::balance::sides(pairs).unwrap()
}

#[test]
fn a_storm_of_everything_at_once_adds_up() {
    if !alone() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    // Polling sees what lasts; the sources that see all are one for the whole machine, and others use them.
    let configuration = format!(
        "[agent]\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\n[process]\nsource = \"poll\"\n[posture]\nenabled = false\n\
         [dbus]\nenabled = false\n[feeds]\ndirectories = []\n[rules]\ndirectories = []\n[files]\npaths = [\"{at}/passwd\", \"{at}/watched\"]\n\
         [login]\nfiles = [\"{at}/auth.log\"]\naccounting = []\nsyslog_socket = \"off\"\n[network]\nreceive_buffer_kib = 64\n\
         [sink.file]\npath = \"{at}/events.jsonl\"\nmax_kib = 65536\n[sink.syslog]\nenabled = false\n[confinement]\ndrop_privileges = false\n"
    );
    let file = directory.path().join("defender.toml");
    fs::write(&file, configuration).unwrap();
    fs::write(directory.path().join("auth.log"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_defender"));
    command.args(["run", "--config"]).arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
    let _agent = Agent(command.spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(300);
    let ask = || -> Value {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_defender"));
        asked.args(["status", "--json", "--socket"]).arg(directory.path().join("run/control.sock"));
        serde_json::from_slice(&asked.output().unwrap().stdout).unwrap_or_default()
    };
    while ask()["armed"] != true {
        assert!(Instant::now() < end, "the agent is not armed");
        std::thread::sleep(Duration::from_millis(50));
    }
    let storm = format!(
        "execs=200 alerts=5 program=/bin/true connections=1000 files=3000 directory={at}/watched/deep names=1000 failures=1000 \
         log={at}/auth.log devices=100 device=/sys/class/net/lo"
    );
    assert_eq!(storm::storm(storm.split(' ').map(str::to_owned)), ExitCode::SUCCESS);

    let sensors = ["process", "logins", "network", "files", "peripherals", "packet_filter", "modules"];
    let mut last = Vec::new();
    let status = loop {
        let status = ask();
        let held: u64 = sensors.iter().map(|sensor| figure(&status, sensor, "held")).sum();
        let waiting = status["sinks"][0]["waiting"].as_u64();
        let produced: Vec<u64> = sensors.iter().map(|sensor| figure(&status, sensor, "produced")).collect();
        // The question itself is a program, which polling may see.
        if held == 0 && waiting == Some(0) && produced.get(1..) == last.get(1..) {
            break status;
        }
        last = produced;
        assert!(Instant::now() < end, "it does not come to rest: {status}");
        std::thread::sleep(Duration::from_millis(500));
    };
    for sensor in sensors {
        let (produced, became) = sides(&status, sensor);
        assert_eq!(produced, became, "{sensor}: {status}");
    }
    let of = |sensor| figure(&status, sensor, "delivered");
    let events = &status["events"];
    for sensor in ["process", "network", "files", "peripherals"] {
        assert_eq!(events[sensor], of(sensor), "{status}");
    }
    // Every line was read, and every answer and question was, or the kernel says that it had no room.
    let text = fs::read_to_string(directory.path().join("events.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let unread: Vec<u64> = (1024..2024)
        .filter(|port| {
            !lines.iter().any(|line| line["src_endpoint"]["port"] == *port && line["class_uid"] == 3002)
        })
        .collect();
    // A line whose writer was held up in the midst of it is cut, and says nothing.
    let cut = figure(&status, "logins", "dropped_unreadable");
    assert!(cut <= 2 && unread.len() as u64 == cut, "failures from these ports: {unread:?}; {status}");
    assert_eq!((of("logins") + cut, events["authentication"].as_u64()), (1000, Some(1000 - cut)), "{status}");
    let network = |name| figure(&status, "network", name);
    let seen = network("dns_seen") + network("flows_seen") + network("dropped_kernel");
    assert!(seen >= 3000, "{status}");
    assert!(figure(&status, "files", "produced") >= 3000 / 100, "{status}");
    assert!(figure(&status, "peripherals", "produced") >= 200, "{status}");
    let sink = |name: &str| status["sinks"][0][name].as_u64().unwrap();
    assert_eq!(sink("handed"), sink("written") + sink("dropped"), "{status}");
    assert_eq!(events["emitted"].as_u64(), Some(sink("handed")), "{status}");
    // Lists of what there is, and of accounts, have no sheet: they are made when they are told.
    let class = |line: &Value| line["class_uid"].as_u64().unwrap();
    let lists = lines.iter().filter(|line| class(line) == 3001 || class(line) / 1000 == 5).count() as u64;
    assert_eq!(events["received"].as_u64(), Some(sensors.map(of).iter().sum::<u64>() + lists), "{status}");
    assert!(lines.len() as u64 >= sink("written"), "{} lines: {status}", lines.len());
}
