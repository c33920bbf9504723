//! Order at little cost in flash: for lists and maps that are put in order now and then, not with every event.
//!
//! The standard library's sorts are compiled anew for each type and each comparison, at up to 5 KB a time, and so is what builds a
//! `BTreeMap` from an iterator, since that sorts first. Here one sort of plain numbers is shared, and what each type adds is small.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Sorts. Equal entries keep their order.
pub fn sort<T: Ord>(list: &mut [T]) {
    sort_by(list, T::cmp);
}

/// Sorts by a key. Entries with equal keys keep their order.
pub fn sort_by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(list, |a, b| key(a).cmp(&key(b)));
}

/// Sorts by a comparison, which must be a total order. Equal entries keep their order.
pub fn sort_by<T>(list: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut from = positions(list.len(), &|a, b| compare(&list[a], &list[b]));
    // Each cycle of the permutation is walked once; a position that holds its own number is done.
    for start in 0..from.len() {
        let mut at = start;
        while from[at] != start {
            let next = std::mem::replace(&mut from[at], at);
            list.swap(at, next);
            at = next;
        }
        from[at] = at;
    }
}

/// A map of these entries. Of equal keys the last stays.
pub fn map<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    for (key, value) in entries {
        map.insert(key, value);
    }
    map
}

/// A set of these entries.
pub fn set<T: Ord>(entries: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    for entry in entries {
        set.insert(entry);
    }
    set
}

/// Where each entry of a sorted list of this length stood before. The one sort all share.
#[inline(never)]
fn positions(length: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..length).collect();
    positions.sort_unstable_by(|a, b| compare(*a, *b).then(a.cmp(b)));
    positions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sorts_as_the_standard_library_does(list in prop::collection::vec((0..20u8, any::<String>()), 0..60)) {
            let (mut ours, mut theirs) = (list.clone(), list.clone());
            sort(&mut ours);
            theirs.sort();
            prop_assert_eq!(&ours, &theirs);

            let (mut ours, mut theirs) = (list.clone(), list.clone());
            sort_by_key(&mut ours, |(key, _)| *key);
            theirs.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(&ours, &theirs, "equal keys keep their order");

            let (mut ours, mut theirs) = (list.clone(), list);
            sort_by(&mut ours, |a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            theirs.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            prop_assert_eq!(&ours, &theirs);
        }

        #[test]
        fn collects_as_the_standard_library_does(list in prop::collection::vec((0..20u8, any::<u8>()), 0..60)) {
            prop_assert_eq!(map(list.clone()), list.iter().copied().collect::<BTreeMap<_, _>>());
            prop_assert_eq!(set(list.clone()), list.iter().copied().collect::<BTreeSet<_>>());
        }
    }
}
