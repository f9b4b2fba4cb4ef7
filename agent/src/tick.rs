//! What one module saw at one moment, kept between ticks so that the next one finds what changed.
//!
//! A module pushes its series in nearly the same order each time, so a cursor finds most of them by comparing with the
//! series that came next last time; only what is new or moved takes the index.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use lampad_proto::Number;

use crate::delta::Series;
use crate::module::Desc;

/// Ends a chain of slots.
const NONE: u32 = u32::MAX;

/// A series of a group. One that has ended keeps its slot for the life of the process, so what is here counts.
#[derive(Debug, Clone)]
struct TickSeries {
    /// What it is called, shared with the catalog.
    series: Arc<Series>,
    value: Number,
    /// Round of the last push, to find what was not pushed again.
    round: u64,
    /// What the last finished tick had; `None` while not present.
    sent: Option<Number>,
    /// The next slot with the same hash.
    next: u32,
}

/// What one finished tick changed. Series are numbers into [`Tick::series`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Series that changed or began, ascending, with their values.
    pub values: Vec<(u32, Number)>,
    /// Series that are no longer present, ascending.
    pub ended: Vec<u32>,
}

/// Collects the samples of one module.
#[derive(Debug, Default)]
pub struct Tick {
    series: Vec<TickSeries>,
    /// The first slot of each hash.
    index: HashMap<u64, u32>,
    hasher: RandomState,
    cursor: usize,
    round: u64,
    repeated: u64,
}

impl Tick {
    pub fn new() -> Self {
        Self { round: 1, ..Self::default() }
    }

    /// Adds a sample. `labels` are the values for `desc.labels`, in that order. Of two samples for one series in a tick the
    /// first counts.
    pub fn push(&mut self, desc: &Desc, labels: &[&str], value: impl Into<Number>) {
        debug_assert_eq!(desc.labels.len(), labels.len(), "{}", desc.name);
        let slot = match self.series.get(self.cursor) {
            Some(series) if series.is(desc, labels) => self.cursor,
            _ => self.find_or_add(desc, labels),
        };
        self.cursor = slot + 1;
        let series = &mut self.series[slot];
        if series.round == self.round {
            self.repeated += 1;
            return;
        }
        series.round = self.round;
        series.value = value.into();
    }

    fn find_or_add(&mut self, desc: &Desc, labels: &[&str]) -> usize {
        let hash = self.hasher.hash_one((&desc.name, labels));
        let first = self.index.get(&hash).copied().unwrap_or(NONE);
        let mut at = first;
        while let Some(series) = self.series.get(at as usize) {
            if series.is(desc, labels) {
                return at as usize;
            }
            at = series.next;
        }
        let slot = self.series.len();
        self.index.insert(hash, slot as u32);
        let labels = labels.iter().map(|label| Box::from(*label)).collect();
        self.series.push(TickSeries {
            series: Arc::new(Series { desc: desc.clone(), labels }),
            value: Number::Float(0.0),
            round: 0,
            sent: None,
            next: first,
        });
        slot
    }

    /// Ends a tick that succeeded: what changed since the last one that did.
    pub fn finish(&mut self) -> Changes {
        let mut changes = Changes::default();
        for (slot, series) in self.series.iter_mut().enumerate() {
            let slot = slot as u32;
            if series.round != self.round {
                if series.sent.take().is_some() {
                    changes.ended.push(slot);
                }
            } else if series.sent != Some(series.value) {
                series.sent = Some(series.value);
                changes.values.push((slot, series.value));
            }
        }
        self.next_round();
        changes
    }

    /// Ends a tick that failed: as if it had not begun.
    pub fn abandon(&mut self) {
        self.next_round();
    }

    fn next_round(&mut self) {
        self.round += 1;
        self.cursor = 0;
    }

    /// Adds the samples of the tick under way to another's.
    pub fn copy_to(&self, out: &mut Self) {
        let mut labels = Vec::new();
        for series in self.series.iter().filter(|series| series.round == self.round) {
            labels.clear();
            labels.extend(series.series.labels.iter().map(|label| &**label));
            out.push(&series.series.desc, &labels, series.value);
        }
    }

    /// All series seen so far; a number, once given, stays.
    pub fn series(&self) -> impl ExactSizeIterator<Item = &Arc<Series>> {
        self.series.iter().map(|series| &series.series)
    }

    /// Samples that were pushed a second time within a tick, since the start.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The samples of the tick under way, for tests: (name, labels as `name="value"`, value).
    pub fn samples(&self) -> impl Iterator<Item = (&str, Vec<(&str, &str)>, Number)> {
        self.series.iter().filter(|series| series.round == self.round).map(|TickSeries { series, value, .. }| {
            let labels = series.desc.labels.iter().copied().zip(series.labels.iter().map(|label| &**label)).collect();
            (&*series.desc.name, labels, *value)
        })
    }
}

impl TickSeries {
    fn is(&self, desc: &Desc, labels: &[&str]) -> bool {
        self.series.desc.name == desc.name
            && self.series.desc.labels == desc.labels
            && self.series.labels.iter().map(|label| &**label).eq(labels.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Desc = Desc::gauge("a", "A.").labels(&["x"]);
    const B: Desc = Desc::gauge("b", "B.");

    fn changes(values: &[(u32, f64)], ended: &[u32]) -> Changes {
        Changes { values: values.iter().map(|(slot, value)| (*slot, (*value).into())).collect(), ended: ended.to_vec() }
    }

    #[test]
    fn counters_beyond_a_double_change_by_one() {
        let mut tick = Tick::new();
        for value in [u64::MAX - 1, u64::MAX] {
            tick.push(&B, &[], value);
            assert_eq!(tick.finish().values, [(0, Number::from(value))]);
        }
        tick.push(&B, &[], u64::MAX);
        assert_eq!(tick.finish(), Changes::default());
    }

    #[test]
    fn series_of_one_hash_are_told_apart() {
        let mut tick = Tick::new();
        tick.push(&A, &["1"], 1.0);
        // As if the second one's hash were the first one's.
        let hash = tick.hasher.hash_one((&A.name, &["2"][..]));
        tick.index.insert(hash, 0);
        tick.push(&A, &["2"], 2.0);
        assert_eq!(tick.finish(), changes(&[(0, 1.0), (1, 2.0)], &[]));
        tick.index.insert(tick.hasher.hash_one((&A.name, &["1"][..])), 1);
        tick.push(&A, &["2"], 2.0);
        tick.push(&A, &["1"], 1.0);
        assert_eq!(tick.finish(), Changes::default(), "the first is behind the second in the chain");
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut tick = Tick::new();
        tick.push(&A, &["1"], 1.0);
        tick.push(&B, &[], 2.0);
        assert_eq!(tick.finish(), changes(&[(0, 1.0), (1, 2.0)], &[]));
        tick.push(&A, &["1"], 1.0);
        tick.push(&A, &["2"], 5.0);
        tick.push(&B, &[], 3.0);
        assert_eq!(tick.finish(), changes(&[(1, 3.0), (2, 5.0)], &[]));
        tick.push(&B, &[], 3.0);
        assert_eq!(tick.finish(), changes(&[], &[0, 2]));
        tick.push(&A, &["1"], 1.0);
        assert_eq!(tick.finish(), changes(&[(0, 1.0)], &[1]), "begins again in its slot");
    }

    #[test]
    fn a_failed_tick_leaves_no_trace() {
        let mut tick = Tick::new();
        tick.push(&B, &[], 1.0);
        tick.finish();
        tick.push(&B, &[], 9.0);
        tick.abandon();
        tick.push(&B, &[], 1.0);
        assert_eq!(tick.finish(), Changes::default());
    }

    #[test]
    fn the_first_of_two_samples_counts() {
        let mut tick = Tick::new();
        tick.push(&B, &[], 1.0);
        tick.push(&B, &[], 2.0);
        assert_eq!(tick.finish(), changes(&[(0, 1.0)], &[]));
        assert_eq!(tick.repeated(), 1);
    }
}
