//! Whose connections are, by the eBPF sources, beside the process that looks for it in `/proc`, under the same workload.
//!
//! Needs root in the initial PID namespace, bpf(2), and the program nft for a network namespace of its own; otherwise the test says why
//! it did nothing.

#![cfg(ebpf)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod netns;
mod process;

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use defender_model::network::{Direction, Flow, FlowChange, Listener};
use defender_model::process::Source;
use defender_sensors::network::onlooker::look;
use defender_sensors::network::{NetworkSensor, Settings};
use defender_sensors::process::{Preference, ProcessSensor};

use netns::{namespace, settings, TRACK};

/// The process sensor with this source, and a network sensor that has its word and no onlooker; nothing where it does not run here.
fn told(source: Source) -> Option<(process::Running, netns::Running)> {
    let mut settings = process::settings(Preference::Ebpf);
    if source == Source::EbpfEntry {
        settings.btf = "/nonexistent/btf".into();
    }
    let sensor = ProcessSensor::open(settings);
    let owners = sensor.owners();
    let running = process::Running::beside(sensor, None);
    running.until("the source", |seen| !seen.notes.is_empty());
    if running.source() != Some(source) {
        println!("skipped {source}: {:?}", running.status.lock().unwrap().declined);
        running.finish();
        return None;
    }
    let mut network = NetworkSensor::open(Settings {
        listen_interval: Some(Duration::from_secs(600)),
        ..netns::settings()
    });
    network.hear(owners);
    Some((running, netns::Running::of(network)))
}

/// A network sensor that has the onlooker.
fn looking() -> netns::Running {
    let (near, far) = UnixStream::pair().unwrap();
    drop(thread::spawn(|| look(far, Path::new("/proc"))));
    netns::Running::start(Settings { onlooker: Some(Arc::new(near)), ..settings() })
}

/// A program that connects to each address, or sends to those of datagrams, and then waits for the end of its input, if it has any.
fn client(lingers: bool, addresses: &[String]) -> Child {
    let script = "import socket,sys\nopen=[]\nfor a in sys.argv[1:]:\n\
        \x20k,h,p=a.split(',')\n\
        \x20f=socket.AF_INET6 if ':' in h else socket.AF_INET\n\
        \x20s=socket.socket(f,socket.SOCK_STREAM if k=='tcp' else socket.SOCK_DGRAM)\n\
        \x20s.connect((h,int(p)))\n\
        \x20if k!='tcp': s.send(b'x')\n\
        \x20open.append(s)\nprint('done',flush=True)\nsys.stdin.read()\n";
    let input = if lingers { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new("python3")
        .args(["-c", script])
        .args(addresses)
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    child
}

/// The flow without what is above its process, and that as programs and arguments.
fn without_ancestors(flow: &Flow) -> (Flow, Vec<(u32, String, String)>) {
    let mut flow = flow.clone();
    let parent = flow.process.as_mut().and_then(|process| process.parent.take());
    let chain = parent.iter().flat_map(|parent| parent.chain());
    let chain =
        chain.map(|one| (one.pid, one.executable.to_string(), one.command_line.to_string())).collect();
    (flow, chain)
}

fn differential(source: Source) {
    if !namespace(TRACK) {
        return;
    }
    // They are there before who would be told of them: not every kernel tells who binds a port for datagrams.
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let v6 = TcpListener::bind("[::1]:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagrams6 = UdpSocket::bind("[::1]:0").unwrap();
    let Some((process, told)) = told(source) else { return };
    let looked = looking();
    let mut addresses = Vec::new();
    for address in [v4.local_addr(), v6.local_addr()] {
        let address = address.unwrap();
        addresses.push(format!("tcp,{},{}", address.ip(), address.port()));
    }
    // Of datagrams the kernel tells since Linux 6.3.
    let with_datagrams = process::kernel() >= (6, 3);
    if with_datagrams {
        for address in [datagrams.local_addr(), datagrams6.local_addr()] {
            let address = address.unwrap();
            addresses.push(format!("udp,{},{}", address.ip(), address.port()));
        }
    }
    // Both know a process that stays, and say the same of it.
    let mut lingering = client(true, &addresses);
    let from = |pid: u32, flow: &Flow| {
        flow.change == FlowChange::Opened && flow.process.as_ref().is_some_and(|by| by.pid == pid)
    };
    let mut flows = Vec::new();
    for sensor in [&looked, &told] {
        let pid = lingering.id();
        sensor.until("the connections of the one that stays", |seen| {
            seen.flows().filter(|flow| from(pid, flow)).count() == addresses.len()
        });
        let seen = sensor.seen.lock().unwrap();
        let mut these: Vec<Flow> = seen.flows().filter(|flow| from(pid, flow)).cloned().collect();
        these.sort_by_key(|flow| (flow.protocol.0, flow.destination.port));
        flows.push(these);
    }
    let told_flows = flows.pop().unwrap();
    for (by_looking, by_ebpf) in flows.pop().unwrap().iter().zip(&told_flows) {
        assert_eq!(by_looking.direction, Direction::Local);
        let (looked, ancestors) = without_ancestors(by_looking);
        let (mut told, same) = without_ancestors(by_ebpf);
        // Each sensor has its own clock where the kernel keeps no time of connections.
        told.started = looked.started;
        assert_eq!(looked, told);
        // The table of processes keeps one generation less.
        assert!(!same.is_empty() && ancestors.starts_with(&same), "{ancestors:?} {same:?}");
    }
    drop(lingering.stdin.take());
    lingering.wait().unwrap();

    // Those that end at once are known to the kernel all the same.
    for _ in 0..20 {
        let mut fleeting = client(false, &addresses);
        let pid = fleeting.id();
        fleeting.wait().unwrap();
        told.until("the connections of one that ended at once", |seen| {
            seen.flows().filter(|flow| from(pid, flow)).count() == addresses.len()
        });
    }
    // And so is one that listens, long before the sockets are listed again.
    let late = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = late.local_addr().unwrap().port();
    let is = |socket: &&Listener| socket.local.port == Some(port) && socket.open;
    told.until("a socket that listens", |seen| seen.listeners().any(|socket| is(&socket)));
    let seen = told.seen.lock().unwrap();
    let pid = seen.listeners().find(is).unwrap().process.as_ref().map(|by| by.pid);
    assert_eq!(pid, Some(std::process::id()));
    drop(seen);
    assert_eq!(told.status.lock().unwrap().unattributed, 0);
    process.finish();
}

#[test]
fn the_kernel_says_the_same_as_who_looks() {
    differential(Source::Ebpf);
}

#[test]
fn without_btf_the_kernel_says_the_same_as_who_looks() {
    differential(Source::EbpfEntry);
}
