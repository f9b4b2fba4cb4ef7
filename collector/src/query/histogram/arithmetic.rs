//! Sums, differences and multiples of native histograms.

use std::sync::Arc;

use crate::query::functions::kahan::Sum;

use super::{Counts, Hint, Histogram};

/// Exponential and custom buckets do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongPair;

/// What a reader of the result should know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remarks {
    /// One side said that the counter began anew, the other that it did not.
    pub resets_collide: bool,
    /// Custom bounds differed; those in common are left.
    pub bounds_differ: bool,
}

impl Remarks {
    pub fn also(self, other: Self) -> Self {
        Self {
            resets_collide: self.resets_collide || other.resets_collide,
            bounds_differ: self.bounds_differ || other.bounds_differ,
        }
    }
}

impl Histogram {
    pub fn scale(mut self, factor: f64) -> Self {
        self.map(|value| value * factor);
        if factor < 0.0 {
            self.hint = Hint::Gauge;
        }
        self
    }

    pub fn divide(mut self, divisor: f64) -> Self {
        self.map(|value| value / divisor);
        if divisor == 0.0 {
            // Every bucket would be infinite or NaN, which says nothing.
            self.positive.clear();
            self.negative.clear();
        }
        if divisor < 0.0 {
            self.hint = Hint::Gauge;
        }
        self
    }

    fn map(&mut self, change: impl Fn(f64) -> f64) {
        for value in [&mut self.count, &mut self.sum, &mut self.zero_count] {
            *value = change(*value);
        }
        for (_, count) in self.positive.iter_mut().chain(&mut self.negative) {
            *count = change(*count);
        }
    }

    pub fn add(&self, other: &Histogram) -> Result<(Histogram, Remarks), WrongPair> {
        self.combine(other, |a, b| a + b)
    }

    pub fn subtract(&self, other: &Histogram) -> Result<(Histogram, Remarks), WrongPair> {
        self.combine(other, |a, b| a - b)
    }

    fn combine(
        &self,
        other: &Histogram,
        op: impl Fn(f64, f64) -> f64 + Copy,
    ) -> Result<(Histogram, Remarks), WrongPair> {
        let (mut a, b, mut remarks) = aligned(self, other)?;
        a.count = op(a.count, b.count);
        a.sum = op(a.sum, b.sum);
        a.zero_count = op(a.zero_count, b.zero_count);
        a.positive = zipped(&a.positive, &b.positive, op);
        a.negative = zipped(&a.negative, &b.negative, op);
        (a.hint, remarks.resets_collide) = joined_hint(a.hint, b.hint);
        Ok((a, remarks))
    }

    /// Observations within `threshold` of zero. A threshold inside a bucket with observations grows to that bucket's end.
    pub(super) fn zero_count_within(&self, mut threshold: f64) -> (f64, f64) {
        if threshold == self.zero_threshold {
            return (self.zero_count, threshold);
        }
        let by_size = |counts: &Counts| counts.iter().map(|c| self.positive_bucket(*c)).collect::<Vec<_>>();
        let sides = [by_size(&self.positive), by_size(&self.negative)];
        loop {
            let mut count = self.zero_count;
            let mut grown = threshold;
            for bucket in sides.iter().flatten().filter(|bucket| bucket.lower < threshold) {
                count += bucket.count;
                if bucket.upper > threshold && bucket.count != 0.0 {
                    grown = grown.max(bucket.upper);
                }
            }
            if grown == threshold {
                return (count, threshold);
            }
            threshold = grown;
        }
    }

    /// Takes away the buckets that the zero bucket covers.
    pub(super) fn trim_zero_bucket(&mut self) {
        let outside = |of: &Histogram, counts: &Counts| {
            counts.iter().copied().filter(|c| of.positive_bucket(*c).upper > of.zero_threshold).collect()
        };
        (self.positive, self.negative) = (outside(self, &self.positive), outside(self, &self.negative));
    }

    fn widen_zero_bucket(&mut self, threshold: f64) {
        (self.zero_count, self.zero_threshold) = self.zero_count_within(threshold);
        self.trim_zero_bucket();
    }
}

/// Both with the same schema, bounds and zero bucket.
fn aligned(a: &Histogram, b: &Histogram) -> Result<(Histogram, Histogram, Remarks), WrongPair> {
    if a.is_custom() != b.is_custom() {
        return Err(WrongPair);
    }
    let mut remarks = Remarks::default();
    if a.is_custom() {
        if a.bounds == b.bounds {
            return Ok((a.clone(), b.clone(), remarks));
        }
        remarks.bounds_differ = true;
        let bounds = common_bounds(&a.bounds, &b.bounds);
        return Ok((a.to_bounds(&bounds), b.to_bounds(&bounds), remarks));
    }
    let schema = a.schema.min(b.schema);
    let (mut a, mut b) = (a.clone(), b.clone());
    while a.zero_threshold != b.zero_threshold {
        let wider = a.zero_threshold.max(b.zero_threshold);
        let narrow = if a.zero_threshold < b.zero_threshold { &mut a } else { &mut b };
        narrow.widen_zero_bucket(wider);
        if wider.is_nan() {
            break; // NaN is equal to nothing; a histogram with it is broken anyway
        }
    }
    Ok((a.to_schema(schema), b.to_schema(schema), remarks))
}

pub(super) fn common_bounds(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    a.iter().copied().filter(|bound| b.contains(bound)).collect()
}

fn zipped(a: &Counts, b: &Counts, op: impl Fn(f64, f64) -> f64) -> Counts {
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let index = match (a.peek(), b.peek()) {
            (None, None) => return out,
            (Some(a), None) => a.0,
            (None, Some(b)) => b.0,
            (Some(a), Some(b)) => a.0.min(b.0),
        };
        let left = a.next_if(|(at, _)| *at == index).map_or(0.0, |(_, count)| *count);
        let right = b.next_if(|(at, _)| *at == index).map_or(0.0, |(_, count)| *count);
        out.push((index, op(left, right)));
    }
}

fn joined_hint(a: Hint, b: Hint) -> (Hint, bool) {
    use Hint::{Gauge, Unknown};
    match (a, b) {
        (a, b) if a == b => (a, false),
        (Gauge, _) | (_, Gauge) => (Gauge, false),
        (Unknown, _) | (_, Unknown) => (Unknown, false),
        _ => (Unknown, true),
    }
}

/// A sum of many histograms that keeps what rounding loses of count and sum.
#[derive(Debug, Clone, Default)]
pub struct Total {
    total: Option<Histogram>,
    count: Sum,
    sum: Sum,
    /// Histograms added.
    pub added: f64,
    pub remarks: Remarks,
    saw: [bool; 2],
}

impl Total {
    pub fn add(&mut self, histogram: &Histogram) -> Result<(), WrongPair> {
        self.count.add(histogram.count);
        self.sum.add(histogram.sum);
        self.added += 1.0;
        self.saw[0] |= histogram.hint == Hint::Reset;
        self.saw[1] |= histogram.hint == Hint::NoReset;
        self.remarks.resets_collide = self.saw == [true, true];
        let Some(total) = &self.total else {
            self.total = Some(histogram.clone());
            return Ok(());
        };
        let (total, remarks) = total.add(histogram)?;
        self.remarks.bounds_differ |= remarks.bounds_differ;
        self.total = Some(total);
        Ok(())
    }

    pub fn sum(&self) -> Option<Histogram> {
        let mut total = self.total.clone()?;
        total.count = self.count.total();
        total.sum = self.sum.total();
        Some(total.compact())
    }

    pub fn mean(&self) -> Option<Histogram> {
        Some(self.sum()?.divide(self.added))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: i32, threshold: f64, zeros: f64, positive: &[(i32, f64)]) -> Histogram {
        Histogram {
            schema,
            zero_threshold: threshold,
            zero_count: zeros,
            positive: positive.to_vec(),
            ..Histogram::default()
        }
    }

    #[test]
    fn sums_meet_at_the_lower_resolution() {
        let (sum, _) = of(1, 0.0, 0.0, &[(1, 1.0), (2, 2.0), (3, 4.0)]).add(&of(0, 0.0, 0.0, &[(2, 8.0)])).unwrap();
        assert_eq!(sum.positive, [(1, 3.0), (2, 12.0)]);
        assert_eq!(sum.schema, 0);
    }

    #[test]
    fn a_zero_bucket_grows_to_the_end_of_what_it_cuts() {
        let (sum, _) = of(0, 0.0, 1.0, &[(1, 2.0), (2, 4.0)]).add(&of(0, 1.5, 8.0, &[(2, 16.0)])).unwrap();
        assert_eq!((sum.zero_threshold, sum.zero_count), (2.0, 11.0));
        assert_eq!(sum.positive, [(2, 20.0)]);
    }

    #[test]
    fn custom_bounds_meet_at_those_in_common() {
        let custom = |bounds: &[f64], positive: &[(i32, f64)]| Histogram {
            bounds: bounds.into(),
            ..of(super::super::CUSTOM, 0.0, 0.0, positive)
        };
        let a = custom(&[1.0, 2.0, 5.0], &[(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]);
        let (sum, remarks) = a.add(&custom(&[2.0, 4.0], &[(0, 10.0), (2, 1.0)])).unwrap();
        assert!(remarks.bounds_differ);
        assert_eq!((&*sum.bounds, &*sum.positive), (&[2.0][..], &[(0, 13.0), (1, 8.0)][..]));
        assert_eq!(a.add(&of(0, 0.0, 0.0, &[])).unwrap_err(), WrongPair);
    }
}
