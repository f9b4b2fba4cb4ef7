//! Quantiles of measured times.

use std::time::Duration;

#[derive(Debug, Default, Clone)]
pub struct Quantiles(Vec<Duration>);

impl Quantiles {
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// In milliseconds; the largest time that the share `q` of all does not exceed.
    pub fn ms(&self, q: f64) -> f64 {
        let rank = (self.0.len() as f64 * q).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks() {
        let all = Quantiles::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!((all.ms(0.5), all.ms(0.99), all.ms(1.0)), (100.0, 198.0, 200.0));
        assert!(Quantiles::default().ms(0.5).is_nan());
    }
}
