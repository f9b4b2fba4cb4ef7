//! From growing to sealed: what is taken aside for a checkpoint, what the manifest hears of its series, and where sealed runs
//! take its place.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::store::block::{Address, SealedRun};
use crate::store::newest::Newest;
use crate::store::run::Run;
use crate::store::tier::tier_of;
use crate::store::{Slot, Value, WriteMode};

use super::{Frozen, Seen, State, is_stale};

/// Ticks of one run: with one byte for most, the head of a sealed run stays small.
const TICKS_MAX: usize = 7200;

/// Bytes of one column: a value of the engine holds it whole.
const COLUMN_BYTES_MAX: usize = 48 * 1024;

/// Overlays of a group in memory: each is looked at by every select of the group.
const OVERLAYS_MAX: usize = 64;

/// Late samples of a group in memory.
const LATE_MAX: usize = 200_000;

impl State {
    /// First log record with something that is in no block, `sealing` taken as sealed.
    pub fn first_lsn(&self, sealing: &[Arc<Frozen>]) -> Option<u64> {
        let waits = |frozen: &&Arc<Frozen>| !sealing.iter().any(|sealing| Arc::ptr_eq(frozen, sealing));
        let frozen = self.frozen.iter().filter(waits).map(|frozen| frozen.first_lsn);
        self.unfrozen_lsns().chain(frozen).min()
    }

    fn unfrozen_lsns(&self) -> impl Iterator<Item = u64> + '_ {
        let runs = [self.live.unsettled()].into_iter().chain(&self.overlays).filter(|run| !run.is_empty());
        runs.map(|run| run.first_lsn).chain((!self.late.is_empty()).then_some(self.late_lsn))
    }

    /// Takes what grew aside; the next tick begins a new run. `None` when nothing did.
    pub fn freeze(&mut self, mode: WriteMode) -> Option<Arc<Frozen>> {
        let first_lsn = self.unfrozen_lsns().min()?;
        self.begun_ms = 0;
        let mut runs = Vec::new();
        let mut touched = Vec::new();
        let mut live = std::mem::replace(&mut self.live, Newest::new()).into_run();
        if !live.is_empty() {
            live.live = true;
            let mut carried = live.present();
            if mode == WriteMode::Stated {
                carried.retain(|carried| !is_stale(&carried.value));
            }
            touched.extend(std::mem::replace(&mut self.carried, carried).iter().map(|carried| carried.slot));
            runs.push(live);
            if std::mem::take(&mut self.unsure) {
                let known = (0..self.series.len() as u32).filter(|slot| self.is_defined(Slot(*slot)));
                touched.extend(known.filter(|slot| !self.ended.contains(*slot)));
            }
        }
        self.live_base.freeze(&self.overlays);
        self.late_base.freeze(&self.overlays);
        runs.append(&mut self.overlays);
        if !self.late.is_empty() {
            runs.push(late_run(std::mem::take(&mut self.late)));
            (self.late_bytes, self.late_span) = (0, None);
        }
        for run in &runs {
            let Some((_, max_ms)) = run.span() else { continue };
            for slot in &run.slots {
                let seen_ms = &mut self.seen_ms[*slot as usize];
                *seen_ms = max_ms.max(*seen_ms);
            }
            touched.extend_from_slice(&run.slots);
        }
        let seen = self.seen(touched);
        let bytes = std::mem::take(&mut self.counted_bytes);
        let frozen = Arc::new(Frozen { runs, first_lsn, last_lsn: self.lsn, bytes, seen });
        self.frozen.push(frozen.clone());
        Some(frozen)
    }

    /// What is new of these slots.
    fn seen(&mut self, mut slots: Vec<u32>) -> Vec<(u32, Seen)> {
        slots.sort_unstable();
        slots.dedup();
        let mut seen = Vec::new();
        for slot in slots {
            if self.carried.binary_search_by_key(&slot, |carried| carried.slot).is_err() {
                self.ended.insert(slot);
                seen.push((slot, Seen::Until(self.seen_ms[slot as usize])));
            } else if self.ended.remove(slot) {
                seen.push((slot, Seen::GoesOn));
            }
        }
        seen
    }

    /// All that the manifest must say of slots.
    pub fn all_seen(&self) -> Vec<(u32, Seen)> {
        self.ended.iter().map(|slot| (slot, Seen::Until(self.seen_ms[slot as usize]))).collect()
    }

    /// Takes what the manifest says.
    pub fn take_seen(&mut self, slot: u32, seen: Seen, now_ms: i64) {
        let Some(seen_ms) = self.seen_ms.get_mut(slot as usize) else { return };
        match seen {
            Seen::Until(ms) => {
                *seen_ms = ms;
                self.ended.insert(slot);
            }
            Seen::GoesOn => {
                *seen_ms = now_ms;
                self.ended.remove(slot);
            }
        }
    }

    /// After a start: of what the log did not bring back and is not said to have ended, no sample is newer than the newest that
    /// is sealed.
    pub fn bound_seen(&mut self) {
        let Some(newest_ms) = self.all_sealed().map(|run| run.max_ms).max() else { return };
        self.unsure = true;
        self.live.settled();
        for slot in 0..self.series.len() as u32 {
            if !self.ended.contains(slot) && self.runs().all(|run| run.column(slot).is_none()) {
                let seen_ms = &mut self.seen_ms[slot as usize];
                *seen_ms = newest_ms.min(*seen_ms);
            }
        }
    }

    /// Whether what grew is so much or so old that it should be sealed.
    pub fn is_due(&self, now_ms: i64, age_ms: i64) -> bool {
        let old = self.begun_ms != 0 && now_ms.saturating_sub(self.begun_ms) >= age_ms;
        let live = self.live.unsettled();
        let much = live.ticks.len() >= TICKS_MAX || live.longest >= COLUMN_BYTES_MAX;
        old || much || self.overlays.len() >= OVERLAYS_MAX || self.late.len() >= LATE_MAX
    }

    /// What is frozen lies in blocks now.
    pub fn publish(&mut self, frozen: &Arc<Frozen>, sealed: Vec<Arc<SealedRun>>, present: Option<Arc<[u8]>>) {
        self.present = present.unwrap_or_else(|| self.present.clone());
        self.frozen.retain(|waiting| !Arc::ptr_eq(waiting, frozen));
        let all = self.sealed.iter().cloned().chain(sealed);
        self.sealed = Arc::new(all.collect());
        self.sealed_lsn = self.sealed_lsn.max(frozen.last_lsn);
    }

    /// Puts the runs that others were folded into where the first of those stood.
    pub fn replace_sealed(&mut self, old: &HashSet<Address>, new: Vec<Arc<SealedRun>>) {
        let sealed = self.sealed_of_mut(old.iter().find_map(|head| tier_of(head.partition)));
        let Some(first) = sealed.iter().position(|run| old.contains(&run.head)) else { return };
        let (before, after) = sealed.split_at(first);
        let stay = after.iter().filter(|run| !old.contains(&run.head));
        *sealed = Arc::new(before.iter().cloned().chain(new).chain(stay.cloned()).collect());
    }
}

fn late_run(late: BTreeMap<(u32, i64), Value>) -> Run {
    let mut by_time: BTreeMap<i64, Vec<(u32, Value)>> = BTreeMap::new();
    for ((slot, at_ms), value) in late {
        by_time.entry(at_ms).or_default().push((slot, value));
    }
    let mut run = Run::new();
    for (at_ms, values) in by_time {
        let Some(tick) = run.stated_tick(at_ms) else { continue };
        for (slot, value) in values {
            run.state(tick, Slot(slot), &value);
        }
    }
    run
}
