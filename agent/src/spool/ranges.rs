//! A set of frame numbers, kept as closed ranges: an outage is one range, however long.

use lampad_proto::v1::SequenceRange;

/// Ascending, disjoint, not adjacent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a number above all that are in it.
    pub fn push(&mut self, sequence: u64) {
        match self.0.last_mut() {
            Some((_, last)) if sequence == *last + 1 => *last = sequence,
            Some((_, last)) if sequence <= *last => debug_assert!(false, "{sequence} after {last}"),
            _ => self.0.push((sequence, sequence)),
        }
    }

    /// Takes out all of `first..=last`.
    pub fn remove(&mut self, first: u64, last: u64) {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for (from, to) in self.0.drain(..) {
            if to < first || from > last {
                left.push((from, to));
                continue;
            }
            if from < first {
                left.push((from, first - 1));
            }
            if to > last {
                left.push((last + 1, to));
            }
        }
        self.0 = left;
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|(first, _)| *first)
    }

    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, last)| *last)
    }

    /// Keeps only what is in `other` too.
    pub fn retain(&mut self, other: &Self) {
        let mut next = 0;
        let mut gaps = Vec::new();
        for (first, last) in &other.0 {
            if *first > next {
                gaps.push((next, first - 1));
            }
            next = last + 1;
        }
        gaps.push((next, u64::MAX));
        gaps.into_iter().for_each(|(first, last)| self.remove(first, last));
    }

    pub fn iter(&self) -> impl Iterator<Item = SequenceRange> + Clone {
        self.0.iter().map(|(first, last)| SequenceRange { first: *first, last: *last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_a_set(numbers in prop::collection::btree_set(0u64..60, 0..40), cuts in prop::collection::vec((0u64..60, 0u64..10), 0..6)) {
            let mut ranges = Ranges::default();
            numbers.iter().for_each(|number| ranges.push(*number));
            let mut set: BTreeSet<u64> = numbers;
            for (first, length) in cuts {
                ranges.remove(first, first + length);
                set.retain(|number| !(first..=first + length).contains(number));
            }
            prop_assert_eq!(ranges.iter().flat_map(|range| range.first..=range.last).collect::<BTreeSet<_>>(), set.clone());
            prop_assert_eq!(ranges.count(), set.len() as u64);
            prop_assert_eq!(ranges.first(), set.first().copied());
            prop_assert_eq!(ranges.last(), set.last().copied());
            let mut evens = Ranges::default();
            (0..60).filter(|number| number % 2 == 0).for_each(|number| evens.push(number));
            ranges.retain(&evens);
            prop_assert_eq!(ranges.count(), set.iter().filter(|number| *number % 2 == 0).count() as u64);
        }
    }
}
