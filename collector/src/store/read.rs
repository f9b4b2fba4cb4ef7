//! The store as queries see it: which series match, and their samples out of memory and blocks.
//!
//! A group is seen under its lock, so a select has each group in one state (reading.rs). Series are handed out as soon as their
//! samples are read, those with places in several groups at the end: they are merged by time; of two samples with one time the
//! one that was stored first counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLockReadGuard};
use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::ahead::Ahead;
use super::column::Samples;
use super::core::Core;
use super::group::{FORGOTTEN, Group, Mark, State};
use super::index::Index;
use super::reading::{Asked, Wanted};
use super::{
    Budget, Each, EachLabels, Floats, GroupId, Labels, Latest, METRIC_NAME, Matcher, Meta, Sample, Select, SelectError,
    Series, Slot, Take, Value, Visit,
};

/// A series without a sample for longer than this has no current value, as in an instant query.
const LOOKBACK_MS: i64 = 5 * 60 * 1000;

/// The time in which patterns must be tested for the newest values, far more than that takes.
const LATEST_WITHIN: Duration = Duration::from_secs(600);

/// Groups, values and series, together, that are looked at before another thread would have woken.
const AT_ONCE: usize = 4096;

/// What a series takes in a list of labels, about: the list's own strings are those of the index.
const SERIES_BYTES: u64 = 512;

/// From so many series on, groups are read in parallel; fewer are read before other threads have woken.
const PARALLEL_SERIES: usize = 1024;

/// The same of fewer series over a longer time: seconds of all of them.
const PARALLEL_SECONDS: i64 = 1 << 17;

pub(super) type ByGroup = BTreeMap<GroupId, Vec<Wanted>>;

/// The series that match, and where their samples lie.
pub(super) struct Matching {
    pub labels: Vec<Labels>,
    pub by_group: ByGroup,
    /// Series with samples in more than one group.
    pub several: BTreeSet<usize>,
}

impl Core {
    pub fn select(&self, matchers: &[Matcher], select: Select, budget: &Budget) -> Result<Vec<Series>, SelectError> {
        let found = Mutex::new(Vec::new());
        self.select_each(matchers, select, budget, &|| {
            Box::new(|at, series| {
                let empty = Series { labels: series.labels.clone(), floats: Floats::default(), histograms: Vec::new() };
                let series = std::mem::replace(series, empty);
                found.lock().push((at, series));
            })
        })?;
        let mut found = found.into_inner();
        found.sort_unstable_by_key(|(at, _)| *at);
        Ok(found.into_iter().map(|(_, series)| series).collect())
    }

    pub fn select_each(
        &self,
        matchers: &[Matcher],
        select: Select,
        budget: &Budget,
        each: Each<'_>,
    ) -> Result<(), SelectError> {
        let (Select::Range { from_ms, to_ms } | Select::Changes { from_ms, to_ms } | Select::Last { from_ms, to_ms }) =
            select;
        let from_ms = from_ms.max(self.oldest_ms(self.options.clock.now_ms()));
        let asked = Asked {
            from_ms,
            to_ms,
            last: matches!(select, Select::Last { .. }),
            changes: matches!(select, Select::Changes { .. }),
        };
        let Matching { labels, by_group, several } = self.wanted(matchers, budget)?;
        let hand_out = |take: &mut Take<'_>, at: usize, samples: &mut Samples| {
            if asked.last {
                keep_last(samples);
            }
            let Samples { floats, histograms } = std::mem::take(samples);
            let mut series = Series { labels: labels[at].clone(), floats, histograms };
            take(at, &mut series);
            *samples = Samples { floats: series.floats, histograms: series.histograms };
        };
        let parts: Mutex<BTreeMap<(usize, GroupId), Samples>> = Mutex::default();
        let by_group: Vec<(GroupId, Vec<Wanted>)> = by_group.into_iter().collect();
        let ahead = Ahead::new(self, &by_group, asked, budget);
        let read = |(at, (id, wanted)): (usize, &(GroupId, Vec<Wanted>))| {
            budget.check()?;
            // Bound first: a `match` would hold the groups' lock until the disk has answered, and with it all who append.
            let group = self.groups.read().get(*id).cloned();
            let Some(group) = group else { return Ok(()) };
            let mut take = each();
            let ahead = || ahead.read(at);
            self.read_group(&group, wanted, asked, budget, &ahead, &mut |at, samples| match several.contains(&at) {
                true => drop(parts.lock().insert((at, *id), std::mem::take(samples))),
                false => hand_out(&mut take, at, samples),
            })
        };
        let seconds = (labels.len() as i64).saturating_mul(to_ms.saturating_sub(from_ms) / 1000);
        match labels.len() < PARALLEL_SERIES && (asked.last || seconds < PARALLEL_SECONDS) {
            true => by_group.iter().enumerate().try_for_each(read)?,
            false => by_group.par_iter().enumerate().try_for_each(read)?,
        }
        let mut whole: BTreeMap<usize, Samples> = BTreeMap::new();
        for ((at, _), samples) in parts.into_inner() {
            merge(whole.entry(at).or_default(), samples);
        }
        let mut take = each();
        whole.into_iter().for_each(|(at, mut samples)| hand_out(&mut take, at, &mut samples));
        Ok(())
    }

    pub(super) fn wanted(&self, matchers: &[Matcher], budget: &Budget) -> Result<Matching, SelectError> {
        let (index, found) = self.found(&[matchers], budget)?;
        budget.take_series(found.len())?;
        let (mut labels, mut by_group, mut several) = (Vec::new(), ByGroup::new(), BTreeSet::new());
        for series in &found {
            let Some(of_series) = index.labels(series) else { continue };
            for (place, (group, slot)) in index.places(series).enumerate() {
                by_group.entry(group).or_default().push((labels.len(), slot));
                if place > 0 {
                    several.insert(labels.len());
                }
            }
            labels.push(of_series);
        }
        Ok(Matching { labels, by_group, several })
    }

    /// Groups without times near the range.
    fn far(&self, from_ms: i64, to_ms: i64) -> Far {
        let from_ms = from_ms.max(self.oldest_kept_ms(self.options.clock.now_ms()));
        let groups: Vec<Arc<Group>> = self.groups.read().all.clone();
        let mut far = Far { groups: vec![false; groups.len()], series: Vec::new() };
        for (group, is_far) in groups.iter().zip(&mut far.groups) {
            let state = group.state.lock();
            *is_far = state.reach().is_none_or(|(min, max)| max < from_ms || min > to_ms);
            if *is_far {
                far.series.extend(state.series.iter().copied().filter(|series| *series != FORGOTTEN));
            }
        }
        far
    }

    pub fn series(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
        each: EachLabels<'_>,
    ) -> Result<(), SelectError> {
        let far = self.far(from_ms, to_ms);
        let (index, found) = self.found(any_of, budget)?;
        let found = far.near(&index, found);
        budget.take_series(found.len())?;
        budget.take_bytes(found.len() * SERIES_BYTES)?;
        index.list(&found, each);
        Ok(())
    }

    pub fn label_names(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        let far = self.far(from_ms, to_ms);
        let (index, found) = self.found_unless_all(any_of, budget)?;
        let is_among = far.among(&index, found);
        Ok(index.postings.names().filter(|(_, any)| is_among(any)).map(|(name, _)| name.clone()).collect())
    }

    pub fn label_values(
        &self,
        name: &str,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        let far = self.far(from_ms, to_ms);
        let (index, found) = self.found_unless_all(any_of, budget)?;
        Ok(far.values(&index, name, found))
    }

    /// The series that meet any of the lists; no set where no list is given, and all do.
    fn found_unless_all(
        &self,
        any_of: &[Vec<Matcher>],
        budget: &Budget,
    ) -> Result<(RwLockReadGuard<'_, Index>, Option<RoaringBitmap>), SelectError> {
        if any_of.is_empty() {
            return Ok((self.index.read(), None));
        }
        let (index, found) = self.found(any_of, budget)?;
        Ok((index, Some(found)))
    }

    pub fn label_values_at_once(&self, name: &str, from_ms: i64, to_ms: i64) -> Option<Vec<Arc<str>>> {
        if self.groups.read().all.len() > AT_ONCE {
            return None;
        }
        let far = self.far(from_ms, to_ms);
        let index = self.index.try_read()?;
        // Of each value its far series are looked at, until there is one that is not.
        let is_quick = far.series.len() + index.postings.count(name) <= AT_ONCE;
        is_quick.then(|| far.values(&index, name, None))
    }

    pub fn metadata(&self, metric: Option<&str>) -> Vec<(Arc<str>, Meta)> {
        let index = self.index.read();
        match metric {
            Some(metric) => {
                let found = index.meta.get_key_value(metric);
                found.map(|(name, meta)| (name.clone(), meta.clone())).into_iter().collect()
            }
            None => index.meta.iter().map(|(name, meta)| (name.clone(), meta.clone())).collect(),
        }
    }

    pub fn latest(&self, any_of: &[Vec<Matcher>], visit: Visit<'_>) {
        let now_ms = self.options.clock.now_ms();
        let oldest_ms = now_ms.saturating_sub(LOOKBACK_MS);
        // Whoever reads this is not held to a time; what ends it is that nobody reads.
        let budget = Budget::new(u64::MAX, std::time::Instant::now() + LATEST_WITHIN);
        let (names, found) = {
            let Ok((index, found)) = self.found(any_of, &budget) else { return };
            let with_some = index.postings.values(METRIC_NAME).filter(|(_, series)| !series.is_disjoint(&found));
            (with_some.map(|(name, _)| name.clone()).collect::<Vec<_>>(), found)
        };
        for name in names {
            // The index is locked name by name, so that a slow reader delays nobody who defines series.
            let places: Vec<(Labels, Vec<(GroupId, Slot)>)> = {
                let index = self.index.read();
                let series = index.postings.of(METRIC_NAME, &name) & &found;
                let found = series.iter();
                found.filter_map(|series| Some((index.labels(series)?, index.places(series).collect()))).collect()
            };
            let current = places.into_iter().filter_map(|(labels, places)| {
                let newest =
                    places.into_iter().filter_map(|place| self.current(place)).max_by_key(|(at_ms, _)| *at_ms)?;
                (newest.0 >= oldest_ms).then_some((labels, Latest { timestamp_ms: newest.0, value: newest.1 }))
            });
            let mut current: Vec<(Labels, Latest)> = current.collect();
            current.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            if !current.is_empty() && !visit(&name, &current) {
                return;
            }
        }
    }

    fn current(&self, (group, slot): (GroupId, Slot)) -> Option<(i64, Value)> {
        let group = self.groups.read().get(group).cloned()?;
        let mut state = group.state.lock();
        state.current(slot.0).filter(|(at_ms, _)| !state.is_erased(slot.0, *at_ms))
    }
}

/// Groups without times near a range, by number, and their series.
struct Far {
    groups: Vec<bool>,
    series: Vec<u32>,
}

impl Far {
    fn is_near(&self, index: &Index, series: u32) -> bool {
        // A series of a far group may have a place in a near one.
        index.places(series).any(|(group, _)| !self.groups.get(group.0 as usize).copied().unwrap_or(false))
    }

    /// Of the series that match those of which a group is not far.
    fn near(&self, index: &Index, found: RoaringBitmap) -> RoaringBitmap {
        // Only these series are looked at, one by one.
        let far: RoaringBitmap = self.series.iter().copied().filter(|series| !self.is_near(index, *series)).collect();
        found - far
    }

    /// Values of a label that near series have, of those that were found, or of all.
    fn values(&self, index: &Index, name: &str, found: Option<RoaringBitmap>) -> Vec<Arc<str>> {
        let is_among = self.among(index, found);
        index.postings.values(name).filter(|(_, series)| is_among(series)).map(|(value, _)| value.clone()).collect()
    }

    /// Tells of a set whether any near series is in it, of those that were found, or of all.
    fn among(&self, index: &Index, found: Option<RoaringBitmap>) -> impl Fn(&RoaringBitmap) -> bool {
        let found = found.map(|found| self.near(index, found));
        move |set| match &found {
            Some(found) => !set.is_disjoint(found),
            // Mostly it is the first one.
            None => self.series.is_empty() || set.iter().any(|series| self.is_near(index, series)),
        }
    }
}

impl State {
    pub(super) fn last_mark_ms(&self) -> i64 {
        self.marks.last().map_or(i64::MIN, |mark| mark.at_ms)
    }

    /// Whether no tick in memory contradicts the mark.
    pub(super) fn is_silent(&self, mark: &Mark) -> bool {
        !self.runs().any(|run| run.ticks.has_in(mark.after_ms, mark.at_ms))
    }
}

/// Adds stale markers for the marks, and cuts off what was read only for these.
pub(super) fn finish(samples: &mut Samples, marks: &[Mark], from_ms: i64) {
    let mut ends = Vec::new();
    for mark in marks {
        let at = |sample: &Sample| sample.timestamp_ms == mark.after_ms && !lampad_proto::is_stale(sample.value);
        let float = samples.floats.iter().rev().find(at).is_some();
        if float || samples.histograms.iter().any(|(at_ms, _)| *at_ms == mark.after_ms) {
            ends.push(Sample { timestamp_ms: mark.at_ms, value: lampad_proto::stale() });
        }
    }
    ends.sort_unstable_by_key(|sample| sample.timestamp_ms);
    merge(samples, Samples { floats: ends.into_iter().collect(), histograms: Vec::new() });
    samples.floats.drop_first(samples.floats.times().partition_point(|at_ms| *at_ms < from_ms));
    let early = samples.histograms.partition_point(|(at_ms, _)| *at_ms < from_ms);
    samples.histograms.drain(..early);
}

/// Adds samples with other times; where `into` has a sample already, that one stays.
pub(super) fn merge(into: &mut Samples, mut more: Samples) {
    if more.len() == 0 {
        return;
    }
    if into.len() == 0 {
        *into = more;
        return;
    }
    if !more.floats.is_empty() && !into.histograms.is_empty() {
        let there = &into.histograms;
        more.floats.retain(|sample| there.binary_search_by_key(&sample.timestamp_ms, |(at_ms, _)| *at_ms).is_err());
    }
    if !more.histograms.is_empty() && !into.floats.is_empty() {
        let there = into.floats.times();
        more.histograms.retain(|(at_ms, _)| there.binary_search(at_ms).is_err());
    }
    into.floats.merge(more.floats);
    // Stable, so of equal times the one that was there first comes first and is the one that stays.
    into.histograms.append(&mut more.histograms);
    into.histograms.sort_by_key(|(at_ms, _)| *at_ms);
    into.histograms.dedup_by_key(|(at_ms, _)| *at_ms);
}

fn keep_last(samples: &mut Samples) {
    let float = samples.floats.last().map(|sample| sample.timestamp_ms);
    let histogram = samples.histograms.last().map(|(at_ms, _)| *at_ms);
    if float > histogram {
        samples.floats.drop_first(samples.floats.len() - 1);
        samples.histograms.clear();
    } else {
        samples.histograms.drain(..samples.histograms.len() - 1);
        samples.floats.clear();
    }
}
