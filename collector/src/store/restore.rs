//! Putting a store together again from what its files say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use parking_lot::{Mutex, RwLock};

use super::admit::{Admission, count_live};
use super::block::SealedRun;
use super::blocks::Blocks;
use super::core::{Core, Counters, Groups};
use super::entry::Entry;
use super::group::{FORGOTTEN, Window};
use super::index::Index;
use super::keeper::Asked;
use super::log::Log;
use super::manifest::Fact;
use super::sequences::Epochs;
use super::sequences::Sequences;
use super::tier::{TIERS, tier_of};
use super::{AgentId, FrameId, GroupId, GroupKey, Options, SeriesKey, Slot, TickBatch, WriteMode};

#[derive(Debug, Default)]
pub(super) struct Restored {
    pub index: Index,
    pub groups: Groups,
    pub sequences: Sequences,
    /// The newest partition and the number behind its last value.
    pub numbers: Option<(u32, u32)>,
    /// The same of each tier.
    pub tier_numbers: [Option<(u32, u32)>; TIERS.len()],
    /// Partitions that came of compaction, with the first of those that were folded into it.
    pub whole: BTreeMap<u32, u32>,
    /// Records that are whole and yet make no sense.
    pub unreadable: u64,
}

impl Restored {
    pub fn apply(&mut self, entry: Entry, lsn: u64, window: Window, now_ms: i64) {
        match entry {
            Entry::Group { group, key, mode } => self.group(group, key, mode),
            Entry::Series { group, series } => self.series(group, series, now_ms),
            Entry::Batch { frame, ticks } => self.batch(frame, &ticks, lsn, window),
            Entry::Silence { marks } => {
                for (group, mark) in marks {
                    let Some(group) = self.groups.get(group) else { continue };
                    let mut state = group.state.lock();
                    if !state.marks.contains(&mark) {
                        state.mark(mark, lsn);
                    }
                }
            }
            Entry::Erase { group, erased } => {
                if let Some(group) = self.groups.get(group) {
                    group.state.lock().erase(erased);
                }
            }
            Entry::Forget { group, slots } => {
                slots.into_iter().for_each(|slot| self.forget(group, slot, now_ms));
            }
        }
    }

    /// What the manifest says.
    pub fn fact(&mut self, fact: Fact, now_ms: i64) {
        match fact {
            Fact::Entry(entry) => {
                self.apply(entry, 0, Window { now_ms, oldest_ms: i64::MIN, newest_ms: i64::MAX }, now_ms)
            }
            Fact::Run { group: group_id, sealed_lsn, run } => {
                if self.groups.get(group_id).is_none() {
                    self.unreadable += 1;
                    return;
                }
                let tier = tier_of(run.head.partition);
                place(self.numbers_of(tier), &run);
                let Some(group) = self.groups.get(group_id) else { return };
                let mut state = group.state.lock();
                if tier.is_some() {
                    Arc::make_mut(state.sealed_of_mut(tier)).push(Arc::new(run));
                    return;
                }
                if run.live {
                    state.last_ms = state.last_ms.max(run.max_ms);
                }
                state.sealed_lsn = state.sealed_lsn.max(sealed_lsn);
                Arc::make_mut(&mut state.sealed).push(Arc::new(run));
            }
            Fact::Seen { group, seen } => {
                let Some(group) = self.groups.get(group) else { return };
                let mut state = group.state.lock();
                seen.into_iter().for_each(|(slot, seen)| state.take_seen(slot, seen, now_ms));
            }
            Fact::Present { group, present, payload } => {
                let Some(group) = self.groups.get(group) else { return };
                let mut state = group.state.lock();
                state.present = payload;
                state.carried = present;
            }
            Fact::Marks { group, marks } => {
                if let Some(group) = self.groups.get(group) {
                    group.state.lock().marks.extend(marks);
                }
            }
            Fact::Frames { agent, ranges } => {
                let epoch = ranges.first().map_or(super::PUSHER_EPOCH, |(epoch, ..)| *epoch);
                let epochs = self.sequences.agent(agent, epoch);
                let mut epochs = epochs.lock();
                *epochs = Epochs::default();
                ranges.into_iter().for_each(|(epoch, first, last)| epochs.insert(epoch, first, last));
                epochs.unsaved = false;
            }
            Fact::Folded { group, old, new } => {
                new.iter().for_each(|run| place(self.numbers_of(tier_of(run.head.partition)), run));
                let Some(group) = self.groups.get(group) else { return };
                group.state.lock().replace_sealed(&old, new.into_iter().map(Arc::new).collect());
            }
            Fact::Whole { partition, begun } => _ = self.whole.insert(partition, begun),
            Fact::Dropped { partition } => {
                self.whole.remove(&partition);
                for group in &self.groups.all {
                    let mut state = group.state.lock();
                    Arc::make_mut(state.sealed_of_mut(tier_of(partition)))
                        .retain(|run| run.head.partition != partition);
                }
            }
            Fact::Tiered { group, tier, until_ms, through } => {
                let Some(group) = self.groups.get(group) else { return };
                let mut state = group.state.lock();
                if let Some(tiered) = state.tiers.get_mut(tier) {
                    (tiered.until_ms, tiered.through) = (until_ms, through);
                }
            }
        }
    }

    fn numbers_of(&mut self, tier: Option<usize>) -> &mut Option<(u32, u32)> {
        match tier {
            Some(tier) => &mut self.tier_numbers[tier],
            None => &mut self.numbers,
        }
    }

    fn group(&mut self, group: GroupId, key: GroupKey, mode: WriteMode) {
        if (group.0 as usize) < self.groups.all.len() {
            return;
        }
        // A definition that was lost leaves a hole, or all groups behind it would be taken for others.
        while self.groups.all.len() < group.0 as usize {
            let name = format!("lost group {}", self.groups.all.len()).into();
            self.groups.add(GroupKey { agent: AgentId([0; 16]), name }, WriteMode::Stated);
        }
        self.groups.add(key, mode);
    }

    fn series(&mut self, group: GroupId, series: Vec<(Slot, SeriesKey)>, now_ms: i64) {
        let Some(group) = self.groups.get(group) else {
            self.unreadable += 1;
            return;
        };
        let mut state = group.state.lock();
        for (slot, key) in series {
            if let Some(meta) = &key.meta {
                self.index.describe(&key.labels, meta);
            }
            if (slot.0 as usize) < state.series.len() {
                continue;
            }
            // A definition that was lost leaves a hole.
            while state.series.len() < slot.0 as usize {
                state.add_slot(FORGOTTEN, now_ms);
            }
            let series = self.index.place(&key.labels, group.id, slot);
            state.add_slot(series, now_ms);
        }
    }

    fn batch(&mut self, frame: Option<FrameId>, ticks: &[TickBatch], lsn: u64, window: Window) {
        for tick in ticks {
            let Some(group) = self.groups.get(tick.group) else {
                self.unreadable += 1;
                continue;
            };
            let mut state = group.state.lock();
            if lsn <= state.sealed_lsn {
                continue;
            }
            if group.mode == WriteMode::Delta && !tick.key && state.needs_key(tick.run) {
                continue;
            }
            state.tick(group.mode, tick, window, lsn);
        }
        if let Some(FrameId { agent, epoch, sequence }) = frame {
            self.sequences.agent(agent, epoch).lock().insert(epoch, sequence, sequence);
        }
    }

    fn forget(&mut self, group: GroupId, slot: Slot, now_ms: i64) {
        let Some(group) = self.groups.get(group) else { return };
        let mut state = group.state.lock();
        while state.series.len() <= slot.0 as usize {
            state.add_slot(FORGOTTEN, now_ms);
        }
        let Some(forgotten) = state.forget(slot) else { return };
        state.carried.retain(|carried| carried.slot != slot.0);
        state.ended.remove(slot.0);
        self.index.displace(forgotten, group.id, slot);
    }

    /// Records are missing: what changed in them is not known, so silence means nothing until the next key tick.
    pub fn gap(&mut self) {
        let delta = self.groups.all.iter().filter(|group| group.mode == WriteMode::Delta);
        delta.for_each(|group| group.state.lock().lose_base());
    }

    /// `released_lsn` is the last record of the log that the manifest says is not needed.
    pub fn into_core(self, options: Options, log: Log, blocks: Blocks, counters: Counters, released_lsn: u64) -> Core {
        let mut admission = Admission::default();
        self.groups.all.iter().for_each(|group| group.state.lock().bound_seen());
        admission.set_live(count_live(&self.groups.all, options.live_since_ms()));
        let head_bytes: isize = self.groups.all.iter().map(|group| group.state.lock().grown_bytes()).sum();
        Core {
            options,
            index: RwLock::new(self.index),
            groups: RwLock::new(self.groups),
            sequences: self.sequences,
            log,
            admission: Mutex::new(admission),
            definitions: Mutex::default(),
            counters,
            blocks,
            keeper: Asked::default(),
            head_bytes: AtomicU64::new(head_bytes as u64),
            // Until the keeper has looked, which it does at once.
            head_most: AtomicU64::new(u64::MAX),
            sealing: AtomicBool::new(false),
            released_lsn: AtomicU64::new(released_lsn),
            pins: AtomicU64::new(0),
            tier_first_ms: std::array::from_fn(|_| AtomicI64::new(i64::MAX)),
            disk_full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }
}

/// Keeps the newest partition and the number behind its last value.
fn place(newest: &mut Option<(u32, u32)>, run: &SealedRun) {
    for address in run.parts.iter().chain([&run.head]).filter(|address| !address.is_lost()) {
        *newest = (*newest).max(Some((address.partition, address.number + 1)));
    }
}
