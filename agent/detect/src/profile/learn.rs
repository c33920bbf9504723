//! From events to a profile.
//!
//! Everything is a set and is generalised by itself or, for ports and addresses, by what the whole set shows when learning is over: the
//! order of events and their number do not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use defender_model::event::Event;
use defender_model::network::Protocol;

use super::document::{self, Document, Facts, MAX_ENTRIES};
use super::endpoint::{bits, write_listen, write_peer, Port, Seen, EPHEMERAL};
use super::observed::{observe, Fact, Scratch};
use super::pattern::{escape, Name, MAX_NAME};
use super::{generalise, Facet};

/// Different ports of the ephemeral range in one place that are taken for handed out by the kernel: one alone may be a service's own.
const EPHEMERAL_AT_LEAST: usize = 2;
/// Different addresses of a network that are taken for the network.
const NETWORK_AT_LEAST: usize = 8;
/// Bits of the network that they are taken for: a /24, and a /64.
const NETWORK_BITS: (u32, u32) = (24, 64);

/// Where a connection went.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Local,
    Name(String),
    Address(IpAddr),
}

impl Host {
    fn text(&self) -> String {
        match self {
            Self::Local => "local".to_owned(),
            Self::Name(name) => name.clone(),
            Self::Address(address) => address.to_string(),
        }
    }
}

/// What was seen of one program.
#[derive(Debug, Default)]
struct Raw {
    names: BTreeSet<(Facet, String)>,
    listens: BTreeSet<(Protocol, bool, Port)>,
    peers: BTreeSet<(Protocol, Host, Port)>,
}

/// Learns from events what a product does.
#[derive(Debug, Default)]
pub struct Learner {
    programs: BTreeMap<String, Raw>,
    scratch: Scratch,
    size: usize,
    used: u64,
    left_out: u64,
}

impl Learner {
    /// Takes in one event.
    pub fn learn(&mut self, event: &Event) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(observed) = observe(event, &mut scratch) {
            self.used += 1;
            let long = |fact: &Fact<'_>| matches!(fact, Fact::Name(_, name) if name.len() > MAX_NAME);
            if observed.program.len() > MAX_NAME || observed.facts.iter().flatten().any(long) {
                self.left_out += 1;
            } else {
                self.note(observed.program, observed.started, &observed.facts);
            }
        }
        self.scratch = scratch;
    }

    fn note(&mut self, program: &str, started: bool, facts: &[Option<Fact<'_>>]) {
        if self.size >= MAX_ENTRIES {
            self.left_out += 1;
            return;
        }
        if !started && facts.iter().all(Option::is_none) {
            return;
        }
        let program = generalise::executable(program);
        let raw = self.programs.entry(program).or_insert_with(|| {
            self.size += 1;
            Raw::default()
        });
        for fact in facts.iter().flatten() {
            let new = match *fact {
                Fact::Name(facet, name) => raw.names.insert((facet, general(facet, name))),
                Fact::End(Facet::Listens, seen) => raw.listens.insert((seen.protocol, seen.local, seen.port)),
                Fact::End(_, seen) => raw.peers.insert((seen.protocol, host(&seen), seen.port)),
            };
            self.size += usize::from(new);
        }
    }

    /// Events that said something.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Events that were left out: a name longer than any path, or no room for more.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The profile.
    #[must_use]
    pub fn finish(self) -> Document {
        let mut document = Document::default();
        for (program, raw) in self.programs {
            let mut facts = Facts::default();
            for (facet, name) in raw.names {
                facts.0[facet as usize].insert(name);
            }
            for (protocol, loopback, port) in listens(&raw.listens) {
                facts.0[Facet::Listens as usize].insert(write_listen(protocol, port.as_deref(), loopback));
            }
            for (protocol, host, port) in peers(&raw.peers) {
                facts.0[Facet::Connects as usize].insert(write_peer(protocol, &host, port.as_deref()));
            }
            for facet in [Facet::Parents, Facet::LooksUp, Facet::Writes, Facet::Reads] {
                absorb(facet, &mut facts.0[facet as usize]);
            }
            document.programs.insert(program, facts);
        }
        document
    }
}

/// The entry that a profile would have for a fact by itself.
pub(super) fn written(fact: &Fact<'_>) -> (Facet, String) {
    match *fact {
        Fact::Name(facet, name) => (facet, general(facet, name)),
        Fact::End(facet, seen) => {
            let port = seen.port.map(|port| port.to_string());
            let text = match facet {
                Facet::Listens => write_listen(seen.protocol, port.as_deref(), seen.local),
                _ => write_peer(seen.protocol, &host(&seen).text(), port.as_deref()),
            };
            (facet, text)
        }
    }
}

fn host(seen: &Seen<'_>) -> Host {
    match seen.name {
        _ if seen.local => Host::Local,
        Some(name) => Host::Name(generalise::domain(name)),
        None => Host::Address(seen.address),
    }
}

/// The name a profile keeps.
fn general(facet: Facet, name: &str) -> String {
    match facet {
        Facet::Parents => generalise::executable(name),
        Facet::LooksUp => generalise::domain(name),
        Facet::Writes | Facet::Reads => generalise::file(name),
        Facet::Users | Facet::Logins | Facet::Listens | Facet::Connects => {
            let mut out = String::new();
            escape(name, &mut out);
            out
        }
    }
}

/// Leaves out names that a pattern beside them stands for: of several generated names one may not look it.
fn absorb(facet: Facet, names: &mut BTreeSet<String>) {
    let parse =
        |text: &String| if facet == Facet::LooksUp { document::domain(text) } else { document::path(text) };
    let read: Vec<Name> = names.iter().filter_map(|text| parse(text).ok()).collect();
    let patterns: Vec<&Name> = read.iter().filter(|name| matches!(name, Name::Pattern(_))).collect();
    if patterns.is_empty() {
        return;
    }
    names.retain(|text| match parse(text) {
        Ok(Name::Exact(name)) => !patterns.iter().any(|pattern| pattern.matches(&name)),
        _ => true,
    });
}

/// The port as a profile has it: its number, or `ephemeral` where several of that range were seen in one place.
fn port(port: Port, ephemeral: &BTreeSet<u16>) -> Option<String> {
    let port = port?;
    let generated = ephemeral.len() >= EPHEMERAL_AT_LEAST && ephemeral.contains(&port);
    Some(if generated { "ephemeral".to_owned() } else { port.to_string() })
}

/// By place: the ports of the ephemeral range that were seen there.
fn ephemeral<P: Ord + Clone>(all: impl Iterator<Item = (P, Port)>) -> BTreeMap<P, BTreeSet<u16>> {
    let mut by_place: BTreeMap<P, BTreeSet<u16>> = BTreeMap::new();
    for (place, port) in all {
        let ports = by_place.entry(place).or_default();
        ports.extend(port.filter(|port| (EPHEMERAL.0..=EPHEMERAL.1).contains(port)));
    }
    by_place
}

type Listens = BTreeSet<(Protocol, bool, Option<String>)>;

fn listens(seen: &BTreeSet<(Protocol, bool, Port)>) -> Listens {
    let high = ephemeral(seen.iter().map(|(protocol, local, port)| ((*protocol, *local), *port)));
    let all = seen
        .iter()
        .map(|(protocol, local, number)| (*protocol, *local, port(*number, &high[&(*protocol, *local)])));
    all.collect()
}

fn peers(seen: &BTreeSet<(Protocol, Host, Port)>) -> BTreeSet<(Protocol, String, Option<String>)> {
    let high = ephemeral(seen.iter().map(|(protocol, host, port)| ((*protocol, host), *port)));
    let mut all = BTreeSet::new();
    let mut networks: BTreeMap<(Protocol, Option<String>, u128), BTreeSet<IpAddr>> = BTreeMap::new();
    for (protocol, host, number) in seen {
        let port = port(*number, &high[&(*protocol, host)]);
        match host {
            Host::Address(address) => {
                networks.entry((*protocol, port, network(*address))).or_default().insert(*address);
            }
            _ => drop(all.insert((*protocol, host.text(), port))),
        }
    }
    for ((protocol, port, _), addresses) in networks {
        let text = |address: &IpAddr| address.to_string();
        match addresses.first() {
            Some(IpAddr::V4(v4)) if addresses.len() >= NETWORK_AT_LEAST => {
                let base = std::net::Ipv4Addr::from_bits(v4.to_bits() & !0 << (32 - NETWORK_BITS.0));
                all.insert((protocol, format!("{base}/{}", NETWORK_BITS.0), port));
            }
            Some(IpAddr::V6(v6)) if addresses.len() >= NETWORK_AT_LEAST => {
                let base = std::net::Ipv6Addr::from_bits(v6.to_bits() & !0 << (128 - NETWORK_BITS.1));
                all.insert((protocol, format!("{base}/{}", NETWORK_BITS.1), port));
            }
            _ => all.extend(addresses.iter().map(|address| (protocol, text(address), port.clone()))),
        }
    }
    all
}

/// The network an address lies in; those of the families do not meet.
fn network(address: IpAddr) -> u128 {
    let free = if address.is_ipv4() { 32 - NETWORK_BITS.0 } else { 128 - NETWORK_BITS.1 };
    bits(address) >> free << free
}
