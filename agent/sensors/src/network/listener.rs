//! Sockets that wait for connections or datagrams: which have come, which have gone, by comparing lists.

use std::collections::HashMap;
use std::net::IpAddr;

use defender_model::network::{Endpoint, Listener, Protocol};
use defender_model::process::Actor;

use super::socket::Socket;

/// Most sockets kept; a device has a few dozen.
const LIMIT: usize = 2048;

/// Protocol and address: what others see of it.
pub(super) type Key = (Protocol, IpAddr, u16);

#[derive(Debug)]
struct Known {
    inode: u64,
    process: Option<Actor>,
    /// Its beginning was reported, or it was there before the agent.
    told: bool,
    seen: bool,
}

/// A difference between two lists.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// It was there when the agent came: nothing to report, but who is behind it will be of interest.
    Found(Key),
    /// It has come.
    Opened(Key),
    /// It has gone.
    Closed(Listener),
}

/// The sockets that wait.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    known: HashMap<Key, Known>,
    based: bool,
}

impl Listeners {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Notes who is behind a socket.
    pub(super) fn attribute(&mut self, key: &Key, process: &Actor) {
        if let Some(known) = self.known.get_mut(key) {
            known.process = Some(process.clone());
        }
    }

    /// Compares with the sockets of now. A UDP socket counts when it is there twice: a client that sends a question and waits for
    /// the answer looks the same, and does not stay.
    pub(super) fn compare(&mut self, now: &[(Protocol, Socket)], changes: &mut Vec<Change>) {
        for (protocol, socket) in now {
            let key = (*protocol, socket.local.0, socket.local.1);
            let full = self.known.len() >= LIMIT;
            match self.known.get_mut(&key) {
                // Several sockets may share a port; each is as good as the other while the first is there.
                Some(known) if known.inode == socket.inode || known.seen => {
                    known.seen = true;
                    if !known.told {
                        known.told = true;
                        changes.push(Change::Opened(key));
                    }
                    continue;
                }
                // Its place was taken between two lists.
                Some(known) if known.told && !now.iter().any(|(_, other)| other.inode == known.inode) => {
                    changes.push(Change::Closed(listener(false, &key, known.process.take())));
                }
                Some(_) => continue,
                None if full => continue,
                None => {}
            }
            let told = !self.based || *protocol == Protocol::TCP;
            self.known.insert(key, Known { inode: socket.inode, process: None, told, seen: true });
            if !self.based {
                changes.push(Change::Found(key));
            } else if told {
                changes.push(Change::Opened(key));
            }
        }
        self.based = true;
        self.known.retain(|key, known| {
            let there = std::mem::take(&mut known.seen);
            if !there && known.told {
                changes.push(Change::Closed(listener(false, key, known.process.take())));
            }
            there
        });
    }
}

/// The event of a socket.
pub(super) fn listener(open: bool, key: &Key, process: Option<Actor>) -> Listener {
    let local = Endpoint { address: key.1, port: Some(key.2) };
    Listener { open, protocol: key.0, local, process }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(port: u16, inode: u64) -> Socket {
        let any = ("0.0.0.0".parse().unwrap(), 0);
        Socket::waiting((any.0, port), any, inode)
    }

    fn round(listeners: &mut Listeners, now: &[(Protocol, Socket)]) -> Vec<String> {
        let mut changes = Vec::new();
        listeners.compare(now, &mut changes);
        let mut words: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Found(key) => format!("found {}", key.2),
                Change::Opened(key) => format!("opened {}", key.2),
                Change::Closed(gone) => format!("closed {}", gone.local),
            })
            .collect();
        words.sort();
        words
    }

    #[test]
    fn what_was_there_is_no_event() {
        let listeners = &mut Listeners::default();
        let (ssh, dns) = ((Protocol::TCP, socket(22, 1)), (Protocol::UDP, socket(53, 2)));
        assert_eq!(round(listeners, &[ssh, dns]), ["found 22", "found 53"]);
        assert!(round(listeners, &[ssh, dns]).is_empty());
        let process = Actor { pid: 9, ..Actor::default() };
        listeners.attribute(&(Protocol::TCP, ssh.1.local.0, 22), &process);
        let mut changes = Vec::new();
        listeners.compare(&[dns], &mut changes);
        assert_eq!(
            changes,
            [Change::Closed(listener(false, &(Protocol::TCP, ssh.1.local.0, 22), Some(process)))]
        );
    }

    #[test]
    fn clients_of_udp_are_not_taken_for_servers() {
        let listeners = &mut Listeners::default();
        round(listeners, &[]);
        let (tcp, udp) = ((Protocol::TCP, socket(80, 1)), (Protocol::UDP, socket(5353, 2)));
        let client = (Protocol::UDP, socket(40_000, 3));
        assert_eq!(round(listeners, &[tcp, udp, client]), ["opened 80"]);
        assert_eq!(round(listeners, &[tcp, udp]), ["opened 5353"]);
        assert!(round(listeners, &[tcp, udp]).is_empty());
        assert_eq!(round(listeners, &[]), ["closed 0.0.0.0:5353", "closed 0.0.0.0:80"]);
    }

    #[test]
    fn another_in_its_place_and_one_beside_it() {
        let listeners = &mut Listeners::default();
        let old = (Protocol::TCP, socket(80, 1));
        round(listeners, &[old]);
        let second = (Protocol::TCP, socket(80, 2));
        assert!(round(listeners, &[old, second]).is_empty());
        assert!(round(listeners, &[second, old]).is_empty());
        assert_eq!(round(listeners, &[second]), ["closed 0.0.0.0:80", "opened 80"]);
    }

    #[test]
    fn memory_is_bounded() {
        let listeners = &mut Listeners::default();
        let many: Vec<_> = (1..=60_000).map(|port| (Protocol::TCP, socket(port, port.into()))).collect();
        assert_eq!(round(listeners, &many).len(), LIMIT);
        assert_eq!(listeners.len(), LIMIT);
    }
}
