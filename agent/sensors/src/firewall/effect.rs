//! What a transaction comes to, told from the ruleset before it and after it.

use std::fmt::Write as _;

use defender_model::kernel::effect;
use defender_model::text;

use super::message;
use super::ruleset::{Ruleset, Table};

/// Most chains and tables that a summary names.
const NAMED: usize = 8;

/// What a transaction comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Words of [`effect`], with a blank between them.
    pub(super) words: String,
    /// Before and after.
    pub(super) summary: String,
    /// Family and name of the table that the gravest of it happened to.
    pub(super) table: Option<(u8, Box<[u8]>)>,
    rank: u8,
    named: usize,
}

impl Effect {
    /// Compares. Tables of which `ours` holds are counted, and otherwise left out.
    pub(super) fn of(before: &Ruleset, after: &Ruleset, ours: &dyn Fn(u8, &[u8]) -> bool) -> Self {
        let mut this = Self::default();
        this.count(before, after);
        let foreign = |table: &&Table| !ours(table.family, &table.name);
        for table in before.tables.iter().filter(foreign) {
            this.table(table, after.table(table.family, &table.name));
        }
        let judging = |table: &&Table| foreign(table) && table.chains.iter().any(|c| c.base && c.rules > 0);
        let had = before.tables.iter().filter(judging).count() > 0;
        if had && after.tables.iter().filter(foreign).all(|table| table.rules() == 0) {
            let table = this.table.take();
            this.mark(
                effect::RULESET_FLUSHED,
                0,
                before.tables.iter().find(judging).unwrap_or(&before.tables[0]),
            );
            this.table = table.or(this.table.take());
        }
        if this.named > NAMED {
            // Writing to a String cannot fail, here and below.
            let _ = write!(this.summary, "; and {} more", this.named - NAMED);
        }
        this
    }

    /// The numbers of everything, and the rules by family.
    fn count(&mut self, before: &Ruleset, after: &Ruleset) {
        let chains = |ruleset: &Ruleset| ruleset.tables.iter().map(|table| table.chains.len()).sum::<usize>();
        let rules = |ruleset: &Ruleset, family: Option<u8>| {
            let of_it = |table: &&Table| family.is_none_or(|family| table.family == family);
            ruleset.tables.iter().filter(of_it).map(|table| u64::from(table.rules())).sum::<u64>()
        };
        let out = &mut self.summary;
        let _ = write!(
            out,
            "tables {} -> {}, chains {} -> {}, rules {} -> {}",
            before.tables.len(),
            after.tables.len(),
            chains(before),
            chains(after),
            rules(before, None),
            rules(after, None)
        );
        for family in [1, 2, 10, 3, 7, 5] {
            let (old, new) = (rules(before, Some(family)), rules(after, Some(family)));
            if old != new {
                let _ = write!(out, ", {} {old} -> {new}", message::family(family));
            }
        }
    }

    /// One table of others, and what has become of it.
    fn table(&mut self, old: &Table, new: Option<&Table>) {
        let rules = old.rules();
        if new.is_none() && rules > 0 {
            self.mark(effect::TABLE_DELETED, 3, old);
        }
        if new.is_some_and(|new| new.dormant && !old.dormant) && rules > 0 {
            self.mark(effect::TABLE_DORMANT, 5, old);
            self.name(old, &[], "its rules are asked no more");
        }
        for chain in old.chains.iter().filter(|chain| chain.base) {
            let policy = |accepts: bool| if accepts { "accept" } else { "drop" };
            let Some(now) = new.and_then(|new| new.same(chain)).filter(|now| now.base) else {
                // One that was empty and let everything pass is no loss.
                if chain.rules > 0 || !chain.accepts {
                    self.mark(effect::BASE_CHAIN_DELETED, 4, old);
                    let words = format!("deleted, policy {}, rules {}", policy(chain.accepts), chain.rules);
                    self.name(old, &chain.name, &words);
                }
                continue;
            };
            if now.accepts && !chain.accepts {
                self.mark(effect::POLICY_ACCEPT, 6, old);
            }
            if now.accepts != chain.accepts {
                let words = format!("policy {} -> {}", policy(chain.accepts), policy(now.accepts));
                self.name(old, &chain.name, &words);
            }
            if now.rules == 0 && chain.rules > 0 {
                self.mark(effect::CHAIN_EMPTIED, 5, old);
            }
            if now.rules != chain.rules {
                self.name(old, &chain.name, &format!("rules {} -> {}", chain.rules, now.rules));
            }
        }
    }

    /// Adds a word once, and keeps the table that the highest rank goes to.
    fn mark(&mut self, word: &str, rank: u8, table: &Table) {
        if self.table.is_none() || rank > self.rank {
            self.rank = rank;
            self.table = Some((table.family, table.name.clone()));
        }
        add_word(&mut self.words, word);
    }

    fn name(&mut self, table: &Table, chain: &[u8], words: &str) {
        self.named += 1;
        if self.named > NAMED {
            return;
        }
        let _ = write!(self.summary, "; {} {}", message::family(table.family), text::from_bytes(&table.name));
        if !chain.is_empty() {
            let _ = write!(self.summary, " {}", text::from_bytes(chain));
        }
        let _ = write!(self.summary, ": {words}");
    }
}

/// Adds a word to a list with blanks between them, once.
pub(super) fn add_word(words: &mut String, word: &str) {
    if !words.split(' ').any(|known| known == word) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Object, What};
    use super::*;

    const FILTER: &[u8] = b"filter";

    /// A ruleset of one table with a base chain, and how many rules it has.
    fn ruleset(table: &[u8], accepts: bool, rules: usize) -> Ruleset {
        let mut ruleset = Ruleset::default();
        let mut add = |what| ruleset.apply(&Object { added: true, generation: 1, family: 1, table, what });
        add(What::Table { dormant: false });
        add(What::Chain { handle: 1, name: b"input", base: true, accepts });
        add(What::Chain { handle: 2, name: b"other", base: false, accepts: true });
        (0..rules).for_each(|_| {
            add(What::Rule(b"input"));
        });
        ruleset
    }

    fn judged(before: &Ruleset, after: &Ruleset) -> Effect {
        Effect::of(before, after, &|family, table| family == 1 && table == b"defender")
    }

    #[test]
    fn grave_changes_have_their_words() {
        let before = ruleset(FILTER, false, 3);
        let gone = judged(&before, &Ruleset::default());
        assert_eq!(gone.words, "table_deleted base_chain_deleted ruleset_flushed");
        assert_eq!(gone.table, Some((1, FILTER.into())));
        assert_eq!(
            gone.summary,
            "tables 1 -> 0, chains 2 -> 0, rules 3 -> 0, inet 3 -> 0; inet filter input: deleted, policy drop, rules 3"
        );
        assert_eq!(judged(&before, &ruleset(FILTER, false, 0)).words, "chain_emptied ruleset_flushed");
        let opened = judged(&before, &ruleset(FILTER, true, 3));
        assert_eq!(opened.words, "policy_accept");
        assert!(opened.summary.ends_with("; inet filter input: policy drop -> accept"), "{}", opened.summary);
        let mut asleep = before.clone();
        asleep.tables[0].dormant = true;
        assert_eq!(judged(&before, &asleep).words, "table_dormant");
    }

    #[test]
    fn ordinary_changes_and_our_own_tables_have_none() {
        let before = ruleset(FILTER, false, 3);
        for after in [ruleset(FILTER, false, 2), ruleset(FILTER, false, 4), before.clone()] {
            assert_eq!(judged(&before, &after).words, "");
        }
        assert_eq!(judged(&ruleset(FILTER, true, 0), &Ruleset::default()).words, "", "nothing was lost");
        assert_eq!(judged(&ruleset(FILTER, true, 0), &ruleset(FILTER, false, 0)).words, "", "closed");
        let ours = ruleset(b"defender", false, 3);
        assert_eq!(judged(&ours, &Ruleset::default()).words, "");
    }
}
