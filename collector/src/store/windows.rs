//! Reading the tiers: windows for functions that have an exact form on them, and single samples for what is older than raw
//! samples are.
//!
//! A select by windows covers its whole time: what a tier does not have yet (or has no more, while raw samples are there) is cut
//! from raw samples here, at the same edges. So is what late samples have touched since the tier was built. Whoever asks need
//! not know where a window came from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::blocks;
use super::column::Samples;
use super::core::Core;
use super::group::Group;
use super::read::Matching;
use super::reading::{Asked, Wanted};
use super::tier::{TIERS, Tier};
use super::window::{COLUMNS, Cut, GROUP, GROUP_COLUMNS, Window, assemble, column_of, cut};
use super::{Budget, GroupId, Labels, Matcher, Sample, SelectError, Series, Slot};

/// How far back a store can look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Raw samples from before this are gone; [`i64::MIN`] where they are kept for ever.
    pub raw_ms: i64,
    /// From the narrowest windows to the widest; only tiers that have any.
    pub tiers: Vec<TierReach>,
}

impl Default for Reach {
    fn default() -> Self {
        Self { raw_ms: i64::MIN, tiers: Vec::new() }
    }
}

impl Reach {
    /// Tiers with windows of times from which raw samples are gone.
    pub fn older(&self) -> impl Iterator<Item = &TierReach> {
        self.tiers.iter().filter(|tier| tier.oldest_ms.saturating_add(tier.window_ms) <= self.raw_ms)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierReach {
    pub window_ms: i64,
    /// What of it ended before this is gone, or never was.
    pub oldest_ms: i64,
}

/// A series by windows. Each holds at least one sample; none reaches over an edge of the tier's grid.
#[derive(Debug, Clone)]
pub struct WindowSeries {
    pub labels: Labels,
    /// Ascending, and no two have times in common.
    pub windows: Vec<Window>,
    /// Windows cannot tell all of this series: it has histograms, or two writers at once, or something of it was damaged.
    pub is_odd: bool,
}

/// Windows of one series in one group.
#[derive(Debug, Default, Clone)]
struct Found {
    cuts: Vec<Cut>,
    is_odd: bool,
}

/// Which windows of a group are read where. All between `low_ms` and `high_ms` is in the tier, the rest in raw samples.
struct Split {
    runs: Vec<Arc<super::block::SealedRun>>,
    low_ms: i64,
    high_ms: i64,
    erased: Arc<Vec<super::erase::Erased>>,
}

impl Core {
    pub fn reach(&self) -> Reach {
        let now_ms = self.options.clock.now_ms();
        let raw_ms = self.oldest_ms(now_ms);
        let tiers = TIERS.iter().enumerate().filter_map(|(at, tier)| {
            let kept_ms = self.tier_oldest_ms(at, now_ms)?;
            let first_ms = self.tier_first_ms[at].load(Ordering::Relaxed);
            (first_ms != i64::MAX)
                .then(|| TierReach { window_ms: tier.window_ms, oldest_ms: (first_ms - tier.window_ms).max(kept_ms) })
        });
        Reach { raw_ms, tiers: tiers.collect() }
    }

    /// Looks up when the first windows of the tiers are. After what the tiers hold has changed.
    pub fn note_tiers(&self) {
        let groups: Vec<Arc<Group>> = self.groups.read().all.clone();
        let mut first_ms = [i64::MAX; TIERS.len()];
        for group in &groups {
            let state = group.state.lock();
            for (first_ms, tiered) in first_ms.iter_mut().zip(&state.tiers) {
                *first_ms = tiered.runs.iter().map(|run| run.min_ms).fold(*first_ms, i64::min);
            }
        }
        self.tier_first_ms.iter().zip(first_ms).for_each(|(known, first_ms)| known.store(first_ms, Ordering::Relaxed));
    }

    /// Series by windows of `window_ms`, of all samples in `(from_ms, to_ms]`. Windows at both ends are cut there, as far as
    /// raw samples go back. A width that is no tier's has none.
    pub fn select_windows(
        &self,
        matchers: &[Matcher],
        window_ms: i64,
        (from_ms, to_ms): (i64, i64),
        budget: &Budget,
    ) -> Result<Vec<WindowSeries>, SelectError> {
        let Some(tier) = TIERS.iter().position(|tier| tier.window_ms == window_ms) else { return Ok(Vec::new()) };
        let damaged = self.blocks.damaged();
        let found = self.by_series(matchers, budget, |group, wanted| {
            self.group_windows(group, wanted, tier, (from_ms, to_ms), budget)
        })?;
        // Which series it was is not known here, and a window of which a column is missing says what is not so.
        let is_damaged = self.blocks.damaged() != damaged;
        let series = found.into_iter().map(|(labels, found)| {
            let is_odd = is_damaged || found.is_odd || found.cuts.iter().any(|cut| cut.histograms);
            let mut windows: Vec<Window> = found.cuts.into_iter().filter_map(|cut| cut.window).collect();
            windows.sort_by_key(|window| window.first_ms);
            let overlap = windows.windows(2).any(|pair| pair[1].first_ms <= pair[0].last_ms);
            WindowSeries { labels, windows, is_odd: is_odd || overlap }
        });
        Ok(series.filter(|series| series.is_odd || !series.windows.is_empty()).collect())
    }

    /// Of times in `[from_ms, to_ms]` from which raw samples are gone: the first and the last sample of each window, and where
    /// a series ended.
    pub fn thinned(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Series>, SelectError> {
        let now_ms = self.options.clock.now_ms();
        let mut all: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        let mut before_ms = self.oldest_ms(now_ms).min(to_ms.saturating_add(1));
        // The narrowest windows as far as they go back, wider ones before that.
        for (at, tier) in TIERS.iter().enumerate() {
            let Some(oldest_ms) = self.tier_oldest_ms(at, now_ms) else { continue };
            // One that was switched on later does not go back as far as it is kept.
            let first_ms = self.tier_first_ms[at].load(Ordering::Relaxed).saturating_sub(tier.window_ms);
            let low_ms = from_ms.max(oldest_ms).max(first_ms.saturating_add(1));
            if low_ms >= before_ms {
                continue;
            }
            let near = (tier.floor(low_ms.saturating_sub(1)), tier.end_of(before_ms));
            let found = self.by_series(matchers, budget, |group, wanted| {
                let split = self.all_of_tier(group, at, near);
                self.tier_windows(group, wanted, tier, &split, budget)
            })?;
            for (labels, found) in found {
                let samples = found.cuts.iter().flat_map(ends_of);
                let samples = samples.filter(|sample| (low_ms..before_ms).contains(&sample.timestamp_ms));
                all.entry(labels).or_default().extend(samples);
            }
            before_ms = low_ms;
        }
        let series = all.into_iter().filter(|(_, samples)| !samples.is_empty());
        Ok(series
            .map(|(labels, mut floats)| {
                floats.sort_by_key(|sample| sample.timestamp_ms);
                floats.dedup_by_key(|sample| sample.timestamp_ms);
                Series { labels, floats: floats.into_iter().collect(), histograms: Vec::new() }
            })
            .collect())
    }

    /// What `read` finds in each group, by series.
    fn by_series(
        &self,
        matchers: &[Matcher],
        budget: &Budget,
        read: impl Fn(&Group, &[Wanted]) -> Result<Vec<(usize, Found)>, SelectError> + Send + Sync,
    ) -> Result<Vec<(Labels, Found)>, SelectError> {
        let Matching { labels, by_group, .. } = self.wanted(matchers, budget)?;
        let mut all: Vec<Found> = vec![Found::default(); labels.len()];
        let by_group: Vec<(GroupId, Vec<Wanted>)> = by_group.into_iter().collect();
        let of_groups: Result<Vec<_>, SelectError> = by_group
            .into_par_iter()
            .map(|(group, wanted)| {
                budget.check()?;
                // Bound first: a `match` would hold the lock while it waits for the disk.
                let group = self.groups.read().get(group).cloned();
                group.map_or_else(|| Ok(Vec::new()), |group| read(&group, &wanted))
            })
            .collect();
        for (series, found) in of_groups?.into_iter().flatten() {
            let into = &mut all[series];
            into.cuts.extend(found.cuts);
            into.is_odd |= found.is_odd;
        }
        Ok(labels.into_iter().zip(all).collect())
    }

    fn group_windows(
        &self,
        group: &Group,
        wanted: &[Wanted],
        tier: usize,
        (from_ms, to_ms): (i64, i64),
        budget: &Budget,
    ) -> Result<Vec<(usize, Found)>, SelectError> {
        let split = self.split(group, wanted, tier, (from_ms, to_ms));
        let tier = &TIERS[tier];
        if split.low_ms >= split.high_ms {
            return self.raw_windows(group, wanted, tier, (from_ms, to_ms), budget);
        }
        let mut found = self.tier_windows(group, wanted, tier, &split, budget)?;
        for raw in [(from_ms, split.low_ms), (split.high_ms, to_ms)].into_iter().filter(|(from, to)| from < to) {
            found.extend(self.raw_windows(group, wanted, tier, raw, budget)?);
        }
        Ok(found)
    }

    fn split(&self, group: &Group, wanted: &[Wanted], tier: usize, (from_ms, to_ms): (i64, i64)) -> Split {
        let now_ms = self.options.clock.now_ms();
        let definition = &TIERS[tier];
        let state = group.state.lock();
        let tiered = &state.tiers[tier];
        let raw_ms = self.oldest_ms(now_ms);
        // The first edge that the tier and what is asked for have in common.
        let mut low_ms = definition.end_of(from_ms);
        let gone_ms = self.tier_oldest_ms(tier, now_ms).unwrap_or(i64::MAX);
        if gone_ms > from_ms && gone_ms > raw_ms {
            low_ms = low_ms.max(definition.end_of(gone_ms));
        }
        let seen_ms = tiered.until_ms.min(state.unseen_ms(tier).saturating_sub(1));
        let mut high_ms = definition.floor(seen_ms.min(to_ms));
        let hides = |erased: &super::erase::Erased| {
            erased.from_ms <= to_ms
                && erased.to_ms > from_ms
                && wanted.iter().any(|(_, slot)| erased.slots.contains(slot.0))
        };
        if state.erased.iter().any(hides) {
            // A window may hold what is deleted and what is not: raw samples tell, as far as they go back.
            high_ms = i64::MIN;
        }
        if raw_ms > from_ms {
            // Before this only the tier has anything.
            high_ms = high_ms.max(definition.end_of(raw_ms).min(definition.floor(to_ms)));
        }
        Split { runs: tiered.by_rank(), low_ms, high_ms, erased: state.erased.clone() }
    }

    fn all_of_tier(&self, group: &Group, tier: usize, (low_ms, high_ms): (i64, i64)) -> Split {
        let state = group.state.lock();
        Split { runs: state.tiers[tier].by_rank(), low_ms, high_ms, erased: state.erased.clone() }
    }

    /// Windows cut from raw samples in `(from_ms, to_ms]`.
    fn raw_windows(
        &self,
        group: &Group,
        wanted: &[Wanted],
        tier: &Tier,
        (from_ms, to_ms): (i64, i64),
        budget: &Budget,
    ) -> Result<Vec<(usize, Found)>, SelectError> {
        let from_ms = from_ms.saturating_add(1).max(self.oldest_ms(self.options.clock.now_ms()));
        let mut cuts = Vec::with_capacity(wanted.len());
        self.read_group(group, wanted, Asked::all(from_ms, to_ms), budget, blocks::NO_MORE, &mut |series, samples| {
            cuts.push((series, charged(cut(samples, tier), budget)));
        })?;
        let found = |(series, cuts)| Ok((series, Found { cuts: cuts?, is_odd: false }));
        cuts.into_iter().map(found).collect()
    }

    /// Windows of the tier that lie between the bounds of `split`, without those of which something was deleted.
    fn tier_windows(
        &self,
        group: &Group,
        wanted: &[Wanted],
        tier: &Tier,
        split: &Split,
        budget: &Budget,
    ) -> Result<Vec<(usize, Found)>, SelectError> {
        if split.runs.is_empty() {
            return Ok(Vec::new());
        }
        let mut slots: Vec<Slot> = (0..GROUP_COLUMNS).map(|what| Slot(column_of(GROUP, what))).collect();
        for (_, slot) in wanted {
            slots.extend((0..COLUMNS).map(|what| Slot(column_of(slot.0, what))));
        }
        let mut columns = vec![Samples::default(); slots.len()];
        // Ends of windows that begin at the lower bound or after it.
        let from_ms = split.low_ms.saturating_add(tier.window_ms);
        let wanted_columns = blocks::Wanted { group: group.id, slots: &slots, from_ms, to_ms: split.high_ms };
        self.blocks.read(&wanted_columns, &split.runs, &mut columns, budget)?;
        let (of_group, of_series) = columns.split_at(GROUP_COLUMNS as usize);
        let mut found = Vec::new();
        for ((series, slot), columns) in wanted.iter().zip(of_series.chunks(COLUMNS as usize)) {
            let mut cuts = charged(assemble(columns, of_group, tier), budget)?;
            let erased = split.erased.iter().filter(|erased| erased.slots.contains(slot.0));
            for erased in erased {
                cuts.retain(|cut| cut.end_ms < erased.from_ms || cut.end_ms - tier.window_ms >= erased.to_ms);
            }
            if !cuts.is_empty() {
                found.push((*series, Found { cuts, is_odd: false }));
            }
        }
        Ok(found)
    }
}

/// Takes what windows need beside the samples of which they are made: they are held as they were cut, and then as windows.
fn charged(cuts: Vec<Cut>, budget: &Budget) -> Result<Vec<Cut>, SelectError> {
    budget.take_bytes((cuts.len() * (size_of::<Cut>() + size_of::<Window>())) as u64)?;
    Ok(cuts)
}

/// Samples that a window gives back as they were.
fn ends_of(cut: &Cut) -> impl Iterator<Item = Sample> + use<> {
    let window = cut.window;
    let first = window.map(|window| Sample { timestamp_ms: window.first_ms, value: window.first });
    let last = window.map(|window| Sample { timestamp_ms: window.last_ms, value: window.last });
    let stale = cut.stale_ms.map(|timestamp_ms| Sample { timestamp_ms, value: lampad_proto::stale() });
    [first, last, stale].into_iter().flatten()
}
