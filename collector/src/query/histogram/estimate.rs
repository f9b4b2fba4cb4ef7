//! Quantiles, fractions and spread, estimated from the buckets of a native histogram.

use crate::query::functions::kahan::Sum;

use super::{Bucket, Histogram};

/// How observations of NaN, which are in the count but in no bucket, touch an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nans {
    None,
    /// The quantile lies among them.
    Result,
    /// The quantile is higher than without them.
    Skewed,
    /// The fraction leaves them out.
    Excluded,
}

#[derive(Debug, Clone, Copy)]
pub struct Estimate {
    pub value: f64,
    pub nans: Nans,
}

impl Estimate {
    fn plain(value: f64) -> Self {
        Self { value, nans: Nans::None }
    }
}

impl Histogram {
    /// The zero bucket of a histogram whose observations all lie on one side ends at zero.
    fn one_sided(&self, mut bucket: Bucket) -> Bucket {
        match (self.negative.is_empty(), self.positive.is_empty()) {
            (true, false) => bucket.lower = 0.0,
            (false, true) => bucket.upper = 0.0,
            _ => {}
        }
        bucket
    }

    pub fn quantile(&self, q: f64) -> Estimate {
        if q < 0.0 {
            return Estimate::plain(f64::NEG_INFINITY);
        }
        if q > 1.0 {
            return Estimate::plain(f64::INFINITY);
        }
        if self.count == 0.0 || q.is_nan() {
            return Estimate::plain(f64::NAN);
        }
        // From the nearer end, so that rounding matters less; with NaNs the upper end is not known.
        let has_nans = self.sum.is_nan();
        let forward = has_nans || q < 0.5;
        let rank = if forward { q * self.count } else { (1.0 - q) * self.count };
        let mut buckets = self.buckets();
        if !forward {
            buckets.reverse();
        }
        let mut seen = 0.0;
        let mut found = None;
        for bucket in buckets.into_iter().filter(|bucket| bucket.count != 0.0) {
            seen += bucket.count;
            found = Some(bucket);
            if seen >= rank {
                break;
            }
        }
        let Some(mut bucket) = found else { return Estimate::plain(f64::NAN) };
        if self.is_custom() {
            if bucket.lower == f64::NEG_INFINITY {
                if bucket.upper <= 0.0 {
                    return Estimate::plain(bucket.upper);
                }
                bucket.lower = 0.0;
            } else if bucket.upper == f64::INFINITY {
                return Estimate::plain(bucket.lower);
            }
        } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
            bucket = self.one_sided(bucket);
        }
        let seen = seen.min(self.count);
        if seen < rank && has_nans {
            return Estimate { value: f64::NAN, nans: Nans::Result };
        }
        let within = if forward { rank - (seen - bucket.count) } else { seen - rank };
        let value = bucket.at(within / bucket.count, self.is_custom());
        Estimate { value, nans: if has_nans { Nans::Skewed } else { Nans::None } }
    }

    /// Which part of the observations lies between `lower` and `upper`.
    pub fn fraction(&self, lower: f64, upper: f64) -> Estimate {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return Estimate::plain(f64::NAN);
        }
        if lower >= upper {
            return Estimate::plain(0.0);
        }
        let buckets = self.buckets();
        let has_nans = self.sum.is_nan();
        let count = if has_nans { buckets.iter().map(|bucket| bucket.count).sum() } else { self.count };
        let rank = |bound: f64| self.rank(bound, &buckets).unwrap_or(count).min(count);
        let value = (rank(upper) - rank(lower)) / self.count;
        Estimate { value, nans: if has_nans { Nans::Excluded } else { Nans::None } }
    }

    /// How many observations are below `at`; `None` past the last bucket.
    fn rank(&self, at: f64, buckets: &[Bucket]) -> Option<f64> {
        let mut rank = 0.0;
        for bucket in buckets {
            let around_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
            let bucket = if around_zero && !self.is_custom() { self.one_sided(*bucket) } else { *bucket };
            if bucket.lower >= at {
                return Some(rank);
            }
            if bucket.upper > at {
                return Some(rank + bucket.count * bucket.part_below(at, around_zero || self.is_custom()));
            }
            rank += bucket.count;
        }
        None
    }

    pub fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// Variance as if every observation lay in the middle of its bucket.
    pub fn variance(&self) -> f64 {
        let mean = self.mean();
        let mut squares = Sum::default();
        for bucket in self.buckets().iter().filter(|bucket| bucket.count != 0.0) {
            let delta = bucket.middle(self.is_custom()) - mean;
            squares.add(bucket.count * delta * delta);
        }
        squares.total() / self.count
    }
}

impl Bucket {
    /// The value that has `part` of the bucket's observations below it.
    fn at(&self, part: f64, custom: bool) -> f64 {
        if custom || (self.lower <= 0.0 && self.upper >= 0.0) {
            return self.lower + (self.upper - self.lower) * part;
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        match self.lower > 0.0 {
            true => (lower + (upper - lower) * part).exp2(),
            false => -(upper + (lower - upper) * (1.0 - part)).exp2(),
        }
    }

    /// Which part of the bucket's observations lies below a value within it.
    fn part_below(&self, value: f64, linear: bool) -> f64 {
        if linear {
            return match self.lower.is_infinite() {
                true => 1.0,
                // An infinite upper bound gives 0: nothing is known of what lies above.
                false => (value - self.lower) / (self.upper - self.lower),
            };
        }
        let (lower, upper, at) = (self.lower.abs().log2(), self.upper.abs().log2(), value.abs().log2());
        match value > 0.0 {
            true => (at - lower) / (upper - lower),
            false => 1.0 - (at - upper) / (lower - upper),
        }
    }

    fn middle(&self, custom: bool) -> f64 {
        if custom {
            return (self.upper + self.lower) / 2.0;
        }
        if self.lower <= 0.0 && self.upper >= 0.0 {
            return 0.0;
        }
        let middle = (self.upper * self.lower).sqrt();
        if self.upper < 0.0 { -middle } else { middle }
    }
}
