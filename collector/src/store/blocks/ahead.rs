//! What several groups want is brought into memory together, in the order in which it lies on disk.
//!
//! A group's runs lie in as many databases as there were seals, each with the other groups' runs of that time. Who reads group by
//! group goes through all of them for each, and to open a database takes longer than to read from it. Of who wants few series of
//! each group only the columns are kept, so that a day of a thousand hosts is brought in two or three passes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::store::block::{Address, SealedRun, piece_of};
use crate::store::piece::{Head, read_wanted};
use crate::store::{Budget, GroupId, SelectError};

use super::open::{OpenColumn, Places};
use super::{Blocks, COLUMN_BYTES_MAX, Key, Wanted, whole};

/// Values that are brought at a time, about: with what is read meanwhile they stay in the cache until they are used.
const VALUES_AHEAD: usize = 768;

/// The same of columns, of which a tick takes half a byte mostly.
const COLUMN_BYTES_AHEAD: usize = COLUMN_BYTES_MAX / 2;

/// A part of which columns are wanted, and which slots it has.
struct Part {
    group: GroupId,
    address: Address,
    slots: Arc<[u32]>,
    of_part: Range<usize>,
    places: Arc<Places>,
}

impl Blocks {
    /// Brings what is wanted of the groups' runs near their times into the caches; says of how many groups, from the first on.
    /// What cannot be read is left to those who want it.
    pub fn read_ahead(
        &self,
        groups: &[(Wanted<'_>, &[Arc<SealedRun>])],
        budget: &Budget,
    ) -> Result<usize, SelectError> {
        let groups = &groups[..self.bring_heads(groups, budget)?];
        let (mut values, mut parts, mut bytes) = (BTreeSet::new(), BTreeMap::<Key, Vec<Part>>::new(), 0);
        let mut through = 0;
        for (wanted, runs) in groups {
            let places = Arc::new(Places::of_slots(wanted.slots));
            let mut before: Option<Arc<Head>> = None;
            for run in wanted.near(runs) {
                let known = self.heads.get(run.head);
                let Some(head) = known.or_else(|| self.cached_head(run.head, wanted, before.as_deref())) else {
                    continue;
                };
                for (part, address) in self.begin(run, head.clone(), &places).missing {
                    if places.few().is_none() {
                        values.insert(key(address));
                        continue;
                    }
                    let (slots, of_part) = head.slots_of(part);
                    let part = Part { group: wanted.group, address, slots, of_part, places: places.clone() };
                    parts.entry(key(address)).or_default().push(part);
                    bytes += head.ticks.len() * places.len();
                }
                before = Some(head);
            }
            through += 1;
            if values.len() >= VALUES_AHEAD || bytes >= COLUMN_BYTES_AHEAD {
                break;
            }
        }
        self.bring(values, budget)?;
        self.bring_columns(&parts, budget)?;
        Ok(through)
    }

    /// Brings the values in which the heads lie, of so many groups as it says.
    fn bring_heads(&self, groups: &[(Wanted<'_>, &[Arc<SealedRun>])], budget: &Budget) -> Result<usize, SelectError> {
        let (mut values, mut through) = (BTreeSet::new(), 0);
        for (wanted, runs) in groups {
            let heads = wanted.near(runs).map(|run| run.head);
            values.extend(heads.filter(|head| self.heads.get(*head).is_none()).map(key));
            through += 1;
            if values.len() >= VALUES_AHEAD {
                break;
            }
        }
        self.bring(values, budget)?;
        Ok(through)
    }

    /// The head out of a value that was read before.
    fn cached_head(&self, address: Address, wanted: &Wanted<'_>, before: Option<&Head>) -> Option<Arc<Head>> {
        let value = self.cache.get(key(address))?;
        self.read_head(piece_of(&value, address.piece)?, address, wanted.group, before)
    }

    fn bring(&self, values: BTreeSet<Key>, budget: &Budget) -> Result<(), SelectError> {
        let missing: Vec<Key> = values.into_iter().filter(|key| self.cache.get(*key).is_none()).collect();
        self.read_values(&missing, budget, |key, value| {
            if let Ok(value) = value.and_then(whole) {
                self.cache.keep(key, &value, value.len());
            }
        })
    }

    /// Keeps the columns alone: the values would push all others out of the cache.
    fn bring_columns(&self, parts: &BTreeMap<Key, Vec<Part>>, budget: &Budget) -> Result<(), SelectError> {
        let mut missing = Vec::new();
        for (key, parts) in parts {
            match self.cache.get(*key) {
                Some(value) => self.keep_columns(&value, parts),
                None => missing.push(*key),
            }
        }
        self.read_values(&missing, budget, |key, value| {
            if let (Ok(value), Some(parts)) = (value.and_then(whole), parts.get(&key)) {
                self.keep_columns(&value, parts);
            }
        })
    }

    fn keep_columns(&self, value: &Arc<[u8]>, parts: &[Part]) {
        for Part { group, address, slots, of_part, places } in parts {
            let Some(piece) = piece_of(value, address.piece) else { continue };
            let is_wanted = |slot| places.of(slot).is_some();
            let columns = read_wanted(piece, group.0, &slots[of_part.clone()], is_wanted).into_iter().flatten();
            columns.for_each(|column| _ = self.keep_column(column.slot, &OpenColumn::of(column, value, *address)));
        }
    }
}

fn key(address: Address) -> Key {
    (address.partition, address.number)
}
