//! A network sensor that runs in a thread, in a network namespace of its own: real sockets, real connection tracking.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use defender_model::dns::Dns;
use defender_model::event::EventKind;
use defender_model::health::Health;
use defender_model::network::{Flow, Listener};
use defender_model::time::Timestamp;
use defender_sensors::network::{NetworkSensor, Selection, Settings, Status};
use defender_sensors::{Observation, Outlet};
use tokio::sync::oneshot;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Makes connection tracking work, as the agent's table of rules does.
pub(crate) const TRACK: &str =
    "table inet t { chain o { type filter hook output priority 10; ct state invalid counter; }; }";

pub(crate) fn clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis() as i64)
}

pub(crate) fn settings() -> Settings {
    Settings {
        flows: true,
        listen_interval: None,
        dns_group: None,
        denied_group: None,
        dns_table: 64,
        accounting: true,
        interfaces: Selection::default(),
        flow_table: 1024,
        events_per_second: 0,
        receive_buffer: 1 << 20,
        proc: "/proc".into(),
        passwd: "/etc/passwd".into(),
        onlooker: None,
        clock,
    }
}

/// Puts the calling thread into a network namespace of its own; false, with the reason said, where that cannot be.
pub(crate) fn namespace(rules: &str) -> bool {
    // SAFETY: unshare(2) takes flags and changes the calling thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("nothing tested: a network namespace needs root");
        return false;
    }
    run("ip", &["link", "set", "lo", "up"], "") && run("nft", &["-f", "/dev/stdin"], rules)
}

pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> bool {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        println!("nothing tested: {program} is not there");
        return false;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let status = child.wait().unwrap();
    if !status.success() {
        println!("nothing tested: {program} {arguments:?} failed");
    }
    status.success()
}

/// Ends every tracked connection at once, as time would (`IPCTNL_MSG_CT_DELETE` without a tuple).
pub(crate) fn end_connections() {
    // SAFETY: socket(2) takes three integers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER) };
    let mut message = 20u32.to_ne_bytes().to_vec();
    message.extend(0x102u16.to_ne_bytes());
    message.extend(5u16.to_ne_bytes());
    message.extend([0; 12]);
    // SAFETY: the buffer lives through the call and its true size is given.
    let sent = unsafe { libc::send(fd, message.as_ptr().cast(), message.len(), 0) };
    assert_eq!(sent, 20);
    // SAFETY: the descriptor is ours and is not used again.
    unsafe { libc::close(fd) };
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) kinds: Vec<EventKind>,
    pub(crate) notes: Vec<Health>,
}

impl Seen {
    pub(crate) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.kinds.iter().filter_map(|kind| match kind {
            EventKind::Network(flow) => Some(&**flow),
            _ => None,
        })
    }
}

impl Seen {
    pub(crate) fn names(&self) -> impl Iterator<Item = &Dns> {
        self.kinds.iter().filter_map(|kind| match kind {
            EventKind::Dns(dns) => Some(&**dns),
            _ => None,
        })
    }

    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.kinds.iter().filter_map(|kind| match kind {
            EventKind::Listener(socket) => Some(&**socket),
            _ => None,
        })
    }
}

/// A sensor in a thread of its own, and what it has said so far.
pub(crate) struct Running {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) status: Arc<Mutex<Status>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Threads inherit the namespace of the one that starts them.
    pub(crate) fn start(settings: Settings) -> Self {
        Self::of(NetworkSensor::open(settings))
    }

    pub(crate) fn of(sensor: NetworkSensor) -> Self {
        let status = sensor.status();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let into = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (outlet, mut observations) = Outlet::channel(4096);
                let task = tokio::spawn(sensor.run(outlet, async move {
                    let _ = stopped.await;
                }));
                while let Some(observation) = observations.recv().await {
                    let mut seen = into.lock().unwrap();
                    match observation {
                        Observation::Event(event) => seen.kinds.push(event.kind),
                        Observation::Health(health) => seen.notes.push(health),
                    }
                }
                task.await.unwrap();
            });
        });
        Self { seen, status, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Seen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen.lock().unwrap();
            if holds(&seen) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not seen: {what}; {:?}, the last {:?}",
                seen.notes,
                seen.kinds.last()
            );
            drop(seen);
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn flow(&self, what: &str, is: impl Fn(&Flow) -> bool) -> Flow {
        let mut found = None;
        self.until(what, |seen| {
            found = seen.flows().find(|flow| is(flow)).cloned();
            found.is_some()
        });
        found.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}
