//! Questions to the domain name system and their answers, put together: one event for both.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use defender_model::dns::Dns;
use defender_model::network::{Endpoint, Protocol};
use defender_model::process::Actor;

use super::dns::{Message, PORT};

/// How long a question waits for its answer before it is reported without.
const PATIENCE: Duration = Duration::from_secs(5);

/// What ties an answer to its question: protocol, the client's address and port, the server's address, the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) protocol: Protocol,
    pub(super) client: (IpAddr, u16),
    pub(super) server: IpAddr,
    pub(super) id: u16,
}

/// What a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is remembered until its answer comes.
    First,
    /// The same is waiting for its answer.
    Again,
    /// It will be known by its answer alone.
    NoRoom,
}

#[derive(Debug)]
struct Waiting {
    at: Instant,
    process: Option<Actor>,
    name: String,
    record_type: String,
}

/// Questions without an answer so far, at most a given number.
#[derive(Debug)]
pub(super) struct Lookups {
    asked: HashMap<Key, Waiting>,
    capacity: usize,
}

impl Lookups {
    pub(super) fn new(capacity: usize) -> Self {
        Self { asked: HashMap::new(), capacity }
    }

    /// Questions that wait.
    pub(super) fn len(&self) -> u64 {
        self.asked.len() as u64
    }

    /// A question.
    pub(super) fn question(&mut self, key: Key, message: Message, now: Instant) -> Asked {
        if self.asked.contains_key(&key) {
            return Asked::Again;
        }
        if self.asked.len() >= self.capacity {
            return Asked::NoRoom;
        }
        let asked = Waiting { at: now, process: None, name: message.name, record_type: message.record_type };
        self.asked.insert(key, asked);
        Asked::First
    }

    /// Notes who asked.
    pub(super) fn attribute(&mut self, key: &Key, process: &Actor) {
        if let Some(asked) = self.asked.get_mut(key) {
            asked.process = Some(process.clone());
        }
    }

    /// An answer, with what is known of its question. One to a question of another name is not the answer.
    pub(super) fn answer(&mut self, key: &Key, message: Message) -> Dns {
        let ours = self.asked.get(key).is_some_and(|asked| asked.name.eq_ignore_ascii_case(&message.name));
        let asked = if ours { self.asked.remove(key) } else { None };
        Dns {
            name: message.name,
            record_type: message.record_type,
            rcode: Some(message.rcode),
            answers: message.answers,
            server: Some(server(key)),
            process: asked.and_then(|asked| asked.process),
        }
    }

    /// Takes out the questions that were not answered in time.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Dns> {
        let late = |asked: &Waiting| now.saturating_duration_since(asked.at) >= PATIENCE;
        let keys: Vec<Key> =
            self.asked.iter().filter(|(_, asked)| late(asked)).map(|(key, _)| *key).collect();
        let take = |key: &Key| {
            let asked = self.asked.remove(key)?;
            Some(Dns {
                name: asked.name,
                record_type: asked.record_type,
                rcode: None,
                answers: Vec::new(),
                server: Some(server(key)),
                process: asked.process,
            })
        };
        keys.iter().filter_map(take).collect()
    }
}

const fn server(key: &Key) -> Endpoint {
    Endpoint { address: key.server, port: Some(PORT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u16) -> Key {
        let client = ("192.0.2.1".parse().unwrap(), 40_000);
        Key { protocol: Protocol::UDP, client, server: "192.0.2.53".parse().unwrap(), id }
    }

    fn message(id: u16, response: bool, name: &str) -> Message {
        Message {
            id,
            response,
            rcode: 0,
            name: name.into(),
            record_type: "A".into(),
            answers: Vec::new(),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn an_answer_has_who_asked() {
        let (mut lookups, now) = (Lookups::new(9), Instant::now());
        assert_eq!(lookups.question(key(1), message(1, false, "a.example"), now), Asked::First);
        assert_eq!(lookups.question(key(1), message(1, false, "a.example"), now), Asked::Again);
        lookups.attribute(&key(1), &Actor { pid: 7, ..Actor::default() });
        let forged = lookups.answer(&key(1), message(1, true, "b.example"));
        assert_eq!((forged.name.as_str(), forged.process), ("b.example", None));
        let answer = lookups.answer(&key(1), message(1, true, "A.example"));
        assert_eq!((answer.rcode, answer.process.map(|p| p.pid)), (Some(0), Some(7)));
        assert_eq!(answer.server.unwrap().to_string(), "192.0.2.53:53");
        assert!(lookups.asked.is_empty());
    }

    #[test]
    fn a_question_without_answer_is_told_after_a_while() {
        let (mut lookups, now) = (Lookups::new(2), Instant::now());
        lookups.question(key(1), message(1, false, "a.example"), now);
        lookups.question(key(2), message(2, false, "b.example"), now + PATIENCE);
        assert_eq!(lookups.question(key(3), message(3, false, "c.example"), now), Asked::NoRoom);
        assert!(lookups.overdue(now).is_empty());
        let late = lookups.overdue(now + PATIENCE);
        assert_eq!(
            late.iter().map(|dns| (dns.name.as_str(), dns.rcode)).collect::<Vec<_>>(),
            [("a.example", None)]
        );
        assert_eq!(lookups.asked.len(), 1);
    }
}
