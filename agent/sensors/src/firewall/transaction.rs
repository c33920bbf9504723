//! What one transaction touched: how many objects of each kind, and which table most.

use defender_model::kernel::RuleChange;

use super::message::{Object, What};

/// Tables of a transaction that are told apart; the rest are counted with the last.
const TABLES: usize = 16;

/// The kernel's words for what was done (net/netfilter/nf_tables_api.c, kernel/auditsc.c), gravest first. Chains and tables that come
/// and go weigh more than rules, these more than elements.
const WORDS: [(&str, usize, bool); 14] = [
    ("nft_unregister_table", 0, false),
    ("nft_unregister_chain", 1, false),
    ("nft_unregister_rule", 2, false),
    ("nft_register_table", 0, true),
    ("nft_register_chain", 1, true),
    ("nft_register_rule", 2, true),
    ("nft_unregister_set", 3, false),
    ("nft_register_set", 3, true),
    ("nft_unregister_setelem", 4, false),
    ("nft_register_setelem", 4, true),
    ("nft_unregister_obj", 5, false),
    ("nft_register_obj", 5, true),
    ("nft_unregister_flowtable", 6, false),
    ("nft_register_flowtable", 6, true),
];
const ELEMENT: usize = 4;

/// A transaction in the making.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    added: [u32; 7],
    removed: [u32; 7],
    replaced: bool,
    tables: Vec<(u8, Box<[u8]>, u32)>,
    /// Low half of the number of the ruleset that it makes.
    pub(super) generation: u16,
    /// A table of the agent is among them.
    pub(super) ours: bool,
    /// A table of others is.
    pub(super) foreign: bool,
}

impl Transaction {
    /// Takes note of an object; `replaced`: it was there before and is another now.
    pub(super) fn touch(&mut self, object: &Object<'_>, replaced: bool) {
        let kind = kind(object.what);
        let counts = if object.added { &mut self.added } else { &mut self.removed };
        counts[kind] = counts[kind].saturating_add(1);
        self.replaced |= replaced;
        let same = |table: &&mut (u8, Box<[u8]>, u32)| table.0 == object.family && *table.1 == *object.table;
        let full = self.tables.len() == TABLES;
        match self.tables.iter_mut().rev().find(same) {
            Some(table) => table.2 = table.2.saturating_add(1),
            None if !full => self.tables.push((object.family, object.table.into(), 1)),
            None => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.touched() == 0
    }

    /// Nothing but elements of sets: what programs that keep lists of addresses do all day.
    pub(super) fn is_elements_alone(&self) -> bool {
        self.touched() == self.added[ELEMENT].saturating_add(self.removed[ELEMENT])
    }

    /// How many objects.
    pub(super) fn touched(&self) -> u32 {
        self.added.iter().chain(&self.removed).fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub(super) fn change(&self) -> RuleChange {
        let any = |counts: &[u32]| counts.iter().any(|count| *count > 0);
        match (any(&self.added), any(&self.removed)) {
            (true, false) if !self.replaced => RuleChange::Added,
            (false, _) => RuleChange::Removed,
            _ => RuleChange::Changed,
        }
    }

    /// The word for the gravest that was done.
    pub(super) fn operation(&self) -> &'static str {
        let done = |word: &&(&str, usize, bool)| {
            if word.2 {
                self.added[word.1] > 0
            } else {
                self.removed[word.1] > 0
            }
        };
        WORDS.iter().find(done).map_or("", |word| word.0)
    }

    /// The table with the most of it, of those that `admits`.
    pub(super) fn busiest(&self, admits: impl Fn(u8, &[u8]) -> bool) -> Option<(u8, &[u8])> {
        let admitted = self.tables.iter().filter(|table| admits(table.0, &table.1));
        admitted.max_by_key(|table| table.2).map(|table| (table.0, &*table.1))
    }

    /// Adds another one's numbers.
    pub(super) fn join(&mut self, other: &Self) {
        for (sum, count) in
            self.added.iter_mut().chain(&mut self.removed).zip(other.added.iter().chain(&other.removed))
        {
            *sum = sum.saturating_add(*count);
        }
        self.replaced |= other.replaced;
    }
}

const fn kind(what: What<'_>) -> usize {
    match what {
        What::Table { .. } => 0,
        What::Chain { .. } => 1,
        What::Rule(_) => 2,
        What::Set => 3,
        What::Element => ELEMENT,
        What::Stateful => 5,
        What::Flowtable => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(objects: &[(bool, &[u8], What<'_>)]) -> Transaction {
        let mut transaction = Transaction::default();
        for (added, table, what) in objects {
            let object = Object { added: *added, generation: 1, family: 1, table, what: *what };
            transaction.touch(&object, false);
        }
        transaction
    }

    #[test]
    fn the_gravest_names_it_and_the_busiest_table_stands_for_it() {
        let table = What::Table { dormant: false };
        let reload = touched(&[(false, b"a", table), (true, b"a", table), (true, b"b", What::Rule(b"c"))]);
        assert_eq!((reload.change(), reload.operation()), (RuleChange::Changed, "nft_unregister_table"));
        assert_eq!(reload.busiest(|_, _| true), Some((1, &b"a"[..])));
        assert_eq!(reload.busiest(|_, name| name != b"a"), Some((1, &b"b"[..])));
        assert_eq!(reload.touched(), 3);
        let added = touched(&[(true, b"a", What::Rule(b"c")), (true, b"a", What::Element)]);
        assert_eq!((added.change(), added.operation()), (RuleChange::Added, "nft_register_rule"));
        assert!(!added.is_elements_alone());
        let mut elements = touched(&[(true, b"a", What::Element)]);
        assert!(elements.is_elements_alone() && !elements.is_empty());
        elements.join(&touched(&[(false, b"a", What::Element)]));
        assert_eq!((elements.touched(), elements.change()), (2, RuleChange::Changed));
    }
}
