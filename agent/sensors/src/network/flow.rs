//! Connections as events: which way they were opened, whether they came about, how much went each way.

use std::collections::HashMap;
use std::net::IpAddr;

use defender_model::network::{Direction, Endpoint, Flow, FlowChange, Protocol};
use defender_model::process::Actor;
use defender_model::text;
use defender_model::time::Timestamp;

use super::conntrack::{Tracked, Tuple};
use super::packet::Packet;

/// What is remembered of a connection between its begin and its end.
#[derive(Debug, Clone)]
struct Open {
    started: Timestamp,
    process: Option<Actor>,
    name: Option<String>,
}

/// Connections that are open, at most a given number.
#[derive(Debug)]
pub(super) struct Flows {
    open: HashMap<Tuple, Open>,
    capacity: usize,
    untracked: u64,
}

impl Flows {
    pub(super) fn new(capacity: usize) -> Self {
        Self { open: HashMap::new(), capacity, untracked: 0 }
    }

    /// Connections that are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Connections that found no room: the event of their end lacks process and name.
    pub(super) const fn untracked(&self) -> u64 {
        self.untracked
    }

    /// After messages were lost, ends of connections may be among them: nothing is remembered of any.
    pub(super) fn forget(&mut self) {
        self.open = HashMap::new();
    }

    /// Notes who is behind a connection that began.
    pub(super) fn attribute(&mut self, tuple: &Tuple, process: &Actor) {
        if let Some(open) = self.open.get_mut(tuple) {
            open.process = Some(process.clone());
        }
    }

    /// What a message of the kernel means. `local` tells the device's own addresses, `name` what an address was looked up by.
    pub(super) fn observe(
        &mut self,
        tracked: &Tracked,
        now: Timestamp,
        local: &dyn Fn(IpAddr) -> bool,
        name: &dyn Fn(IpAddr) -> Option<String>,
    ) -> Flow {
        let original = tracked.original;
        let stamp = |ns: Option<u64>| ns.map(|ns| Timestamp((ns / 1_000_000) as i64));
        let direction = direction(original.source, original.destination, local);
        let known = if tracked.ended { self.open.remove(&original) } else { None };
        let change = match (tracked.ended, tracked.assured) {
            (false, _) => FlowChange::Opened,
            // The handshake was never completed.
            (true, false) if original.protocol == Protocol::TCP => FlowChange::Failed,
            (true, _) => FlowChange::Closed,
        };
        let started = stamp(tracked.start_ns).or_else(|| {
            if tracked.ended {
                known.as_ref().map(|k| k.started)
            } else {
                Some(now)
            }
        });
        let (process, destination_name) = match known {
            Some(known) => (known.process, known.name),
            None => (None, name(original.destination)),
        };
        if !tracked.ended {
            if self.open.len() < self.capacity {
                let started = started.unwrap_or(now);
                self.open.insert(original, Open { started, process: None, name: destination_name.clone() });
            } else {
                self.untracked += 1;
            }
        }
        let port = |port: u16| original.has_ports().then_some(port);
        Flow {
            change,
            direction,
            protocol: original.protocol,
            source: Endpoint { address: original.source, port: port(original.source_port) },
            destination: Endpoint { address: original.destination, port: port(original.destination_port) },
            destination_name,
            forward: tracked.forward,
            reply: tracked.backward,
            started,
            ended: tracked.ended.then(|| stamp(tracked.stop_ns).unwrap_or(now)),
            rule: None,
            process,
        }
    }
}

/// Which way what the source sent to the destination goes.
fn direction(source: IpAddr, destination: IpAddr, local: &dyn Fn(IpAddr) -> bool) -> Direction {
    match (local(source), local(destination)) {
        (true, true) => Direction::Local,
        (true, false) => Direction::Outbound,
        (false, true) => Direction::Inbound,
        // A broadcast or multicast packet is not routed.
        (false, false) if is_group(destination) => Direction::Inbound,
        (false, false) => Direction::Unknown,
    }
}

/// A packet that a rule dropped, or said to have.
pub(super) fn denied(packet: &Packet<'_>, prefix: &[u8], local: &dyn Fn(IpAddr) -> bool) -> Flow {
    let (from, to) = packet.ports.unzip();
    let rule = text::from_bytes(prefix.trim_ascii());
    Flow {
        change: FlowChange::Denied,
        direction: direction(packet.source, packet.destination, local),
        protocol: packet.protocol,
        source: Endpoint { address: packet.source, port: from },
        destination: Endpoint { address: packet.destination, port: to },
        destination_name: None,
        forward: None,
        reply: None,
        started: None,
        ended: None,
        rule: (!rule.is_empty()).then_some(rule),
        process: None,
    }
}

/// A multicast address, or the broadcast address of every network.
fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use defender_model::network::Volume;
    use proptest::prelude::*;

    use super::*;

    fn tracked(protocol: u8, source: &str, destination: &str, ended: bool, assured: bool) -> Tracked {
        let original = Tuple {
            protocol: Protocol(protocol),
            source: source.parse().unwrap(),
            source_port: 40_000,
            destination: destination.parse().unwrap(),
            destination_port: 443,
            echo: 0,
        };
        let reply = Tuple {
            source: original.destination,
            source_port: 443,
            destination: original.source,
            destination_port: 40_000,
            ..original
        };
        let volume = ended.then_some(Volume { bytes: 100, packets: 2 });
        Tracked {
            ended,
            original,
            reply,
            assured,
            forward: volume,
            backward: volume,
            start_ns: None,
            stop_ns: None,
        }
    }

    fn observe(flows: &mut Flows, tracked: &Tracked, now: i64) -> Flow {
        let own: IpAddr = "192.0.2.1".parse().unwrap();
        let local = |address: IpAddr| address.is_loopback() || address == own;
        flows.observe(tracked, Timestamp(now), &local, &|_| Some("example.org".into()))
    }

    #[test]
    fn directions() {
        let flows = &mut Flows::new(9);
        for (source, destination, direction) in [
            ("192.0.2.1", "198.51.100.7", Direction::Outbound),
            ("198.51.100.7", "192.0.2.1", Direction::Inbound),
            ("127.0.0.1", "127.0.0.1", Direction::Local),
            ("192.0.2.1", "127.0.0.1", Direction::Local),
            ("198.51.100.7", "198.51.100.8", Direction::Unknown),
            ("198.51.100.7", "224.0.0.251", Direction::Inbound),
            ("fe80::7", "ff02::fb", Direction::Inbound),
            ("0.0.0.0", "255.255.255.255", Direction::Inbound),
        ] {
            let flow = observe(flows, &tracked(17, source, destination, false, false), 5);
            assert_eq!(flow.direction, direction, "{source} {destination}");
        }
    }

    #[test]
    fn the_end_knows_the_beginning() {
        let flows = &mut Flows::new(9);
        let opened = observe(flows, &tracked(6, "192.0.2.1", "198.51.100.7", false, false), 1000);
        assert_eq!(
            (opened.change, opened.started, opened.ended),
            (FlowChange::Opened, Some(Timestamp(1000)), None)
        );
        let tuple = tracked(6, "192.0.2.1", "198.51.100.7", false, false).original;
        flows.attribute(&tuple, &Actor { pid: 7, ..Actor::default() });
        let closed = observe(flows, &tracked(6, "192.0.2.1", "198.51.100.7", true, true), 3000);
        assert_eq!(closed.change, FlowChange::Closed);
        assert_eq!((closed.started, closed.ended), (Some(Timestamp(1000)), Some(Timestamp(3000))));
        assert_eq!(closed.process.map(|process| process.pid), Some(7));
        assert_eq!(closed.forward, Some(Volume { bytes: 100, packets: 2 }));
        assert_eq!(flows.len(), 0);
    }

    #[test]
    fn a_handshake_that_was_not_completed_failed() {
        let flows = &mut Flows::new(9);
        let end = |protocol, assured| tracked(protocol, "192.0.2.1", "198.51.100.7", true, assured);
        assert_eq!(observe(flows, &end(6, false), 1).change, FlowChange::Failed);
        // One datagram that nobody answers is nothing out of the ordinary.
        assert_eq!(observe(flows, &end(17, false), 1).change, FlowChange::Closed);
        assert_eq!(observe(flows, &end(1, false), 1).destination.port, None);
    }

    proptest! {
        #[test]
        fn memory_is_bounded(ports in prop::collection::vec(any::<(u16, bool)>(), 0..200)) {
            let flows = &mut Flows::new(16);
            for (port, ended) in ports {
                let mut message = tracked(6, "192.0.2.1", "198.51.100.7", ended, true);
                message.original.source_port = port;
                observe(flows, &message, 1);
                prop_assert!(flows.len() <= 16);
            }
        }
    }
}
