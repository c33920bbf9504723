//! The kernel's messages about nf_tables. Sources: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h,
//! net/netfilter/nf_tables_api.c.

use crate::network::attribute::{be16, be32, be64, Attributes};

/// `NFNL_SUBSYS_NFTABLES` in the upper byte of a message's type.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
/// Size of `struct nfgenmsg`: family, version, and the low half of the generation's number in network byte order.
pub(super) const GENERIC: usize = 4;

// enum nf_tables_msg_types.
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const DELCHAIN: u16 = SUBSYSTEM | 5;
const NEWRULE: u16 = SUBSYSTEM | 6;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const DELSET: u16 = SUBSYSTEM | 11;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const DELSETELEM: u16 = SUBSYSTEM | 14;
const NEWGEN: u16 = SUBSYSTEM | 15;
const NEWOBJ: u16 = SUBSYSTEM | 18;
const DELOBJ: u16 = SUBSYSTEM | 20;
const NEWFLOWTABLE: u16 = SUBSYSTEM | 22;
const DELFLOWTABLE: u16 = SUBSYSTEM | 24;

// The table's name is attribute 1 of all objects but generations; chains and rules name a chain by another.
const TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_HANDLE: u16 = 2;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const RULE_CHAIN: u16 = 2;
const GEN_ID: u16 = 1;
const GEN_PROC_PID: u16 = 2;
const GEN_PROC_NAME: u16 = 3;
/// `NFT_TABLE_F_DORMANT`.
const DORMANT: u32 = 1;
/// `NF_ACCEPT`, and the policy of a chain that names none.
const ACCEPT: u32 = 1;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// An object was added, changed or removed.
    Object(Object<'a>),
    /// The transaction is complete.
    Generation {
        /// Number of the ruleset as it is now.
        id: u32,
        /// Who made it so, as a process id of the initial PID namespace.
        pid: Option<u32>,
        /// Its short name.
        name: &'a [u8],
    },
}

/// An object of the ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<'a> {
    /// It is there now; false: it was removed.
    pub added: bool,
    /// Low half of the number of the ruleset it belongs to.
    pub generation: u16,
    /// `NFPROTO_*`.
    pub family: u8,
    /// The table it is, or is in.
    pub table: &'a [u8],
    /// What it is.
    pub what: What<'a>,
}

/// The kind of an object, with what is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// A table.
    Table {
        /// Its rules are not asked.
        dormant: bool,
    },
    /// A chain.
    Chain {
        /// Number that stays when it is renamed.
        handle: u64,
        /// Its name.
        name: &'a [u8],
        /// The kernel hands packets to it.
        base: bool,
        /// What becomes of a packet that no rule decides on: it passes, or else is dropped.
        accepts: bool,
    },
    /// A rule of this chain.
    Rule(&'a [u8]),
    /// A set or map.
    Set,
    /// Elements of a set: one message for each, or for many.
    Element,
    /// A counter, quota or other object with a name.
    Stateful,
    /// A flow table.
    Flowtable,
}

/// Reads a message: its type and what follows the netlink header. `None` for other messages and what is malformed.
#[must_use]
pub fn parse(kind: u16, payload: &[u8]) -> Option<Message<'_>> {
    let (generic, rest) = payload.split_at_checked(GENERIC)?;
    let generation = be16(&generic[2..])?;
    let attributes = Attributes(rest);
    if kind == NEWGEN {
        let (mut id, mut pid, mut name) = (None, None, &[][..]);
        for (kind, value) in attributes {
            match kind {
                GEN_ID => id = be32(value),
                GEN_PROC_PID => pid = be32(value),
                GEN_PROC_NAME => name = text(value),
                _ => {}
            }
        }
        return Some(Message::Generation { id: id?, pid, name });
    }
    let find = |wanted: u16| attributes.clone().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (added, what) = match kind {
        NEWTABLE | DELTABLE => {
            let flags = find(TABLE_FLAGS).and_then(be32).unwrap_or_default();
            (kind == NEWTABLE, What::Table { dormant: flags & DORMANT != 0 })
        }
        NEWCHAIN | DELCHAIN => {
            let what = What::Chain {
                handle: find(CHAIN_HANDLE).and_then(be64)?,
                name: text(find(CHAIN_NAME)?),
                base: find(CHAIN_HOOK).is_some(),
                accepts: find(CHAIN_POLICY).and_then(be32).unwrap_or(ACCEPT) == ACCEPT,
            };
            (kind == NEWCHAIN, what)
        }
        NEWRULE | DELRULE => (kind == NEWRULE, What::Rule(text(find(RULE_CHAIN)?))),
        NEWSET | DELSET => (kind == NEWSET, What::Set),
        NEWSETELEM | DELSETELEM => (kind == NEWSETELEM, What::Element),
        NEWOBJ | DELOBJ => (kind == NEWOBJ, What::Stateful),
        NEWFLOWTABLE | DELFLOWTABLE => (kind == NEWFLOWTABLE, What::Flowtable),
        _ => return None,
    };
    Some(Message::Object(Object { added, generation, family: generic[0], table: text(find(TABLE)?), what }))
}

/// A string without the zero at its end.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

/// A family as nft(8) names it.
#[must_use]
pub fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::network::attribute::put;

    /// A message as the kernel would write it.
    pub(in crate::firewall) fn payload(family: u8, generation: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let [high, low] = generation.to_be_bytes();
        let mut bytes = vec![family, 0, high, low];
        for (kind, value) in attributes {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    #[test]
    fn a_base_chain_and_the_end_of_the_transaction() {
        let hook = [8, 0, 1, 0, 0, 0, 0, 1];
        let bytes = payload(
            1,
            7,
            &[(1, b"filter\0"), (2, &5u64.to_be_bytes()), (3, b"input\0"), (4 | 0x8000, &hook), (5, &[0; 4])],
        );
        let what = What::Chain { handle: 5, name: b"input", base: true, accepts: false };
        let object = Object { added: true, generation: 7, family: 1, table: b"filter", what };
        assert_eq!(parse(NEWCHAIN, &bytes), Some(Message::Object(object)));
        assert_eq!(parse(DELCHAIN, &bytes), Some(Message::Object(Object { added: false, ..object })));
        let bytes = payload(0, 7, &[(1, &7u32.to_be_bytes()), (2, &4321u32.to_be_bytes()), (3, b"nft\0")]);
        let generation = Message::Generation { id: 7, pid: Some(4321), name: b"nft" };
        assert_eq!(parse(NEWGEN, &bytes), Some(generation));
    }

    #[test]
    fn what_lacks_its_name_is_nothing() {
        let bytes = payload(1, 7, &[(1, b"ab\0")]);
        assert!(parse(NEWTABLE, &bytes).is_some());
        for kind in [NEWCHAIN, NEWRULE, NEWGEN, SUBSYSTEM | 17, 1] {
            assert_eq!(parse(kind, &bytes), None, "{kind}");
        }
        assert_eq!(parse(NEWTABLE, &[1, 0]), None);
        assert_eq!(parse(NEWTABLE, &payload(1, 7, &[])), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u16..32, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(SUBSYSTEM | kind, &bytes);
        }
    }
}
