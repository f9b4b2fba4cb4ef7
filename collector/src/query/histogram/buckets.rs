//! The buckets of a native histogram with their bounds.

use std::fmt::Write as _;

use super::Histogram;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
}

/// Upper bound of an exponential bucket.
fn bound(index: i32, schema: i32) -> f64 {
    if schema < 0 {
        let exponent = i64::from(index) << -schema.max(-31);
        // The bucket that holds the largest float ends there; the next one holds infinity.
        return if exponent == 1024 { f64::MAX } else { power_of_two(exponent) };
    }
    let schema = schema.min(30);
    let (whole, part) = (i64::from(index >> schema), index & ((1 << schema) - 1));
    if part == 0 && whole == 1024 {
        return f64::MAX;
    }
    let fraction = (f64::from(part) / f64::from(1u32 << schema)).exp2();
    // In two steps where the power alone is out of a float's range and the product is not.
    fraction * power_of_two(whole.div_euclid(2)) * power_of_two(whole - whole.div_euclid(2))
}

fn power_of_two(exponent: i64) -> f64 {
    (exponent.clamp(-2000, 2000) as f64).exp2()
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

    /// All buckets by ascending bounds: negative, zero, positive.
    pub fn buckets(&self) -> Vec<Bucket> {
        let mut all = Vec::with_capacity(self.negative.len() + self.positive.len() + 1);
        all.extend(self.negative.iter().rev().map(|bucket| self.negative_bucket(*bucket)));
        if self.zero_count != 0.0 {
            all.push(Bucket {
                lower: -self.zero_threshold,
                upper: self.zero_threshold,
                lower_inclusive: true,
                upper_inclusive: true,
                count: self.zero_count,
            });
        }
        all.extend(self.positive.iter().map(|bucket| self.positive_bucket(*bucket)));
        all
    }

    /// As `count_values` writes it into a label.
    pub fn text(&self) -> String {
        let mut out = format!("{{count:{}, sum:{}", short(self.count), short(self.sum));
        for bucket in self.buckets().iter().filter(|bucket| bucket.count != 0.0) {
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

/// The shortest digits; an exponent where it is below -4 or above 20, as Go's `%g` has it.
pub fn short(value: f64) -> String {
    if value.is_nan() || value.is_infinite() {
        return crate::query::value::float(value);
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        };
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_the_base() {
        assert_eq!((bound(0, 0), bound(1, 0), bound(-1, 0)), (1.0, 2.0, 0.5));
        assert_eq!((bound(4, 2), bound(1, -2), bound(-1, -1)), (2.0, 16.0, 0.25));
        assert_eq!((bound(1024, 0), bound(1025, 0)), (f64::MAX, f64::INFINITY));
        assert_eq!((bound(-1074, 0), bound(256, -2)), (5e-324, f64::MAX));
        let odd = Histogram { count: 1.0, sum: 1.5, positive: vec![(1, 1.0), (2, 0.0)], ..Histogram::default() };
        assert_eq!(odd.text(), "{count:1, sum:1.5, (1,2]:1}");
    }
}
