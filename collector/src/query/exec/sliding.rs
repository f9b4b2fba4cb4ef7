//! Where the windows of all steps lie in a series' samples.
//!
//! Series of one group share their ticks: what was found for one holds for the next for as long as their times are the same, and
//! to see that takes less than to look for the ends of one window.

use std::ops::Range;

use crate::query::value::Steps;

use super::selector::Ends;

/// The windows of one selector, and the times for which they were found.
#[derive(Debug, Default)]
pub struct Sliding {
    times: Vec<i64>,
    /// Numbers of the samples in each step's window; no steps before the first series.
    windows: Vec<Range<usize>>,
}

impl Sliding {
    /// The windows of `range_ms`, open on the left. Whoever asks has one selector and one list of steps.
    pub fn over(&mut self, times: &[i64], ends: Ends, range_ms: i64, steps: Steps) -> &[Range<usize>] {
        if self.windows.len() != steps.count || self.times != times {
            self.times.clear();
            self.times.extend_from_slice(times);
            self.find(ends, range_ms, steps);
        }
        &self.windows
    }

    fn find(&mut self, ends: Ends, range_ms: i64, steps: Steps) {
        let (mut from, mut to) = (0, 0);
        let times = &self.times;
        self.windows.clear();
        self.windows.extend(steps.iter().map(|step_ms| {
            let to_ms = ends.at(step_ms);
            while times.get(to).is_some_and(|at_ms| *at_ms <= to_ms) {
                to += 1;
            }
            while from < to && times[from] <= to_ms - range_ms {
                from += 1;
            }
            from..to
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Of one series after another, whether or not it has the times of the one before.
        #[test]
        fn windows_are_those_of_each_series(
            series in prop::collection::vec((prop::collection::btree_set(0i64..60, 0..30), 1usize..4), 1..5),
            (start_ms, interval_ms, count) in (-20i64..40, 1i64..9, 1usize..9),
            (range_ms, offset_ms, fixed_ms) in (1i64..30, -9i64..9, prop::option::of(0i64..60)),
        ) {
            let (mut sliding, ends) = (Sliding::default(), Ends { fixed_ms, offset_ms });
            let steps = Steps { start_ms, interval_ms, count };
            for (times, often) in series {
                let times: Vec<i64> = times.into_iter().collect();
                for _ in 0..often {
                    let windows = sliding.over(&times, ends, range_ms, steps);
                    prop_assert_eq!(windows.len(), count);
                    for (window, step_ms) in windows.iter().zip(steps.iter()) {
                        let to_ms = ends.at(step_ms);
                        let within = |at_ms: &&i64| **at_ms > to_ms - range_ms && **at_ms <= to_ms;
                        let wanted: Vec<i64> = times.iter().filter(within).copied().collect();
                        prop_assert_eq!(&times[window.clone()], wanted);
                    }
                }
            }
        }
    }
}
