//! The buckets of a native histogram with their bounds.

use std::fmt::Write as _;

use super::Histogram;
use super::bounds::bound;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
}

impl Histogram {
    fn custom_bound(&self, index: i32) -> f64 {
        match usize::try_from(index) {
            Err(_) => f64::NEG_INFINITY,
            Ok(index) => self.bounds.get(index).copied().unwrap_or(f64::INFINITY),
        }
    }

    pub(super) fn positive_bucket(&self, (index, count): (i32, f64)) -> Bucket {
        if self.is_custom() {
            let (lower, upper) = (self.custom_bound(index - 1), self.custom_bound(index));
            return Bucket { lower, upper, lower_inclusive: index == 0, upper_inclusive: true, count };
        }
        let (lower, upper) = (bound(index.saturating_sub(1), self.schema), bound(index, self.schema));
        Bucket { lower, upper, lower_inclusive: false, upper_inclusive: true, count }
    }

    pub(super) fn negative_bucket(&self, bucket: (i32, f64)) -> Bucket {
        let mirrored = self.positive_bucket(bucket);
        Bucket {
            lower: -mirrored.upper,
            upper: -mirrored.lower,
            lower_inclusive: true,
            upper_inclusive: false,
            ..mirrored
        }
    }

    /// All buckets by ascending bounds: negative, zero, positive. None reaches into the zero bucket, and that one is left out
    /// where a difference of histograms made it negative.
    pub fn buckets(&self) -> Vec<Bucket> {
        let mut all = Vec::with_capacity(self.negative.len() + self.positive.len() + 1);
        let zero = self.zero_threshold;
        all.extend(self.negative.iter().rev().map(|bucket| {
            let mut bucket = self.negative_bucket(*bucket);
            if bucket.upper < 0.0 && bucket.upper > -zero {
                bucket.upper = -zero;
            }
            bucket
        }));
        if self.zero_count > 0.0 {
            all.push(self.zero_bucket());
        }
        all.extend(self.positive.iter().map(|bucket| {
            let mut bucket = self.positive_bucket(*bucket);
            if bucket.lower > 0.0 && bucket.lower < zero {
                bucket.lower = zero;
            }
            bucket
        }));
        all
    }

    pub(super) fn zero_bucket(&self) -> Bucket {
        let (upper, count) = (self.zero_threshold, self.zero_count);
        Bucket { lower: -upper, upper, lower_inclusive: true, upper_inclusive: true, count }
    }

    /// As `count_values` writes it into a label.
    pub fn text(&self) -> String {
        let mut out = format!("{{count:{}, sum:{}", short(self.count), short(self.sum));
        let negative = self.negative.iter().rev().map(|bucket| self.negative_bucket(*bucket));
        let positive = self.positive.iter().map(|bucket| self.positive_bucket(*bucket));
        // Each bucket as it is, even where the zero bucket covers part of it.
        for bucket in negative.chain([self.zero_bucket()]).chain(positive).filter(|bucket| bucket.count != 0.0) {
            let open = if bucket.lower_inclusive { '[' } else { '(' };
            let close = if bucket.upper_inclusive { ']' } else { ')' };
            let (lower, upper, count) = (short(bucket.lower), short(bucket.upper), short(bucket.count));
            // Writing to a String does not fail.
            let _ = write!(out, ", {open}{lower},{upper}{close}:{count}");
        }
        out.push('}');
        out
    }
}

/// The shortest digits; an exponent where it is below -4 or above 5, as Go's `%g` has it.
pub fn short(value: f64) -> String {
    if value.is_nan() || value.is_infinite() {
        return crate::query::value::float(value);
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e6).contains(&size) {
        return exponential(value);
    }
    value.to_string()
}

/// With an exponent of two digits or more.
pub fn exponential(value: f64) -> String {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_text_with_short_numbers() {
        let odd = Histogram { count: 1.0, sum: 1.5, positive: vec![(1, 1.0), (2, 0.0)], ..Histogram::default() };
        assert_eq!(odd.text(), "{count:1, sum:1.5, (1,2]:1}");
        let texts = [123456.0, 1234567.0, 0.0001, 0.00001, -2e6].map(short);
        assert_eq!(texts, ["123456", "1.234567e+06", "0.0001", "1e-05", "-2e+06"]);
    }

    #[test]
    fn no_bucket_reaches_into_the_zero_bucket() {
        let near_zero = Histogram {
            zero_threshold: 0.375,
            zero_count: -1.0,
            positive: vec![(-1, 4.0)],
            negative: vec![(-1, 8.0)],
            ..Histogram::default()
        };
        let ends: Vec<(f64, f64)> = near_zero.buckets().iter().map(|bucket| (bucket.lower, bucket.upper)).collect();
        assert_eq!(ends, [(-0.5, -0.375), (0.375, 0.5)]);
        assert_eq!(near_zero.text(), "{count:0, sum:0, [-0.5,-0.25):8, [-0.375,0.375]:-1, (0.25,0.5]:4}");
    }
}
