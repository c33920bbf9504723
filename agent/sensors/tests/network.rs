//! The network sensor against the kernel it runs on, in a network namespace of its own: real sockets, real connection tracking.
//!
//! Needs root and the program nft; otherwise each test says why it did nothing. The machine's own network is not touched: a
//! namespace belongs to the thread that made it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod netns;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use defender_model::network::{Direction, Flow, FlowChange, Protocol};
use defender_sensors::balance;
use defender_sensors::network::nftables::rules;
use defender_sensors::network::onlooker::look;
use defender_sensors::network::{Selection, Settings};
use netns::*;

#[test]
fn connections_begin_and_end_with_counts() {
    if !namespace(TRACK) {
        return;
    }
    let sensor = Running::start(settings());
    for (address, host) in [("127.0.0.1:0", "IPv4"), ("[::1]:0", "IPv6")] {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        let ours = |flow: &Flow| flow.protocol == Protocol::TCP && flow.destination.port == Some(port);
        let opened = sensor.flow(host, |flow| ours(flow) && flow.change == FlowChange::Opened);
        assert_eq!(opened.direction, Direction::Local);
        assert_eq!(opened.source.port, Some(client.local_addr().unwrap().port()));
        assert_eq!(opened.source.address, client.local_addr().unwrap().ip());
        drop((client, server));
        end_connections();
        let closed = sensor.flow(host, |flow| ours(flow) && flow.change == FlowChange::Closed);
        let forward = closed.forward.unwrap();
        assert!(forward.bytes > 1000 && forward.bytes < 2000 && forward.packets >= 4, "{forward:?}");
        assert!(closed.reply.unwrap().packets >= 2);
        assert!(closed.started.unwrap() <= closed.ended.unwrap());
        assert!(closed.ended.unwrap().since(closed.started.unwrap()) < 30_000);
    }
}

#[test]
fn connections_have_a_process() {
    if !namespace(TRACK) {
        return;
    }
    let (near, far) = UnixStream::pair().unwrap();
    let looking = thread::spawn(|| look(far, Path::new("/proc")));
    drop(looking);
    let sensor = Running::start(Settings { onlooker: Some(Arc::new(near)), ..settings() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = Command::new("python3")
        .args([
            "-c",
            "import socket,sys; c=socket.create_connection(('127.0.0.1',int(sys.argv[1]))); sys.stdin.read()",
        ])
        .arg(address.port().to_string())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let accepted = listener.accept().unwrap();
    let opened = sensor.flow("the connection", |flow| flow.change == FlowChange::Opened);
    let process = opened.process.unwrap();
    assert_eq!(process.pid, client.id());
    assert!(process.executable.contains("python"), "{process:?}");
    assert!(process.command_line.ends_with(&format!(" {}", address.port())), "{process:?}");
    assert_eq!((process.uid, process.user.as_deref()), (Some(0), Some("root")));
    drop((client.stdin.take(), accepted));
    client.wait().unwrap();
    end_connections();
    // The process is gone; what was known of it is not.
    let closed = sensor.flow("the end", |flow| flow.change == FlowChange::Closed);
    assert_eq!(closed.process, Some(process));
    assert_eq!(sensor.status.lock().unwrap().unattributed, 0);
}

#[test]
fn sockets_begin_and_cease_to_listen() {
    if !namespace(TRACK) {
        return;
    }
    let before = TcpListener::bind("127.0.0.1:0").unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    drop(thread::spawn(|| look(far, Path::new("/proc"))));
    let sensor = Running::start(Settings {
        onlooker: Some(Arc::new(near)),
        listen_interval: Some(Duration::from_millis(50)),
        ..settings()
    });
    sensor.until("the list", |_| sensor.status.lock().unwrap().listening == 1);
    let tcp = TcpListener::bind("[::]:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ours = [tcp.local_addr().unwrap(), udp.local_addr().unwrap()];
    let told = |open: bool, address: SocketAddr| {
        let mut found = None;
        sensor.until(if open { "a socket" } else { "its end" }, |seen| {
            found = seen
                .listeners()
                .find(|l| l.open == open && l.local.to_string() == address.to_string())
                .cloned();
            found.is_some()
        });
        found.unwrap()
    };
    for address in ours {
        assert_eq!(told(true, address).process.unwrap().pid, std::process::id());
    }
    let gone = before.local_addr().unwrap();
    drop((before, tcp, udp));
    for address in [ours[0], ours[1], gone] {
        assert_eq!(told(false, address).process.unwrap().pid, std::process::id());
    }
    // What was there before the sensor is no event.
    assert!(!sensor.seen.lock().unwrap().listeners().any(|l| l.open && l.local.port == Some(gone.port())));
}

/// An answer of one address to the question in `message`.
fn answer(message: &[u8], address: &[u8]) -> Vec<u8> {
    let mut answer = message.to_vec();
    answer[2] |= 0x80;
    answer[7] = 1;
    answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c");
    answer.extend((address.len() as u16).to_be_bytes());
    answer.extend(address);
    answer
}

fn question(id: u8, name: &str) -> Vec<u8> {
    let mut message = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

#[test]
fn names_are_looked_up_and_connections_bear_them() {
    let rules = "table inet t { chain i { type filter hook input priority 10;
        udp sport 53 log group 53 snaplen 1500 queue-threshold 1; tcp sport 53 tcp flags psh log group 53; }; \
        chain o { type filter hook output priority 10; ct state invalid counter;
        udp dport 53 log group 53 snaplen 1500 queue-threshold 1; tcp dport 53 tcp flags psh log group 53; }; }";
    if !namespace(rules) {
        return;
    }
    let (near, far) = UnixStream::pair().unwrap();
    drop(thread::spawn(|| look(far, Path::new("/proc"))));
    let sensor =
        Running::start(Settings { dns_group: Some(53), onlooker: Some(Arc::new(near)), ..settings() });
    let dns = |name: &str| {
        let mut found = None;
        sensor.until(name, |seen| {
            found = seen.names().find(|dns| dns.name == name).cloned();
            found.is_some()
        });
        found.unwrap()
    };
    sensor.until("the start", |seen| !seen.notes.is_empty());
    let served = TcpListener::bind("127.0.0.9:0").unwrap();

    for (number, host) in [(1, "127.0.0.1:53"), (2, "[::1]:53")] {
        let server = UdpSocket::bind(host).unwrap();
        let client = UdpSocket::bind(if number == 1 { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
        client.connect(host).unwrap();
        let name = format!("host{number}.example");
        client.send(&question(number, &name)).unwrap();
        let mut buffer = [0; 512];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        // The agent has half a second to see whose question it is; the server of this test answers at once.
        server.send_to(&answer(&buffer[..length], &[127, 0, 0, 9]), from).unwrap();
        client.recv(&mut buffer).unwrap();
        let seen = dns(&name);
        assert_eq!((seen.rcode, seen.answers[0].data.as_str()), (Some(0), "127.0.0.9"));
        assert_eq!(seen.server.unwrap().to_string(), host);
        assert_eq!(seen.process.unwrap().pid, std::process::id());
    }
    drop(TcpStream::connect(served.local_addr().unwrap()).unwrap());
    let opened =
        sensor.flow("the connection", |flow| flow.destination.address == served.local_addr().unwrap().ip());
    assert_eq!(opened.destination_name.as_deref(), Some("host2.example"));

    let server = TcpListener::bind("127.0.0.1:53").unwrap();
    let mut client = TcpStream::connect("127.0.0.1:53").unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    let framed = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    client.write_all(&framed(question(7, "long.example"))).unwrap();
    thread::sleep(Duration::from_millis(50));
    accepted.write_all(&framed(answer(&question(7, "long.example"), &[192, 0, 2, 1]))).unwrap();
    assert_eq!(dns("long.example").answers[0].data, "192.0.2.1");

    // Nobody answers this one, and that is no message.
    let silent = UdpSocket::bind("127.0.0.1:53").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(&question(9, "silent.example"), silent.local_addr().unwrap()).unwrap();
    client.send_to(b"\0\x01nonsense that has no sense at all", silent.local_addr().unwrap()).unwrap();
    let unanswered = dns("silent.example");
    assert_eq!((unanswered.rcode, unanswered.answers.len()), (None, 0));
    let status = sensor.status.lock().unwrap().clone();
    assert_eq!((status.balance.unreadable, status.names), (1, 2), "{status:?}");
}

#[test]
fn dropped_packets_name_the_rule() {
    let rules = "table inet t { chain i { type filter hook input priority 0;
        tcp dport 23 limit rate 5/second log prefix \"no telnet \" group 54; tcp dport 23 drop; }; }";
    if !namespace(rules) {
        return;
    }
    let sensor = Running::start(Settings { denied_group: Some(54), ..settings() });
    let address: SocketAddr = "[::1]:23".parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_millis(20)).unwrap_err();
    let denied = sensor.flow("the packet", |flow| flow.change == FlowChange::Denied);
    assert_eq!(denied.rule.as_deref(), Some("no telnet"));
    assert_eq!((denied.destination.to_string().as_str(), denied.direction), ("[::1]:23", Direction::Local));
    assert_eq!(denied.protocol, Protocol::TCP);
    // The group is ours now.
    let other = Running::start(Settings { denied_group: Some(54), ..settings() });
    let lacks = other.status.lock().unwrap().lacks.join("\n");
    assert!(lacks.contains("another program has it: choose another `network.denied_group`"), "{lacks}");
}

#[test]
fn refused_connections_failed_and_datagrams_are_flows() {
    if !namespace(TRACK) {
        return;
    }
    let sensor = Running::start(settings());
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    TcpStream::connect(refused).unwrap_err();
    let failed = sensor.flow("the end", |flow| flow.change == FlowChange::Failed);
    assert_eq!(failed.destination.port, Some(refused.port()));

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"question", "127.0.0.1:9").unwrap();
    let datagram = sensor.flow("UDP", |flow| flow.protocol == Protocol::UDP);
    assert_eq!(datagram.destination.port, Some(9));
    assert_eq!(sensor.status.lock().unwrap().lacks, Vec::<String>::new());
}

#[test]
fn rules_of_a_chain_are_counted() {
    if !namespace(TRACK) {
        return;
    }
    assert_eq!(rules("t", "o").unwrap(), Some(1));
    assert_eq!((rules("t", "x").unwrap(), rules("x", "o").unwrap()), (None, None));
    assert!(run("nft", &["flush", "table", "inet", "t"], ""));
    assert_eq!(rules("t", "o").unwrap(), Some(0));
}

#[test]
fn interfaces_can_be_left_out() {
    if !namespace(TRACK) {
        return;
    }
    assert!(run("ip", &["link", "add", "veth0", "type", "veth", "peer", "name", "veth1"], ""));
    assert!(run("ip", &["addr", "add", "192.0.2.1/24", "dev", "veth0"], ""));
    assert!(run("ip", &["link", "set", "veth0", "up"], "") && run("ip", &["link", "set", "veth1", "up"], ""));
    let interfaces = Selection { include: vec![], exclude: vec!["lo".into()] };
    let sensor = Running::start(Settings { interfaces, ..settings() });
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.send_to(b"x", "127.0.0.1:9").unwrap();
    socket.send_to(b"x", "192.0.2.7:9").unwrap();
    let outbound = sensor.flow("outbound", |flow| flow.direction == Direction::Outbound);
    assert_eq!(outbound.destination.to_string(), "192.0.2.7:9");
    assert!(sensor.seen.lock().unwrap().flows().all(|flow| flow.direction != Direction::Local));
}

#[test]
fn a_storm_is_bounded_and_counted() {
    if !namespace(TRACK) {
        return;
    }
    let sensor = Running::start(Settings { events_per_second: 20, flow_table: 64, ..settings() });
    sensor.until("the start", |seen| !seen.notes.is_empty());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for port in 1..=1000 {
        // Answers that a port is closed come back as errors of a later send.
        while socket.send_to(b"x", ("127.0.0.1", port)).is_err() {}
    }
    sensor.until("the loss", |seen| seen.notes.iter().any(|note| note.kind.name() == "lost"));
    sensor.until("all", |_| sensor.status.lock().unwrap().flows_seen >= 1000);
    let status = sensor.status.lock().unwrap().clone();
    assert_eq!(status.overruns, 0);
    let (produced, rest) = balance::sides(status.counters()).unwrap();
    assert_eq!(produced, rest, "{status:?}");
    let balance = status.balance;
    assert!(balance.delivered < 500 && balance.over_bound > 500, "{status:?}");
    assert_eq!(status.open, 64);
}
