//! What table `inet defender` looks like, written as documents for `nft -j -f`.
//!
//! ```text
//! table inet defender {
//!     set blocked4 { type ipv4_addr; flags timeout; size N; }      set allowed4 { type ipv4_addr; flags interval; ... }
//!     set blocked6 { type ipv6_addr; flags timeout; size N; }      set allowed6 { type ipv6_addr; flags interval; ... }
//!     counter dropped_input {}   counter dropped_output {}   counter dropped_forward {}
//!     chain input {
//!         type filter hook input priority -250; policy accept;
//!         iifname "lo" return
//!         ip saddr @blocked4 ip saddr != @allowed4 counter name dropped_input drop
//!         ip6 saddr @blocked6 ip6 saddr != @allowed6 counter name dropped_input drop
//!     }
//!     chain output  { the same by daddr, after: oifname "lo" return }
//!     chain forward { the same by saddr and by daddr }
//! }
//! ```
//!
//! Why so:
//!
//! - Priority -250 is after defragmentation (-400) and raw (-300), so whole packets are judged, and before connection
//!   tracking (-200), mangle (-150) and the product's own filter chains (0), so a packet to a blocked peer makes no
//!   conntrack entry and no rule of the product can accept it first (`linux/netfilter_ipv4.h`, `enum nf_ip_hook_priorities`).
//!   Policy accept, and no `accept` verdict: what we do not drop is still judged by every other table.
//! - The allow-list is asked in the same rule, after the blocked set: the usual packet costs one hash look-up, never the
//!   slower interval look-up; and in `forward` a peer allowed at one end does not open the way to a blocked one at the other.
//! - Loopback traffic is left alone: the device talks to its own addresses through it.
//! - Counters are named objects, so they outlive a refresh of the rules.
//! - Sets have a size, which bounds kernel memory; the kernel also sizes the hash table by it, so it is no larger than needed.

use std::borrow::Cow;
use std::collections::HashSet;

use nftables::expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField};
use nftables::schema::{
    Chain, Counter, FlushObject, NfCmd, NfListObject, Rule, Set, SetFlag, SetType, SetTypeValue, Table,
};
use nftables::stmt::{Counter as CounterStatement, Match, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde::Serialize;

use crate::address::{Cidr, Target};
use crate::allow::AllowList;

/// Address family of the table.
pub(crate) const FAMILY: &str = "inet";
/// Name of the table.
pub const TABLE: &str = "defender";
/// Blocked sets, IPv4 and IPv6.
pub(crate) const BLOCKED: [&str; 2] = ["blocked4", "blocked6"];
/// Allowed sets, IPv4 and IPv6.
pub(crate) const ALLOWED: [&str; 2] = ["allowed4", "allowed6"];
/// Counters of dropped packets by hook: input, output, forward.
pub(crate) const COUNTERS: [&str; 3] = ["dropped_input", "dropped_output", "dropped_forward"];
/// Base chains and the number of their rules.
pub(crate) const CHAINS: [(&str, usize); 3] = [("input", 3), ("output", 3), ("forward", 4)];

const PRIORITY: i32 = -250;

/// One nft transaction in the making.
#[derive(Serialize)]
pub(crate) struct Document {
    nftables: Vec<Command>,
}

/// A command of crate `nftables`, or one on set elements: the crate writes absent members of an element as `null` (among
/// them `"counter": null`, which is also how an anonymous counter is asked for) and needs ten times the memory for a batch.
#[derive(Serialize)]
#[serde(untagged)]
enum Command {
    Schema(NfCmd<'static>),
    Elements(ElementCommand),
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ElementCommand {
    Add { element: Elements },
    Delete { element: Elements },
}

#[derive(Serialize)]
struct Elements {
    family: &'static str,
    table: &'static str,
    name: &'static str,
    elem: Vec<Element>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Element {
    /// Seconds are all the resolution the JSON form has.
    Elem {
        val: String,
        timeout: u32,
    },
    Prefix {
        addr: String,
        len: u8,
    },
    #[serde(untagged)]
    Plain(String),
}

impl Document {
    pub(crate) fn new() -> Self {
        Self { nftables: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nftables.is_empty()
    }

    /// The text that `nft -j -f` takes.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("structs with string keys always serialize")
    }

    /// Creates what is absent and refreshes chains and rules; the elements of the blocked sets stay.
    pub(crate) fn install(&mut self, allow: &AllowList, set_size: u32) {
        self.add(NfListObject::Table(table()));
        for name in COUNTERS {
            self.add(NfListObject::Counter(Counter {
                family: NfFamily::INet,
                table: TABLE.into(),
                name: name.into(),
                handle: None,
                packets: Some(0),
                bytes: Some(0),
            }));
        }
        for set in sets(set_size) {
            self.add(NfListObject::Set(Box::new(set)));
        }
        self.allowed(allow);
        for (name, _) in CHAINS {
            // A chain cannot change hook or priority, so each is made anew; "add" first makes "delete" valid in any case.
            self.add(NfListObject::Chain(chain(name)));
            self.schema(NfCmd::Flush(FlushObject::Chain(chain(name))));
            self.schema(NfCmd::Delete(NfListObject::Chain(chain(name))));
        }
        let hooks = [
            ("input", NfHook::Input, Some(MetaKey::Iifname), COUNTERS[0], &["saddr"][..]),
            ("output", NfHook::Output, Some(MetaKey::Oifname), COUNTERS[1], &["daddr"][..]),
            ("forward", NfHook::Forward, None, COUNTERS[2], &["saddr", "daddr"][..]),
        ];
        for (name, hook, interface, counter, fields) in hooks {
            self.add(NfListObject::Chain(Chain {
                _type: Some(NfChainType::Filter),
                hook: Some(hook),
                prio: Some(PRIORITY),
                policy: Some(NfChainPolicy::Accept),
                ..chain(name)
            }));
            if let Some(key) = interface {
                let left = Expression::Named(NamedExpression::Meta(Meta { key }));
                self.rule(name, vec![matches(left, Operator::EQ, "lo"), Statement::Return(None)]);
            }
            for field in fields {
                for (n, protocol) in ["ip", "ip6"].into_iter().enumerate() {
                    let address = || {
                        let (protocol, field) = (protocol.into(), (*field).into());
                        let field = PayloadField { protocol, field };
                        Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
                    };
                    self.rule(
                        name,
                        vec![
                            matches(address(), Operator::EQ, ["@blocked4", "@blocked6"][n]),
                            matches(address(), Operator::NEQ, ["@allowed4", "@allowed6"][n]),
                            Statement::Counter(CounterStatement::Named(counter.into())),
                            Statement::Drop(None),
                        ],
                    );
                }
            }
        }
    }

    /// Replaces the elements of the allowed sets.
    pub(crate) fn allowed(&mut self, allow: &AllowList) {
        for (n, set) in sets(0).into_iter().skip(2).enumerate() {
            self.schema(NfCmd::Flush(FlushObject::Set(Box::new(set))));
            let elem = allow.prefixes(n == 0).into_iter().map(prefix).collect();
            self.elements(true, ALLOWED[n], elem);
        }
    }

    /// Deletes the table, whether it is there or not.
    pub(crate) fn remove(&mut self) {
        self.add(NfListObject::Table(table()));
        self.schema(NfCmd::Delete(NfListObject::Table(table())));
    }

    /// Adds elements that are not in the sets. One that is keeps its old time-out (kernels before 6.12).
    pub(crate) fn block_new(&mut self, blocks: &[(Target, u32)]) {
        for (n, name) in BLOCKED.into_iter().enumerate() {
            let elem = blocks.iter().filter(|(t, _)| family(*t) == n).map(|(t, s)| timed(*t, *s)).collect();
            self.elements(true, name, elem);
        }
    }

    /// Adds elements that never time out: not ours, but kept when the table is made anew.
    pub(crate) fn block_for_good(&mut self, targets: &[Target]) {
        for (n, name) in BLOCKED.into_iter().enumerate() {
            let elem = targets.iter().filter(|t| family(**t) == n).map(|t| plain(*t)).collect();
            self.elements(true, name, elem);
        }
    }

    /// Gives elements a new time-out, whether they are in the sets or not.
    ///
    /// Deleting an element that just expired would fail the transaction, so each is added first: an add of what is there
    /// changes nothing, and then the delete always finds it.
    pub(crate) fn block_again(&mut self, blocks: &[(Target, u32)]) {
        self.block_new(blocks);
        for (n, name) in BLOCKED.into_iter().enumerate() {
            let elem = blocks.iter().filter(|(t, _)| family(*t) == n).map(|(t, _)| plain(*t)).collect();
            self.elements(false, name, elem);
        }
        self.block_new(blocks);
    }

    /// Takes elements out, whether they are in the sets or not.
    pub(crate) fn unblock(&mut self, targets: &[Target]) {
        let added: Vec<(Target, u32)> = targets.iter().map(|t| (*t, 1)).collect();
        self.block_new(&added);
        for (n, name) in BLOCKED.into_iter().enumerate() {
            let elem = targets.iter().filter(|t| family(**t) == n).map(|t| plain(*t)).collect();
            self.elements(false, name, elem);
        }
    }

    fn schema(&mut self, command: NfCmd<'static>) {
        self.nftables.push(Command::Schema(command));
    }

    fn add(&mut self, object: NfListObject<'static>) {
        self.schema(NfCmd::Add(object));
    }

    fn rule(&mut self, chain: &'static str, statements: Vec<Statement<'static>>) {
        self.add(NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: TABLE.into(),
            chain: chain.into(),
            expr: Cow::Owned(statements),
            ..Rule::default()
        }));
    }

    fn elements(&mut self, add: bool, name: &'static str, elem: Vec<Element>) {
        if elem.is_empty() {
            return;
        }
        let element = Elements { family: FAMILY, table: TABLE, name, elem };
        let command = if add { ElementCommand::Add { element } } else { ElementCommand::Delete { element } };
        self.nftables.push(Command::Elements(command));
    }
}

fn table() -> Table<'static> {
    Table { family: NfFamily::INet, name: TABLE.into(), handle: None }
}

fn chain(name: &'static str) -> Chain<'static> {
    Chain { family: NfFamily::INet, table: TABLE.into(), name: name.into(), ..Chain::default() }
}

fn sets(size: u32) -> [Set<'static>; 4] {
    let set = |name: &'static str, set_type, flag, size| Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        set_type: SetTypeValue::Single(set_type),
        flags: Some(HashSet::from([flag])),
        size,
        ..Set::default()
    };
    [
        set(BLOCKED[0], SetType::Ipv4Addr, SetFlag::Timeout, Some(size)),
        set(BLOCKED[1], SetType::Ipv6Addr, SetFlag::Timeout, Some(size)),
        set(ALLOWED[0], SetType::Ipv4Addr, SetFlag::Interval, None),
        set(ALLOWED[1], SetType::Ipv6Addr, SetFlag::Interval, None),
    ]
}

fn matches(left: Expression<'static>, op: Operator, right: &'static str) -> Statement<'static> {
    Statement::Match(Match { left, right: Expression::String(right.into()), op })
}

/// Index of the target's family in [`BLOCKED`].
fn family(target: Target) -> usize {
    usize::from(target.address().is_ipv6())
}

// Only addresses this crate has parsed are ever written: nft would resolve any other text as a host name.

fn plain(target: Target) -> Element {
    Element::Plain(target.to_string())
}

fn timed(target: Target, timeout: u32) -> Element {
    Element::Elem { val: target.to_string(), timeout }
}

fn prefix(cidr: Cidr) -> Element {
    Element::Prefix { addr: cidr.first().to_string(), len: cidr.length() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_written_as_nft_reads_them() {
        let mut document = Document::new();
        assert!(document.is_empty());
        document.block_again(&[("192.0.2.1".parse().unwrap(), 60), ("2001:db8::1".parse().unwrap(), 90)]);
        let text = document.text();
        let add4 = r#"{"add":{"element":{"family":"inet","table":"defender","name":"blocked4","elem":[{"elem":{"val":"192.0.2.1","timeout":60}}]}}}"#;
        let add6 = r#"{"add":{"element":{"family":"inet","table":"defender","name":"blocked6","elem":[{"elem":{"val":"2001:db8::1","timeout":90}}]}}}"#;
        let del4 = r#"{"delete":{"element":{"family":"inet","table":"defender","name":"blocked4","elem":["192.0.2.1"]}}}"#;
        let del6 = r#"{"delete":{"element":{"family":"inet","table":"defender","name":"blocked6","elem":["2001:db8::1"]}}}"#;
        assert_eq!(text, format!(r#"{{"nftables":[{add4},{add6},{del4},{del6},{add4},{add6}]}}"#));
    }

    #[test]
    fn only_our_table_is_ever_named() {
        let mut document = Document::new();
        document.install(&AllowList::new(&["10.0.0.0/8".parse().unwrap()]), 1024);
        document.unblock(&["192.0.2.1".parse().unwrap()]);
        document.remove();
        let value: serde_json::Value = serde_json::from_str(&document.text()).unwrap();
        for command in value["nftables"].as_array().unwrap() {
            let (verb, object) = command.as_object().unwrap().iter().next().unwrap();
            let (kind, body) = object.as_object().unwrap().iter().next().unwrap();
            let named = if kind == "table" { &body["name"] } else { &body["table"] };
            assert_eq!(
                (named.as_str(), body["family"].as_str()),
                (Some("defender"), Some("inet")),
                "{command}"
            );
            assert!(["add", "delete", "flush"].contains(&verb.as_str()));
            // The blocked sets are never flushed.
            assert!(
                verb != "flush" || kind == "chain" || body["name"].as_str().unwrap().starts_with("allowed")
            );
        }
    }
}
