//! Deletion: which samples of a group count as gone.
//!
//! A deletion is resolved to series when it is asked for, and to times up to the newest sample that there is: series and ticks
//! that come afterwards are not touched. What is deleted is hidden from that moment on, in memory and blocks alike; a record in
//! the log and one in the manifest keep it over restarts. The samples leave the disk when their partition is folded, at the
//! latest with the retention, and with them the record. A sample of a deleted time that arrives late is hidden too, for as long
//! as the record is there.
//!
//! [`Store::clean`](super::Store::clean) folds all that holds something deleted at once and drops the records. Only where a
//! tier has windows of that time a record stays until these are too old: it says that the windows at its ends, of which a part
//! is deleted, are to be cut from raw samples as long as there are any.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use super::block::SealedRun;
use super::column::Samples;
use super::core::Core;
use super::group::State;
use super::run::Run;
use super::tier::TIERS;
use super::{AppendError, Budget, GroupId, Matcher, entry};

/// Longest wait for a deletion to be durable.
const DURABLE_WITHIN: Duration = Duration::from_secs(30);

/// Longest time in which patterns are tested for a deletion, without the index.
const FOUND_WITHIN: Duration = Duration::from_secs(120);

/// Samples of these slots in `[from_ms, to_ms]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Erased {
    pub slots: RoaringBitmap,
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Erased {
    /// Whether anything in `[first_ms, last_ms]` is in its time: samples, or windows of this width that end there.
    pub fn touches(&self, first_ms: i64, last_ms: i64, window_ms: Option<i64>) -> bool {
        match window_ms {
            None => first_ms <= self.to_ms && last_ms >= self.from_ms,
            // A window holds what comes after its begin, up to its end.
            Some(window_ms) => first_ms.saturating_sub(window_ms) < self.to_ms && last_ms >= self.from_ms,
        }
    }

    fn hides(&self, slot: u32, at_ms: i64) -> bool {
        (self.from_ms..=self.to_ms).contains(&at_ms) && self.slots.contains(slot)
    }
}

/// Takes out what is deleted of a slot's samples.
pub(super) fn hide(erased: &[Erased], slot: u32, samples: &mut Samples) {
    if erased.iter().any(|erased| erased.slots.contains(slot)) {
        let there = |at_ms: i64| !erased.iter().any(|erased| erased.hides(slot, at_ms));
        samples.floats.retain(|sample| there(sample.timestamp_ms));
        samples.histograms.retain(|(at_ms, _)| there(*at_ms));
    }
}

impl State {
    pub fn is_erased(&self, slot: u32, at_ms: i64) -> bool {
        self.erased.iter().any(|erased| erased.hides(slot, at_ms))
    }

    pub fn erase(&mut self, erased: Erased) {
        if !self.erased.contains(&erased) {
            Arc::make_mut(&mut self.erased).push(erased);
        }
    }

    /// Drops these records, where nothing is left of what they hide. Says whether any went.
    pub fn forget_cleaned(&mut self, cleaned: &[Erased]) -> bool {
        let stays =
            |erased: &&Erased| !cleaned.contains(erased) || self.is_in_memory(erased) || self.is_in_tier(erased);
        let stay: Vec<Erased> = self.erased.iter().filter(stays).cloned().collect();
        let went = stay.len() < self.erased.len();
        self.erased = Arc::new(stay);
        went
    }

    /// Whether something in memory may be of this time: what came while the blocks were written anew, and the last samples of
    /// series that go on, without which the next tick could not be completed.
    fn is_in_memory(&self, erased: &Erased) -> bool {
        let silent = |at_ms: i64| self.marks.iter().any(|mark| mark.after_ms >= at_ms);
        let spans = self.runs().filter_map(Run::span);
        let late = self.first_late_ms().map(|first_ms| (first_ms, i64::MAX));
        spans.chain(late).any(|(first_ms, last_ms)| erased.touches(first_ms, last_ms, None))
            || self
                .carried
                .iter()
                .any(|carried| erased.hides(carried.slot, carried.timestamp_ms) && !silent(carried.timestamp_ms))
    }

    fn is_in_tier(&self, erased: &Erased) -> bool {
        let hit = |tier: usize, run: &SealedRun| erased.touches(run.min_ms, run.max_ms, Some(TIERS[tier].window_ms));
        self.tiers.iter().enumerate().any(|(tier, tiered)| tiered.runs.iter().any(|run| hit(tier, run)))
    }

    /// What lies before this time is gone by itself.
    pub fn forget_erased(&mut self, oldest_ms: i64) {
        if self.erased.iter().any(|erased| erased.to_ms < oldest_ms) {
            Arc::make_mut(&mut self.erased).retain(|erased| erased.to_ms >= oldest_ms);
        }
    }
}

impl Core {
    /// Deletes samples of the series that meet any of the lists of matchers; says of how many series. Durable when it returns.
    pub fn erase(&self, any_of: &[Vec<Matcher>], from_ms: i64, to_ms: i64) -> Result<u64, AppendError> {
        self.may_append(false)?;
        let mut by_group: BTreeMap<GroupId, RoaringBitmap> = BTreeMap::new();
        let series = {
            let budget = Budget::new(u64::MAX, Instant::now() + FOUND_WITHIN);
            let (index, found) = self.found(any_of, &budget).map_err(AppendError::NotFound)?;
            for (group, slot) in found.iter().flat_map(|series| index.places(series)) {
                by_group.entry(group).or_default().insert(slot.0);
            }
            found.len()
        };
        for (id, slots) in by_group {
            let Some(group) = self.groups.read().get(id).cloned() else { continue };
            let mut state = group.state.lock();
            let Some((min_ms, max_ms)) = state.reach() else { continue };
            let erased = Erased { slots, from_ms: from_ms.max(min_ms), to_ms: to_ms.min(max_ms) };
            if erased.from_ms <= erased.to_ms {
                let mut payload = Vec::new();
                entry::put_erase(&mut payload, id, &erased);
                self.define(entry::ERASE, payload);
                state.erase(erased);
            }
        }
        match self.log.flush(DURABLE_WITHIN) {
            true => Ok(series),
            false => Err(AppendError::Behind { bytes: self.log.behind_bytes() }),
        }
    }
}
