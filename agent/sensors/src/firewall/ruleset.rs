//! Tables, chains and how many rules they have: what is remembered of the ruleset, bounded.

use super::message::{Object, What};

/// Most tables and chains remembered; what goes beyond is not judged.
const TABLES: usize = 1024;
const CHAINS: usize = 8192;
/// `NFPROTO_NETDEV`.
const NETDEV: u8 = 5;
/// Longest name the kernel takes (`NFT_NAME_MAXLEN`).
const NAME: usize = 256;

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    handle: u64,
    /// Its name.
    pub name: Box<[u8]>,
    /// The kernel hands packets to it.
    pub base: bool,
    /// What no rule decides on passes.
    pub accepts: bool,
    /// How many rules it has.
    pub rules: u32,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its name.
    pub name: Box<[u8]>,
    /// Its rules are not asked.
    pub dormant: bool,
    /// Its chains.
    pub chains: Vec<Chain>,
}

impl Table {
    /// The chain that has the name now.
    pub(super) fn same(&self, chain: &Chain) -> Option<&Chain> {
        self.chains.iter().find(|other| other.name == chain.name)
    }

    /// Rules of all its chains.
    pub(super) fn rules(&self) -> u32 {
        self.chains.iter().fold(0, |sum, chain| sum.saturating_add(chain.rules))
    }
}

/// The packet filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Its tables.
    pub tables: Vec<Table>,
    chains: usize,
    /// Something is not as the messages say: it has to be read anew.
    stale: bool,
    /// Where the last chain was: the next rule is likely of the same.
    last: (usize, usize),
}

impl Ruleset {
    /// What is remembered is not what the kernel has.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    pub(super) fn table(&self, family: u8, name: &[u8]) -> Option<&Table> {
        self.tables.iter().find(|table| table.family == family && *table.name == *name)
    }

    fn position(&self, object: &Object<'_>) -> Option<usize> {
        let is = |table: &Table| table.family == object.family && *table.name == *object.table;
        if self.tables.get(self.last.0).is_some_and(is) {
            return Some(self.last.0);
        }
        self.tables.iter().position(is)
    }

    /// Takes note of an object; true when it was there before and is another now.
    pub fn apply(&mut self, object: &Object<'_>) -> bool {
        let at = self.position(object);
        match (object.what, at) {
            (What::Table { dormant }, at) => return self.apply_table(object, dormant, at),
            (What::Chain { handle, name, base, accepts }, Some(at)) if name.len() <= NAME => {
                let chain = Chain { handle, name: name.into(), base, accepts, rules: 0 };
                return self.apply_chain(object, chain, at);
            }
            (What::Rule(name), Some(at)) => {
                let chains = &mut self.tables[at].chains;
                let hit = self.last.0 == at && chains.get(self.last.1).is_some_and(|c| *c.name == *name);
                let place =
                    if hit { Some(self.last.1) } else { chains.iter().position(|c| *c.name == *name) };
                let Some(place) = place else {
                    self.stale |= self.chains < CHAINS;
                    return false;
                };
                self.last = (at, place);
                let rules = &mut chains[place].rules;
                match (object.added, *rules) {
                    (true, _) => *rules = rules.saturating_add(1),
                    (false, 0) => self.stale = true,
                    (false, _) => *rules -= 1,
                }
            }
            (What::Chain { .. } | What::Rule(_), None) => self.stale |= self.tables.len() < TABLES,
            _ => {}
        }
        false
    }

    fn apply_table(&mut self, object: &Object<'_>, dormant: bool, at: Option<usize>) -> bool {
        match (object.added, at) {
            (true, Some(at)) => {
                self.tables[at].dormant = dormant;
                true
            }
            (true, None) => {
                if self.tables.len() < TABLES && object.table.len() <= NAME {
                    let name = object.table.into();
                    self.tables.push(Table { family: object.family, name, dormant, chains: Vec::new() });
                }
                false
            }
            (false, Some(at)) => {
                self.chains -= self.tables.remove(at).chains.len();
                false
            }
            (false, None) => {
                self.stale |= self.tables.len() < TABLES;
                false
            }
        }
    }

    fn apply_chain(&mut self, object: &Object<'_>, chain: Chain, at: usize) -> bool {
        let chains = &mut self.tables[at].chains;
        let place = chains.iter().position(|known| known.handle == chain.handle);
        match (object.added, place) {
            (true, Some(place)) => {
                let known = &mut chains[place];
                *known = Chain { rules: known.rules, base: known.base || chain.base, ..chain };
                return true;
            }
            (true, None) if self.chains < CHAINS => {
                chains.push(chain);
                self.chains += 1;
            }
            // A base chain of devices may only have lost one of them (net/netfilter/nf_tables_api.c, `nft_delchain_hook`).
            (false, Some(_)) if chain.base && object.family == NETDEV => self.stale = true,
            (false, Some(place)) => {
                chains.remove(place);
                self.chains -= 1;
            }
            (false, None) => self.stale |= self.chains < CHAINS,
            (true, None) => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object<'a>(added: bool, table: &'a [u8], what: What<'a>) -> Object<'a> {
        Object { added, generation: 1, family: 1, table, what }
    }

    fn chain(handle: u64, name: &[u8], accepts: bool) -> What<'_> {
        What::Chain { handle, name, base: true, accepts }
    }

    #[test]
    fn rules_are_counted_and_a_renamed_chain_keeps_its_own() {
        let mut ruleset = Ruleset::default();
        let mut apply = |added, what| ruleset.apply(&object(added, b"t", what));
        assert!(!apply(true, What::Table { dormant: false }));
        assert!(!apply(true, chain(1, b"a", false)));
        apply(true, What::Rule(b"a"));
        apply(true, What::Rule(b"a"));
        assert!(apply(true, chain(1, b"b", true)), "renamed and opened");
        apply(false, What::Rule(b"b"));
        assert!(apply(true, What::Table { dormant: true }));
        let table = ruleset.table(1, b"t").unwrap();
        assert!(table.dormant && table.chains[0].accepts);
        assert_eq!((table.rules(), &*table.chains[0].name), (1, &b"b"[..]));
        assert!(!ruleset.is_stale());
        let gone = What::Chain { handle: 1, name: b"b", base: false, accepts: true };
        ruleset.apply(&object(false, b"t", gone));
        assert!(!ruleset.is_stale());
        ruleset.apply(&object(false, b"t", What::Rule(b"b")));
        assert!(ruleset.is_stale(), "a rule of a chain that is not known");
    }

    proptest! {
        #[test]
        fn any_order_of_messages_keeps_the_bounds(
            objects in prop::collection::vec((any::<bool>(), 0u8..3, 0u8..3, 0u8..3), 0..300)
        ) {
            let mut ruleset = Ruleset::default();
            for (added, kind, table, name) in objects {
                let (table, name) = ([table], [name]);
                let what = match kind {
                    0 => What::Table { dormant: false },
                    1 => What::Chain { handle: name[0].into(), name: &name, base: false, accepts: true },
                    _ => What::Rule(&name),
                };
                ruleset.apply(&object(added, &table, what));
                let chains: usize = ruleset.tables.iter().map(|table| table.chains.len()).sum();
                prop_assert_eq!(chains, ruleset.chains);
            }
        }
    }
}
