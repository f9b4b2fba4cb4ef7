//! Sums that keep what rounding loses (Kahan and Neumaier), so that `1e100 + 1 - 1e100` is 1 as in Prometheus.

/// A sum and its error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - total) + value;
        } else {
            self.lost += (value - total) + self.sum;
        }
        self.sum = total;
    }

    /// All of them, one after the other.
    pub fn of(values: &[f64]) -> Self {
        Self::finite(values).unwrap_or_else(|| {
            let mut sum = Self::default();
            values.iter().for_each(|value| sum.add(*value));
            sum
        })
    }

    /// The same without a branch: what rounding takes is told by differences alone, to the last bit, unless something on the way
    /// is beyond all numbers.
    fn finite(values: &[f64]) -> Option<Self> {
        let Self { mut sum, mut lost } = Self::default();
        for value in values {
            let total = sum + value;
            let added = total - sum;
            lost += (sum - (total - added)) + (value - added);
            sum = total;
        }
        (sum.is_finite() && lost.is_finite()).then_some(Self { sum, lost })
    }

    pub fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }

    fn scaled(self, factor: f64) -> Self {
        Self { sum: self.sum * factor, lost: self.lost * factor }
    }
}

/// A mean: the sum divided by the count for as long as the sum fits into a float, an incremental mean from there on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean {
    sum: Sum,
    count: f64,
    incremental: bool,
}

impl Mean {
    /// Of all of them, one after the other.
    pub fn of(values: &[f64]) -> Self {
        if let Some(sum) = Sum::finite(values) {
            return Self { sum, count: values.len() as f64, incremental: false };
        }
        let mut mean = Self::default();
        values.iter().for_each(|value| mean.add(*value));
        mean
    }

    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut sum = self.sum;
            sum.add(value);
            if self.count == 1.0 || !sum.sum.is_infinite() {
                self.sum = sum;
                return;
            }
            self.incremental = true;
            self.sum = self.sum.scaled(1.0 / (self.count - 1.0));
        }
        if self.sum.sum.is_infinite() {
            // An infinite mean stays as it is, save that the opposite infinity or NaN makes it NaN.
            if value.is_nan() || (value.is_infinite() && value != self.sum.sum) {
                self.sum = Sum { sum: f64::NAN, lost: 0.0 };
            }
            return;
        }
        self.sum = self.sum.scaled((self.count - 1.0) / self.count);
        self.sum.add(value / self.count);
    }

    pub fn mean(&self) -> f64 {
        match (self.incremental, self.sum.sum.is_infinite()) {
            (true, _) => self.sum.total(),
            (false, true) => self.sum.sum,
            (false, false) => self.sum.sum / self.count + self.sum.lost / self.count,
        }
    }
}

/// Variance of a population, by Welford.
#[derive(Debug, Clone, Copy, Default)]
pub struct Variance {
    count: f64,
    mean: Sum,
    squares: Sum,
}

impl Variance {
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - (self.mean.sum + self.mean.lost);
        self.mean.add(delta / self.count);
        self.squares.add(delta * (value - (self.mean.sum + self.mean.lost)));
    }

    pub fn variance(&self) -> f64 {
        (self.squares.sum + self.squares.lost) / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_values_survive_large_ones() {
        let mut sum = Sum::default();
        [1.0, 1e100, 1.0, -1e100].into_iter().for_each(|value| sum.add(value));
        assert_eq!(sum.total(), 2.0);
    }

    proptest! {
        /// To the last bit, however large, small or strange they are.
        #[test]
        fn all_at_once_are_as_one_by_one(values in prop::collection::vec(prop_oneof![
            4 => (-1e6..1e6f64).prop_map(|value| (value * 100.0).round() / 100.0),
            2 => any::<f64>(),
            1 => prop::sample::select(vec![0.0, -0.0, f64::MAX, f64::MIN, f64::INFINITY, f64::NAN, f64::MIN_POSITIVE]),
        ], 0..40)) {
            let (mut sum, mut mean) = (Sum::default(), Mean::default());
            values.iter().for_each(|value| sum.add(*value));
            values.iter().for_each(|value| mean.add(*value));
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            prop_assert!(same(Sum::of(&values).total(), sum.total()), "{} and {}", Sum::of(&values).total(), sum.total());
            prop_assert!(same(Mean::of(&values).mean(), mean.mean()), "{} and {}", Mean::of(&values).mean(), mean.mean());
        }
    }

    #[test]
    fn mean_of_huge_values_does_not_overflow() {
        let mut mean = Mean::default();
        [f64::MAX, f64::MAX, f64::MAX].into_iter().for_each(|value| mean.add(value));
        assert!((mean.mean() / f64::MAX - 1.0).abs() < 1e-15);
    }
}
