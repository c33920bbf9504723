//! Whose connections are, as the kernel tells while they are made: by the eBPF sources of the process sensor, which see the process before
//! it can end. Where neither runs, nobody tells, and [`onlooker`](super::onlooker) looks.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use defender_model::network::Protocol;
use defender_model::process::Actor;
use tokio::sync::Notify;

/// Connections remembered; most are asked for within milliseconds.
#[cfg(ebpf)]
const CONNECTIONS: usize = 2048;
/// Sockets that listen remembered.
#[cfg(ebpf)]
const LISTENERS: usize = 256;
/// How long before a question word may have come that answers it: under a storm the messages of connection tracking lie about for a while.
/// A port may be another's after that.
const RECENT: Duration = Duration::from_secs(3);
/// How long word of it may take: what came before the question counts only if nothing newer comes until then.
pub(super) const ON_ITS_WAY: Duration = Duration::from_millis(20);

/// One end of a connection.
pub(crate) type End = (IpAddr, u16);

#[derive(Debug)]
struct Owned {
    heard: Instant,
    protocol: Protocol,
    local: End,
    /// Address and port are 0 where there is none or none is known.
    remote: End,
    by: Actor,
}

impl Owned {
    fn is(&self, protocol: Protocol, local: End, remote: End) -> bool {
        let fits = |own: End, other: End| own.0.is_unspecified() || own.0 == other.0;
        self.local.1 == local.1
            && self.protocol == protocol
            && (self.remote.1 == 0 || self.remote.1 == remote.1)
            && fits(self.local, local)
            && fits(self.remote, remote)
    }
}

#[derive(Debug, Default)]
struct Told {
    live: bool,
    /// Who accepts a connection is told too.
    accepts: bool,
    /// Oldest first.
    connections: VecDeque<Owned>,
    listeners: VecDeque<Owned>,
    /// One has come that nobody has looked at: of TCP, of UDP.
    news: [bool; 2],
    /// Something was told since the last announcement.
    #[cfg(ebpf)]
    unannounced: bool,
}

/// How soon sockets that listen are looked for when the kernel told that there is one. Of UDP later: some bind a port for each question
/// that they ask.
const SOON: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// What was told lately, shared by who hears and who asks.
#[derive(Debug, Clone, Default)]
pub struct Owners(Arc<Mutex<Told>>, Arc<Notify>);

impl Owners {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is told, and who accepts a connection too.
    pub(crate) fn set_live(&self, live: bool, accepts: bool) {
        if cfg!(ebpf) {
            let mut told = self.told();
            (told.live, told.accepts) = (live, accepts);
        }
    }

    /// Whether who accepts a connection of this protocol is told.
    pub(super) fn accepts(&self, protocol: Protocol) -> bool {
        cfg!(ebpf) && protocol == Protocol::TCP && self.told().accepts
    }

    /// Whether anything is told.
    pub(super) fn is_live(&self) -> bool {
        cfg!(ebpf) && self.told().live
    }

    /// A process opens or accepts a connection, or listens. Who waits hears of it by [`announce`](Self::announce).
    #[cfg(ebpf)]
    pub(crate) fn tell(&self, protocol: Protocol, local: End, remote: End, listens: bool, by: Actor) {
        let owned = Owned { heard: Instant::now(), protocol, local, remote, by };
        let mut told = self.told();
        told.unannounced = true;
        told.news[usize::from(protocol == Protocol::UDP)] |= listens;
        let (list, most) = match listens {
            true => (&mut told.listeners, LISTENERS),
            false => (&mut told.connections, CONNECTIONS),
        };
        if list.len() >= most {
            // Those that bind one port after the other push out each other.
            let oldest = list.iter().position(|owned| listens && owned.protocol == Protocol::UDP);
            list.remove(oldest.unwrap_or_default());
        }
        list.push_back(owned);
    }

    /// Tells who waits that something was told, if it was. To be called for many at once: each time all that wait are compared with all
    /// that is told.
    #[cfg(ebpf)]
    pub(crate) fn announce(&self) {
        if std::mem::take(&mut self.told().unannounced) {
            self.1.notify_one();
        }
    }

    /// Ready when something was told since.
    pub(super) async fn changed(&self) {
        match cfg!(ebpf) {
            true => self.1.notified().await,
            false => std::future::pending().await,
        }
    }

    /// Who opened or accepted a connection that is known of since then.
    pub(super) fn of(&self, protocol: Protocol, local: End, remote: End, since: Instant) -> Option<Actor> {
        let oldest = since.checked_sub(RECENT).unwrap_or(since);
        let told = self.told();
        let mut recent = told.connections.iter().rev().take_while(|owned| owned.heard >= oldest);
        let owned = recent.find(|owned| owned.is(protocol, local, remote))?;
        (owned.heard >= since || since.elapsed() >= ON_ITS_WAY).then(|| owned.by.clone())
    }

    /// Who listens there.
    pub(super) fn listener(&self, protocol: Protocol, local: End) -> Option<Actor> {
        let told = self.told();
        let owned = told.listeners.iter().rev().find(|owned| owned.is(protocol, local, local))?;
        Some(owned.by.clone())
    }

    /// Somebody has begun to listen and nobody has looked yet: how soon somebody should.
    pub(super) fn news(&self) -> Option<Duration> {
        if !self.is_live() {
            return None;
        }
        let news = self.told().news;
        news.iter().zip(SOON).find_map(|(news, soon)| news.then_some(soon))
    }

    /// Somebody looks.
    pub(super) fn looked(&self) {
        self.told().news = [false; 2];
    }
}

#[cfg(all(test, ebpf))]
mod tests {
    use super::*;

    fn end(address: &str, port: u16) -> End {
        (address.parse().expect("an address"), port)
    }

    fn actor(pid: u32) -> Actor {
        Actor { pid, ..Actor::default() }
    }

    #[test]
    fn what_is_not_known_fits() {
        let owners = Owners::default();
        let (here, there) = (end("192.0.2.1", 40_000), end("198.51.100.7", 53));
        let before = Instant::now();
        owners.tell(Protocol::UDP, end("0.0.0.0", 40_000), end("::", 0), false, actor(7));
        let who = |local, remote| owners.of(Protocol::UDP, local, remote, before).map(|by| by.pid);
        assert_eq!(who(here, there), Some(7));
        assert_eq!(who(end("192.0.2.1", 40_001), there), None);
        owners.tell(Protocol::UDP, here, end("198.51.100.8", 53), false, actor(8));
        assert_eq!((who(here, there), who(here, end("198.51.100.8", 53))), (Some(7), Some(8)));
        assert_eq!(owners.of(Protocol::TCP, here, there, before), None);
        owners.tell(Protocol::TCP, end("::", 22), end("::", 0), true, actor(9));
        assert!(owners.listener(Protocol::TCP, here).is_none());
        assert_eq!(owners.listener(Protocol::TCP, end("192.0.2.1", 22)).map(|by| by.pid), Some(9));
    }

    /// What was told before the question is the word on an earlier connection until time has passed.
    #[test]
    fn the_newest_word_counts_once_it_must_have_come() {
        let owners = Owners::default();
        let (here, there) = (end("192.0.2.1", 40_000), end("198.51.100.7", 53));
        owners.tell(Protocol::UDP, here, there, false, actor(7));
        std::thread::sleep(Duration::from_millis(1));
        let asked = Instant::now();
        let who = || owners.of(Protocol::UDP, here, there, asked).map(|by| by.pid);
        let early = who();
        // On a machine that was held up here the time has passed.
        assert!(early.is_none() || asked.elapsed() >= ON_ITS_WAY);
        while asked.elapsed() < ON_ITS_WAY {
            std::thread::yield_now();
        }
        assert_eq!(who(), Some(7));
        owners.tell(Protocol::UDP, here, there, false, actor(8));
        assert_eq!(who(), Some(8));
        let later = asked + 2 * RECENT;
        assert_eq!(owners.of(Protocol::UDP, here, there, later), None);
    }

    #[test]
    fn memory_is_bounded() {
        let owners = Owners::default();
        for port in 0..10_000 {
            owners.tell(Protocol::TCP, end("::", port), end("::", 0), port % 2 == 0, actor(1));
        }
        let told = owners.told();
        assert_eq!((told.connections.len(), told.listeners.len()), (CONNECTIONS, LISTENERS));
    }

    /// A name server that binds a port for each question leaves the others that listen where they are.
    #[test]
    fn ports_of_datagrams_push_out_each_other() {
        let owners = Owners::default();
        owners.set_live(true, false);
        owners.tell(Protocol::TCP, end("::", 22), end("::", 0), true, actor(1));
        assert_eq!(owners.news(), Some(SOON[0]));
        owners.looked();
        for port in 1024..2048 {
            owners.tell(Protocol::UDP, end("::", port), end("::", 0), true, actor(2));
        }
        assert_eq!(owners.news(), Some(SOON[1]));
        assert_eq!(owners.told().listeners.len(), LISTENERS);
        let who = |protocol, port| owners.listener(protocol, end("192.0.2.1", port)).map(|by| by.pid);
        assert_eq!((who(Protocol::TCP, 22), who(Protocol::UDP, 2047)), (Some(1), Some(2)));
    }
}
