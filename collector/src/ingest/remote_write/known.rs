//! The series that requests brought before: from the bytes of their labels to where their samples go.
//!
//! A series' labels come as the same bytes every time. Of these bytes two hashes with random seeds are kept instead of
//! themselves: some 50 bytes a series and not hundreds. That two of a billion series ever agree in both has a probability of one in
//! 10^20, and whoever may write could write to either.
//!
//! A request mostly names its series in the order of the one before it, so the next one is looked for behind the last one first:
//! that is one read of memory that lies side by side instead of one at random.
//!
//! Bounded: there are two tables, and what was not asked for while one filled up goes with the older one.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::store::{GroupId, Slot};

/// Series of one table, of which there are two: 40 MiB each when full.
const TABLE_MAX: usize = (1 << 20) / 8 * 7;

/// Where the samples of a series go.
pub type Place = (GroupId, Slot);

/// What is kept of a series' bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64, u64);

/// For keys that are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<(Fingerprint, Place)>,
    /// Place in `entries` by the first hash. Of two series that agree in it the later one is found.
    at: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
}

impl Table {
    fn find(&self, series: Fingerprint) -> Option<usize> {
        let at = *self.at.get(&series.0)? as usize;
        (self.entries[at].0 == series).then_some(at)
    }

    fn add(&mut self, series: Fingerprint, place: Place) {
        self.at.insert(series.0, self.entries.len() as u32);
        self.entries.push((series, place));
    }
}

#[derive(Debug, Default)]
pub struct Known {
    first: RandomState,
    second: RandomState,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    new: Table,
    old: Table,
}

impl Known {
    pub fn fingerprint(&self, labels: &[u8]) -> Fingerprint {
        Fingerprint(self.first.hash_one(labels), self.second.hash_one(labels))
    }

    /// Where each of these series goes; `None` for one that is not known.
    pub fn find(&self, series: &[Fingerprint]) -> Vec<Option<Place>> {
        let mut tables = self.tables.lock();
        let mut next = 0;
        series.iter().map(|series| tables.get(*series, &mut next)).collect()
    }

    pub fn add(&self, series: impl IntoIterator<Item = (Fingerprint, Place)>) {
        let mut tables = self.tables.lock();
        series.into_iter().for_each(|(series, place)| tables.add(series, place));
    }

    /// Forgets all: the next request of each series finds out anew.
    pub fn clear(&self) {
        *self.tables.lock() = Tables::default();
    }
}

impl Tables {
    /// `next` is where the series is probably.
    fn get(&mut self, series: Fingerprint, next: &mut usize) -> Option<Place> {
        let expected = self.new.entries.get(*next).filter(|(known, _)| *known == series);
        if let Some((_, place)) = expected {
            *next += 1;
            return Some(*place);
        }
        if let Some(at) = self.new.find(series) {
            *next = at + 1;
            return Some(self.new.entries[at].1);
        }
        let place = self.old.entries[self.old.find(series)?].1;
        self.add(series, place);
        Some(place)
    }

    fn add(&mut self, series: Fingerprint, place: Place) {
        if self.new.entries.len() >= TABLE_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        match self.new.find(series) {
            Some(at) => self.new.entries[at].1 = place,
            None => self.new.add(series, place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let known = Known::default();
        let series = |number: usize| known.fingerprint(&number.to_le_bytes());
        let place = |number: usize| (GroupId(1), Slot(number as u32));
        known.add((0..TABLE_MAX).map(|number| (series(number), place(number))));
        known.add([(series(TABLE_MAX), place(TABLE_MAX))]);
        assert_eq!(known.find(&[series(7)]), [Some(place(7))], "in the older table, and now in the newer");
        known.add((TABLE_MAX + 1..2 * TABLE_MAX).map(|number| (series(number), place(number))));
        assert_eq!(known.find(&[series(7), series(8)]), [Some(place(7)), None]);
        let kept = {
            let tables = known.tables.lock();
            tables.new.entries.len() + tables.old.entries.len()
        };
        assert!(kept <= 2 * TABLE_MAX, "{kept}");
        let order = [9, 7, 8, 10, 7].map(|number| series(TABLE_MAX + number));
        let places = [9, 7, 8, 10, 7].map(|number| Some(place(TABLE_MAX + number)));
        assert_eq!(known.find(&order), places, "in any order");
        known.clear();
        assert_eq!(known.find(&[series(7)]), [None]);
    }
}
