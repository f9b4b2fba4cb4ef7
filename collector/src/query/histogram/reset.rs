//! Whether a counter that is a histogram began anew between two samples.

use std::sync::Arc;

use super::arithmetic::common_bounds;
use super::{Counts, Hint, Histogram};

impl Histogram {
    /// Whether any count fell since `before`, or the buckets changed in a way that only a new start explains.
    pub fn is_reset_after(&self, before: &Histogram) -> bool {
        match self.hint {
            Hint::Reset => return true,
            Hint::NoReset => return false,
            Hint::Unknown | Hint::Gauge => {}
        }
        if self.count < before.count || self.is_custom() != before.is_custom() {
            return true;
        }
        if self.is_custom() {
            if self.bounds == before.bounds {
                return any_fell(&before.positive, &self.positive);
            }
            let bounds: Arc<[f64]> = common_bounds(&self.bounds, &before.bounds);
            return any_fell(&before.to_bounds(&bounds).positive, &self.to_bounds(&bounds).positive);
        }
        // Writers only ever lower the resolution and widen the zero bucket of a running histogram.
        if self.schema > before.schema || self.zero_threshold < before.zero_threshold {
            return true;
        }
        let (zero_count, threshold) = before.zero_count_within(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let mut before = before.to_schema(self.schema);
        before.zero_threshold = threshold;
        before.trim_zero_bucket();
        any_fell(&before.positive, &self.positive) || any_fell(&before.negative, &self.negative)
    }
}

fn any_fell(before: &Counts, after: &Counts) -> bool {
    let mut after = after.iter().peekable();
    before.iter().any(|(index, count)| {
        while after.next_if(|(other, _)| other < index).is_some() {}
        let now = after.peek().filter(|(other, _)| other == index).map_or(0.0, |(_, count)| *count);
        now < *count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_falls_is_a_reset() {
        let of =
            |positive: &[(i32, f64)]| Histogram { count: 10.0, positive: positive.to_vec(), ..Histogram::default() };
        assert!(!of(&[(0, 1.0), (3, 2.0)]).is_reset_after(&of(&[(3, 2.0)])));
        assert!(of(&[(0, 5.0), (3, 1.0)]).is_reset_after(&of(&[(3, 2.0)])));
        assert!(of(&[(0, 5.0)]).is_reset_after(&of(&[(3, 2.0)])));
        let coarse = Histogram { schema: -1, ..of(&[(2, 3.0)]) };
        assert!(!coarse.is_reset_after(&of(&[(3, 2.0), (4, 1.0)])));
        assert!(of(&[(3, 2.0)]).is_reset_after(&coarse));
    }
}
