//! Samples in two columns, one of times and one of values: who computes reads only what it needs, side by side, and series that
//! share their ticks are seen to do so at a glance.

use super::Sample;

/// Samples in ascending order of time, unless whoever fills it says otherwise.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Floats {
    times: Vec<i64>,
    /// One for each of the times.
    values: Vec<f64>,
}

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

    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub fn get(&self, at: usize) -> Option<Sample> {
        Some(Sample { timestamp_ms: *self.times.get(at)?, value: *self.values.get(at)? })
    }

    pub fn last(&self) -> Option<Sample> {
        self.get(self.len().checked_sub(1)?)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Sample> + ExactSizeIterator {
        self.times.iter().zip(&self.values).map(|(at_ms, value)| Sample { timestamp_ms: *at_ms, value: *value })
    }

    /// Keeps the memory for others.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    pub fn reserve(&mut self, samples: usize) {
        self.times.reserve(samples);
        self.values.reserve(samples);
    }

    pub fn push(&mut self, sample: Sample) {
        self.times.push(sample.timestamp_ms);
        self.values.push(sample.value);
    }

    /// Adds the values that `put` puts behind the others, as many as it says times for; of none, none.
    pub fn extend_dated<'a, T>(&mut self, put: impl FnOnce(&mut Vec<f64>) -> Option<(&'a [i64], T)>) -> Option<T> {
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
        self.times.extend_from_slice(times);
        self.values.extend_from_slice(values);
    }

    /// Adds one value that holds at all these times.
    pub fn extend_held(&mut self, times: &[i64], value: f64) {
        self.times.extend_from_slice(times);
        self.values.resize(self.times.len(), value);
    }

    /// Leaves out all but those that are kept.
    pub fn retain(&mut self, keep: impl Fn(Sample) -> bool) {
        *self = self.iter().filter(|sample| keep(*sample)).collect();
    }

    /// Adds ascending samples; of two at one time the one that is there already stays.
    pub fn merge(&mut self, more: Self) {
        let is_behind = self.times.last().zip(more.times.first()).is_none_or(|(last, first)| last < first);
        if is_behind {
            return self.extend_values(&more.times, &more.values);
        }
        let mut all: Vec<Sample> = self.iter().chain(more.iter()).collect();
        // Stable, so of equal times the one that was there first comes first.
        all.sort_by_key(|sample| sample.timestamp_ms);
        all.dedup_by_key(|sample| sample.timestamp_ms);
        *self = all.into_iter().collect();
    }

    /// Leaves out the first ones.
    pub fn drop_first(&mut self, count: usize) {
        if count > 0 {
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
    fn times_and_values_go_together() {
        let mut all = Floats::default();
        all.extend_values(&[1, 2], &[7.0, 8.0]);
        all.extend_held(&[3, 4], 9.0);
        assert_eq!(all, floats(&[(1, 7.0), (2, 8.0), (3, 9.0), (4, 9.0)]));
        assert_eq!((all.times().len(), all.values().len()), (4, 4));
    }
}
