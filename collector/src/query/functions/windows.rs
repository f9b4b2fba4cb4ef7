//! Functions that give from windows what they give from samples, and how.
//!
//! Counts, least and greatest, first and last are the same to the last bit; so is an increase as long as a window has no more
//! than one reset. Sums are rounded once per window and once more over all: they may differ in the last digit.

use crate::store::Window;

use super::kahan::Sum;
use super::rate::{Ends, Extrapolation, extrapolated};

/// The windows of one series that one step looks at.
pub struct Stretch<'a> {
    /// At least one, ascending, within `(from_ms, to_ms]`.
    pub windows: &'a [Window],
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Stretch<'_> {
    fn count(&self) -> u64 {
        self.windows.iter().map(|window| window.count).sum()
    }

    fn sum(&self) -> f64 {
        let mut sum = Sum::default();
        self.windows.iter().for_each(|window| sum.add(window.sum));
        sum.total()
    }

    /// As `over_time` picks among samples; a NaN is beaten by whatever follows.
    fn pick(&self, of: fn(&Window) -> f64, beats: fn(f64, f64) -> bool) -> Option<f64> {
        let mut values = self.windows.iter().map(of);
        let first = values.next()?;
        Some(values.fold(first, |best, value| if beats(value, best) || best.is_nan() { value } else { best }))
    }

    fn increase(&self, counter: bool, seconds: f64) -> Option<f64> {
        let [first, ..] = self.windows else { return None };
        let [.., last] = self.windows else { return None };
        let mut difference = last.last - first.first;
        let mut before: Option<f64> = None;
        for window in self.windows.iter().filter(|_| counter) {
            if let Some(before) = before
                && window.first < before
            {
                difference += before;
            }
            difference += window.resets;
            before = Some(window.last);
        }
        let ends = Ends {
            first_ms: first.first_ms,
            last_ms: last.last_ms,
            samples: usize::try_from(self.count()).unwrap_or(usize::MAX),
            first: first.first,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
        };
        extrapolated(&ends, difference, counter, seconds, &Extrapolation::default())
    }
}

/// Makes a cell from windows.
pub type OverWindows = fn(&Stretch<'_>) -> Option<f64>;

/// The form of a function on windows; `None` where only samples will do.
pub fn over_windows(name: &str) -> Option<OverWindows> {
    Some(match name {
        "avg_over_time" => |s| Some(s.sum() / s.count() as f64),
        "count_over_time" => |s| Some(s.count() as f64),
        "delta" => |s| s.increase(false, 1.0),
        "first_over_time" => |s| s.windows.first().map(|window| window.first),
        "increase" => |s| s.increase(true, 1.0),
        "last_over_time" => |s| s.windows.last().map(|window| window.last),
        "max_over_time" => |s| s.pick(|window| window.max, |new, best| new > best),
        "min_over_time" => |s| s.pick(|window| window.min, |new, best| new < best),
        "present_over_time" => |_| Some(1.0),
        "rate" => |s| s.increase(true, (s.to_ms - s.from_ms) as f64 / 1000.0),
        "sum_over_time" => |s| Some(s.sum()),
        "ts_of_first_over_time" => |s| s.windows.first().map(|window| window.first_ms as f64 / 1000.0),
        "ts_of_last_over_time" => |s| s.windows.last().map(|window| window.last_ms as f64 / 1000.0),
        _ => return None,
    })
}

/// Whether a window tells too little for this function: its sum is beyond what a number holds, and a mean is not.
pub fn overflows(name: &str, window: &Window) -> bool {
    let finite = window.min.is_finite() && window.max.is_finite();
    matches!(name, "sum_over_time" | "avg_over_time") && finite && window.sum.is_infinite()
}
