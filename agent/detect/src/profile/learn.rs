//! From events to a profile.
//!
//! Everything is a set and is generalised by itself or, for ports and addresses, by what the whole set shows when learning is over: the
//! order of events and their number do not matter.
//!
//! All sets are sets of text, the entries of the file: each type of set more is another copy of the code that keeps it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use defender_model::event::Event;
use defender_model::order;

use super::document::{self, Document, MAX_ENTRIES};
use super::endpoint::{write_listen, write_peer, Seen, EPHEMERAL};
use super::observed::{observe, Fact, Scratch};
use super::pattern::{escape, Name, MAX_NAME};
use super::{generalise, Facet};

/// Different ports of the ephemeral range in one place that are taken for handed out by the kernel: one alone may be a service's own.
const EPHEMERAL_AT_LEAST: usize = 2;
/// Different addresses of a network that are taken for the network.
const NETWORK_AT_LEAST: usize = 8;
/// Bits of the network that they are taken for.
const NETWORK_V4: u32 = 24;
/// The same of IPv6.
const NETWORK_V6: u32 = 64;

/// Learns from events what a product does.
#[derive(Debug, Default)]
pub struct Learner {
    document: Document,
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
        let programs = &mut self.document.programs;
        let before = programs.len();
        let of_program = programs.entry(program).or_default();
        for fact in facts.iter().flatten() {
            let (facet, text) = written(fact);
            self.size += usize::from(of_program.0[facet as usize].insert(text));
        }
        self.size += programs.len() - before;
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
        let mut document = self.document;
        for facts in document.programs.values_mut() {
            for facet in Facet::ALL {
                let entries = &mut facts.0[facet as usize];
                match facet {
                    Facet::Users | Facet::Logins => {}
                    Facet::Listens => merge(entries, EPHEMERAL_AT_LEAST, ephemeral),
                    Facet::Connects => {
                        merge(entries, EPHEMERAL_AT_LEAST, ephemeral);
                        merge(entries, NETWORK_AT_LEAST, network);
                    }
                    Facet::Parents | Facet::LooksUp | Facet::Writes | Facet::Reads => absorb(facet, entries),
                }
            }
        }
        document
    }
}

/// The entry that a profile has for a fact by itself.
pub(super) fn written(fact: &Fact<'_>) -> (Facet, String) {
    match *fact {
        Fact::Name(facet, name) => (facet, general(facet, name)),
        Fact::End(facet, seen) => {
            let port = seen.port.map(|port| port.to_string());
            let text = match facet {
                Facet::Listens => write_listen(seen.protocol, port.as_deref(), seen.local),
                _ => write_peer(seen.protocol, &host(&seen), port.as_deref()),
            };
            (facet, text)
        }
    }
}

/// Where a connection went.
fn host(seen: &Seen<'_>) -> String {
    match seen.name {
        _ if seen.local => "local".to_owned(),
        Some(name) => generalise::domain(name),
        None => seen.address.to_string(),
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

/// Puts what entries have in common in their place, where so many of them have it.
fn merge(entries: &mut BTreeSet<String>, at_least: usize, common: fn(&str) -> Option<String>) {
    let mut all: Vec<(String, &String)> =
        entries.iter().filter_map(|entry| Some((common(entry)?, entry))).collect();
    order::sort(&mut all);
    let alike = all.chunk_by(|a, b| a.0 == b.0).filter(|alike| alike.len() >= at_least);
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for alike in alike {
        gone.extend(alike.iter().map(|(_, entry)| (*entry).clone()));
        come.push(alike[0].0.clone());
    }
    order::sort(&mut gone);
    entries.retain(|entry| gone.binary_search(entry).is_err());
    entries.extend(come);
}

/// The entry with its port, if that is one the kernel hands out, as `ephemeral`. No other word is a number that large.
fn ephemeral(entry: &str) -> Option<String> {
    let high = |word: &str| word.parse().is_ok_and(|port: u16| (EPHEMERAL.0..=EPHEMERAL.1).contains(&port));
    let at = entry.split(' ').position(high)?;
    Some(with_word(entry, at, "ephemeral"))
}

/// The entry with the network of its address in the place of that.
fn network(entry: &str) -> Option<String> {
    let word = entry.split(' ').nth(1)?;
    let network = match word.parse().ok()? {
        IpAddr::V4(v4) => {
            format!("{}/{NETWORK_V4}", Ipv4Addr::from_bits(v4.to_bits() & u32::MAX << (32 - NETWORK_V4)))
        }
        IpAddr::V6(v6) => {
            format!("{}/{NETWORK_V6}", Ipv6Addr::from_bits(v6.to_bits() & u128::MAX << (128 - NETWORK_V6)))
        }
    };
    Some(with_word(entry, 1, &network))
}

/// The entry with another word at that place.
fn with_word(entry: &str, place: usize, word: &str) -> String {
    let mut words: Vec<&str> = entry.split(' ').collect();
    words[place] = word;
    words.join(" ")
}
