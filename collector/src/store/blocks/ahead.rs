//! What several groups want is brought into memory together, in the order in which it lies on disk.
//!
//! A group's runs lie in as many databases as there were seals, each with the other groups' runs of that time. Who reads group by
//! group goes through all of them for each, and to open a database takes longer than to read from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::store::block::{Address, SealedRun, piece_of};
use crate::store::piece::Head;
use crate::store::{Budget, SelectError};

use super::open::Places;
use super::{Blocks, Key, Wanted, whole};

/// Values that are brought at a time, about: with what is read meanwhile they stay in the cache until they are used.
const VALUES_AHEAD: usize = 768;

impl Blocks {
    /// Brings heads and values of the groups' runs near their times into the caches; says of how many groups, from the first on.
    /// What cannot be read is left to those who want it.
    pub fn read_ahead(
        &self,
        groups: &[(Wanted<'_>, &[Arc<SealedRun>])],
        budget: &Budget,
    ) -> Result<usize, SelectError> {
        let runs = groups.iter().flat_map(|(wanted, runs)| wanted.near(runs));
        let unknown = runs.map(|run| run.head).filter(|head| self.heads.get(*head).is_none());
        self.bring(unknown.map(key).collect(), budget)?;
        let (mut parts, mut through) = (BTreeSet::new(), 0);
        for (wanted, runs) in groups {
            let places = Places::of_slots(wanted.slots);
            let mut before: Option<Arc<Head>> = None;
            for run in wanted.near(runs) {
                let known = self.heads.get(run.head);
                let Some(head) = known.or_else(|| self.cached_head(run.head, wanted, before.as_deref())) else {
                    continue;
                };
                let opening = self.begin(run, head.clone(), &places);
                parts.extend(opening.missing.into_iter().map(|(_, address)| key(address)));
                before = Some(head);
            }
            through += 1;
            if parts.len() >= VALUES_AHEAD {
                break;
            }
        }
        self.bring(parts, budget)?;
        Ok(through)
    }

    /// The head out of a value that was read before.
    fn cached_head(&self, address: Address, wanted: &Wanted<'_>, before: Option<&Head>) -> Option<Arc<Head>> {
        let value = self.cache.get(key(address))?;
        self.read_head(piece_of(&value, address.piece)?, address, wanted.group, before)
    }

    fn bring(&self, keys: BTreeSet<Key>, budget: &Budget) -> Result<(), SelectError> {
        let missing: Vec<Key> = keys.into_iter().filter(|key| self.cache.get(*key).is_none()).collect();
        self.read_values(&missing, budget, |key, value| {
            if let Ok(value) = value.and_then(whole) {
                self.cache.keep(key, &value, value.len());
            }
        })
    }
}

fn key(address: Address) -> Key {
    (address.partition, address.number)
}
