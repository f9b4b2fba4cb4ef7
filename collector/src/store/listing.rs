//! Lists series in the order of their labels, without making a list of each: the labels that they have are few, so these are
//! sorted, and series by the ranks of theirs.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use roaring::RoaringBitmap;

use super::index::Index;
use super::{EachLabels, Label};

impl Index {
    /// Hands out the labels of each of these series, sorted, until `each` says false.
    pub fn list(&self, series: &RoaringBitmap, each: EachLabels<'_>) {
        let mut lists = Lists::default();
        series.iter().for_each(|series| lists.push(self.label_numbers(series)));
        let mut labels: Vec<(u32, &Label)> =
            lists.seen.iter().filter_map(|(number, place)| Some((*place, self.postings.label(*number)?))).collect();
        labels.sort_unstable_by_key(|(_, label)| *label);
        let mut ranks = vec![0; lists.seen.len()];
        (0..).zip(&labels).for_each(|(rank, (place, _))| ranks[*place as usize] = rank);
        lists.places.iter_mut().for_each(|place| *place = ranks[*place as usize]);
        let mut of_one: Vec<&Label> = Vec::new();
        for list in lists.sorted(ranks.len()) {
            of_one.clear();
            of_one.extend(list.iter().filter_map(|rank| Some(labels.get(*rank as usize)?.1)));
            if !each(&of_one) {
                return;
            }
        }
    }
}

/// The labels of series after series, as numbers.
#[derive(Default)]
struct Lists {
    /// The place of each label in the order in which they were seen.
    seen: HashMap<u32, u32, RandomState>,
    places: Vec<u32>,
    /// Where each series ends in `places`.
    ends: Vec<usize>,
    /// The series before: neighbours have most of their labels in common.
    before: Vec<(u32, u32)>,
}

impl Lists {
    fn push(&mut self, numbers: &[u32]) {
        self.before.resize(numbers.len(), (u32::MAX, 0));
        for (number, (before, place)) in numbers.iter().zip(&mut self.before) {
            if number != before {
                let next = self.seen.len() as u32;
                (*before, *place) = (*number, *self.seen.entry(*number).or_insert(next));
            }
            self.places.push(*place);
        }
        self.ends.push(self.places.len());
    }

    /// The lists, sorted by their numbers, which are less than `most`.
    fn sorted(&self, most: usize) -> impl Iterator<Item = &[u32]> {
        // As many numbers of each as a word holds; nought is where there is none.
        let bits = usize::BITS - most.leading_zeros();
        let packed = |list: &[u32]| {
            (0..128 / bits.max(1)).fold(0u128, |word, at| {
                let number = list.get(at as usize).map_or(0, |number| u128::from(*number) + 1);
                (word << bits) | number
            })
        };
        let mut from = 0;
        let lists = self.ends.iter().map(|end| &self.places[std::mem::replace(&mut from, *end)..*end]);
        // A series that is not known any more has no labels, and none is without.
        let mut lists: Vec<(u128, &[u32])> =
            lists.filter(|list| !list.is_empty()).map(|list| (packed(list), list)).collect();
        lists.sort_unstable();
        lists.into_iter().map(|(_, list)| list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{GroupId, Labels, Slot};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn series_come_in_the_order_of_their_labels(
            all in prop::collection::btree_set(prop::collection::btree_map("[ab]{1,2}|[a-z]", "[ab]{1,2}", 1..30), 0..40),
            at_most in 0usize..50,
        ) {
            let mut index = Index::default();
            let labels = |pairs: &std::collections::BTreeMap<String, String>| {
                Labels::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            };
            let mut wanted: Vec<Labels> = all.iter().map(labels).collect();
            // Defined in another order than theirs.
            wanted.sort_by_key(|labels| (labels.len(), std::cmp::Reverse(labels.clone())));
            let series = wanted.iter().map(|labels| index.place(labels, GroupId(0), Slot(0))).collect();
            wanted.sort();
            wanted.truncate(at_most.max(1));
            let mut found = Vec::new();
            index.list(&series, &mut |list| {
                found.push(Labels::sorted(list.iter().map(|label| (*label).clone()).collect()));
                found.len() < at_most
            });
            prop_assert_eq!(found, wanted);
        }
    }
}
