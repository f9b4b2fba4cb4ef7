//! Cutting a histogram off at a threshold: `h </ 0.1` keeps what lies below, `h >/ 0.1` what lies above.
//!
//! Exact where the threshold is the bound of a bucket; within one, counts are interpolated as a quantile is. The sum is an
//! estimate: what goes is taken to lie at one value per bucket. Those values, the ones of buckets without an end among them,
//! are Prometheus' own (also that whole negative buckets are taken off with a positive value), so that a panel shows the same
//! here and there.

use super::{Bucket, Histogram};

/// Which side of the threshold stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Below,
    Above,
}

/// Of which sign the observations are, as far as buckets tell.
#[derive(Debug, Default)]
struct Signs {
    positive: bool,
    negative: bool,
}

/// What stays of all buckets, and what the others are taken to add up to.
#[derive(Debug, Default)]
struct Balance {
    count: f64,
    removed: f64,
}

impl Histogram {
    pub fn trim(mut self, at: f64, keep: Keep) -> Self {
        let mut balance = Balance::default();
        let mut signs = Signs::default();
        let custom = self.is_custom();
        let positive: Vec<Bucket> = self.positive.iter().map(|bucket| self.positive_bucket(*bucket)).collect();
        for (bucket, (_, count)) in positive.iter().zip(&mut self.positive).filter(|(bucket, _)| bucket.count != 0.0) {
            signs.negative |= custom && bucket.lower < 0.0;
            signs.positive |= !custom || bucket.upper > 0.0;
            *count = balance.take(bucket, Scale::new(custom, true), at, keep);
        }
        let negative: Vec<Bucket> = self.negative.iter().map(|bucket| self.negative_bucket(*bucket)).collect();
        for (bucket, (_, count)) in negative.iter().zip(&mut self.negative).filter(|(bucket, _)| bucket.count != 0.0) {
            signs.negative = true;
            *count = balance.take(bucket, Scale::new(custom, false), at, keep);
        }
        if self.zero_count > 0.0 {
            let below = self.zero_bucket().below(at, Scale::Linear);
            self.zero_count = if keep == Keep::Below { below } else { self.zero_count - below };
            balance.count += self.zero_count;
        }
        self.count = balance.count;
        self.sum = if balance.count == 0.0 { 0.0 } else { signs.possible(self.sum - balance.removed) };
        self.compact()
    }
}

impl Signs {
    /// A sum that observations of these signs can have.
    fn possible(&self, sum: f64) -> f64 {
        let wrong = (!self.negative && sum < 0.0) || (!self.positive && sum > 0.0);
        if wrong { 0.0 } else { sum }
    }
}

impl Balance {
    /// How much stays of a bucket.
    fn take(&mut self, bucket: &Bucket, scale: Scale, at: f64, keep: Keep) -> f64 {
        let (whole, part) = match keep {
            Keep::Below => (bucket.upper <= at, bucket.lower < at),
            Keep::Above => (bucket.lower >= at, bucket.upper > at),
        };
        let (stays, value) = match (whole, part) {
            (true, _) => (bucket.count, 0.0),
            (false, true) => bucket.cut(scale, at, keep),
            (false, false) if scale == Scale::Linear => (0.0, bucket.cut(scale, at, keep).1),
            (false, false) => (0.0, (bucket.lower * bucket.upper).sqrt()),
        };
        self.count += stays;
        if !whole {
            self.removed += (bucket.count - stays) * value;
        }
        stays
    }
}

/// How observations are spread over a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Positive,
    Negative,
}

impl Scale {
    fn new(custom: bool, positive: bool) -> Self {
        match (custom, positive) {
            (true, _) => Self::Linear,
            (false, true) => Self::Positive,
            (false, false) => Self::Negative,
        }
    }
}

impl Bucket {
    /// How much stays of a bucket with the threshold in it, and the value that each of the others is taken to have.
    fn cut(&self, scale: Scale, at: f64, keep: Keep) -> (f64, f64) {
        if self.lower.is_infinite() {
            return self.cut_first(at, keep);
        }
        if self.upper.is_infinite() {
            // Nobody knows how far it reaches.
            return (0.0, self.lower);
        }
        let below = self.below(at, scale);
        let (stays, bound) = match keep {
            Keep::Below => (below, self.lower),
            Keep::Above => (self.count - below, self.upper),
        };
        let middle = (bound.abs() * at.abs()).sqrt();
        match scale {
            Scale::Linear => (stays, (self.lower + self.upper) / 2.0),
            Scale::Positive => (stays, middle),
            Scale::Negative => (stays, -middle),
        }
    }

    /// The lowest custom bucket is taken to begin at zero, if it reaches above.
    fn cut_first(&self, at: f64, keep: Keep) -> (f64, f64) {
        if at < 0.0 || self.upper <= at || self.upper.is_infinite() {
            return (0.0, self.upper);
        }
        match keep {
            Keep::Below => (self.count * at / self.upper, (at + self.upper) / 2.0),
            Keep::Above => (self.count * (1.0 - at / self.upper), at / 2.0),
        }
    }

    /// How many observations are not above `at`.
    fn below(&self, at: f64, scale: Scale) -> f64 {
        if at <= self.lower {
            return 0.0;
        }
        if at >= self.upper {
            return self.count;
        }
        let log = |value: f64| value.abs().log2();
        let (lower, upper) = (log(self.lower), log(self.upper));
        let part = match scale {
            Scale::Linear => (at - self.lower) / (self.upper - self.lower),
            Scale::Positive => (log(at) - lower) / (upper - lower),
            Scale::Negative => 1.0 - (log(at) - upper) / (lower - upper),
        };
        self.count * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_sided() -> Histogram {
        let (positive, negative) = (vec![(1, 4.0), (2, 8.0)], vec![(1, 2.0)]);
        Histogram {
            count: 15.0,
            sum: 20.0,
            zero_threshold: 0.5,
            zero_count: 1.0,
            positive,
            negative,
            ..Histogram::default()
        }
    }

    #[test]
    fn what_lies_on_the_other_side_of_a_bound_goes_whole() {
        // Buckets are [-2, -1), [-0.5, 0.5], (1, 2], (2, 4].
        let below = two_sided().trim(2.0, Keep::Below);
        assert_eq!((below.count, below.positive, below.negative), (7.0, vec![(1, 4.0)], vec![(1, 2.0)]));
        assert!((below.sum - (20.0 - 8.0 * 8f64.sqrt())).abs() < 1e-12, "{}", below.sum);
        let positive = Histogram { negative: Vec::new(), ..two_sided() };
        assert_eq!(positive.trim(2.0, Keep::Below).sum, 0.0, "what is above zero does not add up to less");
        let above = two_sided().trim(2.0, Keep::Above);
        assert_eq!((above.count, above.zero_count, above.positive), (8.0, 0.0, vec![(2, 8.0)]));
        assert!((above.sum - (20.0 - 4.0 * 2f64.sqrt() - 2.0 * 2f64.sqrt())).abs() < 1e-12, "{}", above.sum);
    }

    #[test]
    fn a_bucket_is_cut_where_the_threshold_is() {
        // Halfway between 2 and 4 by their logarithms.
        let cut = two_sided().trim(8f64.sqrt(), Keep::Above);
        assert!((cut.positive[0].1 - 4.0).abs() < 1e-12 && cut.positive.len() == 1, "{cut:?}");
        let zero = two_sided().trim(0.25, Keep::Below);
        assert_eq!((zero.zero_count, zero.positive.len(), zero.negative.len()), (0.75, 0, 1));
    }

    #[test]
    fn both_halves_are_the_whole() {
        for at in [-3.0, -1.5, -1.0, -0.1, 0.0, 0.3, 1.0, 1.7, 3.3, 4.0, 9.0] {
            let (below, above) = (two_sided().trim(at, Keep::Below), two_sided().trim(at, Keep::Above));
            assert!((below.count + above.count - 15.0).abs() < 1e-9, "{at}: {below:?} {above:?}");
        }
        let (all, none) = (two_sided().trim(f64::INFINITY, Keep::Below), two_sided().trim(f64::INFINITY, Keep::Above));
        assert_eq!((all, none.count, none.sum), (two_sided(), 0.0, 0.0));
    }

    #[test]
    fn custom_buckets_without_an_end_go_whole_but_for_what_lies_above_zero() {
        let custom = |positive: Vec<(i32, f64)>| Histogram {
            schema: super::super::CUSTOM,
            count: positive.iter().map(|(_, count)| count).sum(),
            sum: 100.0,
            positive,
            bounds: vec![5.0, 10.0].into(),
            ..Histogram::default()
        };
        let cut = custom(vec![(0, 10.0), (1, 10.0), (2, 10.0)]).trim(2.0, Keep::Above);
        assert_eq!((cut.positive, cut.sum), (vec![(0, 6.0), (1, 10.0), (2, 10.0)], 96.0));
        let cut = custom(vec![(1, 10.0), (2, 10.0)]).trim(12.0, Keep::Below);
        assert_eq!((cut.positive, cut.count, cut.sum), (vec![(1, 10.0)], 10.0, 0.0));
    }
}
