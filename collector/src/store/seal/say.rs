//! What the manifest says of the store: what is new since the last checkpoint, or everything.

use std::ops::Range;
use std::sync::Arc;

use crate::store::core::{Core, Definition};
use crate::store::entry;
use crate::store::group::{FORGOTTEN, Group, State};
use crate::store::index::Index;
use crate::store::manifest::Transaction;
use crate::store::{GroupId, SeriesKey, Slot};

use super::Sealer;

/// Series definitions per record.
const SERIES_PER_RECORD: usize = 512;

impl Sealer {
    /// All that a manifest says, but for what a checkpoint under way adds.
    pub(super) fn say_everything(&self, core: &Core, transaction: &mut Transaction) {
        say_definitions(core, transaction);
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        for group in &groups {
            let state = group.state.lock();
            state.sealed.iter().for_each(|run| transaction.run(group.id, state.sealed_lsn, run));
            for (tier, tiered) in state.tiers.iter().enumerate().filter(|(_, tiered)| !tiered.is_unused()) {
                tiered.runs.iter().for_each(|run| transaction.run(group.id, 0, run));
                transaction.tiered(group.id, tier, tiered.until_ms, tiered.through);
            }
            transaction.seen(group.id, &state.all_seen());
            if !state.present.is_empty() {
                transaction.present(&state.present);
            }
            if !state.marks.is_empty() {
                transaction.marks(group.id, &state.marks);
            }
            for erased in state.erased.iter() {
                let mut payload = Vec::new();
                entry::put_erase(&mut payload, group.id, erased);
                transaction.raw(entry::ERASE, &payload);
            }
        }
        for (agent, epochs) in core.sequences.all() {
            transaction.frames(agent, &epochs.lock());
        }
        self.whole.iter().for_each(|(partition, begun)| transaction.whole(*partition, *begun));
    }
}

/// What was defined since the last checkpoint.
pub(super) fn say_new(core: &Core, definitions: Vec<Definition>, transaction: &mut Transaction) {
    let index = core.index.read();
    for definition in definitions {
        match definition {
            Definition::Record { kind, payload } => transaction.raw(kind, &payload),
            Definition::Series { group, slots } => {
                let Some(group) = core.groups.read().get(group).cloned() else { continue };
                put_series(&index, group.id, &group.state.lock(), slots, transaction);
            }
        }
    }
}

/// The series of a group in these slots; those that were forgotten meanwhile are left out.
fn put_series(index: &Index, group: GroupId, state: &State, slots: Range<u32>, transaction: &mut Transaction) {
    let slots: Vec<u32> = slots.collect();
    for some in slots.chunks(SERIES_PER_RECORD) {
        let series = some.iter().filter_map(|slot| {
            let labels = index.labels(*state.series.get(*slot as usize)?)?;
            let meta = labels.metric().and_then(|metric| index.meta.get(metric)).cloned();
            Some((Slot(*slot), SeriesKey { labels, meta }))
        });
        transaction.series(group, &series.collect::<Vec<_>>());
    }
}

/// All groups and series that are known.
fn say_definitions(core: &Core, transaction: &mut Transaction) {
    let index = core.index.read();
    let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    for group in &groups {
        let mut payload = Vec::new();
        entry::put_group(&mut payload, group.id, &group.key, group.mode);
        transaction.raw(entry::GROUP, &payload);
    }
    for group in &groups {
        let state = group.state.lock();
        put_series(&index, group.id, &state, 0..state.series.len() as u32, transaction);
        // So that the number of a slot that was the last one is not given out again.
        if state.series.last() == Some(&FORGOTTEN) {
            let mut payload = Vec::new();
            entry::put_forget(&mut payload, group.id, &[state.series.len() as u32 - 1]);
            transaction.raw(entry::FORGET, &payload);
        }
    }
}
