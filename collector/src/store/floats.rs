//! Samples in two columns, one of times and one of values: who computes reads only what it needs, side by side, and series that
//! share their ticks are seen to do so at a glance. Whoever asks for changes gets one value for each stretch of equal ones,
//! where these are few: an hour of a setting that nobody touched is one value, not thousands.

use super::Sample;

/// Samples in ascending order of time, unless whoever fills it says otherwise.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Floats {
    times: Vec<i64>,
    /// One for each of the times, or where they are held, for each stretch.
    values: Vec<f64>,
    /// Where each stretch ends among the times.
    ends: Vec<u32>,
    held: bool,
    /// Somebody asked for changes.
    may_be_held: bool,
}

/// Samples per change, at least, from which on it pays to hold values.
const HELD_FROM: usize = 4;

impl Floats {
    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// In milliseconds since 1970.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// One for each of the times; whoever asked for changes wants [`Self::stretches`].
    pub fn values(&self) -> &[f64] {
        debug_assert!(!self.held);
        &self.values
    }

    /// Values, and where each ends among the times; no ends where there is one for each of the times.
    pub fn stretches(&self) -> (&[f64], &[u32]) {
        (&self.values, &self.ends)
    }

    fn value_at(&self, at: usize) -> f64 {
        self.values[if self.held { self.ends.partition_point(|end| *end as usize <= at) } else { at }]
    }

    pub fn get(&self, at: usize) -> Option<Sample> {
        Some(Sample { timestamp_ms: *self.times.get(at)?, value: self.value_at(at) })
    }

    /// Takes values that are held where it pays, for whoever asked for changes.
    pub fn of_changes(may_be_held: bool) -> Self {
        Self { may_be_held, ..Self::default() }
    }

    /// Chooses how the next samples are put, of which so many change.
    pub fn begin(&mut self, changes: usize, samples: usize) {
        let is_worth_it = self.may_be_held && changes.saturating_mul(HELD_FROM) <= samples;
        if is_worth_it && self.times.is_empty() {
            self.held = true;
        } else if !is_worth_it {
            self.spread();
        }
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Gives each of the times a value of its own.
    pub fn spread(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let (held, ends) = (std::mem::take(&mut self.values), std::mem::take(&mut self.ends));
        self.values.reserve(self.times.len());
        held.into_iter().zip(ends).for_each(|(value, end)| self.values.resize(end as usize, value));
    }

    pub fn last(&self) -> Option<Sample> {
        self.get(self.len().checked_sub(1)?)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Sample> + ExactSizeIterator {
        self.times.iter().enumerate().map(|(at, at_ms)| Sample { timestamp_ms: *at_ms, value: self.value_at(at) })
    }

    /// Keeps the memory for others.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.ends.clear();
        self.held = false;
    }

    pub fn reserve(&mut self, samples: usize) {
        self.times.reserve(samples);
        if !self.held {
            self.values.reserve(samples);
        }
    }

    pub fn push(&mut self, sample: Sample) {
        if self.held {
            return self.extend_held(&[sample.timestamp_ms], sample.value);
        }
        self.times.push(sample.timestamp_ms);
        self.values.push(sample.value);
    }

    /// Adds the values that `put` puts behind the others, as many as it says times for; of none, none.
    pub fn extend_dated<'a, T>(&mut self, put: impl FnOnce(&mut Vec<f64>) -> Option<(&'a [i64], T)>) -> Option<T> {
        self.spread();
        let said = put(&mut self.values).map(|(times, said)| {
            self.times.extend_from_slice(times);
            said
        });
        self.values.truncate(self.times.len());
        debug_assert_eq!(self.times.len(), self.values.len());
        said
    }

    /// Adds a value for each of the times, of which there are as many.
    pub fn extend_values(&mut self, times: &[i64], values: &[f64]) {
        debug_assert_eq!(times.len(), values.len());
        self.spread();
        self.times.extend_from_slice(times);
        self.values.extend_from_slice(values);
    }

    /// Adds one value that holds at all these times.
    pub fn extend_held(&mut self, times: &[i64], value: f64) {
        self.times.extend_from_slice(times);
        if !self.held {
            return self.values.resize(self.times.len(), value);
        }
        let end = self.times.len() as u32;
        match (self.values.last(), self.ends.last_mut()) {
            (Some(last), Some(last_end)) if last.to_bits() == value.to_bits() => *last_end = end,
            _ => {
                self.values.push(value);
                self.ends.push(end);
            }
        }
    }

    /// Leaves out all but those that are kept.
    pub fn retain(&mut self, keep: impl Fn(Sample) -> bool) {
        let kept = self.iter().filter(|sample| keep(*sample)).collect();
        *self = Self { may_be_held: self.may_be_held, ..kept };
    }

    /// Adds ascending samples; of two at one time the one that is there already stays.
    pub fn merge(&mut self, mut more: Self) {
        self.spread();
        more.spread();
        let is_behind = self.times.last().zip(more.times.first()).is_none_or(|(last, first)| last < first);
        if is_behind {
            return self.extend_values(&more.times, &more.values);
        }
        let mut all: Vec<Sample> = self.iter().chain(more.iter()).collect();
        // Stable, so of equal times the one that was there first comes first.
        all.sort_by_key(|sample| sample.timestamp_ms);
        all.dedup_by_key(|sample| sample.timestamp_ms);
        *self = Self { may_be_held: self.may_be_held, ..all.into_iter().collect() };
    }

    /// Leaves out the first ones.
    pub fn drop_first(&mut self, count: usize) {
        if count > 0 {
            self.spread();
            self.times.drain(..count);
            self.values.drain(..count);
        }
    }

    /// What lies in `(from_ms, to_ms]`.
    pub fn within(&self, from_ms: i64, to_ms: i64) -> std::ops::Range<usize> {
        let from = self.times.partition_point(|at_ms| *at_ms <= from_ms);
        let to = self.times.partition_point(|at_ms| *at_ms <= to_ms);
        from..to.max(from)
    }
}

impl Extend<Sample> for Floats {
    fn extend<I: IntoIterator<Item = Sample>>(&mut self, samples: I) {
        samples.into_iter().for_each(|sample| self.push(sample));
    }
}

impl FromIterator<Sample> for Floats {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Self {
        let mut floats = Self::default();
        floats.extend(samples);
        floats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(samples: &[(i64, f64)]) -> Floats {
        samples.iter().map(|(timestamp_ms, value)| Sample { timestamp_ms: *timestamp_ms, value: *value }).collect()
    }

    #[test]
    fn of_two_samples_at_one_time_the_one_that_is_there_stays() {
        let mut all = floats(&[(10, 1.0), (30, 3.0)]);
        all.merge(floats(&[(20, 2.0), (30, 9.0), (40, 4.0)]));
        assert_eq!(all, floats(&[(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]));
        all.merge(floats(&[(50, 5.0)]));
        assert_eq!((all.len(), all.last()), (5, all.get(4)));
        all.drop_first(2);
        all.retain(|sample| sample.value != 4.0);
        assert_eq!(all, floats(&[(30, 3.0), (50, 5.0)]));
        assert_eq!((all.within(30, 50), all.within(60, 10)), (1..2, 2..2));
    }

    #[test]
    fn what_is_held_is_what_is_spread() {
        let mut all = Floats::of_changes(true);
        all.begin(2, 8);
        all.extend_held(&[1, 2, 3], 7.0);
        all.push(Sample { timestamp_ms: 4, value: 7.0 });
        all.extend_held(&[5, 6], -0.0);
        all.push(Sample { timestamp_ms: 7, value: 0.0 });
        assert!(all.is_held());
        assert_eq!(all.stretches(), (&[7.0, -0.0, 0.0][..], &[4, 6, 7][..]));
        let spread = |mut all: Floats| {
            all.spread();
            (all.times().to_vec(), all.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>())
        };
        let one_by_one: (Vec<i64>, Vec<u64>) =
            all.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits())).unzip();
        assert_eq!(spread(all.clone()), one_by_one);
        assert_eq!(
            (all.last().map(|sample| sample.timestamp_ms), all.get(3).map(|sample| sample.value)),
            (Some(7), Some(7.0))
        );
        let (mut fewer, mut merged) = (all.clone(), all.clone());
        fewer.drop_first(5);
        assert_eq!(fewer.values(), [-0.0, 0.0]);
        merged.merge(floats(&[(6, 9.0), (9, 9.0)]));
        assert_eq!(merged.values(), [7.0, 7.0, 7.0, 7.0, 0.0, 0.0, 0.0, 9.0]);
        all.begin(2, 3);
        assert!(!all.is_held(), "too many change");
    }

    #[test]
    fn times_and_values_go_together() {
        let mut all = Floats::default();
        all.extend_values(&[1, 2], &[7.0, 8.0]);
        all.extend_held(&[3, 4], 9.0);
        assert_eq!(all, floats(&[(1, 7.0), (2, 8.0), (3, 9.0), (4, 9.0)]));
        assert_eq!((all.times().len(), all.values().len()), (4, 4));
    }
}
