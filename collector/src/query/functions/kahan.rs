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

    #[test]
    fn small_values_survive_large_ones() {
        let mut sum = Sum::default();
        [1.0, 1e100, 1.0, -1e100].into_iter().for_each(|value| sum.add(value));
        assert_eq!(sum.total(), 2.0);
    }

    #[test]
    fn mean_of_huge_values_does_not_overflow() {
        let mut mean = Mean::default();
        [f64::MAX, f64::MAX, f64::MAX].into_iter().for_each(|value| mean.add(value));
        assert!((mean.mean() / f64::MAX - 1.0).abs() < 1e-15);
    }
}
