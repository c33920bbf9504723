//! The peripheral sensor against the kernel it runs on, in a network namespace of its own: real messages about interfaces.
//!
//! Needs root and the program ip; otherwise each test says why it did nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;
use std::thread;
use std::time::Duration;

use defender_model::event::EventKind;
use defender_model::health::Kind;
use defender_model::peripheral::{PeripheralActivity, PeripheralClass};
use defender_model::time::Timestamp;
use defender_sensors::balance;
use defender_sensors::peripheral::{PeripheralSensor, Settings};
use defender_sensors::{Observation, Outlet};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn clock() -> Timestamp {
    Timestamp(1)
}

fn settings(receive_buffer: u32) -> Settings {
    Settings { sys: "/sys".into(), allow: Vec::new(), events_per_second: 0, receive_buffer, clock }
}

/// Runs `test` in a thread that has a network namespace of its own.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        // SAFETY: unshare(2) takes flags and changes the calling thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            println!("nothing tested: a network namespace needs root");
            return;
        }
        let probe = ["link", "add", "probe0", "type", "veth", "peer", "name", "probe1"];
        match Command::new("ip").args(probe).status() {
            Ok(status) if status.success() => test(),
            _ => println!("nothing tested: no pair of interfaces can be made"),
        }
    });
    thread.join().unwrap();
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

fn on_runtime(work: impl std::future::Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, work).await.unwrap() });
}

async fn next(observations: &mut tokio::sync::mpsc::Receiver<Observation>) -> PeripheralActivity {
    loop {
        if let Observation::Event(event) = observations.recv().await.unwrap() {
            let EventKind::Peripheral(activity) = event.kind else { panic!("{event:?}") };
            return *activity;
        }
    }
}

#[test]
fn interfaces_that_come_and_go_are_told_by_the_kernel() {
    in_namespace(|| {
        let sensor = PeripheralSensor::open(settings(1 << 20));
        let status = sensor.status();
        on_runtime(async {
            let (outlet, mut observations) = Outlet::channel(64);
            let (stop, stopped) = oneshot::channel::<()>();
            let running = tokio::spawn(sensor.run(outlet, async { drop(stopped.await) }));
            ip("link add name plug0 type veth peer name plug1");
            let mut names = Vec::new();
            for _ in 0..2 {
                let came = next(&mut observations).await;
                assert!(
                    came.connected && came.class == PeripheralClass::Network && came.bus == "virtual",
                    "{came:?}"
                );
                names.push(came.interface);
            }
            names.sort();
            assert_eq!(names, ["plug0", "plug1"]);
            ip("link set plug0 name lan0");
            ip("link del lan0");
            let mut gone = Vec::new();
            for _ in 0..2 {
                let went = next(&mut observations).await;
                assert!(!went.connected, "{went:?}");
                gone.push(went.interface);
            }
            gone.sort();
            assert_eq!(gone, ["lan0", "plug1"]);
            stop.send(()).unwrap();
            running.await.unwrap();
        });
        let status = status.lock().unwrap();
        assert!(status.modes[0].contains("messages of the kernel"), "{status:?}");
        // Nothing is unreadable, and four events came of it.
        let counter =
            |name| status.counters.iter().find(|(known, _)| *known == name).map(|(_, count)| *count);
        assert_eq!((counter("dropped_unreadable"), counter("delivered")), (None, Some(4)), "{status:?}");
        let (produced, rest) = balance::sides(status.counters.clone()).unwrap();
        assert_eq!(produced, rest, "{status:?}");
    });
}

/// The kernel's smallest buffer holds a few messages: most are lost, which is said, and what is there is read again.
#[test]
fn messages_that_found_no_room_are_counted_and_what_is_there_is_read_again() {
    in_namespace(|| {
        let sensor = PeripheralSensor::open(settings(1));
        for pair in 0..60 {
            ip(&format!("link add name a{pair} type veth peer name b{pair}"));
        }
        on_runtime(async {
            let (outlet, mut observations) = Outlet::channel(1024);
            let (stop, stopped) = oneshot::channel::<()>();
            let running = tokio::spawn(sensor.run(outlet, async { drop(stopped.await) }));
            loop {
                match observations.recv().await.unwrap() {
                    Observation::Health(health) if health.kind == Kind::Lost => {
                        assert!(
                            // Each pair is two messages or more, and the buffer holds a few.
                            health.counters.iter().any(|(n, count)| n == "kernel" && *count > 60),
                            "{health:?}"
                        );
                        break;
                    }
                    _ => {}
                }
            }
            stop.send(()).unwrap();
            running.await.unwrap();
        });
    });
}
