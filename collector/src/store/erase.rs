//! Deletion: which samples of a group count as gone.
//!
//! A deletion is resolved to series when it is asked for, and to times up to the newest sample that there is: series and ticks
//! that come afterwards are not touched. What is deleted is hidden from that moment on, in memory and blocks alike; a record in
//! the log and one in the manifest keep it over restarts. The samples leave the disk with the retention, and with them the
//! record. A sample of a deleted time that arrives late is hidden too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;

use super::column::Samples;
use super::core::Core;
use super::group::State;
use super::tested::Tested;
use super::{AppendError, GroupId, Matcher, entry};

/// Longest wait for a deletion to be durable.
const DURABLE_WITHIN: Duration = Duration::from_secs(30);

/// Samples of these slots in `[from_ms, to_ms]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Erased {
    pub slots: RoaringBitmap,
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Erased {
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
        self.may_append()?;
        let mut by_group: BTreeMap<GroupId, RoaringBitmap> = BTreeMap::new();
        let series = {
            let index = self.index.read();
            let found = index.postings.any_of(any_of, &Tested::default());
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
