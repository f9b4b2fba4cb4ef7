//! The series that requests brought before: from the bytes of their labels to where their samples go.
//!
//! A series' labels come as the same bytes every time. Of these bytes two hashes with random seeds are kept instead of
//! themselves: 24 bytes a series and not hundreds. That two of a billion series ever agree in both has a probability of one in
//! 10^20, and whoever may write could write to either.
//!
//! Bounded: there are two tables, and what was not asked for while one filled up goes with the older one.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::store::{GroupId, Slot};

/// Series of one table, of which there are two: 26 MiB each when full.
const TABLE_MAX: usize = (1 << 20) / 8 * 7;

/// Where the samples of a series go.
pub type Place = (GroupId, Slot);

/// What is kept of a series' bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64, u64);

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

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

type Table = HashMap<Fingerprint, Place, BuildHasherDefault<AsIs>>;

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
        series.iter().map(|series| tables.get(*series)).collect()
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
    fn get(&mut self, series: Fingerprint) -> Option<Place> {
        if let Some(place) = self.new.get(&series) {
            return Some(*place);
        }
        let place = *self.old.get(&series)?;
        self.add(series, place);
        Some(place)
    }

    fn add(&mut self, series: Fingerprint, place: Place) {
        if self.new.len() >= TABLE_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(series, place);
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
            tables.new.len() + tables.old.len()
        };
        assert!(kept <= 2 * TABLE_MAX, "{kept}");
        known.clear();
        assert_eq!(known.find(&[series(7)]), [None]);
    }
}
