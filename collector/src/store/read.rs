//! The store as queries see it: which series match, and their samples out of memory and blocks.
//!
//! A group is read under its lock, so a select sees each group in one state. Places of one series and runs of one group are
//! merged by time; of two samples with one time the one that was stored first counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::blocks;
use super::column::Samples;
use super::core::Core;
use super::erase::hide;
use super::group::{FORGOTTEN, Group, Mark, State};
use super::index::Index;
use super::run::{Run, RunCopy, has_tick_in};
use super::{
    Budget, GroupId, Labels, Latest, METRIC_NAME, Matcher, Meta, Sample, Select, SelectError, Series, Slot, Value,
    Visit,
};

/// A series without a sample for longer than this has no current value, as in an instant query.
const LOOKBACK_MS: i64 = 5 * 60 * 1000;

/// The time in which patterns must be tested for the newest values, far more than that takes.
const LATEST_WITHIN: Duration = Duration::from_secs(600);

/// What a series takes in a list of labels, about: the list's own strings are those of the index.
const SERIES_BYTES: u64 = 512;

/// From so many series on, groups are read in parallel; fewer are read before other threads have woken.
const PARALLEL_SERIES: usize = 1024;

/// Samples of one wanted series from one group.
pub(super) type Wanted = (usize, Slot);
pub(super) type ByGroup = BTreeMap<GroupId, Vec<Wanted>>;

impl Core {
    pub fn select(&self, matchers: &[Matcher], select: Select, budget: &Budget) -> Result<Vec<Series>, SelectError> {
        let (from_ms, to_ms) = match select {
            Select::Range { from_ms, to_ms } | Select::Last { from_ms, to_ms } => (from_ms, to_ms),
        };
        let from_ms = from_ms.max(self.oldest_ms(self.options.clock.now_ms()));
        let last = matches!(select, Select::Last { .. });
        let (labels, by_group) = self.wanted(matchers, budget)?;
        let mut found: Vec<Samples> = vec![Samples::default(); labels.len()];
        let read = |(group, wanted): (GroupId, Vec<Wanted>)| {
            budget.check()?;
            // Bound first: a `match` would hold the groups' lock until the disk has answered, and with it all who append.
            let group = self.groups.read().get(group).cloned();
            match group {
                Some(group) => self.read_group(&group, &wanted, from_ms, to_ms, last, budget),
                None => Ok(Vec::new()),
            }
        };
        let of_groups: Result<Vec<_>, SelectError> = match labels.len() < PARALLEL_SERIES {
            true => by_group.into_iter().map(read).collect(),
            false => by_group.into_par_iter().map(read).collect(),
        };
        for samples in of_groups? {
            for (series, samples) in samples {
                let into = &mut found[series];
                if into.len() == 0 {
                    *into = samples;
                } else {
                    merge(into, samples);
                }
            }
        }
        let series = labels.into_iter().zip(found).filter(|(_, samples)| samples.len() > 0);
        Ok(series
            .map(|(labels, mut samples)| {
                if last {
                    keep_last(&mut samples);
                }
                Series { labels, floats: samples.floats, histograms: samples.histograms }
            })
            .collect())
    }

    pub(super) fn wanted(&self, matchers: &[Matcher], budget: &Budget) -> Result<(Vec<Labels>, ByGroup), SelectError> {
        let (index, found) = self.found(&[matchers], budget)?;
        budget.take_series(found.len())?;
        let mut labels = Vec::new();
        let mut by_group = ByGroup::new();
        for series in &found {
            let Some(of_series) = index.labels(series) else { continue };
            for (group, slot) in index.places(series) {
                by_group.entry(group).or_default().push((labels.len(), slot));
            }
            labels.push(of_series);
        }
        Ok((labels, by_group))
    }

    pub(super) fn read_group(
        &self,
        group: &Group,
        wanted: &[Wanted],
        from_ms: i64,
        to_ms: i64,
        last: bool,
        budget: &Budget,
    ) -> Result<Vec<(usize, Samples)>, SelectError> {
        let oldest_ms = self.oldest_ms(self.options.clock.now_ms());
        let state = group.state.lock();
        let mut found = Vec::with_capacity(wanted.len());
        if from_ms > to_ms
            || state.span().is_none_or(|(min, max)| max.max(state.last_mark_ms()) < from_ms || min > to_ms)
        {
            return Ok(found);
        }
        let marks: Vec<Mark> = state
            .marks
            .iter()
            .filter(|mark| (from_ms..=to_ms).contains(&mark.at_ms) && mark.after_ms >= oldest_ms)
            .copied()
            .collect();
        let late_ms = state.sealed.iter().filter(|run| !run.live).map(|run| run.max_ms).max();
        let plain = |at_ms| last && marks.is_empty() && state.is_plain() && late_ms.is_none_or(|late| late < at_ms);
        let mut slow = Vec::new();
        for (series, slot) in wanted {
            let near = |at_ms: i64| (from_ms..=to_ms).contains(&at_ms) && !state.is_erased(slot.0, at_ms);
            match state.current(slot.0).filter(|(at_ms, _)| near(*at_ms) && plain(*at_ms)) {
                Some((at_ms, value)) => {
                    budget.take(1)?;
                    found.push((*series, one(at_ms, value)));
                }
                None => slow.push((*series, *slot)),
            }
        }
        if slow.is_empty() {
            return Ok(found);
        }
        // Who was present when the agent fell silent is told by the sample at that tick.
        let low_ms = marks.iter().map(|mark| mark.after_ms).fold(from_ms, i64::min);
        // Only bytes are copied under the lock, or a wide query would hold up those who append.
        let frozen = state.frozen.clone();
        let slots: Vec<Slot> = slow.iter().map(|(_, slot)| *slot).collect();
        let near = |run: &&Run| run.span().is_some_and(|(min, max)| max >= low_ms && min <= to_ms);
        let growing: Vec<RunCopy> = state.growing().filter(near).map(|run| run.copy(&slots, low_ms)).collect();
        let mut late = vec![Samples::default(); slow.len()];
        for (slot, into) in slots.iter().zip(&mut late) {
            state.late(slot.0, low_ms, to_ms, into);
        }
        let mut marks: Vec<Mark> = marks.into_iter().filter(|mark| state.is_silent(mark)).collect();
        let (sealed, erased) = (state.sealed.clone(), state.erased.clone());
        drop(state);
        let mut head = vec![Samples::default(); slow.len()];
        let add = |into: &mut Samples, expand: &dyn Fn(&mut Samples) -> bool| {
            if into.len() == 0 {
                expand(into);
                return budget.take_read(into, last);
            }
            let mut more = Samples::default();
            expand(&mut more);
            budget.take_read(&more, last)?;
            merge(into, more);
            Ok(())
        };
        for run in frozen.iter().flat_map(|frozen| &frozen.runs).filter(near) {
            for (slot, into) in slots.iter().zip(&mut head) {
                add(into, &|more| run.expand(slot.0, low_ms, to_ms, more))?;
            }
        }
        for run in &growing {
            for (at, into) in head.iter_mut().enumerate() {
                add(into, &|more| run.expand(at, low_ms, to_ms, more))?;
            }
        }
        head.iter_mut().zip(late).for_each(|(into, late)| merge(into, late));
        // Blocks were stored before what is in memory, so theirs is the first value of a time.
        let mut samples = vec![Samples::default(); slow.len()];
        let wanted = blocks::Wanted { group: group.id, slots: &slots, from_ms: low_ms, to_ms, last };
        self.blocks.read(&wanted, &sealed, &mut samples, budget, |ticks| {
            marks.retain(|mark| !has_tick_in(ticks, mark.after_ms, mark.at_ms));
        })?;
        for (((series, slot), mut samples), head) in slow.into_iter().zip(samples).zip(head) {
            merge(&mut samples, head);
            // Before the marks, because a deleted sample does not end, and after them, because their own times may be deleted.
            hide(&erased, slot.0, &mut samples);
            finish(&mut samples, &marks, from_ms);
            hide(&erased, slot.0, &mut samples);
            found.push((series, samples));
        }
        Ok(found)
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
    ) -> Result<Vec<Labels>, SelectError> {
        let far = self.far(from_ms, to_ms);
        let (index, found) = self.found(any_of, budget)?;
        let found = far.near(&index, found);
        budget.take_series(found.len())?;
        budget.take_bytes(found.len() * SERIES_BYTES)?;
        Ok(found.iter().filter_map(|series| index.labels(series)).collect())
    }

    pub fn label_names(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        let far = self.far(from_ms, to_ms);
        let (index, found) = self.found(any_of, budget)?;
        let found = far.near(&index, found);
        let near = index.postings.names().filter(|(_, any)| !any.is_disjoint(&found));
        Ok(near.map(|(name, _)| name.clone()).collect())
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
        let (index, found) = self.found(any_of, budget)?;
        let found = far.near(&index, found);
        let near = index.postings.values(name).filter(|(_, series)| !series.is_disjoint(&found));
        Ok(near.map(|(value, _)| value.clone()).collect())
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
        let state = group.state.lock();
        state.current(slot.0).filter(|(at_ms, _)| !state.is_erased(slot.0, *at_ms))
    }
}

/// Groups without times near a range, by number, and their series.
struct Far {
    groups: Vec<bool>,
    series: Vec<u32>,
}

impl Far {
    /// Of the series that match those of which a group is not far.
    fn near(self, index: &Index, found: RoaringBitmap) -> RoaringBitmap {
        // A series of a far group may have a place in a near one. Only these series are looked at, one by one.
        let is_near = |(group, _): &(GroupId, Slot)| !self.groups.get(group.0 as usize).copied().unwrap_or(false);
        let is_far = |series: &u32| !index.places(*series).any(|place| is_near(&place));
        let far: RoaringBitmap = self.series.iter().copied().filter(is_far).collect();
        found - far
    }
}

impl State {
    fn last_mark_ms(&self) -> i64 {
        self.marks.last().map_or(i64::MIN, |mark| mark.at_ms)
    }

    /// Whether no tick in memory contradicts the mark.
    fn is_silent(&self, mark: &Mark) -> bool {
        !self.runs().any(|run| has_tick_in(&run.ticks, mark.after_ms, mark.at_ms))
    }
}

fn one(timestamp_ms: i64, value: Value) -> Samples {
    let float = |value| Samples { floats: vec![Sample { timestamp_ms, value }], histograms: Vec::new() };
    match value {
        Value::Float(value) => float(value),
        Value::Integer(value) => float(value.as_f64()),
        Value::Histogram(histogram) => Samples { floats: Vec::new(), histograms: vec![(timestamp_ms, histogram)] },
    }
}

/// Adds stale markers for the marks, and cuts off what was read only for these.
pub(super) fn finish(samples: &mut Samples, marks: &[Mark], from_ms: i64) {
    let mut more = Samples::default();
    for mark in marks {
        let at = |sample: &&Sample| sample.timestamp_ms == mark.after_ms && !lampad_proto::is_stale(sample.value);
        let float = samples.floats.iter().rev().find(at).is_some();
        if float || samples.histograms.iter().any(|(at_ms, _)| *at_ms == mark.after_ms) {
            more.floats.push(Sample { timestamp_ms: mark.at_ms, value: lampad_proto::stale() });
        }
    }
    more.floats.sort_unstable_by_key(|sample| sample.timestamp_ms);
    merge(samples, more);
    let early = samples.floats.partition_point(|sample| sample.timestamp_ms < from_ms);
    samples.floats.drain(..early);
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
        let there = &into.floats;
        more.histograms.retain(|(at_ms, _)| there.binary_search_by_key(at_ms, |sample| sample.timestamp_ms).is_err());
    }
    merge_list(&mut into.floats, more.floats, |sample| sample.timestamp_ms);
    merge_list(&mut into.histograms, more.histograms, |(at_ms, _)| *at_ms);
}

fn merge_list<T: Clone>(into: &mut Vec<T>, more: Vec<T>, time: impl Fn(&T) -> i64) {
    let appends = match (into.last(), more.first()) {
        (Some(last), Some(first)) => time(last) < time(first),
        _ => true,
    };
    into.extend(more);
    if !appends {
        // Stable, so of equal times the one that was there first comes first and is the one that stays.
        into.sort_by_key(&time);
        into.dedup_by_key(|item| time(item));
    }
}

fn keep_last(samples: &mut Samples) {
    let float = samples.floats.last().map(|sample| sample.timestamp_ms);
    let histogram = samples.histograms.last().map(|(at_ms, _)| *at_ms);
    if float > histogram {
        samples.floats.drain(..samples.floats.len() - 1);
        samples.histograms.clear();
    } else {
        samples.histograms.drain(..samples.histograms.len() - 1);
        samples.floats.clear();
    }
}
